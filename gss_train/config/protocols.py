"""The trainings that the networks and GSS were published with, number by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """A published training.

    Attributes:
        title: of those who published it.
        source: where its numbers are from.
        options: what it says, by the option's name.
    """

    title: str
    source: str
    options: Mapping[str, Any]


_PLAIN = {"augment_rotation_degrees": 0, "augment_scale": 0.0, "augment_shift": 0.0, "augment_flip": False}

_RFNET = Protocol(
    "RFNet",
    "Ding et al., ICCV 2021; github.com/dyh127/RFNet, train.py, job.sh and data/transforms.py",
    {
        "crop_size": (80,),
        "batch_size": 2,
        "baseline_epochs": 300,
        "epochs": 300,
        "steps_per_epoch": 150,
        "learning_rate": 2e-4,
        "learning_rate_decay": "poly",
        "amsgrad": True,
        "weight_decay": 1e-4,
        "decayed_weights": "all",
        "fusion_warmup_epochs": 20,
        "dice": "batch",
        "dice_denominator": "probabilities",
        "cross_entropy": "weighted",
        "subset_draw": "subset",
        "tumour_share": 0.0,
        "augment_rotation_degrees": 10,
        "augment_interpolation": "nearest",
        "augment_scale": 0.1,
        "augment_shift": 0.1,
        "augment_intensity_per_slice": True,
        "augment_flip": True,
        "augment_scaling": 0.0,
        "augment_scaling_per_axis": False,
    },
)

_MMFORMER = Protocol(
    "mmFormer",
    "Zhang et al., MICCAI 2022; github.com/YaoZhang93/mmFormer, mmformer/train.py and job.sh",
    {
        **_RFNET.options,
        "crop_size": (128,),
        "batch_size": 8,
        "baseline_epochs": 1000,
        "epochs": 1000,
        "steps_per_epoch": 28,
        "fusion_warmup_epochs": 0,
    },
)
# mmFormer's epoch is a pass over the training subjects: of the published lists 242 of BraTS2015, 199 of BraTS2018, 875
# of BraTS2023 and 219 of BraTS2020, whose 28 steps stand for all that have no list.
_MMFORMER_STEPS = {"brats2015": 31, "brats2018": 25, "brats2023": 110}

_ROBUSTSEG = Protocol(
    "RobustSeg",
    "Chen et al., MICCAI 2019; github.com/cchen-cc/Robust-Mseg, main.py, losses.py, data_loader.py and "
    "modalitydrop_generator.py",
    {
        **_RFNET.options,
        **_PLAIN,
        "batch_size": 1,
        "steps_per_epoch": 300,
        "learning_rate": 1e-4,
        "amsgrad": False,
        "decayed_weights": "kernels",
        "fusion_warmup_epochs": 0,
        "dice_denominator": "squares",
        "subset_draw": "modality",
    },
)

_UHVED = Protocol(
    "U-HVED",
    "Dorent et al., MICCAI 2019; github.com/ReubenDo/U-HVED, extensions/u_hved/config.ini and application.py; "
    "NiftyNet 0.5.0; docs/deviations.md has where they are not followed",
    {
        **_RFNET.options,
        **_PLAIN,
        "crop_size": (112,),
        "batch_size": 1,
        "baseline_epochs": 400,
        "epochs": 400,
        "learning_rate": 1e-3,
        "learning_rate_decay": "none",
        "amsgrad": False,
        "weight_decay": 1e-5,
        "decayed_weights": "kernels",
        "fusion_warmup_epochs": 0,
        "dice_denominator": "squares",
        "cross_entropy": "plain",
        "subset_draw": "count",
        "augment_flip": True,
        "augment_scaling": 0.1,
        "augment_scaling_per_axis": True,
        "augment_interpolation": "linear",
    },
)

GSS = Protocol(
    "GSS",
    "Qiu et al., ICCV 2023; github.com/qysgithubopen/GSS, train_GSS.py and GSS.sh",
    {
        "rounds": 5,
        "temperature": 8.0,
        "leader_threshold": 0.75,
        "member_threshold": 0.85,
        "leader_blend": 0.3,
        "mask_ratio": 0.2,
        "class_weighting": True,
        "separate_weight": 0.7,
        "gss_weight": 0.3,
    },
)

_GSS_RELEASED = Protocol(
    "GSS as released",
    GSS.source + ", random_mask.py and GSS_choice.py",
    {
        **_RFNET.options,
        # The fourth round starts from its own result, which is not there yet.
        "rounds": 3,
        "box": "released",
        "deterministic": True,
        "divergence": "cross_entropy",
        "semantics": "released",
        # 1 - exp(-0.2): a fifth of the voxels is drawn with replacement.
        "mask_ratio": 0.181269,
    },
)

_OWN = {"rfnet": _RFNET, "mmformer": _MMFORMER, "robustseg": _ROBUSTSEG, "uhved": _UHVED}


def published_training(protocol: str, network: str, dataset: str) -> Protocol:
    """The training that a protocol stands for.

    Args:
        protocol: "own", "rfnet" or "gss-released".
        network: that is trained.
        dataset: edition of BraTS, on which mmFormer's schedule depends; any other name counts as none of them.
    """
    if protocol == "gss-released":
        return _GSS_RELEASED
    if protocol == "rfnet":
        return _RFNET
    own = _OWN[network]
    if network != "mmformer" or dataset not in _MMFORMER_STEPS:
        return own
    return Protocol(own.title, own.source, {**own.options, "steps_per_epoch": _MMFORMER_STEPS[dataset]})
