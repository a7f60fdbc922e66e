"""Write a phantom data set: which subjects, in which folder, by how many workers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gss_train.phantom.grid import Grid
from gss_train.phantom.writers import SubjectFiles, subject_files, write_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from gss_train.data import Dataset
    from gss_train.phantom.anatomy import Atlas

PHANTOM_DATASETS = ("brats2015", "brats2018", "brats2020")
GENERATOR_VERSION = 1
DEFAULT_SIZE = (96, 112, 96)
SETTINGS_FILE = "phantom.json"
SMALLEST_SIZE = 24
PARTIAL_PREFIX = ".partial-"


@dataclass(frozen=True)
class Settings:
    """What determines every byte of a phantom; kept in its `phantom.json`."""

    dataset: str
    subjects: int
    seed: int
    size: tuple[int, int, int]
    compressed: bool
    generator_version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        if self.subjects < 1:
            raise ValueError(f"subjects: got {self.subjects}, need at least 1")
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, need 0 or more")
        if len(self.size) != 3 or min(self.size) < SMALLEST_SIZE:
            raise ValueError(f"size: got {self.size}, need three voxel counts of at least {SMALLEST_SIZE}")

    def files(self, index: int) -> SubjectFiles:
        """Where subject `index` goes."""
        return subject_files(self.dataset, index, high_grade=is_high_grade(index), compressed=self.compressed)


def is_high_grade(index: int) -> bool:
    """Grade of subject `index`: every fourth is an LGG, the proportion of BraTS."""
    return index % 4 != 3


def generate_phantoms(
    dataset: Dataset | str,
    out: Path,
    subjects: int,
    seed: int,
    size: tuple[int, int, int] = DEFAULT_SIZE,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    compressed: bool = True,
) -> list[Path]:
    """Simulate brain tumour subjects and write them in the raw layout of a BraTS edition.

    A subject depends on `dataset`, `seed`, `size` and its number alone. A phantom of the same settings is kept:
    finished subjects are not written again, missing ones are added.

    Args:
        dataset: a data set of `gss_train.data.conventions`, or its name.
        out: the data set's root; made if missing.
        subjects: number of subjects; every fourth is an LGG.
        seed: 0 or more.
        size: voxels along x (left-right), y and z. The spacing follows, so that the head fills the grid.
        workers: subjects simulated at a time; by default one for each processor, at most 8, each of which needs about
            1.5 GB for the grid of BraTS.
        progress: called with the numbers of subjects done and asked for, in the calling thread.
        compressed: `.nii.gz` rather than `.nii` for the NIfTI editions.

    Returns:
        The subjects' folders in order.

    Raises:
        ValueError: an unknown data set, or a number out of range.
        FileExistsError: `out` holds something other than a phantom of these settings.
        ModuleNotFoundError: a package of the `demo` or `train` extra is missing.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: got {workers}, need at least 1")
    name, label_values = _resolve(dataset)
    settings = Settings(name, subjects, seed, size, compressed)
    out = Path(out)
    folders = [out / settings.files(index).folder for index in range(subjects)]
    _claim(out, settings)
    missing = [index for index, folder in enumerate(folders) if not folder.is_dir()]
    if progress is not None:
        progress(subjects - len(missing), subjects)
    if missing:
        _require_packages(settings)
        _write_subjects(out, settings, label_values, missing, workers, progress)
    return folders


def _resolve(dataset: Dataset | str) -> tuple[str, tuple[int, ...]]:
    """Name of a data set and the label values of BG, NCR, ED, NET and ET in its files."""
    from gss_train.data import DATASETS  # noqa: PLC0415 (imports torch)

    name = dataset if isinstance(dataset, str) else dataset.name
    if name not in PHANTOM_DATASETS:
        raise ValueError(f"dataset: got {name!r}, need one of {', '.join(map(repr, PHANTOM_DATASETS))}")
    if isinstance(dataset, str):
        dataset = DATASETS[dataset]
    pairs = zip(dataset.categories, dataset.label_values, strict=True)
    values = {part: value for category, value in pairs for part in category.split("/")}
    return dataset.name, tuple(values[category] for category in ("BG", "NCR", "ED", "NET", "ET"))


def _claim(out: Path, settings: Settings) -> None:
    """Make `out` the phantom of `settings`, or refuse."""
    record = out / SETTINGS_FILE
    wanted = json.loads(json.dumps(asdict(settings)))
    advice = "choose another folder or empty this one"
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out: {out} is a file, need a directory")
    if record.is_file():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise FileExistsError(f"out: {record} is not the record of a phantom ({error}); {advice}") from error
        if found != wanted:
            raise FileExistsError(f"out: {out} holds a phantom with the settings {found}, not {wanted}; {advice}")
        for partial in out.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(partial)
        return
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"out: {out} is not empty and not a phantom (it has no {SETTINGS_FILE}); {advice}")
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def _require_packages(settings: Settings) -> None:
    writer = "SimpleITK" if settings.dataset == "brats2015" else "nibabel"
    for package in ("nilearn", "scipy", writer):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f'the phantom needs {package}: pip install -e ".[demo]" in a clone of this repository', name=package
            )


def _write_subjects(
    out: Path,
    settings: Settings,
    label_values: tuple[int, ...],
    indices: list[int],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    from gss_train.phantom.anatomy import load_atlas  # noqa: PLC0415 (imports scipy)

    grid = Grid.for_brain(settings.size)
    atlas = load_atlas(grid.spacing)
    if workers is None:
        workers = min(os.cpu_count() or 1, 8)
    # Threads, because NumPy, SciPy and zlib release the interpreter's lock: processes would be no faster, and each
    # would import the caller's main module, often with torch.
    with ThreadPoolExecutor(min(workers, len(indices))) as pool:
        pending = [pool.submit(_write_subject, atlas, grid, out, settings, label_values, index) for index in indices]
        try:
            for done, future in enumerate(as_completed(pending), start=settings.subjects - len(indices) + 1):
                future.result()
                if progress is not None:
                    progress(done, settings.subjects)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_subject(
    atlas: Atlas, grid: Grid, out: Path, settings: Settings, label_values: tuple[int, ...], index: int
) -> None:
    """Write a subject next to its place and move it there when complete."""
    from gss_train.phantom.subject import simulate_subject  # noqa: PLC0415 (imports scipy)

    subject = simulate_subject(atlas, grid, settings.seed, index, high_grade=is_high_grade(index))
    files = settings.files(index)
    target = out / files.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=out) as partial:
        folder = Path(partial) / target.name
        for modality, file in files.images.items():
            write_volume(folder / file, subject.images[modality], grid.spacing)
        label = np.array(label_values, dtype=np.uint8)[subject.categories]
        write_volume(folder / files.label, label, grid.spacing)
        folder.rename(target)
