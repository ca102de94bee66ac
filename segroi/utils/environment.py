"""What this installation is made of, and what to do where its parts do not fit together.

``collect`` looks (and survives whatever is broken), ``diagnose`` judges plain facts, so every
verdict can be tested without the machine that shows it.
"""

from __future__ import annotations

import importlib
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

OPTIONAL = ("onnxruntime", "onnx", "scikit-learn", "tensorboard", "hypothesis")
REQUIRED = (
    "numpy",
    "pycocotools",
    "opencv-python-headless",
    "fvcore",
    "omegaconf",
    "rich",
    "tqdm",
    "matplotlib",
)
DETECTRON2_INSTALL = (
    'python -m pip install "setuptools<81" && python -m pip install --no-build-isolation '
    "'git+https://github.com/facebookresearch/detectron2.git'"
)
_COMPILED = {"numpy": "numpy", "pycocotools": "pycocotools.mask", "opencv-python-headless": "cv2"}
OLDEST_TORCH = (2, 10)
REBUILD = "python -m pip install --no-build-isolation --force-reinstall --no-deps ."


@dataclass
class Facts:
    """Everything that ``diagnose`` looks at; an import error is kept as its text."""

    python: str = ""
    system: str = ""
    compiler: str = ""
    nvcc: str = ""
    torch: str = ""
    torch_error: str = ""
    torch_cuda: str = ""
    torch_archs: list[str] = field(default_factory=list)
    torchvision: str = ""
    torchvision_error: str = ""
    gpus: list[tuple[str, str]] = field(default_factory=list)  # (name, "9.0")
    gpu_driver: bool = False
    extension: dict[str, object] = field(default_factory=dict)
    extension_error: str = ""
    detectron2: str = ""
    detectron2_error: str = ""
    detectron2_cuda: str = ""  # "not available" in a build for the CPU
    packages: dict[str, str] = field(default_factory=dict)
    import_errors: dict[str, str] = field(default_factory=dict)  # of installed packages


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``level`` is ok, note, warning or error."""

    level: str
    what: str
    fix: str = ""


def collect() -> Facts:
    """Look at this machine; nothing that is missing or broken makes it fail."""
    facts = Facts(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        compiler=_first_line("c++", "--version"),
        nvcc=_last_match("nvcc", "release"),
        gpu_driver=_first_line("nvidia-smi", "-L") != "",
        packages={name: _installed(name) for name in (*REQUIRED, *OPTIONAL)},
    )
    errors = {package: _import(module)[1] for package, module in _COMPILED.items()}
    facts.import_errors = {package: error for package, error in errors.items() if error}
    facts.torch, facts.torch_error = _import("torch")
    if facts.torch_error:
        return facts
    import torch

    facts.torch_cuda = torch.version.cuda or ""
    if torch.cuda.is_available():
        facts.torch_archs = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            facts.gpus.append((torch.cuda.get_device_name(index), f"{major}.{minor}"))
    facts.torchvision, facts.torchvision_error = _import("torchvision.ops", "torchvision")
    facts.detectron2, facts.detectron2_error = _import("detectron2._C", "detectron2")
    if facts.detectron2:
        facts.detectron2_error = _import("detectron2.modeling", "detectron2")[1]
        facts.detectron2_cuda = str(sys.modules["detectron2._C"].get_cuda_version())
    try:
        from segroi import build_info

        facts.extension = build_info()
    except ImportError as error:
        facts.extension_error = str(error)
    return facts


def diagnose(facts: Facts) -> list[Finding]:
    """Judge the facts: what fits, what does not, and what to do about it."""
    findings = [_python(facts), *_torch(facts), *_extension(facts), *_gpus(facts)]
    findings.append(_detectron2(facts))
    findings += _packages(facts)
    return findings


def _packages(facts: Facts) -> list[Finding]:
    findings = []
    missing = [name for name in REQUIRED if not facts.packages.get(name)]
    missing = [n for n in missing if not (n.startswith("opencv") and _installed("opencv-python"))]
    if missing:
        fix = f"python -m pip install {' '.join(missing)}"
        findings.append(Finding("error", f"missing packages: {', '.join(missing)}", fix))
    else:
        findings.append(Finding("ok", "all required packages are installed"))
    for package, error in facts.import_errors.items():
        if package in missing:
            continue
        fix = f"python -m pip install --force-reinstall {package}"
        if "libGL" in error or "libgthread" in error:  # opencv-python on a machine without screen
            fix = "python -m pip uninstall -y opencv-python; " + fix
        elif "numpy" in error:  # built for another numpy
            fix += " numpy"
        findings.append(Finding("error", f"{package} does not import: {error}", fix))
    return findings


def as_dict(facts: Facts, findings: list[Finding]) -> dict[str, object]:
    """Facts and findings as plain data for ``--json``."""
    return {"facts": asdict(facts), "findings": [asdict(f) for f in findings]}


def matching_torchvision(torch_version: str) -> str:
    """The torchvision release line made for a torch release: 2.N goes with 0.(N+15)."""
    major, minor = _release(torch_version)
    return f"0.{minor + 15}" if major == 2 else ""


def _release(text: str) -> tuple[int, int]:
    """(2, 14) of "2.14.1+cu130"."""
    major, minor = re.match(r"(\d+)\.(\d+)", text).groups()
    return int(major), int(minor)


def _python(facts: Facts) -> Finding:
    if _release(facts.python) < (3, 10):
        return Finding("error", f"Python {facts.python}", "use Python 3.10 or newer")
    return Finding("ok", f"Python {facts.python} on {facts.system}")


def _torch(facts: Facts) -> list[Finding]:
    if facts.torch_error:
        fix = "python -m pip install torch torchvision"
        return [Finding("error", f"torch does not import: {facts.torch_error}", fix)]
    kind = f"CUDA {facts.torch_cuda}" if facts.torch_cuda else "CPU only"
    findings = [Finding("ok", f"torch {facts.torch} ({kind})")]
    if _release(facts.torch) < OLDEST_TORCH:
        fix = "python -m pip install --upgrade torch torchvision"
        text = f"torch {facts.torch} is too old: segroi needs {'.'.join(map(str, OLDEST_TORCH))}"
        findings = [Finding("error", text, fix)]
    want = matching_torchvision(facts.torch)
    local = facts.torch.partition("+")[2]
    repair = (
        f"python -m pip install --force-reinstall torch=={facts.torch.split('+')[0]} "
        f"'torchvision=={want}.*', both from the same index (both with or both without +cpu)"
    )
    if facts.torchvision_error:
        text = facts.torchvision_error
        if "nms does not exist" in text or "undefined symbol" in text:
            text += f" (torchvision was built for another torch than {facts.torch})"
        findings.append(Finding("error", f"torchvision does not import: {text}", repair))
    elif want and not facts.torchvision.startswith(f"{want}."):
        text = f"torchvision {facts.torchvision} beside torch {facts.torch}: they are no pair"
        findings.append(Finding("error", text, repair))
    elif local != facts.torchvision.partition("+")[2] and "cpu" in (facts.torchvision + local):
        text = f"torchvision {facts.torchvision} and torch {facts.torch} are of different builds"
        findings.append(Finding("warning", text, repair))
    else:
        findings.append(Finding("ok", f"torchvision {facts.torchvision}"))
    return findings


def _extension(facts: Facts) -> list[Finding]:
    if facts.torch_error:
        return []
    if facts.extension_error:
        return [Finding("error", facts.extension_error, REBUILD)]
    info = facts.extension
    if not info.get("built"):
        fix = REBUILD if facts.compiler else f"install g++ (or set CXX), then {REBUILD}"
        text = f"slow reference operators: {info.get('why_not')}"
        return [Finding("warning", text, fix), *_nvcc(facts)]
    cuda = f"CUDA {info['cuda']} for {info['cuda_archs']}" if info["cuda"] else "CPU only"
    findings = [Finding("ok", f"operators compiled with g++ {info['compiler']}, {cuda}")]
    if str(info["torch"]).split("+")[0] != facts.torch.split("+")[0]:
        text = f"operators were built for torch {info['torch']}, torch {facts.torch} is installed"
        findings.append(Finding("error", text, REBUILD))
    if info["cuda"] and info["cuda"].split(".")[0] != facts.torch_cuda.split(".")[0]:
        text = f"operators were built with CUDA {info['cuda']}, torch with {facts.torch_cuda}"
        fix = f"CUDA_HOME=/path/to/cuda-{facts.torch_cuda} {REBUILD}"
        findings.append(Finding("error", text, fix))
    if not info["cuda"] and facts.gpus:
        fix = f"SEGROI_CUDA=1 {REBUILD}" if facts.nvcc else f"install the CUDA toolkit, {REBUILD}"
        findings.append(Finding("warning", "a GPU is here, the operators are CPU only", fix))
        findings += _nvcc(facts)
    return findings


def _nvcc(facts: Facts) -> list[Finding]:
    """A compiler that will not build for this torch is told before it is tried."""
    found = re.search(r"release (\d+)\.(\d+)", facts.nvcc)
    if not found or not facts.torch_cuda or found[1] == facts.torch_cuda.split(".")[0]:
        return []
    text = f"nvcc is of CUDA {found[1]}.{found[2]}, torch of CUDA {facts.torch_cuda}"
    fix = f"CUDA_HOME=/path/to/cuda-{facts.torch_cuda} before building (SEGROI_CUDA=0: CPU only)"
    return [Finding("warning", text, fix)]


def _gpus(facts: Facts) -> list[Finding]:
    if facts.torch_error:
        return []
    if not facts.gpus:
        if facts.gpu_driver and not facts.torch_cuda:
            text = "an NVIDIA GPU is here, but torch is a CPU-only build"
            return [Finding("warning", text, "install a CUDA build of torch and torchvision")]
        if facts.gpu_driver:
            text = f"an NVIDIA GPU is here, but torch (CUDA {facts.torch_cuda}) cannot use it"
            fix = "update the NVIDIA driver (nvidia-smi tells which CUDA it knows)"
            return [Finding("warning", text, fix)]
        return [Finding("note", "no GPU: everything runs on the CPU")]
    findings = []
    archs = str(facts.extension.get("cuda_archs", ""))
    own = ";".join(map(_plain_arch, facts.torch_archs))
    for name, capability in facts.gpus:
        findings.append(Finding("ok", f"{name} (sm_{capability.replace('.', '')})"))
        if own and not runs_on(own, capability):
            text = f"torch {facts.torch} has no kernel for {name}: it knows {facts.torch_archs}"
            fix = "install torch and torchvision of a CUDA that knows this GPU (pytorch.org)"
            findings.append(Finding("error", text, fix))
        if archs and not runs_on(archs, capability):
            text = f"no kernel for sm_{capability.replace('.', '')} among {archs}"
            fix = f"TORCH_CUDA_ARCH_LIST={capability} {REBUILD}"
            findings.append(Finding("error", text, fix))
    return findings


def runs_on(archs: str, capability: str) -> bool:
    """Whether code built for ``archs`` ("8.0;9.0+PTX") runs on a GPU of ``capability`` ("9.0")."""
    have = tuple(int(part) for part in capability.split("."))
    for arch in archs.replace(" ", ";").split(";"):
        if not arch:
            continue
        built = tuple(int(part) for part in arch.removesuffix("+PTX").rstrip("af").split("."))
        same_major = built[0] == have[0] and built[1] <= have[1]
        if same_major or (arch.endswith("+PTX") and built <= have):
            return True
    return False


def _plain_arch(name: str) -> str:
    """torch's "sm_90" and "compute_90" (PTX) as "9.0" and "9.0+PTX"."""
    kind, _, number = name.partition("_")
    digits = number.rstrip("af")
    return f"{digits[:-1]}.{digits[-1]}" + "+PTX" * (kind == "compute")


