from gss_train.phantom.generate import DEFAULT_SIZE, GENERATOR_VERSION, PHANTOM_DATASETS, generate_phantoms
from gss_train.phantom.grid import Grid

__all__ = [
    "DEFAULT_SIZE",
    "GENERATOR_VERSION",
    "PHANTOM_DATASETS",
    "Grid",
    "generate_phantoms",
]
