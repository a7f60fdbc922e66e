from gss_train.subjects.preparation import (
    prepare_source as prepare_source,
    prepare_subjects as prepare_subjects,
    verify_subjects as verify_subjects,
)
from gss_train.subjects.raw import (
    RawData as RawData,
    Source as Source,
    find_raw as find_raw,
    find_source as find_source,
    resolve_dataset as resolve_dataset,
)
