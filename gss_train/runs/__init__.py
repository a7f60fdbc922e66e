"""What a training leaves and others read: folder, checkpoints, records, weights."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
