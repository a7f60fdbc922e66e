from gss_train.models.interface import SegmentationNetwork, SegmentationOutput
from gss_train.models.mmformer import MMFormer
from gss_train.models.mmformer.public_keys import mmformer_public_keys
from gss_train.models.public_checkpoints import CheckpointReport, load_public_checkpoint, recognise_public_checkpoint
from gss_train.models.registry import NETWORKS, build_network
from gss_train.models.robustseg import RobustSeg
from gss_train.models.uhved import UHVED

__all__ = [
    "NETWORKS",
    "UHVED",
    "CheckpointReport",
    "MMFormer",
    "RobustSeg",
    "SegmentationNetwork",
    "SegmentationOutput",
    "build_network",
    "load_public_checkpoint",
    "mmformer_public_keys",
    "recognise_public_checkpoint",
]
