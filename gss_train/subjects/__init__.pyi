from gss_train.subjects.preparing import parse_arguments, run
from gss_train.subjects.sources import RawData, Source, find_raw, find_source, prepare, resolve_dataset

__all__ = [
    "RawData",
    "Source",
    "find_raw",
    "find_source",
    "parse_arguments",
    "prepare",
    "resolve_dataset",
    "run",
]
