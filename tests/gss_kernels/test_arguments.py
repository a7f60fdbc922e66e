"""Arguments of the wrong kind: the message names the argument, what it is and what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import (
    BRATS_2018,
    GSSLoss,
    SegmentationLoss,
    fused_gss_loss,
    fused_gss_objective,
    fused_segmentation_loss,
    gss_soft_targets,
)
from gss_kernels.tensors import check_prediction
from tests.gss_kernels.behaviours import random_tensor

_LOGITS = random_tensor("cpu", (2, 4, 4, 3, 3))
_LABELS = torch.zeros(2, 3, 3, dtype=torch.int64)


def loss(logits: Any = _LOGITS, groups: Any = BRATS_2018, **options: Any) -> Tensor:
    return fused_gss_loss(logits, groups, **options)


def objective(logits: Any = _LOGITS, groups: Any = BRATS_2018, labels: Any = _LABELS, **options: Any) -> Tensor:
    return fused_gss_objective(logits, labels, groups, **options)


def segmentation(prediction: Any = _LOGITS[:, 0], labels: Any = _LABELS, **options: Any) -> Tensor:
    return fused_segmentation_loss(prediction, labels, **options).dice


def targets(logits: Any = _LOGITS, groups: Any = BRATS_2018, **options: Any) -> Tensor:
    return gss_soft_targets(logits, groups, **options)


GROUP_FUNCTIONS = pytest.mark.parametrize("function", [loss, targets, objective])


def refused(message: str) -> Any:
    """The whole message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@GROUP_FUNCTIONS
@pytest.mark.parametrize("value", [np.ones((2, 4), dtype=bool), [[True] * 4] * 2, "all", 1])
def test_available_that_is_no_tensor(function: Callable[..., Tensor], value: Any) -> None:
    with refused(f"available: got {type(value).__name__}, need a bool tensor [B, M]"):
        function(available=value)


def test_available_of_one_prediction_that_is_no_tensor() -> None:
    with refused("available: got ndarray, need a bool tensor [B]"):
        segmentation(available=np.ones(2, dtype=bool))


@pytest.mark.parametrize("function", [loss, objective])
@pytest.mark.parametrize("value", [np.ones((2, 4, 3, 3), dtype=bool), [True], 0.2])
def test_voxel_mask_that_is_no_tensor(function: Callable[..., Tensor], value: Any) -> None:
    with refused(f"voxel_mask: got {type(value).__name__}, need a bool tensor [B, M, *spatial]"):
        function(voxel_mask=value)


@GROUP_FUNCTIONS
@pytest.mark.parametrize("value", [((0,), (1,), (0, 3), (1,)), None, "BRATS_2018"])
def test_groups_of_another_type(function: Callable[..., Tensor], value: Any) -> None:
    with refused(f"groups: got {type(value).__name__}, need a CategoryGroups"):
        function(groups=value)


@GROUP_FUNCTIONS
@pytest.mark.parametrize("value", [None, np.zeros((2, 4, 4, 3)), {"FLAIR": _LOGITS[:, 0]}, 1.0, "logits", {1, 2}])
def test_logits_of_another_type(function: Callable[..., Tensor], value: Any) -> None:
    need = "need a tensor [B, M, C, *spatial] or a sequence of one [B, C, *spatial] for each modality"
    with refused(f"logits: got {type(value).__name__}, {need}"):
        function(value)


def test_shapes_read_the_same_everywhere() -> None:
    apart = [*_LOGITS.unbind(1)[:3], _LOGITS[:, 3, :, :2]]
    with refused("logits[3]: got shape [2, 4, 2, 3], need that of logits[0], [2, 4, 3, 3]"):
        loss(apart)
    with refused("available: got shape [4], need [2, 4], [B, M]"):
        loss(available=torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("options", [{}, {"backend": "triton"}])
def test_devices_without_a_backend(options: dict[str, Any]) -> None:
    logits, labels = _LOGITS.to("meta"), _LABELS.to("meta")
    if options:
        pytest.importorskip("triton")
    for call in (lambda: loss(logits, **options), lambda: objective(logits, labels=labels, **options)):
        with refused("logits: got device meta, need cpu or cuda, or backend='reference'"):
            call()
    with refused("input: got device meta, need cpu or cuda, or backend='reference'"):
        segmentation(logits[:, 0], labels, **options)


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("temperature", "a finite number above 0"),
        ("leader_threshold", "a number strictly between 0 and 1"),
        ("member_threshold", "a number strictly between 0 and 1"),
        ("leader_blend", "a number from 0 to 1"),
        ("mask_ratio", "a number from 0 to 1"),
        ("clamp", "a number strictly between 0 and 1"),
        ("supervised_weight", "a finite number of 0 or more"),
        ("gss_weight", "a finite number of 0 or more"),
    ],
)
@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("8", "'8'"),
        (None, "None"),
        (True, "True"),
        (torch.tensor(0.5), "Tensor"),
        (np.full(2, 0.5), "ndarray"),
        ([0.5], "list"),
        (1j, "complex"),
    ],
)
def test_numbers_of_another_type(name: str, need: str, value: Any, got: str) -> None:
    with refused(f"{name}: got {got}, need {need}"):
        objective(**{name: value})


