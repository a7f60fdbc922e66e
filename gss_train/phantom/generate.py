"""Write a phantom data set: which subjects, in which folder, by how many workers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gss_train.common import Triple
from gss_train.data import DATASETS
from gss_train.phantom.anatomy import Atlas, load_atlas
from gss_train.phantom.grid import Grid
from gss_train.phantom.settings import DEFAULT_SIZE, Settings, is_high_grade
from gss_train.phantom.subject import simulate_subject
from gss_train.phantom.writers import write_volume

SETTINGS_FILE = "phantom.json"
PARTIAL_PREFIX = ".partial-"


def generate_phantoms(
    dataset: str,
    out: Path,
    subjects: int,
    seed: int,
    size: Triple = DEFAULT_SIZE,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    compressed: bool = True,
) -> list[Path]:
    """Simulate brain tumour subjects and write them in the raw layout of a BraTS edition.

    A subject depends on `dataset`, `seed`, `size` and its number alone. A phantom of the same settings is kept:
    finished subjects are not written again, missing ones are added.

    Args:
        dataset: one of `PHANTOM_DATASETS`.
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
    settings = Settings(dataset, subjects, seed, size, compressed)
    out = Path(out)
    folders = [out / settings.files(index).folder for index in range(subjects)]
    _claim(out, settings)
    missing = [index for index, folder in enumerate(folders) if not folder.is_dir()]
    if progress is not None:
        progress(subjects - len(missing), subjects)
    if missing:
        _require_packages(settings)
        for done in _write_subjects(out, settings, missing, workers or min(os.cpu_count() or 1, 8)):
            if progress is not None:
                progress(subjects - len(missing) + done, subjects)
    return folders


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
    for package in ("nilearn", writer):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f'the phantom needs {package}: pip install -e ".[demo]" in a clone of this repository', name=package
            )


def _write_subjects(out: Path, settings: Settings, indices: Sequence[int], workers: int) -> Iterator[int]:
    """Yields how many are written."""
    grid = Grid.for_brain(settings.size)
    atlas = load_atlas(grid.spacing)
    # Threads, because NumPy, SciPy and zlib release the interpreter's lock: processes would be no faster, and each
    # would import the caller's main module, often with torch.
    with ThreadPoolExecutor(min(workers, len(indices))) as pool:
        pending = [pool.submit(_write_subject, atlas, grid, out, settings, index) for index in indices]
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                future.result()
                yield done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_subject(atlas: Atlas, grid: Grid, out: Path, settings: Settings, index: int) -> None:
    """Write a subject next to its place and move it there when complete."""
    subject = simulate_subject(atlas, grid, settings.seed, index, high_grade=is_high_grade(index))
    files = settings.files(index)
    target = out / files.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=out) as partial:
        folder = Path(partial) / target.name
        for modality, file in files.images.items():
            write_volume(folder / file, subject.images[modality], grid.spacing)
        write_volume(folder / files.label, _label_values(settings.dataset)[subject.categories], grid.spacing)
        folder.rename(target)


def _label_values(dataset: str) -> NDArray[np.uint8]:
    """Values of BG, NCR, ED, NET and ET in a data set's label files; some join two of them in one category."""
    pairs = zip(DATASETS[dataset].categories, DATASETS[dataset].label_values, strict=True)
    values = {part: value for category, value in pairs for part in category.split("/")}
    return np.array([values[category] for category in ("BG", "NCR", "ED", "NET", "ET")], np.uint8)
