"""From the options to subjects: found or simulated, divided, prepared."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
