from gss_train.inference.predicting import parse_arguments, run
from gss_train.inference.segmentation import evaluation_mode, segment_subsets
from gss_train.inference.tumour_crop import segment_tumour_crop
from gss_train.inference.windows import SlidingWindow

__all__ = [
    "SlidingWindow",
    "evaluation_mode",
    "parse_arguments",
    "run",
    "segment_subsets",
    "segment_tumour_crop",
]
