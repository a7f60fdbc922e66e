"""The networks: built by name, called alike; they know no files."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
