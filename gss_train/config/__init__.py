"""Every setting of a training run: the options, what presets make of them, the command line, what may change."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
