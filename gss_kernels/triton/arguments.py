"""What the kernels of both losses take, in few bundles; their values are the device's there, the host's here."""

from __future__ import annotations

from typing import Any, NamedTuple


class Volumes(NamedTuple):
    """M tensors `[B, C, N]`, one for each modality, of common strides in elements."""

    pointers: Any
    stride_b: Any
    stride_c: Any
    stride_v: Any
    num_voxels: Any


class Masks(NamedTuple):
    """What leaves voxels out; None for what there is not."""

    available: Any  # `[B, M]` bytes
    keep: Any  # the given voxel mask, `[B, M, N]` bytes
    seed: Any  # of the drawn one, 0-dim


class Numbers(NamedTuple):
    """Hyper-parameters that no code is compiled for; `log2_scale` is `log2(e) / T`."""

    log2_scale: Any
    leader_threshold: Any
    member_threshold: Any
    leader_blend: Any
    clamp: Any


class Walk(NamedTuple):
    """Blocks and programs of a sample, B, and the last random word that masks; no code is compiled for them."""

    blocks: Any
    programs: Any
    num_samples: Any
    last_masked_word: Any


class Places(NamedTuple):
    """Where the results begin in their buffer, see `GSSResults`."""

    coefficients: Any
    terms: Any
    routes: Any
    agreement: Any


class Upstream(NamedTuple):
    """The gradient of the value, and what it is multiplied with."""

    pointer: Any  # to it
    strides: Any  # of sample and modality, or of the terms; 0 for a scalar
    gss: Any  # factor of the GSS loss
    segmentation: Any  # factor of the segmentation losses


class Form(NamedTuple):
    """What a kernel is compiled for; one that does not look at a field gets its default."""

    M: int  # number of modalities
    C: int  # of categories
    leaders: tuple[tuple[int, ...], ...] = ()  # of every category
    released: bool = False  # the public code's vote
    available: bool = False  # some samples may lack modalities
    squarings: int = 0  # see `softmaxes`
    ptx: bool = False  # inline PTX may be used
    block: int = 0  # voxels of a block
    voxels: int = 1  # of a thread
    rows: int = 0  # of partial sums
    first: int = 0  # of these, the first of the segmentation losses
    kl: bool = False  # the divergence is "kl"
    log2_clamp: float = 0.0  # of the distillation
    class_weighting: bool = False  # of the GSS loss
    segmented: bool = False  # there are labels
    ignore: int | None = None  # the ignored label, None without
    from_logits: bool = True  # what is segmented lacks its softmax
    statistics: bool = False  # are asked for
    per_sample: bool = False  # the value is the GSS loss of each sample and modality