@pytest.mark.parametrize("number", [int, np.int64, np.float32, np.float64])
def test_numbers_of_numpy_and_integers(number: Any) -> None:
    want = objective(seed=1, temperature=4.0, mask_ratio=1.0, leader_blend=0.0)
    options = {"temperature": number(4), "mask_ratio": number(1), "leader_blend": number(0)}
    assert torch.equal(objective(seed=1, **options), want)


@pytest.mark.parametrize("value", [1, 0.0, None, "yes", torch.tensor(True)])
def test_class_weighting_that_is_no_bool(value: Any) -> None:
    for function in (loss, objective, lambda **options: GSSLoss(BRATS_2018, **options)):
        with pytest.raises(ValueError, match=r"^class_weighting: got .*, need True or False$"):
            function(class_weighting=value)


@pytest.mark.parametrize("name", ["divergence", "semantics", "reduction", "backend"])
@pytest.mark.parametrize("value", [None, 1, ["kl"], np.array(["kl", "paper"]), _LOGITS])
def test_choices_of_another_type(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got .*, need one of "):
        loss(**{name: value})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
@pytest.mark.parametrize("function", [segmentation, objective])
def test_labels_of_another_dtype(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    with refused(f"labels: got dtype {dtype}, need integers; convert with labels.long()"):
        function(labels=_LABELS.to(dtype))


@pytest.mark.parametrize("function", [segmentation, objective])
def test_labels_with_a_channel_axis(function: Callable[..., Tensor]) -> None:
    need = "need [2, 3, 3], [B, *spatial]"
    with refused(f"labels: got shape [2, 1, 3, 3], {need}; remove the channel axis, labels[:, 0]"):
        function(labels=_LABELS[:, None])
    with refused(f"labels: got shape [2, 3, 2], {need}"):
        function(labels=_LABELS[..., :2])


@pytest.mark.parametrize("spatial", [(3,), (3, 3), (3, 3, 3)])
def test_a_prediction_with_an_axis_of_modalities(spatial: tuple[int, ...]) -> None:
    prediction, labels = torch.zeros(2, 4, 4, *spatial), torch.zeros(2, *spatial, dtype=torch.int64)
    shape = list(prediction.shape)
    advice = "which looks like [B, M, C, *spatial]: pass one modality, or use fused_gss_objective"
    with refused(f"input: got shape {shape}, {advice}"):
        check_prediction(prediction, labels)
    assert check_prediction(prediction[:, 0], labels).shape == (2, 4, *spatial)


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8])
def test_seeds_of_numpy(number: Any) -> None:
    assert torch.equal(loss(seed=number(7)), loss(seed=7))
    assert not torch.equal(loss(seed=number(7)), loss(seed=8))


def test_the_highest_seed_of_numpy() -> None:
    assert torch.equal(loss(seed=np.uint64(2**64 - 1)), loss(seed=-1))


@pytest.mark.parametrize("value", [True, np.bool_(True), 1.0, np.float32(1), "1", [1], np.zeros(1, dtype=np.int64)])
def test_seeds_of_another_type(value: Any) -> None:
    with refused(f"seed: got {type(value).__name__}, need an int, a 0-dim int64 tensor or None"):
        loss(seed=value)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_numbers_may_be_arguments_of_a_compiled_function(dynamic: bool) -> None:
    def scaled(logits: Tensor, temperature: float, mask_ratio: float, seed: int) -> Tensor:
        return fused_gss_loss(logits, BRATS_2018, temperature=temperature, mask_ratio=mask_ratio, seed=seed)

    torch.compiler.reset()
    compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for temperature, mask_ratio, seed in ((8.0, 0.2, 3), (4, 0.5, 4), (5.5, 0, 2**40)):
        want = scaled(_LOGITS, temperature, mask_ratio, seed)
        torch.testing.assert_close(compiled(_LOGITS, temperature, mask_ratio, seed), want)


@pytest.mark.parametrize("module", [GSSLoss(BRATS_2018), SegmentationLoss()])
def test_modules_compile(module: torch.nn.Module) -> None:
    arguments = (_LOGITS[:, 0], _LABELS) if isinstance(module, SegmentationLoss) else (_LOGITS,)
    options = {} if isinstance(module, SegmentationLoss) else {"seed": 3}
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments, **options), module(*arguments, **options))
