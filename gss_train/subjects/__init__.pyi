from gss_train.subjects.cache import clean_cache as clean_cache, describe_cache as describe_cache
from gss_train.subjects.expected import ExpectedVolumes as ExpectedVolumes, expect_volumes as expect_volumes
from gss_train.subjects.preparation import (
    prepare_source as prepare_source,
    prepare_subjects as prepare_subjects,
    verify_subjects as verify_subjects,
)
from gss_train.subjects.raw import RawData as RawData, find_raw as find_raw, resolve_dataset as resolve_dataset
from gss_train.subjects.source import Source as Source, find_listed as find_listed, find_source as find_source
