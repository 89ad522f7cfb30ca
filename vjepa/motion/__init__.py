"""MC-JEPA (arXiv 2307.12698): one convolutional pyramid that learns content and motion at once.

    images      -> two views  -> pyramid -> expander                 VICReg
    video pairs -> both frames -> pyramid -> coarse-to-fine flow      reconstruction and four more

Nothing is labelled, and there is no moving average: this is joint embedding, not masked prediction.
"""

from .model import MotionConfig, MotionModel
from .pyramid import PyramidConfig, PyramidEncoder

__all__ = ["MotionConfig", "MotionModel", "PyramidConfig", "PyramidEncoder"]
