"""Scores and records to what people look at: the page, its viewer, and all figures."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
