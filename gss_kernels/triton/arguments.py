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
    """What leaves voxels out; None for what there is not.

    Attributes:
        available: `[B, M]` bytes.
        keep: the given voxel mask, `[B, M, N]` bytes.
        seed: of the drawn one, 0-dim.
    """

    available: Any
    keep: Any
    seed: Any


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
    """The gradient of the value, and what it is multiplied with.

    Attributes:
        pointer: to it.
        strides: of sample and modality, or of the terms; 0 for a scalar.
        gss: factor of the GSS loss.
        segmentation: factor of the segmentation losses.
    """

    pointer: Any
    strides: Any
    gss: Any
    segmentation: Any


class Form(NamedTuple):
    """What a kernel is compiled for; one that does not look at a field gets its default.

    Attributes:
        M: number of modalities.
        C: of categories.
        leaders: bit `c * M + m` says that modality m leads category c.
        released: the public code's vote.
        available: some samples may lack modalities.
        squarings: see `softmaxes`.
        ptx: inline PTX may be used.
        block: voxels of a block.
        voxels: of a thread.
        rows: of partial sums.
        first: of these, the first of the segmentation losses.
        kl: the divergence is "kl".
        log2_clamp: of the distillation.
        class_weighting: of the GSS loss.
        segmented: there are labels.
        ignore: the ignored label, None without.
        from_logits: what is segmented lacks its softmax.
        statistics: are asked for.
        per_sample: the value is the GSS loss of each sample and modality.
    """

    M: int
    C: int
    leaders: int = 0
    released: bool = False
    available: bool = False
    squarings: int = 0
    ptx: bool = False
    block: int = 0
    voxels: int = 1
    rows: int = 0
    first: int = 0
    kl: bool = False
    log2_clamp: float = 0.0
    class_weighting: bool = False
    segmented: bool = False
    ignore: int | None = None
    from_logits: bool = True
    statistics: bool = False
    per_sample: bool = False
