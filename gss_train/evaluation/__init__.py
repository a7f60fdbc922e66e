"""Label maps and truth to scores: measures, intervals, tables, the folder of an evaluation."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
