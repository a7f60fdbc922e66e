"""Trainings, evaluations and predictions compute in what they say, and say what they compute in."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gss_train.common import ALONE
from gss_train.config import parse_config
from gss_train.data import DATASETS
from gss_train.evaluate import main as evaluate
from gss_train.inference import arithmetic
from gss_train.models import UHVED, Features, build_network
from gss_train.predict import main as predict
from gss_train.runs import read_stored
from gss_train.runs.checkpoints import read_checkpoint
from gss_train.training import Drawing
from gss_train.training.announcement import announcement
from gss_train.training.plan import plan_training
from tests.gss_train.inference.arithmetic_seen import Arithmetic, arithmetic_now
from tests.gss_train.inference.tiny import flags, scan_files
from tests.gss_train.training.tiny import metrics, run, write_scans

SHORT = ["--no-gss", "--steps-per-epoch", "1", "--batch-size", "1"]
SCORED = ["--validate-every", "1", "--figure-every", "1", "--final-evaluation", "dice", "--max-test-subjects", "1"]
Seen = dict[str, set[Arithmetic]]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The arithmetic while networks encode, in training steps and in evaluation."""
    return see(monkeypatch)


def see(patch: pytest.MonkeyPatch) -> Seen:
    found: Seen = defaultdict(set)
    encode = UHVED.encode

    def watched(network: UHVED, x: Tensor, available: Tensor | None = None) -> Features:
        found["training" if network.training else "evaluation"].add(arithmetic_now())
        return encode(network, x, available)

    patch.setattr(UHVED, "encode", watched)
    return found


def seen_once(seen: Seen) -> dict[str, Arithmetic]:
    """Of each kind the one arithmetic that was seen; forgotten afterwards."""
    assert {kind: len(found) for kind, found in seen.items()} == dict.fromkeys(seen, 1)
    only = {kind: next(iter(found)) for kind, found in seen.items()}
    seen.clear()
    return only


def computed(autocast: torch.dtype | None = None, *, tf32: bool = False, deterministic: bool = False) -> Arithmetic:
    return Arithmetic(autocast, tf32, False, not deterministic, deterministic)


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


class Bfloat16Run(NamedTuple):
    folder: Path
    seen: dict[str, Arithmetic]
    before: Arithmetic
    after: Arithmetic


@pytest.fixture(scope="module")
def bfloat16_run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Bfloat16Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        seen, before = see(patch), arithmetic_now()
        assert run(scans, folder, *SHORT, *SCORED, "--precision", "bfloat16", "--deterministic") == 0
    return Bfloat16Run(folder, seen_once(seen), before, arithmetic_now())


def test_a_run_validates_draws_and_is_scored_in_the_precision_that_it_trains_in(bfloat16_run: Bfloat16Run) -> None:
    """And leaves the settings of the process as they were."""
    asked_for = computed(torch.bfloat16, deterministic=True)
    assert bfloat16_run.seen == {"training": asked_for, "evaluation": asked_for}
    assert bfloat16_run.after == bfloat16_run.before
    assert len(metrics(bfloat16_run.folder, "validation")) == 1
    assert scores(bfloat16_run.folder / "evaluation")["settings"]["precision"] == "bfloat16"
    environment = json.loads((bfloat16_run.folder / "environment.json").read_text())
    assert (environment["precision_asked_for"], environment["precision"]) == ("bfloat16", "bfloat16")
    assert (environment["cudnn_benchmark"], environment["cudnn_deterministic"]) == (False, True)


