"""U-HVED."""

from gss_train.models.uhved.network import COARSEST_STRIDE, DEFAULT_WIDTH, LEAST_AXIS, UHVED

__all__ = ["COARSEST_STRIDE", "DEFAULT_WIDTH", "LEAST_AXIS", "UHVED"]
