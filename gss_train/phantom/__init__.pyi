from gss_train.phantom.generate import generate_phantoms as generate_phantoms
from gss_train.phantom.grid import Grid as Grid
from gss_train.phantom.settings import (
    DEFAULT_SIZE as DEFAULT_SIZE,
    PHANTOM_DATASETS as PHANTOM_DATASETS,
    phantom_name as phantom_name,
)
