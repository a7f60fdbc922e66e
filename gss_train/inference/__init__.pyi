from gss_train.inference.ensemble import Ensemble as Ensemble
from gss_train.inference.outputs import Outputs as Outputs
from gss_train.inference.predictor import Predictor as Predictor
from gss_train.inference.segmentation import evaluation_mode as evaluation_mode, segment_subsets as segment_subsets
from gss_train.inference.tumour_crop import segment_tumour_crop as segment_tumour_crop
from gss_train.inference.windows import Box as Box, SlidingWindow as SlidingWindow
