"""RFNet."""

from gss_train.models.rfnet.network import COARSEST_STRIDE, DEFAULT_WIDTH, LEAST_AXIS, RFNet
from gss_train.models.rfnet.public_keys import rfnet_public_keys

__all__ = ["COARSEST_STRIDE", "DEFAULT_WIDTH", "LEAST_AXIS", "RFNet", "rfnet_public_keys"]
