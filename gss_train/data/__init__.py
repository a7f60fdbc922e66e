"""From raw BraTS files to batches: layouts, preparation, splits, crops, augmentation, modality subsets."""

from gss_train.data.augmentation import AugmentationSettings, augment
from gss_train.data.conventions import DATASETS, MODALITIES, REGIONS, Dataset
from gss_train.data.crops import Crop, TrainingCrops
from gss_train.data.layouts import LayoutError, Subject, describe_layout, find_subjects
from gss_train.data.preparation import PreparationError, prepare_dataset, prepare_subject
from gss_train.data.prepared import PreparedError, PreparedSubject, load_prepared
from gss_train.data.splits import Split, split_subjects
from gss_train.data.subsets import MODALITY_SUBSETS, draw_subsets, subset_name
from gss_train.data.volumes import Volume, VolumeError, read_volume

__all__ = [
    "DATASETS",
    "MODALITIES",
    "MODALITY_SUBSETS",
    "REGIONS",
    "AugmentationSettings",
    "Crop",
    "Dataset",
    "LayoutError",
    "PreparationError",
    "PreparedError",
    "PreparedSubject",
    "Split",
    "Subject",
    "TrainingCrops",
    "Volume",
    "VolumeError",
    "augment",
    "describe_layout",
    "draw_subsets",
    "find_subjects",
    "load_prepared",
    "prepare_dataset",
    "prepare_subject",
    "read_volume",
    "split_subjects",
    "subset_name",
]
