"""`GSSLoss` and `GSSObjective`."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch

from gss_kernels import (
    BRATS_2015,
    BRATS_2018,
    GSSLoss,
    GSSObjective,
    GSSSettings,
    fused_gss_loss,
    fused_gss_objective,
)
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.objective_behaviours import random_labels

_OPTIONS: dict[str, Any] = {
    "temperature": 4.0,
    "leader_threshold": 0.6,
    "member_threshold": 0.5,
    "leader_blend": 0.4,
    "mask_ratio": 0.3,
    "divergence": "cross_entropy",
    "semantics": "released",
    "class_weighting": False,
    "clamp": 0.1,
    "reduction": "none",
    "backend": "reference",
}


@pytest.mark.parametrize("name", [None, *_OPTIONS])
def test_equals_the_function(name: str | None) -> None:
    """With its defaults, and with each argument changed."""
    options = {} if name is None else {name: _OPTIONS[name]}
    logits = random_tensor("cpu")
    want = fused_gss_loss(logits, BRATS_2018, seed=3, **options)
    assert torch.equal(GSSLoss(BRATS_2018, **options)(logits, seed=3), want)
    if name not in (None, "backend"):
        assert not torch.equal(fused_gss_loss(logits, BRATS_2018, seed=3), want)


def test_takes_the_arguments_of_a_call() -> None:
    logits = random_tensor("cpu")
    keep = torch.ones(2, 4, 3, 5, 3, dtype=torch.bool)
    keep[:, :, 1] = False
    available = torch.tensor([[True, True, False, True], [True] * 4])
    for options in ({"voxel_mask": keep}, {"available": available, "seed": 1}):
        want = fused_gss_loss(logits, BRATS_2018, **options)
        assert torch.equal(GSSLoss(BRATS_2018)(logits, **options), want)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_returns_the_statistics_if_asked(reduction: Any) -> None:
    logits = random_tensor("cpu")
    module = GSSLoss(BRATS_2018, reduction=reduction)
    loss, statistics = module(logits, seed=3, return_stats=True)
    want, want_statistics = fused_gss_loss(logits, BRATS_2018, seed=3, reduction=reduction, return_stats=True)
    assert torch.equal(loss, want)
    assert torch.equal(module(logits, seed=3, return_stats=False), want)
    assert torch.equal(statistics.routes, want_statistics.routes)
    assert torch.equal(statistics.agreement, want_statistics.agreement)


_OBJECTIVE_OPTIONS = {name: value for name, value in _OPTIONS.items() if name != "reduction"} | {
    "supervised_weight": 0.7,
    "gss_weight": 1.9,
    "ignore_index": 2,
}


@pytest.mark.parametrize("name", [None, *_OBJECTIVE_OPTIONS])
def test_objective_equals_the_function(name: str | None) -> None:
    options = {} if name is None else {name: _OBJECTIVE_OPTIONS[name]}
    logits = random_tensor("cpu")
    labels = random_labels("cpu", tuple(logits.shape))
    plain = fused_gss_objective(logits, labels, BRATS_2018, seed=3)
    want = fused_gss_objective(logits, labels, BRATS_2018, seed=3, **options)
    module = GSSObjective(BRATS_2018, **options)
    assert torch.equal(module(logits, labels, seed=3), want)
    terms = module(logits, labels, seed=3, return_stats=True)
    assert torch.equal(terms.total, want)
    assert terms.statistics is not None
    assert f"{name}={options[name]!r}" in repr(module) if name else "gss_weight=1.0" in repr(module)
    if name not in (None, "backend"):
        assert not torch.equal(plain, want)


@pytest.mark.parametrize(("name", "value"), [("gss_weight", -1), ("ignore_index", 1.5), ("clamp", 0.0), ("backend", 1)])
def test_arguments_of_the_objective_are_checked_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        GSSObjective(BRATS_2018, **{name: value})


@pytest.mark.parametrize("module", [GSSLoss, GSSObjective])
def test_there_are_no_other_arguments(module: Any) -> None:
    with pytest.raises(TypeError, match="temprature"):
        module(BRATS_2018, temprature=4.0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_survives_copy_and_pickle(duplicate: Any) -> None:
    loss = GSSLoss(BRATS_2018, **_OPTIONS)
    logits = random_tensor("cpu")
    assert torch.equal(duplicate(loss)(logits, seed=2), loss(logits, seed=2))


def test_repr_names_every_setting() -> None:
    text = repr(GSSLoss(BRATS_2015, **_OPTIONS))
    for name, value in _OPTIONS.items():
        assert f"{name}={value!r}" in text
    assert "NET" in text


def test_has_no_state() -> None:
    module = GSSLoss(BRATS_2018)
    assert not module.state_dict()
    assert not list(module.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("leader_threshold", 1.0),
        ("member_threshold", 0.0),
        ("leader_blend", 2.0),
        ("mask_ratio", -1.0),
        ("divergence", "l2"),
        ("semantics", "other"),
        ("clamp", 0.0),
        ("reduction", "sum"),
        ("backend", "tpu"),
        ("temperature", "8"),
        ("mask_ratio", None),
        ("class_weighting", 1),
    ],
)
def test_arguments_are_checked_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        GSSLoss(BRATS_2018, **{name: value})


@pytest.mark.parametrize("groups", [BRATS_2018.leaders, None])
def test_groups_are_checked_at_once(groups: Any) -> None:
    with pytest.raises(ValueError, match=f"^groups: got {type(groups).__name__}, need a CategoryGroups"):
        GSSLoss(groups)


@pytest.mark.parametrize("function", [fused_gss_loss, fused_gss_objective])
def test_signatures_show_the_hyper_parameters_with_their_defaults(function: Any) -> None:
    shown = inspect.signature(function).parameters
    for name, value in GSSSettings()._asdict().items():
        assert shown[name].default == value
