"""What every room may use: errors, ends of commands, files written whole, progress, signals, devices, processes."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
