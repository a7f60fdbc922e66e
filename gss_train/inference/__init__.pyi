from gss_train.inference.ensemble import Ensemble
from gss_train.inference.outputs import Outputs
from gss_train.inference.predictor import Predictor
from gss_train.inference.segmentation import evaluation_mode, segment_subsets
from gss_train.inference.tumour_crop import segment_tumour_crop
from gss_train.inference.windows import SlidingWindow

__all__ = [
    "Ensemble",
    "Outputs",
    "Predictor",
    "SlidingWindow",
    "evaluation_mode",
    "segment_subsets",
    "segment_tumour_crop",
]
