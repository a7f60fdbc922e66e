from gss_train.models.interface import (
    Features as Features,
    SegmentationNetwork as SegmentationNetwork,
    SegmentationOutput as SegmentationOutput,
)
from gss_train.models.mmformer import MMFormer as MMFormer
from gss_train.models.mmformer.public_keys import mmformer_public_keys as mmformer_public_keys
from gss_train.models.public_checkpoints import (
    CheckpointReport as CheckpointReport,
    load_public_checkpoint as load_public_checkpoint,
    recognise_public_checkpoint as recognise_public_checkpoint,
)
from gss_train.models.registry import NETWORKS as NETWORKS, build_network as build_network
from gss_train.models.robustseg import RobustSeg as RobustSeg
from gss_train.models.uhved import UHVED as UHVED
