from gss_train.subjects.division import Source, find_source
from gss_train.subjects.preparation import prepare_source, prepare_subjects, verify_subjects
from gss_train.subjects.raw import RawData, find_raw, resolve_dataset

__all__ = [
    "RawData",
    "Source",
    "find_raw",
    "find_source",
    "prepare_source",
    "prepare_subjects",
    "resolve_dataset",
    "verify_subjects",
]
