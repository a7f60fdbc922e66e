"""`--config`, `--print-config` and what a run's `config.json` gives."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st

from gss_train.common import UserError
from gss_train.config import Config, NetworkName, PickedPreset, config_from_json, parse_config, preset_config
from gss_train.config.options import KINDS
from tests.gss_train.config.refusals import refusal


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        parse_config([*arguments, "--print-config"])
    assert not stopped.value.code
    out, err = capsys.readouterr()
    # Standard error is for people; test_protocols.py looks at it.
    assert len(err.splitlines()) > len(KINDS)
    return out


def written(folder: Path, values: Any) -> str:
    path = folder / "mine.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return str(path)


def test_a_tree_survives_json() -> None:
    for preset, network in itertools.product(get_args(PickedPreset), get_args(NetworkName)):
        tree = preset_config(preset, network)
        assert config_from_json(json.loads(json.dumps(tree.to_json())), "text") == tree


@pytest.mark.parametrize(("preset", "network"), [("quick", "uhved"), ("lean", "mmformer")])
def test_what_is_printed_gives_the_same_tree(
    preset: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", "brats2015", "--preset", preset, "--network", network]
    tree = parse_config(arguments)
    text = printed(arguments, capsys)
    assert json.loads(text) == tree.to_json()
    path = written(tmp_path, text)
    assert parse_config(["--config", path]) == tree
    assert printed(["--config", path], capsys) == text


def test_every_kind_of_value_survives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "--dataset brats2021 --data-root raw/2021 --crop-size 32 40 48 --width 4 --no-gss --init-from a.pt --ema 0.5 "
        "--early-stopping 3 --output out --device cuda:1 --dice per-sample --fold 1 --folds 3 --channels-last "
        "--preset quick --epochs 40 --learning-rate 1e-5"
    )
    tree = parse_config(flags.split())
    assert parse_config(["--config", written(tmp_path, printed(flags.split(), capsys))]) == tree
    assert tree.data.data_root == Path("raw/2021")
    assert tree.training.init_from == Path("a.pt")


def test_the_tree_does_not_hold_these_flags(tmp_path: Path) -> None:
    names = {name for options in preset_config("quick").to_json().values() for name in options}
    assert not names & {"config", "print_config"}
    assert {"ema", "accumulate", "preset"} <= names


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_the_program_prints_options_without_scans_and_starts_nothing(tmp_path: Path) -> None:
    arguments = ["--dataset", "brats2021", "--data-root", "not/there", "--preset", "quick", "--print-config"]
    done = run_python(tmp_path, "-m", "gss_train.main", *arguments)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["data"]["data_root"] == "not/there"
    assert list(tmp_path.iterdir()) == []


def test_options_can_be_imported_and_read_where_only_numpy_is_installed(tmp_path: Path) -> None:
    program = """
import sys
for name in ("torch", "tyro", "nibabel", "scipy", "SimpleITK", "monai", "matplotlib", "rich", "tensorboard", "nilearn"):
    sys.modules[name] = None
