"""What this installation is made of, and what to do where its parts do not fit."""

from __future__ import annotations

from segroi import _extension


def build_info() -> dict[str, object]:
    """How the compiled operators were built and whether they are in use."""
    return {
        "built": _extension.is_built(),
        "why_not": _extension.why_not_built(),
        **_extension.extension_info(),
    }
