"""mmFormer."""

from gss_train.models.mmformer.network import COARSEST_STRIDE, DEFAULT_WIDTH, LEAST_AXIS, MMFormer
from gss_train.models.mmformer.public_keys import mmformer_public_keys

__all__ = ["COARSEST_STRIDE", "DEFAULT_WIDTH", "LEAST_AXIS", "MMFormer", "mmformer_public_keys"]