from gss_train.config.options import TrainingOptions
from gss_train.config import Config, config_from_json, preset_config, refuse_changes
tree = preset_config("paper", "mmformer", "brats2015")
assert config_from_json(tree.to_json(), "text") == tree
"""
    done = run_python(tmp_path, "-c", program)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_of_a_run_from_before_trains_the_same_once_more(tmp_path: Path) -> None:
    """What it does not say was as runs had it then; another file takes that from the preset that it names."""
    values = preset_config("paper", "robustseg").to_json()
    del values["training"]["amsgrad"], values["training"]["subset_draw"]
    for name, amsgrad, draw in (("config.json", True, "subset"), ("mine.json", False, "modality")):
        (tmp_path / name).write_text(json.dumps(values))
        (tmp_path / "environment.json").write_text("{}")
        training = parse_config(["--config", str(tmp_path / name), "--output", str(tmp_path / "again")]).training
        assert (training.amsgrad, training.subset_draw) == (amsgrad, draw)


def test_flags_override_the_file(tmp_path: Path) -> None:
    values = {"data": {"dataset": "brats2018"}, "training": {"epochs": 7, "rounds": 2, "gss": False}}
    path = written(tmp_path, values)
    config = parse_config(["--config", path])
    assert (config.data.dataset, config.training.epochs, config.training.rounds) == ("brats2018", 7, 2)
    assert not config.training.gss
    config = parse_config([f"--config={path}", "--epochs", "9", "--gss", "--dataset", "brats2015"])
    assert (config.data.dataset, config.training.epochs, config.training.rounds) == ("brats2015", 9, 2)
    assert config.training.gss


def test_what_the_file_lacks_is_of_its_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = {"network": "mmformer"}
    values = {"run": {"preset": "lean"}, "network": network, "data": {"dataset": "brats2015"}}
    shared = ["--dataset", "brats2015", "--network", "mmformer"]
    assert parse_config(["--config", written(tmp_path, values)]) == parse_config([*shared, "--preset", "lean"])
    # Without a preset it is that of the automatic one.
    del values["run"]
    assert parse_config(["--config", written(tmp_path, values)]) == parse_config([*shared, "--preset", "quick"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    path = written(tmp_path, values)
    assert parse_config(["--config", path]).run.preset == "quick"
    assert parse_config(["--config", path, "--data-root", "raw"]).run.preset == "paper"
    values["data"]["data_root"] = "raw"
    assert parse_config(["--config", written(tmp_path, values)]).run.preset == "paper"
    assert config_from_json(values, "values").run.preset == "paper"


def test_a_tree_names_the_preset_that_was_picked(tmp_path: Path) -> None:
    values = {"data": {"dataset": "brats2015"}, "run": {"preset": "auto"}}
    assert parse_config(["--config", written(tmp_path, values)]).run.preset == "quick"
    assert config_from_json(values, "values").run.preset == "quick"
    assert parse_config(["--dataset", "brats2015", "--preset", "auto"]).run.preset == "quick"


def test_the_file_names_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"data": {"dataset": "brats2015"}, "run": {"preset": "paper"}})
    for preset in (["--preset", "paper"], ["--preset=quick"]):
        assert "--preset: cannot go with --config" in refusal(["--config", path, *preset], capsys)


@pytest.mark.parametrize(
    ("section", "name", "value", "need"),
    [
        ("training", "epochs", "3", "a whole number"),
        ("training", "epochs", 3.0, "a whole number"),
        ("training", "epochs", True, "a whole number"),
        ("training", "epochs", None, "a whole number"),
        ("training", "gss", 1, "true or false"),
        ("training", "gss", "no", "true or false"),
        ("training", "learning_rate", False, "a finite number"),
        ("training", "learning_rate", 10**400, "a finite number"),
        ("training", "ema", "0.9", "a finite number or null"),
        ("training", "dice", "sample", 'one of "batch", "per-sample"'),
        ("training", "dice", ["batch"], 'one of "batch", "per-sample"'),
        ("training", "init_from", 3, "a path as text or null"),
        ("training", "init_from", "", "a path as text or null"),
        ("data", "cache", None, "a path as text"),
        ("data", "crop_size", 32, "a list of items, each a whole number"),
        ("data", "crop_size", [32, "32"], "a list of items, each a whole number"),
        ("phantom", "phantom_size", [32, 32], "a list of 3 items, each a whole number"),
        ("network", "width", [4], "a whole number or null"),
        ("run", "device", 0, "a text"),
        ("validation", "early_stopping", 1.5, "a whole number or null"),
        ("record", "resume", "always", 'one of "auto", "never"'),
        ("record", "final_evaluation", True, 'one of "none", "dice", "all"'),
    ],
)
def test_wrong_types_name_file_key_and_flag(
    section: str, name: str, value: Any, need: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, {"data": {"dataset": "brats2015"}} | {section: {name: value}})
    message = refusal(["--config", path], capsys)
    assert message.startswith(f"{path}: {section}.{name} (--{name.replace('_', '-')}): got ")
    assert message.endswith(f", need {need}")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_are_finite(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, f'{{"training": {{"learning_rate": {text}}}}}')
    assert f"(--learning-rate): got {text}, need a finite number" in refusal(["--config", path], capsys)


def test_whole_numbers_do_for_others(tmp_path: Path) -> None:
    path = written(tmp_path, {"data": {"dataset": "brats2015"}, "training": {"clip_gradient": 1}})
    value = parse_config(["--config", path]).training.clip_gradient
    assert isinstance(value, float)
    assert value == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trainning": {}}, "unknown section 'trainning', need one of data, phantom, network"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown option; meant may be 'epochs' (--epochs)"),
        ({"training": {"width": 3}}, "training.width: unknown option here; --width belongs to network"),
        ({"network": {"zzz": 3}}, "network.zzz: unknown option, need one of network, width, activation_checkpointing"),
        ({"training": [1]}, "training: got [1], need an object of options"),
        ([], "got [], need an object with the sections data, phantom"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"run": {"seed": 1, "seed": 2}}', "key 'seed' is there twice"),
    ],
)
def test_what_is_no_such_file_is_refused(
    values: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, values)
    message = refusal(["--config", path], capsys)
    assert path in message
    assert said in message


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"training": {"epoch": 3, "rounds": "5"}, "runs": {}})
    message = refusal(["--config", path], capsys)
    assert all(word in message for word in ("training.epoch", "--rounds", "'runs'"))


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        assert f"--config: {path} cannot be read" in refusal(["--config", str(path)], capsys)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    assert "binary.json is not JSON" in refusal(["--config", str(tmp_path / "binary.json")], capsys)
    assert "--config" in refusal(["--dataset", "brats2015", "--config"], capsys)
    assert "--config: . cannot be read" in refusal(["--dataset", "brats2015", "--config="], capsys)


def test_values_out_of_range_name_file_key_and_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"data": {"dataset": "brats2015"}, "training": {"epochs": 0}})
    message = refusal(["--config", path], capsys)
    assert message == f"{path}: training.epochs: --epochs: got 0, need 1 or more"
    assert refusal(["--config", path, "--epochs=-1"], capsys) == "--epochs: got -1, need 1 or more"


def test_a_file_may_need_flags_to_be_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, {"data": {"dataset": "brats2021"}, "training": {"epochs": 0, "gss_ramp": 150}})
    mended = parse_config(["--config", path, "--data-root", "raw", "--epochs", "10"])
    assert (mended.training.gss_ramp, mended.data.data_root) == (150, Path("raw"))
    message = refusal(["--config", path, "--epochs", "10"], capsys)
    assert f"{path}: data.data_root: --data-root: is missing" in message
    message = refusal(["--config", path, "--epochs", "3", "--data-root", "raw"], capsys)
    assert f"{path}: training.gss_ramp: --gss-ramp: got 150" in message
    no_dataset = written(tmp_path, {"run": {"seed": 1}})
    assert "--dataset" in refusal(["--config", no_dataset], capsys)
    assert parse_config(["--config", no_dataset, "--dataset", "brats2015"]).run.seed == 1


def test_help_shows_what_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = written(tmp_path, {"training": {"steps_per_epoch": 4321}})
    with pytest.raises(SystemExit):
        parse_config(["--config", path, "--help"])
    assert "4321" in capsys.readouterr().out


def test_values_without_a_data_set_are_refused() -> None:
    with pytest.raises(UserError, match=r"mine: data\.dataset \(--dataset\): is missing"):
        config_from_json({}, "mine")
    with pytest.raises(UserError, match=r"mine: training\.epochs: --epochs: got 0"):
        config_from_json({"data": {"dataset": "brats2015"}, "training": {"epochs": 0}}, "mine")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_NAMES = [
    (section.name, option)
    for section in dataclasses.fields(Config)
    for option in preset_config("quick").to_json()[section.name]
]


@given(st.sampled_from(_NAMES), _JSON)
def test_any_value_is_taken_as_it_is_or_refused(name: tuple[str, str], value: Any) -> None:
    section, option = name
    values: dict[str, dict[str, Any]] = {"data": {"dataset": "brats2015"}}
    values.setdefault(section, {})[option] = value
    try:
        config = config_from_json(values, "text")
    except UserError as error:
        assert str(error).startswith(f"text: {section}.")  # noqa: PT017  (or the value is taken)
        return
    kept = config.to_json()[section][option]
    assert kept == value or option == "preset" or Path(kept) == Path(value)
