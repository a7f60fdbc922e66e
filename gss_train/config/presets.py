"""What the options default to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from gss_train.config.options import Config, DataOptions, DatasetName, NetworkName, make_config, options_of

PickedPreset = Literal["quick", "paper", "lean"]

# The user names the data set. This one stands in its place where none is named; it needs no scans.
_DEFAULTS = options_of(Config(DataOptions("brats2020")))

# The networks' published schedules.
_PAPER = {"precision": "tf32"}
_PAPER_OF: dict[str, dict[str, Any]] = {
    "mmformer": {
        "crop_size": (128,),
        "baseline_epochs": 1000,
        "epochs": 1000,
        "steps_per_epoch": 28,
        "batch_size": 8,
        "fusion_warmup_epochs": 0,
    },
    "robustseg": {"batch_size": 1, "learning_rate": 1e-4, "fusion_warmup_epochs": 0},
    "uhved": {"crop_size": (112,), "batch_size": 1, "learning_rate": 1e-3, "fusion_warmup_epochs": 0},
}

# mmFormer's epoch is a pass over the training subjects of the published split: 242 of BraTS2015, 199 of BraTS2018, 219
# of BraTS2020, whose 28 steps stand for all that have none.
_MMFORMER_STEPS = {"brats2015": 31, "brats2018": 25}

# The least memory at equal results: nothing that changes what is learnt but for rounding.
_LEAN = {"activation_checkpointing": True, "precision": "auto"}

# A first look in minutes.
_QUICK = {
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


def preset_config(preset: PickedPreset, network: NetworkName = "rfnet", dataset: DatasetName = "brats2020") -> Config:
    """The tree that a preset stands for.

    Args:
        preset: its name.
        network: that is trained.
        dataset: that the schedule is for. Where scans come from is the user's to say: the result's own `dataset`
            merely stands in for it.
    """
    return make_config(preset_options({"preset": preset, "network": network, "dataset": dataset}))


def preset_options(stated: Mapping[str, Any]) -> dict[str, Any]:
    """All options, by name, as the preset has them that some options ask for.

    Args:
        stated: some options by name: those that decide, of which unknown values count as not stated, and any others.
    """
    network, preset = stated.get("network", ""), stated.get("preset", "")
    network = network if network in get_args(NetworkName) else "rfnet"
    preset = preset if preset in get_args(PickedPreset) else _automatic(stated)
    shared, of_network = (_QUICK, _QUICK_OF) if preset == "quick" else (_PAPER, _PAPER_OF)
    if preset == "quick" and _has_scans(stated):
        shared, of_network = {**_QUICK, **_QUICK_ON_SCANS}, _QUICK_ON_SCANS_OF
    options = {**_DEFAULTS, **shared, **of_network.get(network, {}), "network": network, "preset": preset}
    if preset != "quick" and network == "mmformer":
        options["steps_per_epoch"] = _MMFORMER_STEPS.get(stated.get("dataset", ""), options["steps_per_epoch"])
    return {**options, **_LEAN} if preset == "lean" else options


def _automatic(stated: Mapping[str, Any]) -> PickedPreset:
    if not _has_scans(stated) or stated.get("device") == "cpu":
        return "quick"
    import torch  # noqa: PLC0415  (no other options need to wait for it)

    return "paper" if torch.cuda.is_available() else "quick"


def _has_scans(stated: Mapping[str, Any]) -> bool:
    """Whether there are scans of the user's."""
    return stated.get("data_root") is not None or stated.get("manifest") is not None
