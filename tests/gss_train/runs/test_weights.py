"""Runs, public checkpoints and exported files give the network that was trained, or say what is wrong."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_train.common.errors import UserError
from gss_train.config import ComputedPrecision, Config, DataOptions, TrainingOptions
from gss_train.config.options import NetworkOptions
from gss_train.data import DATASETS, Dataset
from gss_train.models import SegmentationNetwork, build_network
from gss_train.models.mmformer import mmformer_public_keys
from gss_train.models.rfnet import rfnet_public_keys
from gss_train.runs.checkpoints import CheckpointStore, read_checkpoint, save_checkpoint
from gss_train.runs.weights import TrainedNetwork, export_network, load_trained, load_weights

CPU = torch.device("cpu")
CROP = (16, 16, 16)
MMFORMER_CROP = (32, 32, 32)
CROPS = {"rfnet": CROP, "mmformer": MMFORMER_CROP, "robustseg": CROP, "uhved": CROP}
WIDTHS = {"rfnet": 4, "mmformer": 1, "robustseg": 4, "uhved": 4}
PUBLIC_KEYS: dict[str, Callable[[Any], Mapping[str, tuple[str, ...]]]] = {
    "rfnet": rfnet_public_keys,
    "mmformer": mmformer_public_keys,
}


def fresh(name: str = "rfnet", categories: int = 4, seed: int = 0) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_network(name, categories, crop_size=CROPS[name], width=WIDTHS[name]).eval()


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, others = first.state_dict(), second.state_dict()
    return ours.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in ours.items())


def probabilities(network: SegmentationNetwork, name: str) -> Tensor:
    image = torch.randn(1, 4, *CROPS[name], generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        return network.fuse(network.encode(image), torch.tensor([[True, False, True, True]])).softmax(dim=1)


def public_state(network: SegmentationNetwork, name: str) -> dict[str, Tensor]:
    """The weights under the names that the authors gave them."""
    parameters = dict(network.named_parameters())
    return {
        f"module.{key}": piece.detach().clone()
        for parameter, keys in PUBLIC_KEYS[name](network).items()
        for key, piece in zip(keys, parameters[parameter].chunk(len(keys)), strict=True)
    }


def public_file(path: Path, name: str = "rfnet", categories: int = 4) -> SegmentationNetwork:
    network = fresh(name, categories)
    optimiser = {"param_groups": [{"lr": np.float64(2e-4)}]}
    torch.save({"epoch": 299, "state_dict": public_state(network, name), "optim_dict": optimiser}, path)
    return network


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, and the networks that its checkpoints hold."""

    path: Path
    last: SegmentationNetwork
    best: SegmentationNetwork
    averaged: SegmentationNetwork


