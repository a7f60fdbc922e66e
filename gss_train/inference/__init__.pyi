from gss_train.inference.ensemble import Ensemble as Ensemble
from gss_train.inference.outputs import Outputs as Outputs
from gss_train.inference.precision import (
    arithmetic as arithmetic,
    autocast as autocast,
    autocast_dtype as autocast_dtype,
    computing as computing,
    describe_precision as describe_precision,
    pick_precision as pick_precision,
)
from gss_train.inference.predictor import Predictor as Predictor
from gss_train.inference.segmentation import (
    evaluation_mode as evaluation_mode,
    number_of_windows as number_of_windows,
    segment_subsets as segment_subsets,
    subset_probabilities as subset_probabilities,
)
from gss_train.inference.tumour_crop import segment_tumour_crop as segment_tumour_crop
from gss_train.inference.windows import SlidingWindow as SlidingWindow
