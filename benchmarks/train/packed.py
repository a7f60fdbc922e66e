"""Prepared subjects at half the resolution, small enough to be carried to another machine, and back.

    python -m benchmarks.train.packed pack PREPARED PACKED    # where the scans were prepared
    python -m benchmarks.train.packed unpack PACKED PREPARED  # where they are trained on; needs only NumPy and PyTorch

PREPARED is a folder as `python -m gss_train.prepare` leaves one, PACKED has one compressed file a subject. A block of
2 x 2 x 2 voxels becomes one: the mean of its z-scores, and the label that most of it has (of equals, the first one).
Names, places of files and the position in the scanner are left behind: subjects are numbered.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError, open_replacing, to_triple
from gss_train.data import VOXEL_DTYPE, Metadata, PreparedError, PreparedSubject, load_prepared, write_prepared

_FACTOR = 2
_MAX_TUMOUR_VOXELS = 1024


def pack(prepared: Path, packed: Path) -> int:
    """Halve all subjects of a folder.

    Returns:
        The bytes that they take.

    Raises:
        UserError: there are none.
    """
    subjects = load_prepared(prepared)
    if not subjects:
        raise UserError(f"{prepared}: holds no prepared subjects, should be a folder that gss_train.prepare made")
    return sum(_pack_subject(subject, packed, number) for number, subject in enumerate(subjects, start=1))


def unpack(packed: Path, prepared: Path) -> int:
    """Undo the compression of all subjects of a folder, not the halving.

    Returns:
        How many there are.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    paths = sorted(packed.glob("*.npz"))
    if not paths:
        raise UserError(f"{packed}: holds no packed subjects (*.npz), should be a folder that pack made")
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                metadata = Metadata.from_json(str(arrays["metadata"]))
                voxels = np.empty(metadata.shape, VOXEL_DTYPE)
                voxels["image"] = arrays["image"]
                voxels["label"] = arrays["label"]
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise PreparedError(f"{path}: cannot be read, pack the subjects again: {error!r}") from error
        write_prepared(prepared / f"{path.stem}.npy", voxels, metadata)
    return len(paths)


def halve(voxels: npt.NDArray[Any], categories: int) -> npt.NDArray[Any]:
    """One voxel of each 2 x 2 x 2; an odd axis has its last plane twice.

    Args:
        voxels: [D,H,W] of `VOXEL_DTYPE`.
        categories: that labels have.
    """
    odd = [(0, length % _FACTOR) for length in voxels.shape]
    voxels = np.pad(voxels, odd, mode="edge")
    d, h, w = to_triple([length // _FACTOR for length in voxels.shape])
    blocks = voxels.reshape(d, _FACTOR, h, _FACTOR, w, _FACTOR)
    within = (1, 3, 5)
    halved = np.empty((d, h, w), VOXEL_DTYPE)
    halved["image"] = blocks["image"].mean(axis=within, dtype=np.float32)
    votes = [(blocks["label"] == category).sum(axis=within) for category in range(categories)]
    halved["label"] = np.argmax(votes, axis=0)
    return halved


def _pack_subject(subject: PreparedSubject, folder: Path, number: int) -> int:
    voxels = halve(subject.open(), len(subject.metadata.recipe.label_values))
    metadata = _describe(subject.metadata, f"subject-{number:03}", voxels["label"])
    path = folder / f"{metadata.name}.npz"
    with open_replacing(path) as file:
        np.savez_compressed(file, image=voxels["image"], label=voxels["label"], metadata=np.array(metadata.to_json()))
    return path.stat().st_size


def _describe(metadata: Metadata, name: str, label: npt.NDArray[np.uint8]) -> Metadata:
    """As if it had been scanned so, nowhere in particular."""
    shape = to_triple(label.shape)
    x, y, z = (_FACTOR * length for length in metadata.spacing)
    return replace(
        metadata,
        name=name,
        original_shape=shape,
        box=tuple((0, length) for length in shape),
        affine=tuple(map(tuple, np.diag([x, y, z, 1.0]).tolist())),
        spacing=(x, y, z),
        sources={},
        digests={},
        warnings=(),
        tumour_voxels=_draw_tumour_voxels(label),
    )


def _draw_tumour_voxels(label: npt.NDArray[np.uint8]) -> tuple[tuple[int, int, int], ...]:
    tumour = np.argwhere(label)
    if len(tumour) > _MAX_TUMOUR_VOXELS:
        tumour = np.random.default_rng(0).choice(tumour, _MAX_TUMOUR_VOXELS, replace=False)
    return tuple(map(to_triple, tumour.tolist()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train.packed", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path, help="folder of the subjects")
    parser.add_argument("target", type=Path, help="folder that they are written to")
    options = parser.parse_args(arguments)
    try:
        if options.what == "pack":
            print(f"Packed {pack(options.source, options.target) / 1e6:.1f} MB into {options.target}")
        else:
            print(f"Unpacked {unpack(options.source, options.target)} subjects into {options.target}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
