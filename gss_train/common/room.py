"""What room there is: on the file system of a path, and in the memory of a device."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_KILOBYTE = 1024


@dataclass(frozen=True)
class DiskRoom:
    """What is free where a path is, or is to be made.

    Attributes:
        folder: the nearest that is there.
        file_system: number of its file system; two folders of the same number share what is free.
        free: bytes.
    """

    folder: Path
    file_system: int
    free: int


def disk_room(path: Path) -> DiskRoom:
    """What is free where a path is, or is to be made.

    Raises:
        OSError: the file system cannot be asked.
    """
    path = path.absolute()
    folder = next(place for place in (path, *path.parents) if place.is_dir())
    return DiskRoom(folder, folder.stat().st_dev, shutil.disk_usage(folder).free)


def memory_room(device: torch.device) -> int | None:
    """Bytes that this process can still take on a device, with what PyTorch has taken there and holds ready.

    On the CPU, what the machine and the control groups of this process leave, processes of others included; None where
    the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return host_memory_room()


def host_memory_room(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of main memory that this process can still take; None where the system does not say.

    Args:
        proc: where Linux tells of itself.
        groups: where it tells of control groups, version 1 or 2, whose limits those of containers and jobs are.
    """
    left: list[int] = []
    for told in (_left_by_machine(proc / "meminfo"), _left_by_groups(proc / "self" / "cgroup", groups)):
        # What may not be read, or is told in another way, is not known.
        with suppress(OSError, ValueError, IndexError):
            left += list(told)
    return min(left, default=None)


def folder_bytes(folder: Path) -> int:
    """Of all files below a folder, which others may be writing to; 0 where it is not there."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _left_by_machine(path: Path) -> Iterator[int]:
    lines = path.read_text().splitlines() if path.exists() else []
    yield from (int(line.split()[1]) * _KILOBYTE for line in lines if line.startswith("MemAvailable:"))


def _left_by_groups(membership: Path, groups: Path) -> Iterator[int]:
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, own = line.split(":", maxsplit=2)
        if controllers == "":
            root, files = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, files = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = Path(own).parts[1:]
        # A group has no more than those around it. In a container they may be out of sight.
        for depth in range(len(parts) + 1):
            yield from _left_by_group(root.joinpath(*parts[:depth]), *files)


def _left_by_group(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    if not (folder / limit).exists() or not (folder / usage).exists():
        return
    most = (folder / limit).read_text().strip()
    if most == "max":
        return
    kept = int((folder / usage).read_text())
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # Copies of files, which give way.
    yield max(0, int(most) - kept + int(statistics.get(reclaimable, 0)))
