from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gss_train.common import amount, disk_room, memory_room
from gss_train.common.room import folder_bytes, host_memory_room

MEMINFO = "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    9000 kB\n"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """What Linux tells of a machine with 9000 kB, without control groups."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)
    (tmp_path / "proc" / "self" / "cgroup").write_text("")
    return tmp_path


def room(system: Path) -> int | None:
    return host_memory_room(system / "proc", system / "cgroup")


def write_group(folder: Path, limit: str, kept: int, reclaimable: int = 0, *, version: int = 2) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
    most, usage, files = names.get(version, ("memory.max", "memory.current", "inactive_file"))
    folder.mkdir(parents=True)
    (folder / most).write_text(f"{limit}\n")
    (folder / usage).write_text(f"{kept}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{files} {reclaimable}\n")


def test_without_limits_it_is_what_the_machine_has(system: Path) -> None:
    assert room(system) == 9000 * 1024


def test_a_system_that_says_nothing_is_not_known(tmp_path: Path) -> None:
    assert room(tmp_path) is None


@pytest.mark.parametrize(("version", "line"), [(2, "0::/job/step\n"), (1, "5:cpu,memory:/job/step\n3:pids:/\n")])
def test_the_tightest_control_group_counts(version: int, line: str, system: Path) -> None:
    """Its own, or one around it; what copies of files take gives way."""
    (system / "proc" / "self" / "cgroup").write_text(line)
    groups = system / "cgroup" if version == 2 else system / "cgroup" / "memory"
    write_group(groups / "job", "1000000", 700_000, 50_000, version=version)
    assert room(system) == 350_000
    write_group(groups / "job" / "step", "800000", 600_000, version=version)
    assert room(system) == 200_000


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, str(2**63 - 4096))])
def test_a_group_without_a_limit_has_what_the_machine_has(version: int, limit: str, system: Path) -> None:
    (system / "proc" / "self" / "cgroup").write_text("0::/\n" if version == 2 else "5:memory:/\n")
    write_group(system / "cgroup" / ("" if version == 2 else "memory"), limit, 5, version=version)
    assert room(system) == 9000 * 1024


def test_in_a_container_the_groups_may_have_other_paths(system: Path) -> None:
    (system / "proc" / "self" / "cgroup").write_text("0::/of/the/host\n")
    write_group(system / "cgroup", "500000", 600_000)
    assert room(system) == 0


def test_this_machine_has_some() -> None:
    assert memory_room(torch.device("cpu")) or not Path("/proc/meminfo").exists()


def test_a_path_that_is_to_be_made_is_where_its_nearest_folder_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "a" / "b", tmp_path / "file"):
        found = disk_room(path)
        assert found.folder == tmp_path
        assert found.file_system == tmp_path.stat().st_dev
        assert found.free > 0


@pytest.mark.parametrize(
    ("count", "said"), [(9.84e9, "9.84 GB"), (139e9, "139 GB"), (1e12, "1000 GB"), (73e6, "73 MB"), (20_400, "20.4 kB")]
)
def test_bytes_are_said_in_three_digits(count: float, said: str) -> None:
    assert amount(count) == said


def test_what_may_not_be_read_is_not_known(tmp_path: Path) -> None:
    """Asking must not end a run."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").mkdir()
    (tmp_path / "proc" / "self" / "cgroup").write_text("nonsense\n")
    assert host_memory_room(tmp_path / "proc", tmp_path / "groups") is None


def test_bytes_of_a_folder_are_those_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).write_bytes(b"xyz")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert folder_bytes(tmp_path) == 6
    assert folder_bytes(tmp_path / "missing") == 0
