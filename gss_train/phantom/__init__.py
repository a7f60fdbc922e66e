"""Simulated BraTS subjects in the raw layouts of the real data sets, for trying the software without a download."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
