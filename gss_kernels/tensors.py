"""The tensors of one call, checked and brought to one form that every backend takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from gss_kernels.groups import CategoryGroups, check_groups, is_sequence
from gss_kernels.settings import is_integer

Logits = Tensor | Sequence[Tensor]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# What PyTorch can compare; other integers are converted.
_LABEL_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_RARE_LABEL_DTYPES = (torch.uint16, torch.uint32, torch.uint64)
_SEED_RANGE = (-(2**63), 2**64 - 1)


class GroupLogits(NamedTuple):
    """Logits of all modalities."""

    tensors: tuple[Tensor, ...]  # one tensor `[B, M, C, *spatial]`, or M tensors `[B, C, *spatial]`
    stacked: bool  # whether it is the former

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, M, C."""
        first = self.tensors[0].shape
        return (first[0], first[1], first[2]) if self.stacked else (first[0], len(self.tensors), first[1])

    @property
    def spatial(self) -> torch.Size:
        """The spatial shape."""
        return self.tensors[0].shape[3 if self.stacked else 2 :]

    @property
    def num_voxels(self) -> int:
        """N, voxels per sample."""
        return self.spatial.numel()

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The logits' own dtype."""
        return self.tensors[0].dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 for float64 logits, else float32."""
        return compute_dtype_of(self.tensors[0])

    def per_modality(self) -> tuple[Tensor, ...]:
        """M views `[B, C, *spatial]`, never copies."""
        return self.tensors[0].unbind(1) if self.stacked else self.tensors


class Inputs(NamedTuple):
    """All tensors of a call; None for what there is not."""

    logits: GroupLogits  # of all modalities, or one prediction
    labels: Tensor | None = None  # `[B, *spatial]` integers
    available: Tensor | None = None  # `[B, M]` bool, `[B]` for one prediction
    keep: Tensor | None = None  # the given voxel mask, `[B, M, *spatial]` bool, true where kept
    seed: Tensor | None = None  # of the drawn one, 0-dim int64; without both every voxel is kept


def plain(tensor: Tensor) -> Tensor:
    """The tensor without what a subclass like MONAI's `MetaTensor` adds, which the backends have no use for."""
    return tensor.as_subclass(Tensor) if isinstance(tensor, Tensor) and has_torch_function((tensor,)) else tensor


def compute_dtype_of(prediction: Tensor) -> torch.dtype:
    """float64 for a float64 prediction, else float32."""
    return torch.float64 if prediction.dtype == torch.float64 else torch.float32


def check_logits(logits: Logits, groups: CategoryGroups) -> GroupLogits:
    """Check shapes, dtypes and devices against each other and against `groups`.

    Raises:
        ValueError: naming what is wrong and what is needed.
    """
    check_groups(groups)
    result = _check_stacked(plain(logits)) if isinstance(logits, Tensor) else _check_sequence(logits)
    if result.dtype not in _DTYPES:
        raise ValueError(f"logits: got dtype {result.dtype}, need float32, bfloat16, float16 or float64")
    if result.shape[0] == 0:
        raise ValueError(f"logits: got shape {_shape(result.tensors[0])} with an empty batch, need at least one sample")
    if result.num_voxels == 0:
        raise ValueError(f"logits: got shape {_shape(result.tensors[0])} without voxels, need at least one voxel")
    _, M, C = result.shape
    if M < 2:
        raise ValueError(f"logits: got {M} modality, need at least 2")
    if groups.modalities is not None and len(groups.modalities) != M:
        raise ValueError(f"logits: got {M} modalities, need the {len(groups.modalities)} of groups.modalities")
    if groups.num_categories != C:
        raise ValueError(f"logits: got {C} categories, need {groups.num_categories}, as groups has leader sets")
    highest = max(max(leaders) for leaders in groups.leaders)
    if highest >= M:
        raise ValueError(f"groups: a leader has index {highest}, need indices below the {M} modalities")
    return result


def _check_stacked(logits: Tensor) -> GroupLogits:
    if not 4 <= logits.dim() <= 6:
        raise ValueError(f"logits: got shape {_shape(logits)}, need [B, M, C, *spatial] with one to three spatial axes")
    return GroupLogits((logits,), stacked=True)


def _check_sequence(logits: object) -> GroupLogits:
    if not is_sequence(logits):
        raise ValueError(
            f"logits: got {type(logits).__name__}, need a tensor [B, M, C, *spatial] or a sequence of one "
            "[B, C, *spatial] for each modality"
        )
    tensors = tuple(map(plain, logits))
    if len(tensors) < 2:
        raise ValueError(f"logits: got {len(tensors)} tensor(s), need one for each of at least 2 modalities")
    first = tensors[0]
    for modality, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"logits[{modality}]: got {type(tensor).__name__}, need a tensor")  # noqa: TRY004
        if not 3 <= tensor.dim() <= 5:
            raise ValueError(
                f"logits[{modality}]: got shape {_shape(tensor)}, need [B, C, *spatial] with one to three spatial axes"
            )
        for name in ("shape", "dtype", "device"):
            got, need = getattr(tensor, name), getattr(first, name)
            if got != need:
                got, need = (list(own) if name == "shape" else own for own in (got, need))
                raise ValueError(f"logits[{modality}]: got {name} {got}, need that of logits[0], {need}")
    return GroupLogits(tensors, stacked=False)


