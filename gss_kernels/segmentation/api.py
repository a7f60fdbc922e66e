"""The segmentation loss of one prediction: check the arguments, run a backend."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.distributed import ProcessGroup

from gss_kernels.across_processes import check_process_group
from gss_kernels.autograd import fused_loss
from gss_kernels.backends import pick_backend
from gss_kernels.segmentation import reference
from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.settings import Backend, InputKind, check_choice, check_ignore_index
from gss_kernels.tensors import GroupLogits, Inputs, check_available, check_labels, check_prediction


class SegmentationTerms(NamedTuple):
    """The two terms of the segmentation loss, 0-dim and differentiable.

    Attributes:
        cross_entropy: class-weighted cross-entropy.
        dice: soft Dice loss, one minus the mean overlap.
    """

    cross_entropy: Tensor
    dice: Tensor


def fused_segmentation_loss(
    input: Tensor,  # noqa: A002  (PyTorch's losses call it so)
    labels: Tensor,
    *,
    input_kind: InputKind = "logits",
    available: Tensor | None = None,
    ignore_index: int | None = None,
    process_group: ProcessGroup | None = None,
    backend: Backend = "auto",
) -> SegmentationTerms:
    """Class-weighted cross-entropy and soft Dice of one prediction, from integer labels.

    With probabilities `o` (the softmax of logits), one-hot labels `y`, N voxels per sample and the B samples that are
    available::

        cross_entropy = -(1 / (B * N)) * sum_{b,v,c} (1 - sum_v y / N) * y * log(clip(o, 0.005, 1))
        dice          = 1 - (1 / C) * sum_c 2 * sum_{b,v} o * y / (sum_{b,v} o + sum_{b,v} y + 1e-7)

    The weight of a category is its sample's, the sums of the Dice go over the whole batch. Where `o` is clipped the
    cross-entropy has no gradient. The one-hot labels are never materialised. Beyond the published loss, voxels of
    `ignore_index` leave all of these sums: N is then the number of a sample's other voxels, B * N that of the batch's.

    Source: the training code of RFNet (Ding et al., "RFNet: Region-aware Fusion Network for Incomplete Multi-modal
    Brain Tumor Segmentation", ICCV 2021), which GSS (Qiu et al., ICCV 2023) takes over.

    Args:
        input: logits or probabilities, `[B, C, *spatial]` with at least two categories and one to three spatial axes;
            float32, bfloat16, float16 (computed in float32) or float64 (CPU, or any device with
            `backend="reference"`).
        labels: category of every voxel, `[B, *spatial]` of any integer dtype, from 0 to C - 1. Unsigned ones of more
            than 8 bits are copied.
        input_kind: "logits", or "probabilities" for a prediction that is normalised already.
        available: `[B]` bool, the samples that count. The others leave the mean and the sums, and may hold anything;
            without any sample both terms are 0.
        ignore_index: voxels of this label do not count, and have no gradient, whatever they hold; without any other
            voxel both terms are 0. None: there is no such label.
        process_group: both terms are those of the batches of all its processes together, the mean over all their
            voxels and Dice sums over all of them, and every process gets the same values. All of them have to call both
            passes. The backward pass adds up the upstream gradients
            of all processes, so that the average that `DistributedDataParallel` takes is the gradient of the loss of
            all batches in one. Not with `backend="reference"`, and not in a graph of `torch.compile`, which breaks it
            there. None: this process's batch alone, without communication.
        backend: "triton" (GPU), "cpu", "reference" (plain PyTorch, any device) or "auto": triton for tensors on a
            GPU, cpu for those on the CPU.

    Returns:
        The two terms, 0-dim, in float32 (float64 for float64 input); usually their sum is minimised. A NaN in an
        available sample reaches one of them at least. The gradient has the input's dtype, and is 0 in samples that
        are not available.

    Raises:
        ValueError: an argument of wrong shape, dtype, device or value; the message names it. Labels outside 0 to
            C - 1 only on the CPU: on a GPU, where the host would have to wait for them, both terms are NaN.
        RuntimeError: `backend="triton"` without Triton installed.
    """
    check_choice("input_kind", input_kind, InputKind)
    logits = GroupLogits((check_prediction(input, labels),), stacked=False)
    present = check_available(available, logits.shape[:1], logits.device)
    call = SegmentationCall(input_kind == "logits", check_ignore_index(ignore_index))
    labels = check_labels(labels, logits, present, call.ignore_index)
    name = pick_backend(backend, logits.device, logits.dtype, argument="input")
    check_process_group(process_group, name)
    if name == "reference":
        return SegmentationTerms(*reference.loss(logits.tensors[0], labels, call, present))
    value, _ = fused_loss(Inputs(logits, labels, present), call, "segmentation", name, process_group)
    return SegmentationTerms(*value.unbind())
