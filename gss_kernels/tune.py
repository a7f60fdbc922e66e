"""Time the launch configurations of the Triton kernels on this machine's GPU, and keep the fastest for later runs.

Losses then take them instead of the built-in table, on cards of this name with this version of Triton. They are kept in
a small file, `tuned.json`, in the folder GSS_KERNELS_CACHE, else in gss_kernels of XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gss_kernels.triton.configuration import Configuration
    from gss_kernels.triton.tuner import Clock, Measurements, Size

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    problem = _no_gpu(options.device) or _bad_size(options)
    if problem is not None:
        parser.error(problem)
    # Triton is optional, and the check above found it.
    from gss_kernels.triton import tuned, tuner  # noqa: PLC0415

    try:
        path = tuned.save({})
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(
        f"{tuned.card_name(options.device)}: the fastest go into {path}, kernel by kernel. Expect minutes of compiling."
    )
    clock = tuner.GpuClock(options.device)
    try:
        for size in _sizes(options):
            tune(size, clock, supervised=options.supervised)
    except torch.OutOfMemoryError as error:
        parser.error(f"out of GPU memory, choose a smaller --crop or --batch: {error}")
    return 0


def tune(size: Size, clock: Clock, *, supervised: bool) -> None:
    """Measure the launches of one size; print what came of it, and keep the fastest."""
    from gss_kernels.triton import tuned, tuner  # noqa: PLC0415  (Triton is optional)

    for workload in tuner.workloads(size, supervised=supervised):
        measurements = tuner.measure(workload, tuner.alternatives(workload.launch), clock)
        print(*report(measurements), sep="\n", flush=True)
        tuned.save({measurements.launch: measurements.fastest})


def report(measurements: Measurements) -> Iterator[str]:
    """Lines of a table in microseconds: a row for voxels per thread and warps, a column for the number of programs."""
    launch, seconds, left_out = measurements.launch, measurements.seconds, measurements.left_out
    tried = {**left_out, **{own: f"{1e6 * time:.1f}" for own, time in seconds.items()}}
    cells = {
        (own.voxels_per_thread, own.num_warps, own.programs_per_multiprocessor): "left out" if own in left_out else text
        for own, text in tried.items()
    }
    programs = sorted({key[2] for key in cells})
    name = launch.kernel.replace("_", " ")
    labels = "with" if launch.supervised else "without"
    yield ""
    yield f"{name}, {launch.modalities} x {launch.categories} {launch.dtype}, {labels} labels: microseconds"
    yield "by voxels per thread, warps | programs per multiprocessor"
    yield "      |" + "".join(f"{count:>10}" for count in programs)
    for voxels, warps in sorted({key[:2] for key in cells}):
        row = (cells.get((voxels, warps, count), "") for count in programs)
        yield f"{voxels:>2}, {warps:>2}|" + "".join(f"{cell:>10}" for cell in row)
    for own, reason in left_out.items():
        yield f"left out: {_in_words(own)}: {reason}"
    table, fastest = launch.from_table(), measurements.fastest
    yield f"the table's: {_in_words(table)}, {tried[table]}"
    yield "kept: the table's" if fastest == table else f"kept: {_in_words(fastest)}, {tried[fastest]}"


def _in_words(configuration: Configuration) -> str:
    return (
        f"{configuration.voxels_per_thread} voxels, {configuration.num_warps} warps, "
        f"{configuration.programs_per_multiprocessor} programs"
    )


def _sizes(options: argparse.Namespace) -> Iterator[Size]:
    from gss_kernels.triton.tuner import Size  # noqa: PLC0415  (Triton is optional)

    for categories in options.categories:
        for dtype in options.dtype:
            spatial = tuple(options.crop)
            yield Size(options.batch, options.modalities, categories, spatial, _DTYPES[dtype], options.device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gss_kernels.tune", description=__doc__)
    parser.add_argument("--modalities", type=int, default=4, help="M, 4 by default")
    parser.add_argument("--categories", type=int, nargs="+", default=[4, 5], help="C, 4 and 5 by default")
    parser.add_argument("--dtype", choices=_DTYPES, nargs="+", default=["float32", "bfloat16"], help="of the logits")
    parser.add_argument("--crop", type=int, nargs="+", default=[128, 128, 128], help="voxels by axis, 128 128 128")
    parser.add_argument("--batch", type=int, default=2, help="samples, 2 by default")
    parser.add_argument("--supervised", action="store_true", help="also the losses with labels")
    parser.add_argument("--device", type=_device, default=torch.device("cuda"), help="cuda by default")
    return parser


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, need cuda, or cuda:0 and so on") from error


def _no_gpu(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it exists for Linux); without it there is nothing to tune"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1: kernels run in Triton's interpreter, which says nothing of their speed on a GPU"
    if device.type != "cuda":
        return f"argument --device: got {device}, need a GPU: cuda, or cuda:0 and so on"
    if not torch.cuda.is_available():
        return "no GPU: PyTorch finds no CUDA device"
    if device.index is not None and device.index >= torch.cuda.device_count():
        return f"argument --device: got {device}, but there are {torch.cuda.device_count()} GPUs"
    return None


def _bad_size(options: argparse.Namespace) -> str | None:
    for name, values, least in (
        ("modalities", [options.modalities], 2),
        ("categories", options.categories, 2),
        ("crop", options.crop, 1),
        ("batch", [options.batch], 1),
    ):
        if min(values) < least:
            return f"argument --{name}: got {min(values)}, need {least} or more"
    if len(options.crop) > 3:
        return f"argument --crop: got {len(options.crop)} axes, need 1 to 3"
    return None


if __name__ == "__main__":
    sys.exit(main())
