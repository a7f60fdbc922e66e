from gss_train.data.augmentation.augment import augment as augment
from gss_train.data.augmentation.settings import (
    PUBLISHED_AUGMENTATION as PUBLISHED_AUGMENTATION,
    AugmentationSettings as AugmentationSettings,
)
from gss_train.data.boxes import padding_to as padding_to
from gss_train.data.crops import Crop as Crop, TrainingCrops as TrainingCrops
from gss_train.data.datasets import (
    DATASETS as DATASETS,
    MODALITIES as MODALITIES,
    REGIONS as REGIONS,
    VOLUME_ENDINGS as VOLUME_ENDINGS,
    Dataset as Dataset,
    Subject as Subject,
)
from gss_train.data.faults import Fault as Fault, bad_subjects as bad_subjects, describe_faults as describe_faults
from gss_train.data.grids import (
    Box as Box,
    Grid as Grid,
    Spacing as Spacing,
    millimetres as millimetres,
    size_name as size_name,
    to_spacing as to_spacing,
)
from gss_train.data.layouts import find_subjects as find_subjects, recognise_dataset as recognise_dataset
from gss_train.data.manifest import read_manifest as read_manifest
from gss_train.data.normalisation import (
    PUBLISHED_BOX as PUBLISHED_BOX,
    NormalisedScans as NormalisedScans,
    box_size as box_size,
    normalise_scans as normalise_scans,
)
from gss_train.data.preparation import Preparation as Preparation, prepare_dataset as prepare_dataset
from gss_train.data.prepared import (
    VOXEL_DTYPE as VOXEL_DTYPE,
    Metadata as Metadata,
    PreparedError as PreparedError,
    PreparedSubject as PreparedSubject,
    Recipe as Recipe,
    load_prepared as load_prepared,
    write_prepared as write_prepared,
)
from gss_train.data.prepared_index import (
    InUseError as InUseError,
    delete_indexed as delete_indexed,
    in_use as in_use,
    indexed_files as indexed_files,
    is_indexed as is_indexed,
    read_index as read_index,
)
from gss_train.data.published_lists import (
    PublishedSplit as PublishedSplit,
    describe_split as describe_split,
    published_splits as published_splits,
    same_subjects as same_subjects,
)
from gss_train.data.resampling import (
    most_probable as most_probable,
    network_grid as network_grid,
    place as place,
    resample_values as resample_values,
)
from gss_train.data.split_files import SplitError as SplitError, read_split as read_split
from gss_train.data.splits import Split as Split, split_fold as split_fold, split_subjects as split_subjects
from gss_train.data.subsets import (
    MODALITY_SUBSETS as MODALITY_SUBSETS,
    SubsetDraw as SubsetDraw,
    draw_subsets as draw_subsets,
    subset_name as subset_name,
)
from gss_train.data.verification import check_dataset as check_dataset, check_volumes as check_volumes
from gss_train.data.volumes import (
    Volume as Volume,
    VolumeError as VolumeError,
    check_volume_file as check_volume_file,
    read_grid as read_grid,
    read_volume as read_volume,
    reorient as reorient,
    restore_orientation as restore_orientation,
    write_volume as write_volume,
)
