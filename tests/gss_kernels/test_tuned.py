"""What a launch takes: what was measured and is in the cache folder, or the table's; and how it is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)

import triton
from triton.runtime.errors import OutOfResources

from gss_kernels import BRATS_2018, gss_soft_targets, tune
from gss_kernels.triton import group, supervised, triton_soft_targets, tuned, tuner
from gss_kernels.triton.configuration import TABLE, Configuration, KernelName
from gss_kernels.triton.launch import block_of
from gss_kernels.triton.tuned import Launch, configuration_for

CPU = torch.device("cpu")
CARD = "A card"
LAUNCH = Launch(CARD, triton.__version__, "forward", 4, 4, False, "float32")
ARGUMENTS: tuple[Any, ...] = ("forward", 4, 4, False, torch.float32, CPU)
FOUND = Configuration(voxels_per_thread=4, num_warps=8, programs_per_multiprocessor=3)
RECORD = dataclasses.asdict(LAUNCH) | dataclasses.asdict(FOUND)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache folder, and a card for the CPU."""
    monkeypatch.setenv("GSS_KERNELS_CACHE", str(tmp_path))
    monkeypatch.setattr(tuned, "card_name", lambda device: CARD)
    tuned.forget()
    yield tmp_path
    tuned.forget()


def contents(*records: object) -> bytes:
    return json.dumps({"format": 1, "fastest": records}).encode()


def test_what_is_saved_is_launched() -> None:
    before = configuration_for(*ARGUMENTS)
    tuned.save({LAUNCH: FOUND})
    assert before == TABLE.forward
    assert configuration_for(*ARGUMENTS) == FOUND


def test_saving_keeps_other_launches_and_replaces_the_same(folder: Path) -> None:
    other = dataclasses.replace(LAUNCH, card="Another card", kernel="backward", supervised=True, dtype="bfloat16")
    tuned.save({LAUNCH: TABLE.forward, other: FOUND})
    path = tuned.save({LAUNCH: FOUND})
    assert tuned.read(path) == {LAUNCH: FOUND, other: FOUND}
    assert {file.name for file in folder.iterdir()} == {"tuned.json", "tuned.lock"}


@pytest.mark.parametrize("kernel", get_args(KernelName))
def test_whatever_is_tried_can_be_saved(kernel: KernelName) -> None:
    launch = dataclasses.replace(LAUNCH, kernel=kernel)
    tried = tuner.alternatives(launch)
    assert launch.from_table() in tried
    choices = {dataclasses.replace(launch, modalities=2 + i): own for i, own in enumerate(tried)}
    assert tuned.read(tuned.save(choices)) == choices


