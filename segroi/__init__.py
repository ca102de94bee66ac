"""RoI operators in C++/CUDA and the instance-segmentation models that stand on them."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__", "build_info"]


def build_info() -> dict[str, object]:
    """How the compiled operators were built, and whether they are in use."""
    # Imported here, so that `segroi doctor` runs where torch or the extension does not load.
    from segroi import _extension

    return {
        "built": _extension.is_built(),
        "why_not": _extension.why_not_built(),
        **_extension.extension_info(),
    }