def _detectron2(facts: Facts) -> Finding:
    if facts.detectron2 and not facts.detectron2_error:
        if facts.gpus and facts.detectron2_cuda == "not available":
            fix = DETECTRON2_INSTALL + " --force-reinstall --no-deps (with FORCE_CUDA=1 set)"
            return Finding("warning", "a GPU is here, Detectron2 was built for the CPU", fix)
        return Finding("ok", f"Detectron2 {facts.detectron2}")
    if "PIL" in facts.detectron2_error:  # Image.LINEAR is gone since Pillow 10
        text = f"this Detectron2 is too old for this Pillow: {facts.detectron2_error}"
        return Finding("error", text, DETECTRON2_INSTALL + " --force-reinstall --no-deps")
    if "pkg_resources" in facts.detectron2_error:
        fix = 'python -m pip install "setuptools<81"'
        return Finding("error", f"Detectron2 does not import: {facts.detectron2_error}", fix)
    if "undefined symbol" in facts.detectron2_error or "_C" in facts.detectron2_error:
        text = f"Detectron2 was built for another torch: {facts.detectron2_error}"
        return Finding("error", text, DETECTRON2_INSTALL + " --force-reinstall --no-deps")
    if facts.detectron2_error and "No module named 'detectron2'" not in facts.detectron2_error:
        text = f"Detectron2 does not import: {facts.detectron2_error}"
        return Finding("error", text, DETECTRON2_INSTALL + " --force-reinstall")
    text = "Detectron2 is not installed: segroi.d2 is off, the torchvision host serves"
    return Finding("note", text, DETECTRON2_INSTALL)


def _import(module: str, package: str | None = None) -> tuple[str, str]:
    """(version, "") of a package whose module imports, else ("", error text)."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as error:
        return "", f"{type(error).__name__}: {error}"
    root = sys.modules[package or module]
    return str(getattr(root, "__version__", "?")), ""


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _run(command: str, *args: str) -> list[str]:
    if shutil.which(command) is None:
        return []
    done = subprocess.run([command, *args], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _first_line(command: str, *args: str) -> str:
    return next(iter(_run(command, *args)), "")


def _last_match(command: str, word: str) -> str:
    return next((line.strip() for line in _run(command, "--version") if word in line), "")
