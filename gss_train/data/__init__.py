"""Scans on disk to a batch on the device: editions, verification, preparation, splits, crops, augmentation."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
