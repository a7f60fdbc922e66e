"""Runs in made-up rooms: nothing large is written, no memory is taken."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gss_train.common import ALONE, DiskRoom, Processes, UserError
from gss_train.config import parse_config
from gss_train.data import DATASETS
from gss_train.experiment import main as experiment
from gss_train.models import build_network
from gss_train.runs import save_checkpoint
from gss_train.subjects import expect_volumes, find_source
from gss_train.training.disk import Disks, RunSize, describe_lack, find_smaller_runs
from gss_train.training.plan import Drawing, TrainingPlan, plan_training
from gss_train.training.resources import check_resources
from gss_train.training.update import AdamSettings, GuardedUpdate
from tests.gss_train.training.tiny import SETTINGS, run, write_scans

AMPLE = 10**12
Rooms = Callable[..., None]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", 5)


@pytest.fixture
def fresh(tmp_path: Path, scans: Path) -> Path:
    """A folder whose `scans` have no cache beside them yet."""
    (tmp_path / "scans").symlink_to(scans)
    return tmp_path / "scans"


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    """Sets what is free: in memory, where the run is and, on a file system of its own if it is given, in the cache."""

    def set_rooms(memory: int | None = AMPLE, output: int = AMPLE, cache: int | None = None) -> None:
        def disk_room(path: Path) -> DiskRoom:
            if cache is not None and path.name == "cache":
                return DiskRoom(Path("/cache-disk"), 2, cache)
            return DiskRoom(Path("/run-disk"), 1, output)

        monkeypatch.setattr("gss_train.training.resources.memory_room", lambda _device: memory)
        monkeypatch.setattr("gss_train.training.resources.disk_room", disk_room)

    return set_rooms


def plan_of(scans: Path, *flags: str) -> TrainingPlan:
    places = ["--data-root", str(scans), "--cache", str(scans.with_name("cache"))]
    config = parse_config([*SETTINGS, *places, "--output", str(scans.with_name("planned")), *flags])
    device, drawing = torch.device("cpu"), Drawing(lambda *_: None, lambda *_: None)
    return plan_training(config, DATASETS["brats2020"], device, ALONE, drawing)


def size_of(plan: TrainingPlan) -> RunSize:
    source = find_source(plan.config, plan.dataset)
    network = build_network("uhved", 4, crop_size=16, width=plan.config.network.width)
    return RunSize.of(plan, network, source, expect_volumes(source.used))


@pytest.mark.parametrize("room", [900_000_000, 400_000_000])
def test_too_little_memory_ends_the_run_before_anything_is_written(
    room: int, fresh: Path, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings that it names are then accepted."""
    rooms(memory=room)
    crops = ["--crop-size", "64", "--batch-size", "4"]
    assert run(fresh, fresh.with_name("run"), *crops) == 2
    said = capsys.readouterr()
    assert "error: there is too little room to train:\nMemory: " in said.err
    assert f"of {room // 1_000_000} MB free on cpu" in said.err
    assert "--ignore-resources" in said.err
    assert {path.name for path in fresh.parent.iterdir()} == {"scans"}
    named = re.findall(r"^    (--.+): \d+ MB", said.err, re.MULTILINE)
    assert named

    def accept(*_: object) -> None:
        raise UserError("accepted")

    monkeypatch.setattr("gss_train.training.run._prepare_in_turn", accept)
    for flags in named:
        assert run(fresh, fresh.with_name("run"), *crops, *flags.split()) == 2
        assert "error: accepted" in capsys.readouterr().err


def test_where_no_setting_fits_the_least_is_said(fresh: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]) -> None:
    rooms(memory=1_000_000)
    assert run(fresh, fresh.with_name("run")) == 2
    assert re.search(r"No setting would fit: by prediction \d+ MB are the least", capsys.readouterr().err)


