"""Where a result comes from: versions, commit, device and command."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import segroi

PROVENANCE = "provenance.json"  # in the folder of a run
PACKAGES = ("torchvision", "detectron2", "numpy", "pycocotools", "opencv-python-headless")


def provenance() -> dict[str, object]:
    """Versions, commit, device, build and command of this process, as plain data."""
    return {
        "segroi": segroi.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {
            "torch": str(torch.__version__),
            **{n: v for n in PACKAGES if (v := _version(n))},
        },
        "device": device_name(),
        "build": {key: _plain(value) for key, value in segroi.build_info().items()},
        "command": " ".join(sys.argv),
    }


def write_provenance(folder: str | Path) -> dict[str, object]:
    """Leave :func:`provenance` in the folder of a run, and return it."""
    origin = provenance()
    (Path(folder) / PROVENANCE).write_text(json.dumps(origin, indent=2))
    return origin


def commit() -> str:
    """Commit of the source tree ("-dirty" where files differ from it); "" outside a checkout."""
    root = Path(segroi.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name() -> str:
    """The GPU in use, or the processor with the number of threads that torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
