"""RobustSeg."""

from gss_train.models.robustseg.network import COARSEST_STRIDE, DEFAULT_WIDTH, LEAST_AXIS, RobustSeg

__all__ = ["COARSEST_STRIDE", "DEFAULT_WIDTH", "LEAST_AXIS", "RobustSeg"]
