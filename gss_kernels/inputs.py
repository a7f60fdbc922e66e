"""The tensors of one call, checked and brought to one form that every backend takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gss_kernels.groups import CategoryGroups, check_groups, is_sequence
from gss_kernels.settings import check_mask_ratio, is_integer

Logits = Tensor | Sequence[Tensor]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_SEED_RANGE = (-(2**63), 2**64 - 1)


@dataclass(frozen=True)
class GroupLogits:
    """Logits of all modalities.

    Attributes:
        tensors: one tensor `[B, M, C, *spatial]`, or M tensors `[B, C, *spatial]`.
        stacked: whether it is the former.
    """

    tensors: tuple[Tensor, ...]
    stacked: bool

    @property
    def num_samples(self) -> int:
        """B."""
        return self.tensors[0].shape[0]

    @property
    def num_modalities(self) -> int:
        """M."""
        return self.tensors[0].shape[1] if self.stacked else len(self.tensors)

    @property
    def num_categories(self) -> int:
        """C."""
        return self.tensors[0].shape[2 if self.stacked else 1]

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
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def per_modality(self) -> tuple[Tensor, ...]:
        """M views `[B, C, *spatial]`, never copies."""
        return self.tensors[0].unbind(1) if self.stacked else self.tensors

    def as_stack(self) -> Tensor:
        """One tensor `[B, M, C, *spatial]`; copies if the modalities came apart."""
        return self.tensors[0] if self.stacked else torch.stack(self.tensors, dim=1)


@dataclass(frozen=True)
class VoxelMask:
    """Which voxels a modality keeps: drawn (`seed` and `ratio`), given (`keep`), or all of them (neither).

    Attributes:
        seed: 0-dim int64 tensor on the logits' device.
        ratio: probability of masking a voxel.
        keep: `[B, M, *spatial]` bool, true where kept.
    """

    seed: Tensor | None = None
    ratio: float = 0.0
    keep: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that there are."""
        return (*optional(self.seed), *optional(self.keep))


def optional(tensor: Tensor | None) -> tuple[Tensor, ...]:
    """No tensor or one."""
    return () if tensor is None else (tensor,)


def check_logits(logits: Logits, groups: CategoryGroups) -> GroupLogits:
    """Check shapes, dtypes and devices against each other and against `groups`.

    Raises:
        ValueError: naming what is wrong and what is needed.
    """
    check_groups(groups)
    result = _check_stacked(logits) if isinstance(logits, Tensor) else _check_sequence(logits)
    if result.dtype not in _DTYPES:
        raise ValueError(f"logits: got dtype {result.dtype}, need float32, bfloat16, float16 or float64")
    if result.num_samples == 0:
        raise ValueError(f"logits: got shape {_shape(result.tensors[0])} with an empty batch, need at least one sample")
    if result.num_voxels == 0:
        raise ValueError(f"logits: got shape {_shape(result.tensors[0])} without voxels, need at least one voxel")
    _check_against_groups(result, groups)
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
    tensors = tuple(logits)
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
        for name, got, need in (
            ("shape", _shape(tensor), _shape(first)),
            ("dtype", tensor.dtype, first.dtype),
            ("device", tensor.device, first.device),
        ):
            if got != need:
                raise ValueError(f"logits[{modality}]: got {name} {got}, need that of logits[0], {need}")
    return GroupLogits(tensors, stacked=False)


def _check_against_groups(logits: GroupLogits, groups: CategoryGroups) -> None:
    if logits.num_modalities < 2:
        raise ValueError(f"logits: got {logits.num_modalities} modality, need at least 2")
    if groups.modalities is not None and len(groups.modalities) != logits.num_modalities:
        raise ValueError(
            f"logits: got {logits.num_modalities} modalities, need the {len(groups.modalities)} of groups.modalities"
        )
    if logits.num_categories != groups.num_categories:
        raise ValueError(
            f"logits: got {logits.num_categories} categories, need {groups.num_categories}, as groups has leader sets"
        )
    highest = max(max(leaders) for leaders in groups.leaders)
    if highest >= logits.num_modalities:
        raise ValueError(
            f"groups: a leader has index {highest}, need indices below the {logits.num_modalities} modalities"
        )


def check_available(available: Tensor | None, logits: GroupLogits) -> Tensor | None:
    """Check `available` `[B, M]` bool against the logits."""
    if available is not None:
        _check_bool("available", available, "[B, M]", (logits.num_samples, logits.num_modalities), logits.device)
    return available


