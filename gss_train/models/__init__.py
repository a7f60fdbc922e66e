"""The networks: built by name, called alike."""

from gss_train.models.interface import SegmentationNetwork, SegmentationOutput
from gss_train.models.public_checkpoints import CheckpointReport, load_public_checkpoint
from gss_train.models.registry import build_network

__all__ = [
    "CheckpointReport",
    "SegmentationNetwork",
    "SegmentationOutput",
    "build_network",
    "load_public_checkpoint",
]
