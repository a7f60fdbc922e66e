from gss_train.phantom.generate import generate_phantoms
from gss_train.phantom.grid import Grid
from gss_train.phantom.settings import DEFAULT_SIZE, GENERATOR_VERSION, PHANTOM_DATASETS

__all__ = [
    "DEFAULT_SIZE",
    "GENERATOR_VERSION",
    "PHANTOM_DATASETS",
    "Grid",
    "generate_phantoms",
]