def check_mask(
    logits: GroupLogits, mask_ratio: float, seed: int | Tensor | None, voxel_mask: Tensor | None
) -> VoxelMask:
    """Resolve the three mask arguments; draws a seed from the device's default generator if it has to."""
    check_mask_ratio(mask_ratio)
    if voxel_mask is not None:
        if seed is not None:
            raise ValueError("seed: got a seed together with voxel_mask, need one of the two")
        shape = (logits.num_samples, logits.num_modalities, *logits.spatial)
        _check_bool("voxel_mask", voxel_mask, "[B, M, *spatial]", shape, logits.device)
        return VoxelMask(keep=voxel_mask)
    seed_tensor = check_seed(seed, logits.device) if seed is not None else None
    if mask_ratio == 0:
        return VoxelMask()
    if seed_tensor is None:
        seed_tensor = torch.randint(2**63 - 1, (), device=logits.device)
    return VoxelMask(seed=seed_tensor, ratio=float(mask_ratio))


def check_seed(seed: int | Tensor, device: torch.device, *, or_else: str = " or None") -> Tensor:
    """The seed as a 0-dim int64 tensor on `device`; `or_else` is what else a caller takes."""
    if isinstance(seed, Tensor):
        if seed.dim() != 0 or seed.dtype != torch.int64:
            raise ValueError(f"seed: got a tensor of shape {_shape(seed)} and {seed.dtype}, need 0-dim int64")
        _check_device("seed", seed, device)
        return seed
    if not is_integer(seed):
        joint = ", " if or_else else " or "
        raise ValueError(f"seed: got {type(seed).__name__}, need an int{joint}a 0-dim int64 tensor{or_else}")
    number = int(seed)
    if not _SEED_RANGE[0] <= number <= _SEED_RANGE[1]:
        raise ValueError(f"seed: got {number}, need a number of 64 bits")
    signed = number - 2**64 if number >= 2**63 else number
    # A fill is asynchronous; copying a host scalar to a GPU is not.
    return torch.full((), signed, dtype=torch.int64, device=device)


def _check_bool(name: str, tensor: Tensor, axes: str, shape: tuple[int, ...], device: torch.device) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: got {type(tensor).__name__}, need a bool tensor {axes}")  # noqa: TRY004
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: got shape {_shape(tensor)}, need {list(shape)}, {axes}")
    if tensor.dtype != torch.bool:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, need bool")
    _check_device(name, tensor, device)


def compute_dtype_of(prediction: Tensor) -> torch.dtype:
    """float64 for a float64 prediction, else float32."""
    return torch.float64 if prediction.dtype == torch.float64 else torch.float32


def check_prediction(prediction: Tensor, labels: Tensor | None = None) -> Tensor:
    """Check shape and dtype of one prediction `[B, C, *spatial]`, the argument `input` of the supervised loss.

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
    return prediction


def check_samples_available(available: Tensor | None, num_samples: int, device: torch.device) -> Tensor | None:
    """Check `available` `[B]` bool of one prediction."""
    if available is not None:
        _check_bool("available", available, "[B]", (num_samples,), device)
    return available


def check_labels(
    labels: Tensor,
    samples: int,
    spatial: tuple[int, ...],
    categories: int,
    device: torch.device,
    available: Tensor | None = None,
) -> Tensor:
    """Check `labels` `[B, *spatial]`, uint8 or int64, against the shape of the prediction.

    Values are checked on the CPU alone, and where a sample is `available` (`[B]`, or `[B, M]` for any of M). On another
    device the host would have to wait for them: there the backends return NaN.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels: got {type(labels).__name__}, need a tensor [B, *spatial]")  # noqa: TRY004
    _check_device("labels", labels, device)
    if labels.dtype not in (torch.uint8, torch.int64):
        raise ValueError(f"labels: got dtype {labels.dtype}, need uint8 or int64; convert with labels.long()")
    if tuple(labels.shape) != (samples, *spatial):
        advice = "; remove the channel axis, labels[:, 0]" if tuple(labels.shape) == (samples, 1, *spatial) else ""
        raise ValueError(f"labels: got shape {_shape(labels)}, need {[samples, *spatial]}, [B, *spatial]{advice}")
    if not torch.compiler.is_compiling():
        check_label_values(labels, categories, available)
    return labels


def check_label_values(labels: Tensor, categories: int, available: Tensor | None) -> None:
    """Raise ValueError if labels on the CPU are no category, where the sample is available (`[B]` or `[B, M]`)."""
    if labels.device.type != "cpu":
        return
    for sample, own in enumerate(labels):
        if available is not None and not bool(available[sample].any()):
            continue
        lowest, highest = (int(value) for value in own.aminmax())
        if lowest < 0 or highest >= categories:
            raise ValueError(
                f"labels: got values from {lowest} to {highest} in sample {sample}, need 0 to {categories - 1}"
            )


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name}: got a tensor on {tensor.device}, need it on the prediction's device {device}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
