"""What the options default to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gss_train.config.options import (
    Config,
    DataOptions,
    DatasetName,
    NetworkName,
    ProtocolName,
    make_config,
    options_of,
)
from gss_train.config.protocols import GSS, published_training

PickedPreset = Literal["quick", "paper", "lean"]

# The user names the data set. This one stands in its place where none is named; it needs no scans.
_DEFAULTS = {**options_of(Config(DataOptions("brats2020"))), "split": "auto", "stage_validation": True}

# As published.
_PAPER = {"precision": "tf32"}

# The least memory at equal results: nothing that changes what is learnt but for rounding.
_LEAN = {"activation_checkpointing": True, "precision": "auto"}

# A first look in minutes.
_QUICK = {
    "learning_rate_decay": "poly",
    "crop_size": (32, 40, 32),
    "tumour_share": 0.5,
    "workers": 0,
    "max_training_subjects": 32,
    "max_test_subjects": 4,
    "phantom_subjects": 32,
    "phantom_size": (48, 56, 48),
    "phantom_test_subjects": 4,
    "width": 4,
    "baseline_epochs": 11,
    "rounds": 1,
    "epochs": 5,
    "steps_per_epoch": 20,
    "batch_size": 2,
    "learning_rate": 4e-3,
    "fusion_warmup_epochs": 0,
    "validate_every": 5,
    "validation_subjects": 2,
    "stage_validation": False,
    "figure_every": 5,
}
# With scans of the user's. At 1 mm, crops that a CPU learns from in minutes see no tumour whole; patients differ more
# than phantoms do, and take more and smaller steps.
_QUICK_ON_SCANS = {
    "spacing": (4.0,),
    "crop_size": (24,),
    "baseline_epochs": 30,
    "epochs": 15,
    "steps_per_epoch": 40,
}
_QUICK_OF: dict[str, dict[str, Any]] = {"rfnet": {"width": 8}, "mmformer": {"crop_size": (32, 48, 32)}}
_QUICK_ON_SCANS_OF: dict[str, dict[str, Any]] = {"rfnet": {"width": 8}, "mmformer": {"crop_size": (32,)}}


def preset_config(
    preset: PickedPreset,
    network: NetworkName = "rfnet",
    dataset: DatasetName = "brats2020",
    protocol: ProtocolName = "own",
) -> Config:
    """The tree that a preset stands for.

    Args:
        preset: its name.
        network: that is trained.
        dataset: that the schedule is for. Where scans come from is the user's to say: the result's own `dataset`
            merely stands in for it.
        protocol: whose training it is.
    """
    return make_config(preset_options({"preset": preset, "network": network, "dataset": dataset, "protocol": protocol}))


@dataclass(frozen=True)
class Layer:
    """Options that hold unless a later layer says otherwise.

    Attributes:
        title: of those they are from.
        options: by name.
        source: where those have published them; nothing where they are ours.
    """

    title: str
    options: Mapping[str, Any]
    source: str = ""


def preset_options(stated: Mapping[str, Any]) -> dict[str, Any]:
    """All options, by name, as the preset has them that some options ask for.

    Args:
        stated: some options by name: those that decide, of which unknown values count as not stated, and any others.
    """
    return {name: value for layer in preset_layers(stated) for name, value in layer.options.items()}


def preset_layers(stated: Mapping[str, Any]) -> list[Layer]:
    """What `preset_options` is made of; the first layer has all options.

    Args:
        stated: as for `preset_options`.
    """
    network = _known(stated, "network", NetworkName, "rfnet")
    protocol = _known(stated, "protocol", ProtocolName, "own")
    preset = _known(stated, "preset", PickedPreset, "") or _automatic(stated)
    training = published_training(protocol, network, str(stated.get("dataset", "")))
    layers = [
        Layer("default", {**_DEFAULTS, "network": network, "preset": preset, "protocol": protocol}),
        *(Layer(published.title, published.options, published.source) for published in (GSS, training)),
    ]
    if preset != "quick":
        return [*layers, Layer(f"preset {preset}", _PAPER if preset == "paper" else {**_PAPER, **_LEAN})]
    own, quick_of = _QUICK, _QUICK_OF
    if _has_scans(stated):
        own, quick_of = {**_QUICK, **_QUICK_ON_SCANS}, _QUICK_ON_SCANS_OF
    return [*layers, Layer("preset quick", {**own, **quick_of.get(network, {})})]


def _known(stated: Mapping[str, Any], name: str, names: Any, otherwise: str) -> Any:
    value = stated.get(name)
    return value if value in get_args(names) else otherwise


def _automatic(stated: Mapping[str, Any]) -> PickedPreset:
    if not _has_scans(stated) or stated.get("device") == "cpu":
        return "quick"
    import torch  # noqa: PLC0415  (no other options need to wait for it)

    return "paper" if torch.cuda.is_available() else "quick"


def _has_scans(stated: Mapping[str, Any]) -> bool:
    """Whether there are scans of the user's."""
    return stated.get("data_root") is not None or stated.get("manifest") is not None
