"""One crop of a subject, segmented: little work, for a picture of each epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gss_train.common import Triple
from gss_train.data import PreparedSubject
from gss_train.models import SegmentationNetwork


@torch.inference_mode()
def segment_tumour_crop(
    network: SegmentationNetwork, subject: PreparedSubject, crop_size: Triple, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Segment one crop around the middle of a subject's tumour, or of its volume if it has none, from all its scans.

    Args:
        network: in evaluation mode, on `device`.
        subject: of any size.
        crop_size: voxels per axis.
        device: to compute on.

    Returns:
        On the CPU: image `[4, d, h, w]` float32, truth and prediction `[d, h, w]` uint8.
    """
    subject = subject.padded_to(crop_size)
    scans, label = subject.crop(_start(subject, crop_size), crop_size)
    image = torch.from_numpy(scans.astype(np.float32))
    fused_modalities = torch.tensor([subject.available], device=device)
    logits = network.fuse(network.encode(image.to(device)[None]), fused_modalities)
    return image, torch.from_numpy(label), logits[0].argmax(dim=0).to(torch.uint8).cpu()


def _start(subject: PreparedSubject, crop_size: Triple) -> list[int]:
    """First voxel of the crop: its middle is as near to that of the tumour as the volume lets it be."""
    shape, size = np.array(subject.shape), np.array(crop_size)
    voxels = subject.tumour_voxels
    # The median lies within the tumour's bulk, wherever a few stray voxels are.
    middle = np.median(voxels, axis=0).astype(np.int64) if len(voxels) else shape // 2
    return [int(first) for first in np.clip(middle - size // 2, 0, np.maximum(shape - size, 0))]