def test_an_evaluation_computes_in_the_precision_of_the_training(
    bfloat16_run: Bfloat16Run, seen: Seen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bfloat16_run.folder
    assert evaluate([str(folder), "--device", "cpu", "--no-hd95", "--output", str(tmp_path / "own")]) == 0
    assert seen_once(seen) == {"evaluation": computed(torch.bfloat16)}
    assert "Computes in bfloat16 on cpu" in capsys.readouterr().out
    own = scores(tmp_path / "own")
    assert own["settings"]["precision"] == "bfloat16"
    assert own["measures"]["dice"]["values"] == scores(folder / "evaluation")["measures"]["dice"]["values"]


def test_an_evaluation_computes_in_the_precision_that_is_stated(bfloat16_run: Bfloat16Run, seen: Seen) -> None:
    assert evaluate([str(bfloat16_run.folder), "--device", "cpu", "--no-hd95", "--precision", "float32"]) == 0
    assert seen_once(seen) == {"evaluation": computed()}
    assert scores(bfloat16_run.folder / "evaluation-float32-no-hd95")["settings"]["precision"] == "float32"


def test_a_prediction_computes_in_the_precision_of_the_training(
    bfloat16_run: Bfloat16Run, scans: Path, seen: Seen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the run or of an export of it."""
    exported, label_map = tmp_path / "network.pt", tmp_path / "map.nii.gz"
    assert predict(["--model", str(bfloat16_run.folder), "--export", str(exported)]) == 0
    files = flags(scan_files(scans / "BraTS20_Training_001"))
    for more, precision, arithmetic_seen in (
        ([], "bfloat16", computed(torch.bfloat16)),
        (["--precision", "tf32"], "float32", computed()),
    ):
        models = ["--model", str(bfloat16_run.folder), str(exported)]
        assert predict([*models, *files, "--output", str(label_map), "--device", "cpu", "--overwrite", *more]) == 0
        assert seen_once(seen) == {"evaluation": arithmetic_seen}
        assert capsys.readouterr().out.count(f", computes in {precision}") == 2
        log = json.loads((tmp_path / "map.json").read_text())
        assert [model["precision"] for model in log["models"]] == [precision] * 2


def test_a_device_without_tf32_computes_in_float32_and_says_so(
    scans: Path, seen: Seen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scans, tmp_path / "run", *SHORT, "--precision", "tf32") == 0
    assert seen_once(seen) == {"training": computed()}
    assert "float32 in place of tf32, which cpu lacks" in capsys.readouterr().out
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["precision_asked_for"], environment["precision"]) == ("tf32", "float32")
    assert read_stored(tmp_path / "run").precision == "float32"


def test_runs_of_one_process_have_each_their_own_arithmetic(
    scans: Path, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a device with TF32; where a run goes on with one that lacks it, that is said."""
    arguments = [*SHORT, "--validate-every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("gss_train.inference.precision._has", lambda _device, _precision: True)
        for precision in ("tf32", "float32"):
            assert run(scans, tmp_path / precision, *arguments, "--precision", precision) == 0
            same = computed(tf32=precision == "tf32")
            assert seen_once(seen) == {"training": same, "evaluation": same}
        assert evaluate([str(tmp_path / "tf32"), "--device", "cpu", "--no-hd95"]) == 0
    assert seen_once(seen) == {"evaluation": computed(tf32=True)}
    (tmp_path / "tf32" / "subsets.md").unlink()
    capsys.readouterr()
    assert run(scans, tmp_path / "tf32", *arguments, "--precision", "tf32") == 0
    assert "Until now it computed in tf32: the --device is another" in capsys.readouterr().out
    newest = max((tmp_path / "tf32" / "checkpoints").glob("step-*.pt"))
    assert read_checkpoint(newest)["progress"]["precision"] == "tf32"


@pytest.mark.parametrize(
    ("capability", "arguments", "said"),
    [
        ((9, 0), ["--preset", "paper"], "tf32, cuDNN benchmark on, deterministic off"),
        ((9, 0), ["--preset", "lean", "--deterministic"], "bfloat16, cuDNN benchmark off, deterministic on"),
        (
            (7, 5),
            ["--preset", "paper"],
            "float32 in place of tf32, which cuda:1 lacks, cuDNN benchmark on, deterministic off",
        ),
    ],
)
def test_on_a_card_the_line_of_the_precision_says_all_of_it(
    capability: tuple[int, int],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is announced before the training; there is no card here."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _device=None: capability)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: capability >= (8, 0))
    config = parse_config(["--dataset", "brats2020", *arguments, "--output", str(tmp_path / "run")])
    drawing = Drawing(lambda *_: None, lambda *_: None)
    plan = plan_training(config, DATASETS["brats2020"], torch.device("cuda:1"), ALONE, drawing)
    network = build_network("rfnet", 4, crop_size=(16, 16, 16), width=4)
    with arithmetic(plan.computation.precision, deterministic=plan.computation.deterministic):
        lines = announcement(plan, network, None)
    assert any(line.endswith(f" on cuda:1, {said}") for line in lines)
