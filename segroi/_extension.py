"""Load ``segroi._C``: the one place with a policy on "not built".

The compiled operators register themselves with PyTorch's dispatcher when the library loads. Where
it was not built, every public operator runs its plain-PyTorch reference
(``segroi.ops.reference``), and one warning says so. ``SEGROI_REFERENCE=1`` asks for the references
by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings

import torch  # noqa: F401  (its libraries must be loaded before segroi._C)

_REFERENCE_ASKED = os.environ.get("SEGROI_REFERENCE", "0") == "1"


def _load() -> tuple[object | None, str]:
    if _REFERENCE_ASKED:
        return None, "SEGROI_REFERENCE=1"
    if importlib.util.find_spec("segroi._C") is None:
        reason = "segroi._C was not built (pip install --no-build-isolation . builds it)"
        warnings.warn(
            f"{reason}: the plain-PyTorch reference operators are used, which are slow. "
            "`segroi doctor` says what is missing.",
            stacklevel=3,
        )
        return None, reason
    try:
        return importlib.import_module("segroi._C"), ""
    except ImportError as error:
        raise ImportError(
            f"segroi._C exists but does not load: {error}. It was probably built for another "
            "torch: rebuild it with `pip install --no-build-isolation --force-reinstall "
            "--no-deps .`, or set SEGROI_REFERENCE=1 to run without it."
        ) from error


_C, _why_not = _load()


def is_built() -> bool:
    """Whether the compiled operators are in use (False: the plain-PyTorch references are)."""
    return _C is not None


def why_not_built() -> str:
    """The reason why the compiled operators are not in use, or ''."""
    return _why_not


def extension_info() -> dict[str, object]:
    """How the extension was compiled, as recorded at build time; empty when it is not in use."""
    return dict(_C.build_info()) if _C is not None else {}