def make_run(path: Path, *, ema: float | None = None, finished: bool = True) -> Run:
    """A run of two stages, with its best checkpoint at the end of the first."""
    options = TrainingOptions(rounds=1, baseline_epochs=1, epochs=1, fusion_warmup_epochs=0, ema=ema)
    data = DataOptions("brats2018", crop_size=CROP)
    config = Config(data, network=NetworkOptions("rfnet", width=4), training=options)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config.to_json()))
    (path / "dataset.json").write_text(json.dumps(DATASETS["brats2018"].to_json()))
    best, last, averaged = (fresh(seed=seed) for seed in range(3))
    store = CheckpointStore(path / "checkpoints", keep=2)
    for step, network in enumerate([best, last] if finished else [best], start=1):
        content = {
            "weights": network.state_dict(),
            "averaged": None if ema is None else averaged.state_dict(),
            "update": None,
            "position": {"step": step, "stage": step},
            "progress": {"training_subjects": ["a", "b"], "finished": step == 2},
        }
        store.save(step, content)
        save_checkpoint(path / f"stage-{step}.pt", content)
        if step == 1:
            save_checkpoint(store.best, content)
    return Run(path, last, best, averaged)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_run_gives_its_last_or_its_best_weights(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    last, best = load_trained(run.path, CPU), load_trained(run.path, CPU, weights="best")
    assert same_weights(last.network, run.last)
    assert same_weights(best.network, run.best)
    assert capsys.readouterr().out == ""
    assert not last.network.training
    assert (last.network_name, last.width, last.crop_size) == ("rfnet", 4, CROP)
    assert (last.dataset, last.origin) == (DATASETS["brats2018"], run.path)
    assert last.training_subjects == {"a", "b"}


def test_with_averaged_weights_these_are_taken(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ema=0.5)
    for path in (run.path, run.path / "stage-1.pt"):
        assert same_weights(load_trained(path, CPU).network, run.averaged)


def test_an_unfinished_run_gives_what_it_has_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", finished=False)
    assert same_weights(load_trained(run.path, CPU).network, run.best)
    said = capsys.readouterr().out
    assert str(run.path) in said
    assert "not at its end" in said
    assert "step 1" in said


def test_earlier_versions_did_not_say_whether_the_training_is_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    content = read_checkpoint(run.path / "stage-2.pt")
    del content["progress"]["finished"]
    store = CheckpointStore(run.path / "checkpoints", keep=1)
    store.save(3, content)
    assert same_weights(load_trained(run.path, CPU).network, run.last)
    assert capsys.readouterr().out == ""
    # Between the stages, no optimiser is there either.
    store.save(4, {**content, "position": {"step": 4, "stage": 1}})
    load_trained(run.path, CPU)
    assert "not at its end" in capsys.readouterr().out


def test_a_damaged_last_checkpoint_is_said_and_the_one_before_taken(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    newest = folder / "checkpoints" / "step-00000002.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    assert same_weights(load_trained(folder, CPU).network, run.best)
    said = capsys.readouterr().out
    assert newest.name in said
    assert "not at its end" in said


@pytest.mark.parametrize("file", ["stage-1.pt", "checkpoints/best.pt", "checkpoints/step-00000001.pt"])
def test_a_checkpoint_is_understood_by_the_run_around_it(run: Run, file: str) -> None:
    trained = load_trained(run.path / file, CPU)
    assert same_weights(trained.network, run.best)
    assert trained.dataset == DATASETS["brats2018"]
    assert trained.training_subjects == {"a", "b"}


def test_runs_of_earlier_versions_have_no_description_of_their_data(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    (folder / "dataset.json").unlink()
    assert load_trained(folder, CPU).dataset == DATASETS["brats2018"]


@pytest.mark.parametrize(("name", "categories"), [("rfnet", 4), ("mmformer", 5)])
def test_public_checkpoints_are_recognised_by_their_content(name: str, categories: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    network = public_file(path, name, categories)
    trained = load_trained(path, CPU, dataset=DATASETS["brats2020"] if categories == 4 else None)
    assert trained.network_name == name
    assert trained.dataset == DATASETS["brats2020" if categories == 4 else "brats2015"]
    assert trained.crop_size == ((80, 80, 80) if name == "rfnet" else MMFORMER_CROP)
    assert trained.training_subjects == frozenset()
    assert torch.equal(probabilities(trained.network, name), probabilities(network, name))


def test_a_bare_state_dict_is_a_public_checkpoint_too(tmp_path: Path) -> None:
    network = fresh()
    state = {key.removeprefix("module."): value for key, value in public_state(network, "rfnet").items()}
    torch.save(state, tmp_path / "bare.pth")
    trained = load_trained(tmp_path / "bare.pth", CPU, dataset=DATASETS["brats2018"])
    assert same_weights(trained.network, network)


def test_four_public_categories_need_the_data_set(tmp_path: Path) -> None:
    public_file(tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"^--dataset: is missing, .*model\.pth does not say what its 4 categories mean"
    ):
        load_trained(tmp_path / "model.pth", CPU)
    with pytest.raises(UserError, match=r"^--dataset: BraTS2015 has 5 categories, .*model\.pth has 4"):
        load_trained(tmp_path / "model.pth", CPU, dataset=DATASETS["brats2015"])


def custom_dataset() -> Dataset:
    regions = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
    return dataclasses.replace(DATASETS["brats2018"], name="custom", title="hospital", regions=regions)


def export(trained: TrainedNetwork, folder: Path) -> Path:
    path = folder / "exported.bin"
    export_network(trained, path)
    return path


@pytest.mark.parametrize("name", CROPS)
def test_an_export_stands_alone_and_gives_the_very_same_probabilities(name: str, tmp_path: Path) -> None:
    network, seen = fresh(name), frozenset({"x", "y"})
    trained = TrainedNetwork(network, name, custom_dataset(), CROPS[name], tmp_path, seen, WIDTHS[name])
    loaded = load_trained(export(trained, tmp_path), CPU)
    assert torch.equal(probabilities(loaded.network, name), probabilities(network, name))
    assert (loaded.network_name, loaded.dataset, loaded.crop_size) == (name, custom_dataset(), CROPS[name])
    assert loaded.training_subjects == seen


def test_an_export_of_a_run_is_as_the_run_and_can_be_exported_again(run: Run, tmp_path: Path) -> None:
    first = export(load_trained(run.path, CPU), tmp_path)
    content = first.read_bytes()
    loaded = load_trained(first, CPU)
    assert same_weights(loaded.network, run.last)
    assert loaded.training_subjects == {"a", "b"}
    export_network(loaded, first)
    assert first.read_bytes() == content


@pytest.mark.parametrize("precision", ["bfloat16", "tf32", None])
def test_an_export_knows_the_precision_of_the_training(precision: ComputedPrecision | None, tmp_path: Path) -> None:
    network = fresh()
    trained = TrainedNetwork(network, "rfnet", custom_dataset(), CROP, tmp_path, frozenset(), 4, precision=precision)
    path = export(trained, tmp_path)
    assert load_trained(path, CPU).precision == precision
    content = torch.load(path, weights_only=True)
    # As versions wrote it that did not know.
    del content["precision"]
    torch.save(content, path)
    assert load_trained(path, CPU).precision is None


def test_an_export_holds_nothing_that_runs(run: Run, tmp_path: Path) -> None:
    path = export(load_trained(run.path, CPU), tmp_path)
    content = torch.load(path, weights_only=True)
    plain = {key: value for key, value in content.items() if key != "weights"}
    assert json.loads(json.dumps(plain)) == plain
    assert all(isinstance(value, Tensor) for value in content["weights"].values())


def test_another_data_set_of_the_same_regions_may_take_the_place(run: Run) -> None:
    assert load_trained(run.path, CPU, dataset=DATASETS["brats2023"]).dataset == DATASETS["brats2023"]
    with pytest.raises(UserError, match=r"^--dataset: WT, TC, ET join other categories in hospital than in BraTS2018"):
        load_trained(run.path, CPU, dataset=custom_dataset())


def test_another_window_is_for_networks_that_know_no_places(run: Run, tmp_path: Path) -> None:
    assert load_trained(run.path, CPU, crop_size=(32, 16, 24)).crop_size == (32, 16, 24)
    with pytest.raises(UserError, match=r"--crop-size: .*multiple of 8"):
        load_trained(run.path, CPU, crop_size=(20, 16, 16))
    public_file(tmp_path / "model.pth", "mmformer", 5)
    with pytest.raises(UserError, match=r"^--crop-size: got 32x32x48, need 32x32x32: .*model\.pth"):
        load_trained(tmp_path / "model.pth", CPU, crop_size=(32, 32, 48))


def not_there(path: Path) -> str:
    return "no such file or folder"


def a_folder(path: Path) -> str:
    path.mkdir()
    (path / "scan.nii").touch()
    return "is not the folder of a run, has no config.json"


def a_text(path: Path) -> str:
    path.write_text("<html>404 Not Found</html>")
    return "cannot be read as a checkpoint"


def a_cut_file(path: Path) -> str:
    public_file(path)
    path.write_bytes(path.read_bytes()[:-3000])
    return "cannot be read as a checkpoint"


def a_changed_byte(path: Path) -> str:
    export_network(TrainedNetwork(fresh(), "rfnet", DATASETS["brats2018"], CROP, path, frozenset(), 4), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "does not fit its checksum"


class Malice:
    """Would run code where its pickle is trusted."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("harm",)


def a_program(path: Path) -> str:
    path.write_bytes(pickle.dumps({"state_dict": Malice()}, protocol=2))
    return "cannot be read as a checkpoint"


def of_another_network(path: Path) -> str:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2, 2), "conv1.bias": torch.zeros(2)}}, path)
    return "is not known (it holds state_dict, ...)"


def a_tensor(path: Path) -> str:
    torch.save(torch.zeros(3), path)
    return "holds a Tensor"


def half_a_network(path: Path) -> str:
    state = public_state(fresh(categories=5), "rfnet")
    torch.save({key: value for key, value in state.items() if "t1_encoder" not in key}, path)
    return "does not fit rfnet of width 4 and 5 categories: it lacks 24 weights, such as t1_encoder."


def of_two_widths(path: Path) -> str:
    state = public_state(fresh(categories=5), "rfnet")
    torch.save({**state, "module.t2_encoder.e3_c1.conv.weight": torch.zeros(2, 2, 3, 3, 3)}, path)
    return "t2_encoder.e3_c1.conv.weight"


def an_orphan(path: Path) -> str:
    save_checkpoint(path, {"weights": fresh().state_dict(), "progress": {}})
    return "is a checkpoint out of a run folder"


def an_empty_run(path: Path) -> str:
    shutil.rmtree(make_run(path).path / "checkpoints")
    return f"has no weights, there is no checkpoint in {path / 'checkpoints'}; {path / 'stage-2.pt'} can be named"


def a_run_with_other_settings(path: Path) -> str:
    config = json.loads((make_run(path).path / "config.json").read_text())
    config["network"]["width"] = 8
    (path / "config.json").write_text(json.dumps(config))
    return "does not fit rfnet of width 8 and 4 categories: encoder.0.enter.convolution.weight has shape"


def a_run_of_another_data_set(path: Path) -> str:
    (make_run(path).path / "dataset.json").write_text('{"name": "mine"}')
    return "dataset.json: is damaged"


def an_export_without_its_size(path: Path) -> str:
    export_network(TrainedNetwork(fresh(), "rfnet", DATASETS["brats2018"], CROP, path, frozenset(), 4), path)
    content = torch.load(path, weights_only=True)
    del content["width"]
    torch.save(content, path)
    return "is a damaged exported network: KeyError('width')"


def an_export_of_an_unknown_precision(path: Path) -> str:
    export_network(TrainedNetwork(fresh(), "rfnet", DATASETS["brats2018"], CROP, path, frozenset(), 4), path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "precision": "float8"}, path)
    return "is a damaged exported network: ValueError(\"its precision is 'float8', need one of float32, tf32,"


def an_export_that_lacks_a_weight(path: Path) -> str:
    export_network(TrainedNetwork(fresh(), "rfnet", DATASETS["brats2018"], CROP, path, frozenset(), 4), path)
    content = torch.load(path, weights_only=True)
    del content["weights"]["separate_decoder.classify.bias"]
    torch.save(content, path)
    return "it lacks separate_decoder.classify.bias"


@pytest.mark.parametrize(
    "make",
    [
        *(not_there, a_folder, a_text, a_cut_file, a_changed_byte, a_program, of_another_network, a_tensor),
        *(half_a_network, of_two_widths, an_orphan, an_empty_run, a_run_with_other_settings),
        *(a_run_of_another_data_set, an_export_without_its_size, an_export_that_lacks_a_weight),
        an_export_of_an_unknown_precision,
    ],
    ids=lambda make: make.__name__,
)
def test_what_cannot_be_used_is_said_in_one_line(
    make: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    fault = make(path)
    with pytest.raises(UserError) as caught:
        load_trained(path, CPU)
    message = str(caught.value)
    assert str(path) in message
    assert fault in message
    assert "\n" not in message
    assert "harm" not in capsys.readouterr().out


def test_without_validation_there_are_no_best_weights(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    (folder / "checkpoints" / "best.pt").unlink()
    with pytest.raises(UserError, match=r"^--weights best: .*has no best\.pt.*--weights last$"):
        load_trained(folder, CPU, weights="best")


def test_an_export_that_fails_leaves_what_was_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot write exported"):
        export_network(load_trained(run.path, CPU), tmp_path / "file" / "exported.pt")
    assert (tmp_path / "file").read_text() == "mine"


def settings(name: Any = "rfnet", width: int | None = None) -> Config:
    """Of a run that starts from weights."""
    network = NetworkOptions(name, width=width or WIDTHS[name])
    data = DataOptions("brats2018", crop_size=CROPS[name])
    return Config(data, network=network)


BRATS2018 = DATASETS["brats2018"]


@pytest.mark.parametrize("file", [".", "stage-2.pt", "checkpoints/step-00000002.pt"])
def test_a_training_starts_from_a_run_and_from_its_checkpoints(file: str, run: Run) -> None:
    network = fresh(seed=9)
    loaded = load_weights(network, run.path / file, settings(), BRATS2018)
    assert same_weights(network, run.last)
    assert loaded.training_subjects == {"a", "b"}
    assert loaded.public_keys is None


def test_a_run_stands_for_its_averaged_weights_and_a_checkpoint_for_the_trained_ones(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ema=0.5)
    network = fresh(seed=9)
    load_weights(network, run.path, settings(), BRATS2018)
    assert same_weights(network, run.averaged)
    load_weights(network, run.path / "stage-2.pt", settings(), BRATS2018)
    assert same_weights(network, run.last)


@pytest.mark.parametrize("neighbour", [None, {"model_type": "another"}, {"run": {"preset": "quick"}}])
@pytest.mark.parametrize("version", ["gss-checkpoint-1", "gss-checkpoint-2"])
def test_a_training_starts_from_a_checkpoint_wherever_it_lies(
    version: str, neighbour: dict[str, Any] | None, tmp_path: Path
) -> None:
    if neighbour is not None:
        (tmp_path / "config.json").write_text(json.dumps(neighbour))
    saved, network = fresh(seed=0), fresh(seed=9)
    content = {"weights": saved.state_dict(), "progress": {"training_subjects": ["a"]}}
    torch.save({"format": version, **content}, tmp_path / "mine.pt")
    assert load_weights(network, tmp_path / "mine.pt", settings(), BRATS2018).training_subjects == {"a"}
    assert same_weights(network, saved)


def test_a_training_starts_from_an_exported_network(run: Run, tmp_path: Path) -> None:
    network = fresh(seed=9)
    path = export(load_trained(run.path, CPU), tmp_path)
    assert load_weights(network, path, settings(), BRATS2018).training_subjects == {"a", "b"}
    assert same_weights(network, run.last)


@pytest.mark.parametrize("name", ["rfnet", "mmformer"])
def test_a_training_starts_from_a_public_checkpoint(name: str, tmp_path: Path) -> None:
    public = public_file(tmp_path / "model.pth", name)
    network = fresh(name, seed=9)
    loaded = load_weights(network, tmp_path / "model.pth", settings(name), BRATS2018)
    assert loaded.public_keys is not None
    assert loaded.public_keys.used
    assert loaded.training_subjects == frozenset()
    assert torch.equal(probabilities(network, name), probabilities(public, name))


def an_export_of(path: Path, name: str, categories: int) -> None:
    dataset = DATASETS["brats2018" if categories == 4 else "brats2015"]
    network = fresh(name, categories)
    export_network(TrainedNetwork(network, name, dataset, CROPS[name], path, frozenset(), WIDTHS[name]), path)


NEEDED = "does not fit rfnet of width 4 and 4 categories: it is "


@pytest.mark.parametrize(
    ("make", "config", "fault"),
    [
        (make_run, settings(width=8), "width 8 and 4 categories: it is rfnet of width 4 and 4 cat"),
        (lambda path: an_export_of(path, "uhved", 4), settings(), NEEDED + "uhved of width 4 and 4 categories"),
        (lambda path: an_export_of(path, "rfnet", 5), settings(), NEEDED + "rfnet of width 4 and 5 categories"),
        (lambda path: public_file(path, "mmformer"), settings(), NEEDED + "mmformer of width 1 and 4 categories for"),
        (
            lambda path: public_file(path, "mmformer"),
            dataclasses.replace(settings("mmformer"), data=DataOptions("brats2018", crop_size=(48, 48, 48))),
            "categories for crops of 48x48x48: it is mmformer of width 1 and 4 categories for crops of 32x32x32",
        ),
        (
            lambda path: save_checkpoint(path, {"weights": fresh("uhved").state_dict(), "progress": {}}),
            settings(),
            "does not fit rfnet of width 4 and 4 categories: it lacks encoder.0.enter.convolution.weight",
        ),
        (of_another_network, settings(), "is not known"),
        (not_there, settings(), "no such file or folder"),
        (a_folder, settings(), "is not the folder of a run"),
    ],
    ids=["width", "network", "categories", "public network", "crop", "orphan", "unknown", "missing", "folder"],
)
def test_weights_that_no_training_can_start_from_are_told_in_one_line(
    make: Callable[[Path], Any], config: Config, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    make(path)
    network = build_network(config.network.network, 4, crop_size=config.data.crop, width=config.network.width)
    with pytest.raises(UserError) as caught:
        load_weights(network, path, config, BRATS2018)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert fault in message
    assert "\n" not in message
