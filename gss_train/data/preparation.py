"""Turns raw scans into prepared subjects: box of the brain, z-scores, category indices, one file per subject."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gss_train.data.conventions import MODALITIES, Dataset
from gss_train.data.prepared import (
    VOXEL_DTYPE,
    Metadata,
    PreparationSettings,
    PreparedError,
    PreparedSubject,
    SourceFile,
    Triple,
    read_prepared,
    sidecar_of,
)
from gss_train.data.volumes import Volume, VolumeError, read_volume
from gss_train.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gss_train.data.layouts import Subject

_VERSION = 1
_MAX_TUMOUR_VOXELS = 1024
_MAX_LISTED = 20
_MAX_WORKERS = 8  # each holds a whole subject, up to 1 GB
_GRID_TOLERANCE_MM = 0.01
_UNKNOWN_CATEGORY = 255

Floats = npt.NDArray[np.float32]


class PreparationError(UserError):
    """Raw files do not fit together; the message names them, what they are and what they should be."""


def prepare_dataset(
    subjects: Sequence[Subject],
    dataset: Dataset,
    folder: Path,
    minimum_size: Triple,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    grown_size: Triple | None = None,
) -> list[PreparedSubject]:
    """Prepares all subjects, those that are up to date excepted.

    Args:
        subjects: raw subjects, with different names.
        dataset: their edition.
        folder: where the prepared files go; made when missing.
        minimum_size: voxels per axis that every prepared volume has at least.
        workers: processes; 1 works in this process. Default: the processors at hand, at most 8.
        progress: called with the number of finished subjects and that of all subjects, at first with what was
            already there.
        grown_size: see `prepare_subject`.

    Returns:
        The prepared subjects in the order of `subjects`.

    Raises:
        PreparationError: raw files that cannot be read or do not fit together; one error lists all of them, after all
            other subjects are prepared.
        ValueError: two subjects of one name, or an impossible `minimum_size` or `workers`.
    """
    workers = _available_processors() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers: got {workers}, need at least 1")
    if len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("subjects: got two of the same name, need different names")
    prepared = {s.name: _up_to_date(s, _settings(dataset, minimum_size, grown_size), folder) for s in subjects}
    pending = [subject for subject in subjects if prepared[subject.name] is None]
    faults: list[str] = []
    finished = len(subjects) - len(pending)
    report = progress or (lambda _finished, _total: None)
    report(finished, len(subjects))
    for name, result in _attempt_all(pending, dataset, folder, minimum_size, grown_size, workers):
        if isinstance(result, PreparedSubject):
            prepared[name] = result
        else:
            faults.append(f"{name}: {result}")
        finished += 1
        report(finished, len(subjects))
    if faults:
        raise PreparationError(_list_faults(sorted(faults), len(subjects)))
    return [subject for subject in prepared.values() if subject is not None]


def prepare_subject(
    subject: Subject, dataset: Dataset, folder: Path, minimum_size: Triple, grown_size: Triple | None = None
) -> PreparedSubject:
    """Prepares one subject, or finds that it is up to date.

    The image is cut to the box of voxels that are non-zero in any modality, grown to `grown_size` where the raw volume
    allows, and padded with background to `minimum_size`. Each modality is normalised by the mean and standard
    deviation of the brain (voxels whose modalities' sum is above 0) over the whole box: the background becomes
    -mean/std, as in the public preprocessing of RFNet and mmFormer. Labels become category indices.

    `<name>.npy` gets the voxels and then `<name>.json` its description, both under a temporary name first: what a
    killed run leaves behind is never taken for complete.

    Args:
        subject: raw files; without a label, every voxel is background.
        dataset: its edition.
        folder: where the prepared files go; made when missing.
        minimum_size: voxels per axis that the prepared volume has at least.
        grown_size: voxels per axis that the box is grown to within the raw volume; 128 as published. Default:
            `minimum_size`.

    Raises:
        VolumeError: a file cannot be used.
        PreparationError: grids differ, a label value is unexpected, or there is no brain to normalise by.
        ValueError: an impossible `minimum_size`.
    """
    settings = _settings(dataset, minimum_size, grown_size)
    existing = _up_to_date(subject, settings, folder)
    if existing is not None:
        return existing
    # Taken before the files are read: one that changes meanwhile is then prepared again.
    sources = _sources(subject)
    voxels, metadata = _prepare(subject, dataset, settings, sources)
    path = _path_of(subject, folder)
    _write(path, voxels, metadata)
    return PreparedSubject(subject.name, path, metadata)


def _settings(dataset: Dataset, minimum_size: Triple, grown_size: Triple | None) -> PreparationSettings:
    grown_size = minimum_size if grown_size is None else grown_size
    for name, size in (("minimum_size", minimum_size), ("grown_size", grown_size)):
        if len(size) != 3 or min(size) < 1:
            raise ValueError(f"{name}: got {size}, need three sizes of at least 1 voxel")
    return PreparationSettings(
        _VERSION,
        dataset.name,
        dataset.label_values,
        _triple(minimum_size),
        _triple([max(sizes) for sizes in zip(minimum_size, grown_size, strict=True)]),
    )


def _sources(subject: Subject) -> dict[str, SourceFile]:
    paths = dict(subject.images) if subject.label is None else {**subject.images, "label": subject.label}
    stats = {role: path.stat() for role, path in paths.items()}
    return {role: SourceFile(str(paths[role]), stat.st_size, stat.st_mtime_ns) for role, stat in stats.items()}


def _path_of(subject: Subject, folder: Path) -> Path:
    return Path(folder) / f"{subject.name}.npy"


def _up_to_date(subject: Subject, settings: PreparationSettings, folder: Path) -> PreparedSubject | None:
    path = _path_of(subject, folder)
    if not sidecar_of(path).exists():
        return None
    try:
        prepared = read_prepared(path)
        prepared.open()
    except PreparedError:
        return None  # damaged: preparing it again is the cure
    # Raw files may move to another folder, but not change.
    known = {role: (source.size, source.mtime_ns) for role, source in prepared.metadata.sources.items()}
    now = {role: (source.size, source.mtime_ns) for role, source in _sources(subject).items()}
    return prepared if known == now and prepared.metadata.settings == settings else None


def _prepare(
    subject: Subject, dataset: Dataset, settings: PreparationSettings, sources: dict[str, SourceFile]
) -> tuple[npt.NDArray[Any], Metadata]:
    scans = {modality: read_volume(subject.images[modality]) for modality in MODALITIES}
    first = scans[MODALITIES[0]]
    _check_grids(subject, scans)
    box = _brain_box(subject, scans, settings.grown_size)
    inside = tuple(slice(start, stop) for start, stop in box)
    image = np.stack([scan.voxels[inside].astype(np.float32) for scan in scans.values()])
    label = _read_label(subject, dataset, first)[inside]
    mean, std = _brain_statistics(subject, image)
    background = -mean / std
    image -= mean[:, None, None, None]
    image /= std[:, None, None, None]
    padding = tuple(_padding(length, least) for length, least in zip(label.shape, settings.minimum_size, strict=True))
    voxels = _assemble(image, label, background, padding)
    metadata = Metadata(
        name=subject.name,
        grade=subject.grade,
        shape=_triple(voxels.shape),
        original_shape=_triple(first.voxels.shape),
        box=box,
        padding=padding,
        affine=tuple(tuple(row) for row in first.affine.tolist()),
        spacing=first.spacing,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        background=tuple(background.tolist()),
        sources=sources,
        settings=settings,
        tumour_voxels=_draw_tumour_voxels(voxels["label"]),
    )
    return voxels, metadata


def _triple(values: Sequence[int]) -> Triple:
    first, second, third = values
    return int(first), int(second), int(third)


def _check_grids(subject: Subject, scans: dict[str, Volume]) -> None:
    first = scans[MODALITIES[0]]
    for modality in MODALITIES[1:]:
        _check_same_grid(subject.images[modality], scans[modality], subject.images[MODALITIES[0]], first)


def _check_same_grid(path: Path, volume: Volume, first_path: Path, first: Volume) -> None:
    """Compares shapes, and affines by where they put the corners of the volume."""
    shape, first_shape = volume.voxels.shape, first.voxels.shape
    if shape != first_shape:
        raise PreparationError(f"{path}: has shape {shape}, should have {first_shape} as {first_path}")
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*np.subtract(shape, 1), 1)
    distance = float(np.abs((volume.affine - first.affine) @ corners.T).max())
    if distance > _GRID_TOLERANCE_MM:
        grids = f"has the affine {volume.affine.tolist()}, should have {first.affine.tolist()} as {first_path}"
        raise PreparationError(f"{path}: lies up to {distance:.3g} mm away from where it should: it {grids}")


def _brain_box(subject: Subject, scans: dict[str, Volume], grown_size: Triple) -> tuple[tuple[int, int], ...]:
    occupied = np.zeros(scans[MODALITIES[0]].voxels.shape, bool)
    for scan in scans.values():
        occupied |= scan.voxels != 0
    if not occupied.any():
        raise PreparationError(f"{subject.images[MODALITIES[0]]}: all modalities are 0 everywhere, should show a brain")
    box = []
    for axis, (length, least) in enumerate(zip(_triple(occupied.shape), grown_size, strict=True)):
        positions = np.flatnonzero(occupied.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(_grow(int(positions[0]), int(positions[-1]) + 1, least, length))
    return tuple(box)


def _grow(start: int, stop: int, least: int, length: int) -> tuple[int, int]:
    """Grows start:stop on both sides to `least` voxels, shifted or cut where 0:length ends."""
    missing = least - (stop - start)
    if missing <= 0:
        return start, stop
    start = max(0, min(start - missing // 2, length - least))
    return start, min(start + least, length)


def _padding(length: int, least: int) -> tuple[int, int]:
    missing = max(0, least - length)
    return missing // 2, missing - missing // 2


def _brain_statistics(subject: Subject, image: Floats) -> tuple[Floats, Floats]:
    brain = image.sum(axis=0) > 0
    if not brain.any():
        raise PreparationError(
            f"{subject.images[MODALITIES[0]]}: the modalities' sum is nowhere above 0, needs a brain"
        )
    mean = np.array([scan[brain].mean(dtype=np.float64) for scan in image], np.float32)
    std = np.array([scan[brain].std(dtype=np.float64) for scan in image], np.float32)
    for modality, spread, centre in zip(MODALITIES, std, mean, strict=True):
        if not spread > 0:
            path = subject.images[modality]
            raise PreparationError(f"{path}: every brain voxel of {modality} is {centre}, values should differ")
    return mean, std


def _read_label(subject: Subject, dataset: Dataset, first: Volume) -> npt.NDArray[np.uint8]:
    """Reads the annotation as category indices, over the whole raw grid: [D,H,W] uint8."""
    if subject.label is None:
        return np.zeros(first.voxels.shape, np.uint8)
    raw = read_volume(subject.label)
    _check_same_grid(subject.label, raw, subject.images[MODALITIES[0]], first)
    categories = np.full(raw.voxels.shape, _UNKNOWN_CATEGORY, np.uint8)
    for category, value in enumerate(dataset.label_values):
        categories[raw.voxels == value] = category
    unknown = categories == _UNKNOWN_CATEGORY
    if unknown.any():
        values = ", ".join(f"{value:g}" for value in np.unique(raw.voxels[unknown])[:_MAX_LISTED])
        expected = ", ".join(map(str, dataset.label_values))
        raise PreparationError(f"{subject.label}: holds label values {values}, should hold only {expected}")
    return categories


def _assemble(
    image: Floats, label: npt.NDArray[np.uint8], background: Floats, padding: Sequence[tuple[int, int]]
) -> npt.NDArray[Any]:
    """Interleaves the voxels of image [4,d,h,w] and label [d,h,w], surrounded by background."""
    shape = [before + length + after for length, (before, after) in zip(label.shape, padding, strict=True)]
    inside = tuple(slice(before, before + length) for length, (before, _) in zip(label.shape, padding, strict=True))
    voxels = np.zeros(shape, VOXEL_DTYPE)
    voxels["image"] = background
    voxels["image"][inside] = np.moveaxis(image, 0, -1)
    voxels["label"][inside] = label
    return voxels


def _draw_tumour_voxels(label: npt.NDArray[np.uint8]) -> tuple[Triple, ...]:
    tumour = np.flatnonzero(label)
    if len(tumour) > _MAX_TUMOUR_VOXELS:
        tumour = np.sort(np.random.default_rng(0).choice(tumour, _MAX_TUMOUR_VOXELS, replace=False))
    return tuple(_triple(voxel) for voxel in np.stack(np.unravel_index(tumour, label.shape), axis=-1))


def _write(path: Path, voxels: npt.NDArray[Any], metadata: Metadata) -> None:
    sidecar = sidecar_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The description of an earlier preparation must never stand beside newer voxels.
    sidecar.unlink(missing_ok=True)
    with _replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, voxels, allow_pickle=False)
    with _replacing(sidecar) as temporary:
        temporary.write_text(metadata.to_json(), encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and the file written there that of `path` unless writing it failed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _available_processors() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return min(count, _MAX_WORKERS)


def _attempt_all(
    subjects: Sequence[Subject],
    dataset: Dataset,
    folder: Path,
    minimum_size: Triple,
    grown_size: Triple | None,
    workers: int,
) -> Iterator[tuple[str, PreparedSubject | str]]:
    """Prepares subjects in any order; yields each one's name with its result, or with what is wrong with its files."""
    if min(workers, len(subjects)) <= 1:
        for subject in subjects:
            yield subject.name, _attempt(subject, dataset, folder, minimum_size, grown_size)
        return
    # Spawned, because a fork of a process with running threads can hang.
    pool = ProcessPoolExecutor(min(workers, len(subjects)), mp_context=multiprocessing.get_context("spawn"))
    try:
        names = {pool.submit(_attempt, s, dataset, folder, minimum_size, grown_size): s.name for s in subjects}
        for future in as_completed(names):
            yield names[future], future.result()
    except BrokenProcessPool as error:
        raise PreparationError(
            "a process that prepares subjects was killed, for want of memory most likely: "
            f"{workers} at a time need about 1 GB each"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(
    subject: Subject, dataset: Dataset, folder: Path, minimum_size: Triple, grown_size: Triple | None
) -> PreparedSubject | str:
    try:
        return prepare_subject(subject, dataset, folder, minimum_size, grown_size)
    except (VolumeError, PreparationError) as error:
        return str(error)


def _list_faults(faults: Sequence[str], total: int) -> str:
    shown = list(faults[:_MAX_LISTED])
    if len(faults) > _MAX_LISTED:
        shown.append(f"... and {len(faults) - _MAX_LISTED} more")
    return f"{len(faults)} of {total} subjects cannot be prepared:\n  " + "\n  ".join(shown)
