"""A batch to changed weights: objective, loop, schedule, batches, validation, records."""

from gss_train.common.doors import open_door

__getattr__, __all__ = open_door(__name__, __file__)
