"""What the networks and GSS were published with, against a table of it, and where `--print-config` says it is from."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from gss_kernels import GSSSettings
from gss_train.config import NetworkName, ProtocolName, SelfSupportOptions, parse_config, preset_config
from gss_train.config.options import options_of
from gss_train.config.protocols import GSS, published_training
from tests.gss_train.config.refusals import refusal

NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

# Read in the training code and configuration files of the authors.
TABLE = """
option                         rfnet           mmformer        robustseg   uhved
batch_size                     2               8               1           1
crop_size                      80              128             80          112
learning_rate                  0.0002          0.0002          0.0001      0.001
learning_rate_decay            poly            poly            poly        none
amsgrad                        True            True            False       False
weight_decay                   0.0001          0.0001          0.0001      1e-05
decayed_weights                all             all             kernels     kernels
fusion_warmup_epochs           20              0               0           0
dice                           batch           batch           batch       batch
dice_denominator               probabilities   probabilities   squares     squares
cross_entropy                  weighted        weighted        weighted    plain
subset_draw                    subset          subset          modality    count
tumour_share                   0.0             0.0             0.0         0.0
augment_interpolation          nearest         nearest         nearest     linear
augment_intensity_per_slice    True            True            True        True
augment_rotation_degrees       10              10              0           0
augment_scale                  0.1             0.1             0.0         0.0
augment_shift                  0.1             0.1             0.0         0.0
augment_flip                   True            True            False       True
augment_scaling                0.0             0.0             0.0         0.1
augment_elastic                0.0             0.0             0.0         0.0
"""
# RFNet's 300 epochs of 150 steps, 1000 passes over 219 subjects in batches of 8, 300 x 300, and 60,000.
STEPS = {"rfnet": 45_000, "mmformer": 28_000, "robustseg": 90_000, "uhved": 60_000}


def table() -> dict[str, dict[str, str]]:
    """By network, then option."""
    (_, *networks), *rows = (line.split() for line in TABLE.strip().splitlines())
    return {network: {row[0]: row[1 + place] for row in rows} for place, network in enumerate(networks)}


def shown(value: Any) -> str:
    return str(value[0]) if isinstance(value, tuple) else str(value)


def paper(network: NetworkName, protocol: ProtocolName = "own", **more: Any) -> dict[str, Any]:
    return options_of(preset_config("paper", network, protocol=protocol, **more))


@pytest.mark.parametrize("network", NETWORKS)
def test_paper_is_the_networks_own_training(network: NetworkName) -> None:
    options = paper(network)
    assert {name: shown(options[name]) for name in table()[network]} == table()[network]
    assert options["baseline_epochs"] == options["epochs"]
    assert options["epochs"] * options["steps_per_epoch"] == STEPS[network]
    assert options["rounds"] == 5
    assert options["width"] is None


@pytest.mark.parametrize("network", NETWORKS)
def test_rfnets_training_is_the_same_for_every_network(network: NetworkName) -> None:
    options = paper(network, "rfnet")
    assert {name: shown(options[name]) for name in table()["rfnet"]} == table()["rfnet"]
    differing = {name for name, value in paper("rfnet", "rfnet").items() if options[name] != value}
    assert differing <= {"network"}


def test_uhved_scales_each_axis_by_itself() -> None:
    assert paper("uhved")["augment_scaling_per_axis"]


def test_gss_has_the_numbers_of_its_paper() -> None:
    """The loss's own defaults are the published ones, too."""
    assert SelfSupportOptions().settings() == GSSSettings()
    options = paper("rfnet")
    assert {name: options[name] for name in GSS.options} == dict(GSS.options)
    assert (options["separate_weight"], options["gss_weight"] * options["temperature"] ** 2 / 10) == (0.7, 0.3 * 6.4)
    assert (options["semantics"], options["divergence"]) == ("paper", "kl")


def test_gss_as_released_is_rfnets_training_with_the_quirks_of_the_public_code() -> None:
    released, own = paper("rfnet", "gss-released"), paper("rfnet")
    differing = {name: value for name, value in released.items() if own[name] != value}
    # A voxel is masked unless none of a fifth as many draws with replacement hits it.
    voxels = 80**3
    masked = 1 - (1 - 1 / voxels) ** int(voxels * 0.2)
    assert differing.pop("mask_ratio") == pytest.approx(masked, abs=1e-6)
    assert differing == {
        "protocol": "gss-released",
        "box": "released",
        "deterministic": True,
        "rounds": 3,
        "semantics": "released",
        "divergence": "cross_entropy",
    }


@pytest.mark.parametrize("network", [network for network in NETWORKS if network != "rfnet"])
def test_gss_was_released_for_rfnet_alone(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(["--dataset", "brats2020", "--network", network, "--protocol", "gss-released"], capsys)
    assert "--protocol: got gss-released" in message
    assert network in message


def test_an_epoch_of_mmformer_follows_the_edition_in_its_own_training_alone() -> None:
    assert paper("mmformer", dataset="brats2015")["steps_per_epoch"] == 31
    assert paper("mmformer", "rfnet", dataset="brats2015")["steps_per_epoch"] == 150


def test_quick_takes_the_losses_and_draws_of_the_protocol_with_a_schedule_of_its_own() -> None:
    quick = options_of(preset_config("quick", "uhved"))
    own = paper("uhved")
    for name in ("subset_draw", "cross_entropy", "dice_denominator", "amsgrad", "augment_scaling", "decayed_weights"):
        assert quick[name] == own[name]
    assert (quick["learning_rate_decay"], quick["learning_rate"]) == ("poly", 4e-3)


def origins(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Value and origin by flag, and what follows."""
    with pytest.raises(SystemExit):
        parse_config([*arguments, "--print-config"])
    rows, _, sources = capsys.readouterr().err.partition("\n\n")
    cells = [row.split(maxsplit=1) for row in rows.splitlines()]
    return {flag: tuple(rest.rsplit("  ", maxsplit=1)) for flag, rest in cells}, sources


def test_every_number_says_where_it_is_from(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"training": {"epochs": 7}, "network": {"network": "robustseg"}, "run": {"preset": "paper"}}')
    rows, sources = origins(["--dataset", "brats2020", "--seed", "3", "--config", str(path)], capsys)
    found = {flag: (value.strip(), origin) for flag, (value, origin) in rows.items()}
    assert found["--seed"] == ("3", "flag")
    assert found["--epochs"] == ("7", str(path))
    assert found["--learning-rate"] == ("0.0001", "RobustSeg")
    assert found["--temperature"] == ("8.0", "GSS")
    assert found["--precision"][1] == "preset paper"
    assert found["--workers"][1] == "default"
    assert len(found) == len(options_of(preset_config("paper")))
    for title in ("RobustSeg", "GSS"):
        assert f"{title}: " in sources
    assert "github.com/cchen-cc/Robust-Mseg" in sources


def test_quick_says_that_its_schedule_is_nobody_elses(capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = origins(["--dataset", "brats2020", "--preset", "quick"], capsys)
    assert rows["--learning-rate"][1] == "preset quick"
    assert rows["--weight-decay"][1] == "RFNet"


@pytest.mark.parametrize("network", NETWORKS)
def test_every_training_says_where_it_was_published(network: NetworkName) -> None:
    assert "github.com/" in published_training("own", network, "brats2020").source
