"""What a call of the losses takes before a card has anything to do: `python -m benchmarks.launch_time`.

Without a card: the Triton backend launches for one that is not there, through all of PyTorch's and Triton's own code,
to a driver that does nothing. Tensors are on the CPU, and as on a card nobody looks at the values of labels. In
microseconds of one process, the least of some rounds in turns; forward, and with the backward pass. With Liger-Kernel
on the path (it is no dependency: `pip install --no-deps --target FOLDER liger-kernel`,
then `PYTHONPATH=FOLDER`) also its cross-entropy, with which the others are compared.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import time
from collections.abc import Callable, Sequence
from unittest import mock

import torch
from torch import Tensor

from benchmarks.stub_card import silent_card
from gss_kernels import BRATS_2018, fused_gss_loss, fused_gss_objective, fused_segmentation_loss, tensors

_SPACE = (8, 8, 8)
_OTHER = "Liger-Kernel's cross-entropy"
Timed = tuple[Callable[[], Tensor], Sequence[Tensor]]
"""A call, and the leaves of its backward pass."""


def calls() -> dict[str, Timed]:
    """Of each function the plainest call and, of the GSS loss, the one in training."""
    stacked = torch.empty(1, 4, 4, *_SPACE, requires_grad=True)
    apart = [torch.empty(1, 4, *_SPACE, requires_grad=True) for _ in range(4)]
    labels, available = torch.zeros(1, *_SPACE, dtype=torch.uint8), torch.ones(1, 4, dtype=torch.bool)
    timed: dict[str, Timed] = {
        "fused_gss_loss": (lambda: fused_gss_loss(stacked, BRATS_2018, seed=1, backend="triton"), [stacked]),
        "fused_gss_loss, M tensors, available": (
            lambda: fused_gss_loss(apart, BRATS_2018, seed=1, available=available, backend="triton"),
            apart,
        ),
        "fused_gss_objective": (
            lambda: fused_gss_objective(stacked, labels, BRATS_2018, seed=1, backend="triton"),
            [stacked],
        ),
        "fused_segmentation_loss": (
            lambda: torch.add(*fused_segmentation_loss(apart[0], labels, backend="triton")),
            [apart[0]],
        ),
    }
    if importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers.functional import liger_cross_entropy  # noqa: PLC0415  (optional)

        rows, targets = torch.empty(64, 128, requires_grad=True), torch.zeros(64, dtype=torch.int64)
        timed[_OTHER] = (lambda: liger_cross_entropy(rows, targets), [rows])
    return timed


def microseconds(timed: dict[str, Timed], repeats: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Forward, and with the backward pass, of each."""
    one = torch.ones(())
    best = dict.fromkeys(timed, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, (forward, leaves) in timed.items():
            both = (
                _mean(forward, repeats),
                _mean(lambda f=forward, x=leaves: torch.autograd.grad(f(), x, one), repeats),
            )
            best[name] = (min(best[name][0], both[0]), min(best[name][1], both[1]))
    return best


def _mean(call: Callable[[], object], repeats: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return 1e6 * (time.perf_counter() - start) / repeats


def _nobody_looks(*_arguments: object) -> None:
    pass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with silent_card("sm_90", 132), mock.patch.object(tensors, "check_label_values", _nobody_looks):
        timed = calls()
        microseconds(timed, 1, 1)
        gc.collect()
        gc.disable()
        found = microseconds(timed, options.repeats, options.rounds)
    other = found.get(_OTHER)
    print(f"{'call':40} {'forward us':>12} {'with backward us':>18}")
    for name, (forward, both) in found.items():
        ratios = f"   {forward / other[0]:.2f}x {both / other[1]:.2f}x" if other else ""
        print(f"{name:40} {forward:12.0f} {both:18.0f}{ratios}")


if __name__ == "__main__":
    main()