def test_too_small_a_disk_ends_the_run_before_anything_is_written(
    fresh: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]
) -> None:
    size = size_of(plan_of(fresh))
    rooms(output=sum(size.run_bytes.values()) + size.prepared_bytes - 100_000)
    assert run(fresh, fresh.with_name("run")) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"Disk: .* for the run and .* for prepared scans expected of .* free at /run-disk: 100 kB too", said
    )
    assert "another --output" in said
    assert {path.name for path in fresh.parent.iterdir()} == {"scans"}
    assert "    --keep-checkpoints 1: " in said
    assert run(fresh, fresh.with_name("run"), "--keep-checkpoints", "1") == 0


@pytest.mark.parametrize(
    ("full", "flag", "other"), [("output", "--output", "--cache"), ("cache", "--cache", "--output")]
)
def test_each_file_system_has_to_hold_its_part(
    full: str, flag: str, other: str, fresh: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms(**{"output": AMPLE, "cache": AMPLE, full: 10_000})
    assert run(fresh, fresh.with_name("run")) == 2
    said = capsys.readouterr()
    assert said.out.count("\nDisk: ") == 2
    assert said.err.count("\nDisk: ") == 1
    assert f"another {flag}, on a file system with" in said.err
    assert f"another {other}" not in said.err


@pytest.mark.parametrize("short_of", [{"memory": 1_000_000}, {"output": 10_000}])
def test_who_is_to_go_on_all_the_same_is_warned(
    short_of: dict[str, int], fresh: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms(**short_of)
    assert run(fresh, fresh.with_name("run"), "--ignore-resources") == 0
    assert "Warning: there may be too little room to train:\n" in capsys.readouterr().out


def test_a_run_that_goes_on_is_warned(
    scans: Path, tmp_path: Path, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms()
    with monkeypatch.context() as patch:
        patch.setattr("gss_train.training.run.finish", _fail)
        with pytest.raises(RuntimeError, match="killed"):
            run(scans, tmp_path / "run")
    rooms(memory=1_000_000, output=10_000)
    assert run(scans, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "Warning: there may be too little room to train; of a run that goes on only" in said
    assert "Going on after step" in said


def _fail(*_: object) -> None:
    raise RuntimeError("killed")


def test_a_phantom_is_never_stopped(scans: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]) -> None:
    """Scans that are there take its place: making one takes seconds."""
    rooms(memory=1_000_000, output=10_000)
    plan = plan_of(scans)
    source, network = find_source(plan.config, plan.dataset), build_network("uhved", 4, crop_size=16, width=2)
    with pytest.raises(UserError, match="too little room"):
        check_resources(plan, network, source)
    phantom = parse_config([*SETTINGS, "--output", str(scans.with_name("planned"))])
    check_resources(dataclasses.replace(plan, config=phantom), network, source)
    assert "Warning: there may be too little room to train:\n" in capsys.readouterr().out


def test_where_the_system_does_not_say_what_is_free_the_line_does(
    scans: Path, tmp_path: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms(memory=None)
    assert run(scans, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "the system does not say what is free, it is not compared" in said
    # Prepared by another test, or by this one.
    assert re.search(r"\nDisk: [\d.]+ MB for the run (and .* )?expected of 1000 GB free at /run-disk\n", said)


def test_an_experiment_ends_as_its_run_would(fresh: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]) -> None:
    rooms(memory=1_000_000)
    places = ["--data-root", str(fresh), "--cache", str(fresh.with_name("cache"))]
    places += ["--output", str(fresh.with_name("experiment"))]
    settings = [*SETTINGS[: SETTINGS.index("--network")], *SETTINGS[SETTINGS.index("--network") + 2 :]]
    settings[settings.index("none")] = "dice"
    assert experiment([*settings, *places, "--networks", "uhved", "--seeds", "0"]) == 2
    assert "there is too little room to train" in capsys.readouterr().err
    assert {path.name for path in fresh.parent.iterdir()} == {"scans"}


class _Second(Processes):
    """One of two processes on a machine, the other of which has too little room."""

    def any(self, _flag: bool) -> bool:
        return True

    def gather(self, number: int) -> list[int]:
        return [number, number]


def test_all_processes_end_with_the_one_that_has_too_little(
    scans: Path, rooms: Rooms, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms(memory=AMPLE)
    plan = plan_of(scans)
    source, network = find_source(plan.config, plan.dataset), build_network("uhved", 4, crop_size=16, width=2)
    two = dataclasses.replace(plan, processes=_Second(rank=1, size=2))
    with pytest.raises(UserError, match="Another of the processes"):
        check_resources(two, network, source)
    # They share the memory of the machine.
    assert "of 500 GB free on cpu" in capsys.readouterr().out


@pytest.mark.parametrize(("network", "width"), [("rfnet", 4), ("mmformer", 4), ("robustseg", 4), ("uhved", 4)])
@pytest.mark.parametrize("flags", [["--amsgrad"], ["--no-amsgrad", "--ema", "0.9"]])
def test_checkpoints_are_as_large_as_expected(network: str, width: int, flags: list[str], scans: Path) -> None:
    edge = 48 if network == "mmformer" else 16
    options = ["--network", network, "--width", str(width), "--crop-size", str(edge)]
    plan = plan_of(scans, *options, *flags)
    built = build_network(network, 4, crop_size=edge, width=width)
    source = find_source(plan.config, plan.dataset)
    size = RunSize.of(plan, built, source, None)
    update = GuardedUpdate(built.parameters(), AdamSettings.of(plan.config.training), plan.device)
    for parameter in built.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update.step(torch.tensor(True))
    weights = built.state_dict()
    # Copies: the same tensor twice would be stored once.
    averaged = {name: weight.clone() for name, weight in weights.items()} if "--ema" in flags else None
    path = scans.with_name("checkpoint.pt")
    for moments, expected in ((update.state_dict(), size.checkpoint_bytes), (None, size.stage_end_bytes)):
        save_checkpoint(path, {"weights": weights, "averaged": averaged, "update": moments})
        assert path.stat().st_size == pytest.approx(expected, rel=0.01)


def test_a_run_writes_no_more_than_expected(scans: Path, tmp_path: Path) -> None:
    flags = ["--validate-every", "1", "--final-evaluation", "dice"]
    output = tmp_path / "run"
    size = size_of(plan_of(scans, *flags))
    assert run(scans, output, *flags) == 0
    parts = size.run_bytes
    ends = sum(path.stat().st_size for path in output.glob("*.pt"))
    assert ends == pytest.approx(parts["ends of stages"], rel=0.02)
    names = {path for path in output.rglob("*") if path.is_file() and path.suffix != ".pt"}
    others = sum(path.stat().st_size for path in names)
    assert others < parts["figures and records"] + parts["evaluation"]
    assert sum(path.stat().st_size for path in (output / "checkpoints").iterdir()) < parts["checkpoints"]


def test_prepared_scans_take_what_is_expected_and_count_once(fresh: Path) -> None:
    size = size_of(plan_of(fresh))
    assert run(fresh, fresh.with_name("run")) == 0
    (folder,) = fresh.with_name("cache").glob("prepared/*")
    found = sum(path.stat().st_size for path in folder.iterdir())
    assert 0.7 * size.prepared_bytes < found <= size.prepared_bytes
    assert size_of(plan_of(fresh)).prepared_bytes == 0


@pytest.mark.parametrize("share", [0.95, 0.8, 0.5])
def test_smaller_runs_that_are_named_fit(share: float, fresh: Path) -> None:
    settings = ["--keep-checkpoints", "3", "--figure-every", "1", "--epochs", "9"]
    size = size_of(plan_of(fresh, *settings))
    total = sum(size.run_bytes.values()) + size.prepared_bytes
    room = DiskRoom(fresh, 1, int(share * total))
    disks = Disks(room, room)
    assert not disks.have_room(size)
    said = "\n".join(describe_lack(size, disks))
    found = dict(find_smaller_runs(size, disks))
    assert found or share == 0.5
    for flags, smaller in found.items():
        assert f"    {flags}: " in said
        again = size_of(plan_of(fresh, *settings, *flags.split()))
        assert disks.have_room(again)
        assert again.run_bytes == smaller.run_bytes
        assert again.prepared_bytes == smaller.prepared_bytes
