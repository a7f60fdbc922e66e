"""Runs the Triton kernels in Triton's interpreter: `python -m tests.gss_kernels.interpreted distillation FOLDER`.

Or `supervision`: two halves, which two processors can run at the same time. A process of its own under
TRITON_INTERPRET=1, as the interpreter is chosen when Triton is imported. Leaves `results.npz` with the outcome of every
case, and `errors.json` with the traceback, empty if all is well, of every case and behaviour.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from gss_kernels import CategoryGroups, fused_gss_loss
from gss_kernels.gss.kernels import keep_voxels
from gss_kernels.settings import Backend
from gss_kernels.triton.arguments import Form, Masks, Volumes
from gss_kernels.triton.configuration import Configuration
from gss_kernels.triton.tuned import Launch, trying
from gss_kernels.triton.volumes import Block, Presence, load_logits
from gss_kernels.voxel_mask import last_masked_word
from tests.gss_kernels import cases, interpretation, objective_cases, segmentation_cases
from tests.gss_kernels.interpreter import work_once
from tests.gss_kernels.oracle import drawn_word

BLOCK = 16


@triton.jit
def keep_kernel(seed, out_pointer, last_word, sample, start, num_voxels, form: tl.constexpr):
    count: tl.constexpr = form.M
    size: tl.constexpr = form.block
    offsets = tl.arange(0, size)
    masks = Masks(None, None, seed)
    block = Block(tl.cast(sample, tl.int32), tl.cast(start, tl.int64), offsets, offsets >= 0)
    presence = Presence((True,) * count, True)
    keep = keep_voxels(masks, block, presence, num_voxels, last_word, offsets.to(tl.float32), form)
    for m in tl.static_range(count):
        tl.store(out_pointer + m * size + offsets, keep[m])


@triton.jit
def load_kernel(address, out_pointer, base, stride_c, count: tl.constexpr, size: tl.constexpr):
    offsets = tl.arange(0, size)
    memory = tl.cast(address, tl.int64).to(tl.pointer_type(tl.int8))
    volumes = Volumes((memory + tl.cast(base, tl.int64),), 0, stride_c, 1, size)
    block = Block(tl.cast(0, tl.int32), tl.cast(0, tl.int64), offsets, offsets >= 0)
    logits = load_logits(volumes, block, True, 0, count)
    for c in tl.static_range(count):
        tl.store(out_pointer + c * size + offsets, logits[c])


def mask_index_needs_more_than_32_bits() -> None:
    """Volumes too large to allocate, but not too large to number: also a block that crosses 2**32."""
    form = Form(6, 2, block=BLOCK)
    for sample, start, num_voxels in ((0, 2**32 - 7, 2**40), (3, 256, 2**31 + 7), (5, 2**33 + 256, 2**34), (1, 0, 9)):
        keep = torch.empty(6, BLOCK, dtype=torch.bool)
        seed = torch.tensor(-0x0123_4567_89AB_CDEF)
        keep_kernel[1,](seed, keep, last_masked_word(0.5), sample, start, num_voxels, form)
        first = sample * num_voxels + start
        for m, v in np.ndindex(6, BLOCK):
            assert bool(keep[m, v]) == (drawn_word(int(seed), first + v, m) >= 2**31), (sample, start, m, v)


def category_offset_needs_more_than_32_bits() -> None:
    """Category 2 of volumes of 2**30 voxels lies 2**31 elements on; in a file with holes, which takes no room."""
    stride_c, base = 2**30, 2**31
    out = torch.empty(3, BLOCK)
    with tempfile.TemporaryDirectory() as folder:
        memory = np.memmap(Path(folder) / "logits", np.int8, mode="w+", shape=(2**32 + BLOCK,))
        for c in range(3):
            memory[base + c * stride_c : base + c * stride_c + BLOCK] = c + 1
        load_kernel[1,](memory.ctypes.data, out, base, stride_c, 3, BLOCK)
        del memory
    assert out.tolist() == [[c + 1.0] * BLOCK for c in range(3)]


def voxels_may_lie_far_apart() -> None:
    """A stride between voxels that takes offsets within a block beyond 32 bits; in a file with holes."""
    stride, voxels = 2**23 + 5, 300
    values = torch.randn(1, 2, 2, voxels, generator=torch.Generator().manual_seed(0))
    groups = CategoryGroups(((0,), (1,)))
    with tempfile.TemporaryDirectory() as folder:
        memory = np.memmap(Path(folder) / "logits", np.float32, mode="w+", shape=(stride * voxels,))
        logits = torch.from_numpy(memory).as_strided(values.shape, (0, 1, 2, stride))
        logits.copy_(values)
        loss = fused_gss_loss(logits, groups, seed=1, backend="triton")
        del logits, memory
    torch.testing.assert_close(loss, fused_gss_loss(values, groups, seed=1, backend="cpu"))


def every_number_of_voxels_per_thread_will_do() -> None:
    groups = CategoryGroups(((0,), (1,)))
    logits = torch.randn(2, 2, 2, 300, generator=torch.Generator().manual_seed(0)).requires_grad_()
    launches = [Launch(name, 2, 2, False, logits.dtype, logits.device) for name in ("forward", "backward")]

    def step(backend: Backend) -> tuple[torch.Tensor, ...]:
        loss = fused_gss_loss(logits, groups, seed=1, backend=backend)
        return (loss.detach(), *torch.autograd.grad(loss, logits))

    for voxels in (1, 2, 4):
        with trying(dict.fromkeys(launches, Configuration(voxels, num_warps=2, programs_per_multiprocessor=3))):
            torch.testing.assert_close(step("triton"), step("reference"))


OTHERS: tuple[Callable[[], None], ...] = (
    mask_index_needs_more_than_32_bits,
    category_offset_needs_more_than_32_bits,
    voxels_may_lie_far_apart,
    every_number_of_voxels_per_thread_will_do,
)


class Record:
    """What became of everything that was tried."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self.results: dict[str, np.ndarray] = {}

    def attempt(self, name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException:
            self.errors[name] = traceback.format_exc()
        else:
            self.errors[name] = ""

    def solve(self, name: str, run: Callable[..., Any], case: Any) -> None:
        """Note each field of a case's result."""

        def note() -> None:
            self.results.update({f"{name}/{key}": value for key, value in vars(run(case, "triton")).items()})

        self.attempt(name, note)

    def save(self, folder: Path) -> None:
        np.savez(folder / "results.npz", **self.results)
        (folder / "errors.json").write_text(json.dumps(self.errors))


def distillation(record: Record) -> None:
    for name, case in cases.TABLE.items():
        record.solve(name, cases.run, case)
    for name, behaviour in interpretation.DISTILLATION.items():
        record.attempt(name, functools.partial(behaviour, "triton", "cpu"))
    for check in OTHERS:
        record.attempt(check.__name__, check)


def supervision(record: Record) -> None:
    for name, case in interpretation.SEGMENTATION_CASES.items():
        record.solve(name, segmentation_cases.run, case)
    for name, case in interpretation.OBJECTIVE_CASES.items():
        record.solve(name, objective_cases.run, case)
    for name, behaviour in interpretation.SUPERVISION.items():
        record.attempt(name, functools.partial(behaviour, "triton", "cpu"))


def main(half: str, folder: Path) -> None:
    work_once()
    # The interpreter computes both sides of a selection in NumPy, which warns of what the other side would have been.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")
    record = Record()
    {"distillation": distillation, "supervision": supervision}[half](record)
    record.save(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