@pytest.mark.parametrize(
    "change",
    [
        {"card": "Another card"},
        {"triton_version": "3.5.0"},
        {"kernel": "backward"},
        {"modalities": 3},
        {"categories": 5},
        {"supervised": True},
        {"dtype": "bfloat16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_launches_take_the_table(change: dict[str, Any]) -> None:
    tuned.save({dataclasses.replace(LAUNCH, **change): FOUND})
    assert configuration_for(*ARGUMENTS) == TABLE.forward


def test_the_file_is_read_once(folder: Path) -> None:
    tuned.save({})
    configuration_for("backward", *ARGUMENTS[1:])
    (folder / "tuned.json").write_bytes(contents(RECORD))
    assert configuration_for(*ARGUMENTS) == TABLE.forward


_DAMAGED = {
    "empty": b"",
    "half": contents(RECORD)[:-9],
    "bytes": b"\xff\xfe\xfd",
    "brackets": b"[" * 100_000,
    "large": contents(*[RECORD] * 5000),
    "list": b"[]",
    "no_list": b'{"format": 1}',
    "other_format": b'{"format": 2, "fastest": []}',
    "number_for_record": contents(7),
    "field_missing": contents({name: value for name, value in RECORD.items() if name != "num_warps"}),
    "field_unknown": contents(RECORD | {"num_stages": 2}),
}
_WRONG_VALUES = [
    ("voxels_per_thread", 3),
    ("voxels_per_thread", 8),
    ("voxels_per_thread", True),
    ("num_warps", 6),
    ("num_warps", 0),
    ("num_warps", 64),
    ("num_warps", "4"),
    ("num_warps", 4.0),
    ("num_warps", [4]),
    ("programs_per_multiprocessor", 0),
    ("programs_per_multiprocessor", 1000),
    ("programs_per_multiprocessor", None),
    ("kernel", "finish"),
    ("kernel", ["forward"]),
    ("supervised", 0),
    ("dtype", "float64"),
    ("modalities", 0),
    ("categories", -4),
    ("card", 5),
    ("triton_version", {}),
]


@pytest.mark.parametrize("content", _DAMAGED.values(), ids=_DAMAGED)
def test_damaged_files_are_announced_once_and_not_used(folder: Path, content: bytes) -> None:
    (folder / "tuned.json").write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"tuned\.json: not used, launches take the built-in table") as warned:
        found = [configuration_for(kernel, *ARGUMENTS[1:]) for kernel in ("forward", "backward")]
    assert len(warned) == 1
    assert found == [TABLE.forward, TABLE.backward]


@pytest.mark.parametrize(("name", "value"), _WRONG_VALUES)
def test_wrong_values_are_named_and_nothing_of_the_file_is_used(folder: Path, name: str, value: object) -> None:
    (folder / "tuned.json").write_bytes(contents(RECORD, RECORD | {name: value}))
    with pytest.warns(RuntimeWarning, match=f"{name}: got "):
        assert configuration_for(*ARGUMENTS) == TABLE.forward


def test_unreadable_files_are_announced(folder: Path) -> None:
    (folder / "tuned.json").mkdir()
    with pytest.warns(RuntimeWarning, match=r"tuned\.json: not used"):
        assert configuration_for(*ARGUMENTS) == TABLE.forward


def test_damaged_files_are_written_anew(folder: Path) -> None:
    (folder / "tuned.json").write_text("{")
    with pytest.warns(RuntimeWarning, match=r"tuned\.json: not used"):
        tuned.save({LAUNCH: FOUND})
    assert configuration_for(*ARGUMENTS) == FOUND


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.save({LAUNCH: FOUND})
    monkeypatch.setenv("GSS_KERNELS_CACHE", "off")
    assert configuration_for(*ARGUMENTS) == TABLE.forward
    with pytest.raises(ValueError, match="GSS_KERNELS_CACHE: got 'off', need a folder"):
        tuned.save({LAUNCH: FOUND})


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        ({"GSS_KERNELS_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c/tuned.json"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/gss_kernels/tuned.json"),
        ({"GSS_KERNELS_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/gss_kernels/tuned.json"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/gss_kernels/tuned.json"),
        ({"GSS_KERNELS_CACHE": "off", "HOME": "/h"}, None),
    ],
)
def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], want: str | None) -> None:
    for name in ("GSS_KERNELS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tuned.cache_file() == (None if want is None else Path(want))


def test_without_a_home_folder_launches_take_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GSS_KERNELS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert configuration_for(*ARGUMENTS) == TABLE.forward


_WRITES = 60
_WRITER = f"""
import sys
from gss_kernels.triton.configuration import Configuration
from gss_kernels.triton.tuned import Launch, save
print("ready", flush=True)
sys.stdin.readline()
for modalities in range(2, {2 + _WRITES}):
    save({{Launch(sys.argv[1], "3.7.1", "forward", modalities, 4, False, "float32"): Configuration(2)}})
"""


def test_processes_may_write_and_read_at_the_same_time() -> None:
    path = tuned.save({LAUNCH: FOUND})
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-W", "error", "-c", _WRITER]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        writers = [stack.enter_context(subprocess.Popen([*command, card], **pipes)) for card in ("one", "other")]
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            assert tuned.read(path)[LAUNCH] == FOUND
            time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(tuned.read(path)) == 1 + 2 * _WRITES


class Recorder:
    """Stands for a kernel: notes what it would be launched with."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def launch(*arguments: object, **options: Any) -> None:
            self.options = options

        return launch

    def check(self, configuration: Configuration) -> None:
        assert self.options["num_warps"] == configuration.num_warps
        assert self.options["BLOCK"] == block_of(configuration)
        assert self.options.get("VOXELS", configuration.voxels_per_thread) == configuration.voxels_per_thread


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    """By kernel, in the place of all kernels."""
    recorders = {name: Recorder() for name in (*get_args(KernelName), "target", "finish")}
    for module, names in (
        (group, ("forward", "backward", "target", "finish")),
        (supervised, ("segmentation_forward", "segmentation_backward", "finish")),
    ):
        for name in names:
            monkeypatch.setattr(module, f"{name}_kernel", recorders[name])
    return recorders


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_launch_asks(recorders: dict[str, Recorder], dtype: torch.dtype) -> None:
    size = tuner.Size(1, 3, 2, (5,), dtype, CPU)
    launches = []
    for workload in tuner.workloads(size, supervised=True):
        recorder = recorders[workload.launch.kernel]
        workload.run()
        recorder.check(workload.launch.from_table())
        tuned.save({workload.launch: FOUND})
        workload.run()
        recorder.check(FOUND)
        launches.append((workload.launch.kernel, workload.launch.modalities, workload.launch.supervised))
    assert launches == [
        ("forward", 3, False),
        ("backward", 3, False),
        ("forward", 3, True),
        ("backward", 3, True),
        ("segmentation_forward", 1, True),
        ("segmentation_backward", 1, True),
    ]


def test_the_target_is_launched_as_the_backward_pass(
    recorders: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned.save({dataclasses.replace(LAUNCH, kernel="backward"): FOUND})
    monkeypatch.setattr("gss_kernels.functional._soft_targets", lambda backend: triton_soft_targets)
    gss_soft_targets(torch.zeros(1, 4, 4, 5), BRATS_2018)
    recorders["target"].check(FOUND)


def taken() -> Configuration:
    return configuration_for(*ARGUMENTS)


def made_up(results: Callable[[], Tensor], seconds: Callable[[Configuration], float]) -> tuner.Measurements:
    """Measurements of a workload with such results, which takes so many seconds."""
    workload = tuner.Workload(LAUNCH, lambda: (results(),))

    def clock(call: Callable[[], object]) -> float:
        return seconds(taken())

    return tuner.measure(workload, tuner.alternatives(LAUNCH), clock)


def test_the_fastest_is_found() -> None:
    measured = made_up(lambda: torch.ones(3), lambda own: 1.0 if own == FOUND else 2.0)
    assert measured.fastest == FOUND
    assert set(measured.seconds) == set(tuner.alternatives(LAUNCH))
    assert not measured.left_out
    assert taken() == TABLE.forward


def test_the_table_stays_where_the_gain_is_noise() -> None:
    assert made_up(lambda: torch.ones(3), lambda own: 0.995 if own == FOUND else 1.0).fastest == TABLE.forward


def test_wrong_results_are_left_out_though_fast() -> None:
    for wrong in (1.001, float("nan")):
        measured = made_up(
            lambda wrong=wrong: torch.tensor([5.0, wrong if taken() == FOUND else 1.0]),  # type: ignore[misc]
            lambda own: 1.0 if own == FOUND else 2.0,
        )
        assert measured.fastest == TABLE.forward
        assert set(measured.left_out) == {FOUND}
        lines = "\n".join(tune.report(measured))
        assert "left out: 4 voxels, 8 warps, 3 programs: its results differ" in lines
        assert lines.endswith("kept: the table's")


def test_rounding_is_no_difference() -> None:
    assert not made_up(lambda: torch.tensor([1.0 + 1e-6 * taken().num_warps]), lambda own: 1.0).left_out
    one, other = (torch.randn(9, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16) for _ in range(2))
    assert tuner.agree(one, other * (1 + 2**-8))
    assert not tuner.agree(one, other * 1.1)


def test_what_asks_too_much_of_the_card_is_left_out() -> None:
    def results() -> Tensor:
        if taken().num_warps == 8:
            raise OutOfResources(99, 9, "registers")
        return torch.ones(1)

    measured = made_up(results, lambda own: float(own.num_warps))
    assert {own.num_warps for own in measured.left_out} == {8}
    assert measured.fastest.num_warps == 2


_IN_THE_INTERPRETER = """
import torch
from gss_kernels import CategoryGroups, fused_gss_loss, tune
from gss_kernels.triton import tuned, tuner
from gss_kernels.triton.configuration import Configuration

tuner.VOXELS_PER_THREAD, tuner.NUM_WARPS, tuner.PROGRAMS_PER_MULTIPROCESSOR = (1, 2), (2,), (3,)
cpu = torch.device("cpu")
arguments = [(name, 2, 2, False, torch.float32, cpu) for name in ("forward", "backward")]
fastest = Configuration(1, 2, 3), Configuration(2, 2)

def clock(call):
    return 1.0 + sum(tuned.configuration_for(*own) != fast for own, fast in zip(arguments, fastest))

tune.tune(tuner.Size(2, 2, 2, (7, 11), torch.float32, cpu), clock, supervised=False)
assert [tuned.configuration_for(*own) for own in arguments] == [*fastest]

groups = CategoryGroups(((0,), (1,)))
logits = torch.randn(2, 2, 2, 150, generator=torch.Generator().manual_seed(0)).requires_grad_()
steps = []
for backend in ("triton", "reference"):
    loss = fused_gss_loss(logits, groups, seed=1, backend=backend)
    steps.append((loss.detach(), *torch.autograd.grad(loss, logits)))
torch.testing.assert_close(*steps)
"""


def test_tuning_and_a_loss_with_what_it_found(folder: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IN_THE_INTERPRETER],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    for kept in ("1 voxels, 2 warps, 3 programs, 2000000.0", "2 voxels, 2 warps, 4 programs, 1000000.0"):
        assert f"kept: {kept}" in process.stdout
    assert {launch.kernel for launch in tuned.read(folder / "tuned.json")} == {"forward", "backward"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no GPU: PyTorch finds no CUDA device"),
        (["--device", "cpu"], "argument --device: got cpu, need a GPU"),
        (["--device", "nowhere"], "argument --device: got 'nowhere'"),
    ],
)
def test_the_command_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        tune.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modalities", "1"], "argument --modalities: got 1, need 2 or more"),
        (["--categories", "4", "1"], "argument --categories: got 1, need 2 or more"),
        (["--crop", "0"], "argument --crop: got 0, need 1 or more"),
        (["--crop", "2", "2", "2", "2"], "argument --crop: got 4 axes, need 1 to 3"),
        (["--batch", "0"], "argument --batch: got 0, need 1 or more"),
        (["--device", "cuda:1"], "argument --device: got cuda:1, but there are 1 GPUs"),
    ],
)
def test_the_command_checks_its_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        tune.main(arguments)
    assert message in capsys.readouterr().err


def test_the_command_says_where_it_cannot_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "a_file").touch()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for place in ("off", str(folder / "a_file")):
        monkeypatch.setenv("GSS_KERNELS_CACHE", place)
        with pytest.raises(SystemExit):
            tune.main([])
        assert place in capsys.readouterr().err
