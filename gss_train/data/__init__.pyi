from gss_train.data.augmentation.batch import PUBLISHED_AUGMENTATION, AugmentationSettings, augment
from gss_train.data.conventions import DATASETS, MODALITIES, REGIONS, Dataset
from gss_train.data.crops import Crop, TrainingCrops
from gss_train.data.layouts import LayoutError, Subject, describe_layout, find_subjects, recognise_dataset
from gss_train.data.manifest import ManifestError, read_manifest
from gss_train.data.normalisation import PUBLISHED_BOX, NormalisedScans, normalise_scans
from gss_train.data.preparation import Preparation, PreparationError, prepare_dataset, prepare_subject
from gss_train.data.prepared import (
    VOXEL_DTYPE,
    Metadata,
    PreparationSettings,
    PreparedError,
    PreparedSubject,
    load_prepared,
    write_prepared,
)
from gss_train.data.split_files import SplitError, read_split
from gss_train.data.splits import Split, split_fold, split_subjects
from gss_train.data.subsets import MODALITY_SUBSETS, draw_subsets, subset_name
from gss_train.data.verification import Fault, check_dataset, check_volumes, describe_faults
from gss_train.data.volumes import Volume, VolumeError, read_volume, reorient, restore_orientation

__all__ = [
    "DATASETS",
    "MODALITIES",
    "MODALITY_SUBSETS",
    "PUBLISHED_AUGMENTATION",
    "PUBLISHED_BOX",
    "REGIONS",
    "VOXEL_DTYPE",
    "AugmentationSettings",
    "Crop",
    "Dataset",
    "Fault",
    "LayoutError",
    "ManifestError",
    "Metadata",
    "NormalisedScans",
    "Preparation",
    "PreparationError",
    "PreparationSettings",
    "PreparedError",
    "PreparedSubject",
    "Split",
    "SplitError",
    "Subject",
    "TrainingCrops",
    "Volume",
    "VolumeError",
    "augment",
    "check_dataset",
    "check_volumes",
    "describe_faults",
    "describe_layout",
    "draw_subsets",
    "find_subjects",
    "load_prepared",
    "normalise_scans",
    "prepare_dataset",
    "prepare_subject",
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
]
