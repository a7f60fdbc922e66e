"""Two processes that compute one loss: `python -m tests.gss_kernels.across_processes FOLDER`.

Each runs every call of `CALLS` on its part of the batch, with the other process on the rest, and leaves `RANK.pt`.
Under TRITON_INTERPRET=1 also those of the Triton kernels.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from gss_kernels import BRATS_2018, draw_voxel_mask, fused_gss_objective, fused_segmentation_loss
from gss_kernels.settings import Backend, InputKind
from tests.two_processes import be_two

SPATIAL = (3, 5)
SEED = 11
SUPERVISED_WEIGHT, GSS_WEIGHT = 0.7, 1.9
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """One call on a batch of four samples, of which the first process has `first`.

    Attributes:
        name: of the call.
        input_kind: None for the objective.
        dtype: of the prediction.
        available: `[B]`, or `[B, M]` for the objective, as zeros and ones.
        first: how many samples the first process has.
        upstream: of each process's result; of cross-entropy and Dice, or of the total twice.
        backend: of the processes.
        temperature: of the objective.
        ignored: the ignored label.
    """

    name: str
    input_kind: InputKind | None = "logits"
    dtype: torch.dtype = torch.float64
    available: Sequence[object] | None = None
    first: int = 2
    upstream: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 1.0), (1.0, 1.0))
    backend: Backend = "cpu"
    temperature: float = 8.0
    ignored: int | None = None

    @property
    def parts(self) -> tuple[slice, slice]:
        """The samples of each process."""
        return slice(0, self.first), slice(self.first, 4)

    def samples_available(self) -> Tensor | None:
        return None if self.available is None else torch.tensor(self.available, dtype=torch.bool)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Prediction and labels of the whole batch; what is not available is NaN, and label 9 without any modality."""
        generator = torch.Generator().manual_seed(3)
        shape = (4, 4, *SPATIAL) if self.input_kind else (4, 4, 4, *SPATIAL)
        prediction = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.input_kind == "probabilities":
            prediction = prediction.softmax(dim=1)
        # The last category lives in the second process alone, and there in one sample.
        labels = torch.randint(0, 3, (4, *SPATIAL), generator=generator)
        labels[3, 1:, 2:] = 3
        available = self.samples_available()
        if available is not None:
            prediction[~available] = math.nan
            labels[~available.flatten(1).any(dim=1) if available.dim() > 1 else ~available] = 9
        return prediction.to(self.dtype), labels


_UNEQUAL = (1, 0, 1, 1)
# Modality 0 is the second process's alone, 1 is spread unequally, 2 has nobody; the first sample has a single modality.
_GAPS = ((0, 1, 0, 0), (0, 0, 0, 0), (1, 1, 0, 1), (1, 1, 0, 1))


def _calls() -> list[Call]:
    f32, two = torch.float32, ((0.5, 2.0), (3.0, -1.0))
    calls = []
    for kind in ("logits", "probabilities"):
        for dtype in (torch.float64, f32):
            name = f"{kind}_{str(dtype)[-2:]}"
            calls += [
                Call(name, kind, dtype),
                Call(f"{name}_unequal", kind, dtype, _UNEQUAL, upstream=two),
                Call(f"{name}_one_process", kind, dtype, (0, 0, 1, 1)),
                Call(f"{name}_nobody", kind, dtype, (0, 0, 0, 0)),
                Call(f"{name}_cut_unequally", kind, dtype, first=1),
                Call(f"{name}_ignored", kind, dtype, _UNEQUAL, upstream=two, ignored=1),
            ]
    for dtype in (torch.float64, f32):
        name = f"objective_{str(dtype)[-2:]}"
        calls += [
            Call(name, None, dtype),
            Call(f"{name}_gaps", None, dtype, _GAPS),
            Call(f"{name}_recomputed", None, dtype, _GAPS, temperature=3.7),
            Call(f"{name}_ignored", None, dtype, _GAPS, ignored=0),
            Call(f"{name}_upstream", None, dtype, upstream=((2.0, 2.0), (0.0, 0.0))),
        ]
    triton: Backend = "triton"
    return [
        *calls,
        Call("triton", "logits", f32, upstream=two, backend=triton),
        Call("triton_one_process", "probabilities", f32, (0, 0, 0, 1), backend=triton),
        Call("triton_objective", None, f32, _GAPS, upstream=((1.0, 1.0), (2.0, 2.0)), backend=triton),
    ]


