"""What the cache of prepared subjects and phantoms holds, and how it is emptied."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gss_train.common import UserError, amount, folder_bytes
from gss_train.data import InUseError, delete_indexed, indexed_files, is_indexed, millimetres, read_index

_PREPARED, _PHANTOM = "prepared", "phantom"
_MOST_NAMES = 10


class _Row(NamedTuple):
    folder: Path
    size: int
    content: str


def prepared_folder(cache: Path, name: str) -> Path:
    """Where the prepared volumes of a data set go."""
    return cache / _PREPARED / name


def phantom_folder(cache: Path, name: str) -> Path:
    """Where the scans of a phantom go."""
    return cache / _PHANTOM / name


def describe_cache(cache: Path) -> str:
    """Lists the folders of a cache for people, with what they hold and how large it is."""
    rows = [
        *(_describe_prepared(folder) for folder in _folders(cache / _PREPARED)),
        *(_Row(folder, folder_bytes(folder), "scans of a phantom") for folder in _folders(cache / _PHANTOM)),
    ]
    if not rows:
        return f"{cache} holds nothing"
    width = max(len(str(row.folder.relative_to(cache))) for row in rows) + 2
    lines = [f"{row.folder.relative_to(cache)!s:{width}}{amount(row.size):>9}  {row.content}" for row in rows]
    total = f"{'all together':{width}}{amount(sum(row.size for row in rows)):>9}"
    return "\n".join([f"{cache} holds:", *lines, total])


def clean_cache(cache: Path, dataset: str | None = None) -> bool:
    """List the prepared files that the indexes of a cache name, and then delete them.

    Args:
        cache: folder of all prepared data sets.
        dataset: whose files go; None: those of all.

    Returns:
        Whether all of them went; not those that another process needs.

    Raises:
        UserError: an index is damaged, and nothing is deleted; or there are no locks.
        OSError: a file cannot be deleted.
    """
    indexed = [folder for folder in _folders(cache / _PREPARED) if is_indexed(folder)]
    datasets = {folder: {file.dataset for file in read_index(folder)} for folder in indexed}
    chosen = [folder for folder in indexed if dataset is None or datasets[folder] == {dataset}]
    files = {folder: indexed_files(folder) for folder in chosen}
    for folder in chosen:
        print(f"{folder}: {_count(len(files[folder]))}, {amount(_size(files[folder]))}, to be deleted", flush=True)
    if not chosen:
        print(f"{cache} holds no prepared files" + ("" if dataset is None else f" of {dataset}"))
    cleaned = [_clean(folder) for folder in chosen]
    return all(cleaned)


def _clean(folder: Path) -> bool:
    try:
        left = delete_indexed(folder)
    except InUseError as error:
        print(f"Left alone: {error}", flush=True)
        return False
    named = ", ".join(left[:_MOST_NAMES]) + (f" and {len(left) - _MOST_NAMES} more" if left[_MOST_NAMES:] else "")
    print(f"Deleted: {folder}" + (f", but not what its index does not name: {named}" if left else ""), flush=True)
    return True


def _describe_prepared(folder: Path) -> _Row:
    everything = folder_bytes(folder)
    if not is_indexed(folder):
        return _Row(folder, everything, "of an earlier version: not used any more, may be deleted by hand")
    try:
        index, files = read_index(folder), indexed_files(folder)
    except (UserError, OSError) as error:
        return _Row(folder, everything, str(error))
    content = [f"{sum(path.suffix == '.json' for path in files)} subjects"]
    if index:
        spacing, box = index[-1].spacing, "released" if index[-1].released_box else "whole"
        content += ["voxels as scanned" if spacing is None else f"voxels of {millimetres(spacing)}", f"{box} box"]
    return _Row(folder, _size(files), ", ".join(content))


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _size(files: Sequence[Path]) -> int:
    total = 0
    for path in files:
        # Another process may finish or remove a file meanwhile.
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _count(files: int) -> str:
    return f"{files} file{'s' * (files != 1)}"
