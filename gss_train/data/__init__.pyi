from gss_train.data.augmentation.augment import augment
from gss_train.data.augmentation.settings import PUBLISHED_AUGMENTATION, AugmentationSettings
from gss_train.data.crops import Crop, TrainingCrops
from gss_train.data.datasets import DATASETS, MODALITIES, REGIONS, VOLUME_ENDINGS, Dataset, Subject
from gss_train.data.faults import Fault, bad_subjects, describe_faults
from gss_train.data.layouts import find_subjects, recognise_dataset
from gss_train.data.manifest import read_manifest
from gss_train.data.normalisation import PUBLISHED_BOX, NormalisedScans, normalise_scans
from gss_train.data.preparation import Preparation, prepare_dataset
from gss_train.data.prepared import (
    VOXEL_DTYPE,
    Metadata,
    PreparedError,
    PreparedSubject,
    Recipe,
    load_prepared,
    write_prepared,
)
from gss_train.data.split_files import SplitError, read_split
from gss_train.data.splits import Split, split_fold, split_subjects
from gss_train.data.subsets import MODALITY_SUBSETS, draw_subsets, subset_name
from gss_train.data.verification import check_dataset, check_volumes
from gss_train.data.volumes import (
    Volume,
    check_volume_file,
    read_volume,
    reorient,
    restore_orientation,
    write_volume,
)

__all__ = [
    "DATASETS",
    "MODALITIES",
    "MODALITY_SUBSETS",
    "PUBLISHED_AUGMENTATION",
    "PUBLISHED_BOX",
    "REGIONS",
    "VOLUME_ENDINGS",
    "VOXEL_DTYPE",
    "AugmentationSettings",
    "Crop",
    "Dataset",
    "Fault",
    "Metadata",
    "NormalisedScans",
    "Preparation",
    "PreparedError",
    "PreparedSubject",
    "Recipe",
    "Split",
    "SplitError",
    "Subject",
    "TrainingCrops",
    "Volume",
    "augment",
    "bad_subjects",
    "check_dataset",
    "check_volume_file",
    "check_volumes",
    "describe_faults",
    "draw_subsets",
    "find_subjects",
    "load_prepared",
    "normalise_scans",
    "prepare_dataset",
    "read_manifest",
    "read_split",
    "read_volume",
    "recognise_dataset",
    "reorient",
    "restore_orientation",
    "split_fold",
    "split_subjects",
    "subset_name",
    "write_prepared",
    "write_volume",
]