CALLS = {call.name: call for call in _calls()}


def run(call: Call, rank: int) -> Tensors:
    """The terms, and the gradient of the process's own part."""
    part = call.parts[rank]
    prediction, labels, available = *call.tensors(), call.samples_available()
    leaf = prediction[part].clone().requires_grad_()
    present = None if available is None else available[part]
    group = distributed.group.WORLD
    if call.input_kind is not None:
        terms = fused_segmentation_loss(
            leaf,
            labels[part],
            input_kind=call.input_kind,
            available=present,
            ignore_index=call.ignored,
            process_group=group,
            backend=call.backend,
        )
        torch.stack(terms).backward(torch.tensor(call.upstream[rank], dtype=call.dtype))
        results = terms._asdict()
    else:
        keep = draw_voxel_mask(SEED, num_samples=len(leaf), num_modalities=4, spatial=SPATIAL, first_sample=part.start)
        objective = fused_gss_objective(
            leaf,
            labels[part],
            BRATS_2018,
            supervised_weight=SUPERVISED_WEIGHT,
            gss_weight=GSS_WEIGHT,
            temperature=call.temperature,
            ignore_index=call.ignored,
            voxel_mask=keep,
            available=present,
            process_group=group,
            return_terms=True,
            backend=call.backend,
        )
        objective.total.backward(torch.tensor(call.upstream[rank][0], dtype=call.dtype))
        results = {name: term for name, term in objective._asdict().items() if term is not None}
    assert leaf.grad is not None
    return {name: term.detach() for name, term in results.items()} | {"gradient": leaf.grad}


class Heads(nn.Module):
    """A toy network: one modality's scan in, its logits out, for all modalities."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([self.convolution(image[:, [m]]) for m in range(4)], dim=1)


def network_gradient(part: slice, group: distributed.ProcessGroup | None, *, gss_alone: bool = False) -> Tensor:
    """Of the toy network's parameters, from some samples; with a group averaged over its processes.

    With `gss_alone` the processes' losses know nothing of each other: the GSS loss is a plain mean over samples.
    """
    generator = torch.Generator().manual_seed(0)
    image = 3 * torch.randn(4, 4, *SPATIAL, generator=generator)
    labels = torch.randint(0, 4, (4, *SPATIAL), generator=generator)[part]
    torch.manual_seed(1)
    network: nn.Module = Heads()
    if group is not None:
        network = nn.parallel.DistributedDataParallel(network, process_group=group)
    own = image[part]
    keep = draw_voxel_mask(SEED, num_samples=len(own), num_modalities=4, spatial=SPATIAL, first_sample=part.start)
    logits = network(own)
    if gss_alone:
        total = fused_gss_objective(logits, labels, BRATS_2018, voxel_mask=keep, supervised_weight=0.0)
    else:
        total = fused_gss_objective(logits, labels, BRATS_2018, voxel_mask=keep, process_group=group)
        total = total + sum(fused_segmentation_loss(logits.mean(dim=1), labels, process_group=group))
    total.backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


def terms_with_nan(rank: int) -> Tensors:
    """The second process has a NaN in one sample."""
    prediction, labels = Call("nan").tensors()
    if rank == 1:
        prediction[2, :, 0, 0] = math.nan
    part = Call("nan").parts[rank]
    return fused_segmentation_loss(prediction[part], labels[part], process_group=distributed.group.WORLD)._asdict()


def run_all(rank: int, folder: Path) -> None:
    """Run all calls."""
    # The interpreter computes both sides of a selection in NumPy, which warns of what the other side would have been.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    if interpreted := os.environ.get("TRITON_INTERPRET") == "1":
        from tests.gss_kernels.interpreter import work_once  # noqa: PLC0415  (Triton is optional)

        work_once()
    results: dict[str, Tensors] = {
        name: run(call, rank) for name, call in CALLS.items() if interpreted or call.backend != "triton"
    }
    results["nan"] = terms_with_nan(rank)
    part, group = Call("network").parts[rank], distributed.group.WORLD
    results["network"] = {"gradient": network_gradient(part, group)}
    results["network, GSS alone"] = {"gradient": network_gradient(part, group, gss_alone=True)}
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(be_two(run_all, Path(sys.argv[1])))
