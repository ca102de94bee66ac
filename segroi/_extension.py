"""Load the compiled operators: the one place with a policy on "not built".

``_ops.abi3.so`` registers them with PyTorch's dispatcher. Where it was not built, every public
operator runs its plain-PyTorch reference (``segroi.ops.reference``), and one warning says so.
``SEGROI_REFERENCE=1`` asks for the references by name.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

LIBRARY = Path(__file__).with_name("_ops.abi3.so")
_REFERENCE_ASKED = os.environ.get("SEGROI_REFERENCE", "0") == "1"


def _load() -> str:
    """Load the library; the reason why not, or ""."""
    if _REFERENCE_ASKED:
        return "SEGROI_REFERENCE=1"
    if not LIBRARY.exists():
        reason = f"{LIBRARY.name} was not built (pip install --no-build-isolation . builds it)"
        warnings.warn(
            f"{reason}: the plain-PyTorch reference operators are used, which are slow. "
            "`segroi doctor` says what is missing.",
            stacklevel=3,
        )
        return reason
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        raise ImportError(
            f"{LIBRARY.name} exists but does not load: {error}. It was probably built for another "
            "torch: rebuild it with `pip install --no-build-isolation --force-reinstall "
            "--no-deps .`, or set SEGROI_REFERENCE=1 to run without it."
        ) from error
    return ""


_why_not = _load()


def is_built() -> bool:
    """Whether the compiled operators are in use (False: the plain-PyTorch references are)."""
    return not _why_not


def why_not_built() -> str:
    """The reason why the compiled operators are not in use, or ''."""
    return _why_not


def extension_info() -> dict[str, str]:
    """How the operators were compiled; empty when they are not in use."""
    return dict(torch.ops.segroi.build_info()) if is_built() else {}
