"""Command line: `python -m gss_train.phantom --dataset brats2015 --out DIR --subjects 12 --seed 0`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gss_train.common import Triple
from gss_train.phantom.settings import DEFAULT_SIZE


@dataclass(frozen=True)
class PhantomArguments:
    """Write simulated brain tumour subjects in the raw layout of a BraTS edition.

    Attributes:
        dataset: the edition whose layout and label values are used.
        out: folder for the data set; new, empty, or a phantom of the same settings.
        subjects: number of subjects; every fourth is an LGG.
        seed: seed of the random numbers.
        size: voxels along x (left-right), y and z; 240 240 155 is the BraTS grid of 1 mm.
        workers: subjects simulated at a time; by default one for each processor, at most 8.
        compressed: write .nii.gz rather than .nii (BraTS2018 and 2020).
    """

    dataset: Literal["brats2015", "brats2018", "brats2020"]
    out: Path
    subjects: int = 12
    seed: int = 0
    size: Triple = DEFAULT_SIZE
    workers: int | None = None
    compressed: bool = True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = tyro.cli(PhantomArguments, args=arguments, prog="python -m gss_train.phantom")
    from gss_train.phantom.generate import generate_phantoms  # noqa: PLC0415 (imports torch)

    try:
        folders = generate_phantoms(**vars(options), progress=_print_progress)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(folders)} {options.dataset} subjects in {options.out}")
    return 0


def _print_progress(done: int, total: int) -> None:
    """One line that is overwritten on a terminal, plain lines elsewhere."""
    terminal = sys.stdout.isatty()
    print(f"subject {done}/{total}", end="\r" if terminal and done < total else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
