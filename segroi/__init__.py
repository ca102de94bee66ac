"""RoI operators in C++/CUDA and the instance-segmentation models that stand on them."""

from segroi import _extension as _extension
from segroi.utils.environment import build_info

__version__ = "0.1.0"
__all__ = ["__version__", "build_info"]
