"""A network and scans to a label map: windows, ensembles, resampling, output files."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