def check_available(available: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Check `available`, bool `[B, M]`, or `[B]` for one prediction."""
    axes = "[B]" if len(shape) == 1 else "[B, M]"
    return None if available is None else _check_bool("available", available, axes, shape, device)


def check_mask(
    logits: GroupLogits, mask_ratio: float, seed: int | Tensor | None, voxel_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The given mask and the seed of a drawn one, checked; from the default generator if need be."""
    if voxel_mask is not None:
        if seed is not None:
            raise ValueError("seed: got a seed together with voxel_mask, need one of the two")
        shape = (*logits.shape[:2], *logits.spatial)
        return _check_bool("voxel_mask", voxel_mask, "[B, M, *spatial]", shape, logits.device), None
    if seed is not None:
        seed = check_seed(seed, logits.device)
    if mask_ratio == 0:
        return None, None
    return None, torch.randint(2**63 - 1, (), device=logits.device) if seed is None else seed


def check_seed(seed: int | Tensor, device: torch.device, *, or_else: str = " or None") -> Tensor:
    """The seed as a 0-dim int64 tensor on `device`; `or_else` is what else a caller takes."""
    if isinstance(seed, Tensor):
        if seed.dim() != 0 or seed.dtype != torch.int64:
            raise ValueError(f"seed: got a tensor of shape {_shape(seed)} and {seed.dtype}, need 0-dim int64")
        _check_device("seed", seed, device)
        return plain(seed)
    if not is_integer(seed):
        joint = ", " if or_else else " or "
        raise ValueError(f"seed: got {type(seed).__name__}, need an int{joint}a 0-dim int64 tensor{or_else}")
    number = int(seed)
    if not _SEED_RANGE[0] <= number <= _SEED_RANGE[1]:
        raise ValueError(f"seed: got {number}, need a number of 64 bits")
    signed = number - 2**64 if number >= 2**63 else number
    # A fill is asynchronous; copying a host scalar to a GPU is not.
    return torch.full((), signed, dtype=torch.int64, device=device)


def check_prediction(prediction: Tensor, labels: Tensor | None = None) -> Tensor:
    """Check shape and dtype of one prediction `[B, C, *spatial]`, the argument `input` of the segmentation loss.

    With `labels` an error says so where the prediction has an axis more than goes with them, of modalities as it seems.
    """
    if not isinstance(prediction, Tensor):
        raise ValueError(f"input: got {type(prediction).__name__}, need a tensor [B, C, *spatial]")  # noqa: TRY004
    if isinstance(labels, Tensor) and prediction.dim() >= 4 and labels.dim() == prediction.dim() - 2:
        raise ValueError(
            f"input: got shape {_shape(prediction)}, which looks like [B, M, C, *spatial]: pass one modality, or use "
            "fused_gss_objective"
        )
    if not 3 <= prediction.dim() <= 5:
        raise ValueError(f"input: got shape {_shape(prediction)}, need [B, C, *spatial] with one to three spatial axes")
    if prediction.dtype not in _DTYPES:
        raise ValueError(f"input: got dtype {prediction.dtype}, need float32, bfloat16, float16 or float64")
    if prediction.shape[1] < 2:
        raise ValueError(f"input: got shape {_shape(prediction)}, need at least 2 categories, the second axis")
    if prediction.numel() == 0:
        raise ValueError(f"input: got shape {_shape(prediction)}, need at least one sample and one voxel")
    return plain(prediction)


def check_labels(
    labels: Tensor, logits: GroupLogits, available: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Check `labels` `[B, *spatial]` of any integer dtype against the logits; returns them in a dtype of the backends.

    Values are checked on the CPU alone, and where a sample is `available` (`[B]`, or `[B, M]` for any of M). On another
    device the host would have to wait for them: there the backends return NaN.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels: got {type(labels).__name__}, need a tensor [B, *spatial]")  # noqa: TRY004
    _check_device("labels", labels, logits.device)
    if labels.dtype not in _LABEL_DTYPES + _RARE_LABEL_DTYPES:
        raise ValueError(f"labels: got dtype {labels.dtype}, need integers; convert with labels.long()")
    shape = (logits.shape[0], *logits.spatial)
    if labels.shape != shape:
        advice = "; remove the channel axis, labels[:, 0]" if labels.shape == (shape[0], 1, *shape[1:]) else ""
        raise ValueError(f"labels: got shape {_shape(labels)}, need {list(shape)}, [B, *spatial]{advice}")
    labels = plain(labels)
    if labels.dtype in _RARE_LABEL_DTYPES:
        labels = labels.long()
    if not torch.compiler.is_compiling():
        check_label_values(labels, logits.shape[2], available, ignore_index)
    return labels


def check_label_values(labels: Tensor, categories: int, available: Tensor | None, ignore_index: int | None) -> None:
    """Raise ValueError if labels on the CPU are no category, where the sample is available (`[B]` or `[B, M]`)."""
    if labels.device.type != "cpu":
        return
    for sample, own in enumerate(labels):
        if available is not None and not bool(available[sample].any()):
            continue
        counted = own if ignore_index is None else own[own.long() != ignore_index]
        if not counted.numel():
            continue
        lowest, highest = (int(value) for value in counted.aminmax())
        if lowest < 0 or highest >= categories:
            besides = "" if ignore_index is None else f", or {ignore_index} to be ignored"
            raise ValueError(
                f"labels: got values from {lowest} to {highest} in sample {sample}, need 0 to {categories - 1}{besides}"
            )


def _check_bool(name: str, tensor: Tensor, axes: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: got {type(tensor).__name__}, need a bool tensor {axes}")  # noqa: TRY004
    if tensor.shape != shape:
        raise ValueError(f"{name}: got shape {_shape(tensor)}, need {list(shape)}, {axes}")
    if tensor.dtype != torch.bool:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, need bool")
    _check_device(name, tensor, device)
    return plain(tensor)


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name}: got a tensor on {tensor.device}, need it on the prediction's device {device}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
