"""segroi inside Detectron2: importing this package registers its heads, backbones and datasets."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("detectron2") is None:
    from segroi.utils.environment import DETECTRON2_INSTALL

    raise ImportError(f"segroi.d2 needs Detectron2: {DETECTRON2_INSTALL}")

# These are here for their registration.
from segroi.d2 import backbones, data, gc_net, meta_arch, necks, roi_heads, semantic  # noqa: E402, F401
from segroi.d2.config import add_segroi_config, load_config  # noqa: E402
from segroi.d2.poolers import SegroiPooler, replace_poolers  # noqa: E402

__all__ = ["SegroiPooler", "add_segroi_config", "load_config", "replace_poolers"]
