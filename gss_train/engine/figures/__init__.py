"""Pictures of a run: one for each epoch, and a summary at its end."""

from gss_train.engine.figures.epoch import save_epoch_figure
from gss_train.engine.figures.summary import save_summary
from gss_train.engine.figures.tumour_crop import segment_tumour_crop

__all__ = ["save_epoch_figure", "save_summary", "segment_tumour_crop"]
