"""`fused_gss_objective` on the backends `cpu` and `reference`."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2018, CategoryGroups, GSSStatistics, ObjectiveTerms, fused_gss_loss, fused_gss_objective
from gss_kernels.gss.cpu import _CHUNK_VOXELS as _CHUNK
from gss_kernels.settings import Backend
from tests.gss_kernels.behaviours import random_tensor
from tests.gss_kernels.objective_behaviours import (
    EVERYWHERE,
    FUSED,
    SHAPE,
    UNCHECKED,
    Behaviour,
    assert_same_bits,
    available_tensor,
    random_labels,
    tensors_of,
    terms_and_gradient,
)
from tests.gss_kernels.objective_cases import TABLE, check, run

BACKENDS: tuple[Backend, ...] = ("cpu", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracles(name: str, backend: Backend) -> None:
    check(TABLE[name], run(TABLE[name], backend), gradients_added_in_storage=backend == "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TABLE)
def test_case_in_float64_agrees_with_oracles(name: str, backend: Backend) -> None:
    case = TABLE[name]
    case = dataclasses.replace(case, call=dataclasses.replace(case.call, dtype=torch.float64))
    check(case, run(case, backend))


def test_table_has_every_number_of_modalities_and_categories() -> None:
    calls = [case.call for case in TABLE.values()]
    assert {call.modalities for call in calls} == set(range(2, 7))
    assert {len(call.leaders) for call in calls} == set(range(2, 9))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("behaviour", EVERYWHERE, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour, backend: Backend) -> None:
    behaviour(backend, "cpu")


@pytest.mark.parametrize("behaviour", FUSED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour_of_a_handwritten_backward(behaviour: Behaviour) -> None:
    behaviour("cpu", "cpu")


@pytest.mark.parametrize("behaviour", UNCHECKED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour_where_labels_are_not_checked(behaviour: Behaviour) -> None:
    behaviour("reference", "cpu")


@pytest.mark.parametrize("temperature", [8.0, 3.7])
@pytest.mark.parametrize("shape", [(1, 4, 4, _CHUNK + 1), (3, 4, 4, 2, 23, 759)])
def test_volumes_larger_than_a_chunk(shape: tuple[int, ...], temperature: float) -> None:
    logits, labels = random_tensor("cpu", shape).double(), random_labels("cpu", shape)
    options: dict[str, Any] = {"temperature": temperature, "seed": 9}
    if shape[0] == 3:
        options["available"] = available_tensor("cpu")
    results = [tensors_of(terms_and_gradient(logits, labels, name, **options)) for name in BACKENDS]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_no_bit(dtype: torch.dtype, backend: Backend) -> None:
    logits, labels = random_tensor("cpu", SHAPE).to(dtype), random_labels("cpu")
    want = terms_and_gradient(logits, labels, backend, available=available_tensor("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = terms_and_gradient(logits, labels, backend, available=available_tensor("cpu"))
    assert_same_bits(got, want)


def test_auto_is_cpu_on_the_cpu() -> None:
    logits, labels = random_tensor("cpu", SHAPE), random_labels("cpu")
    assert_same_bits(terms_and_gradient(logits, labels, "auto"), terms_and_gradient(logits, labels, "cpu"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_returned_shapes_and_dtypes(dtype: torch.dtype, backend: Backend) -> None:
    logits = random_tensor("cpu", (2, 3, 5, 4)).to(dtype)
    labels = random_labels("cpu", logits.shape)
    groups = CategoryGroups(((0,), (1,), (2,), (0, 1), (1, 2)))
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    total = fused_gss_objective(logits, labels, groups, seed=0, backend=backend)
    assert (total.shape, total.dtype) == ((), computed)
    options: dict[str, Any] = {"seed": 0, "backend": backend}
    for stats, form in ((False, {"return_terms": True}), (True, {"return_stats": True})):
        terms = fused_gss_objective(logits, labels, groups, **form, **options)
        assert isinstance(terms, ObjectiveTerms)
        assert terms._fields == ("total", "cross_entropy", "dice", "gss", "statistics")
        assert [tuple(term.shape) for term in terms[:4]] == [(), (3,), (3,), ()]
        assert all(term.dtype == computed for term in terms[:4])
        assert (terms.statistics is not None) == stats
        if terms.statistics is not None:
            assert isinstance(terms.statistics, GSSStatistics)
            assert [tuple(share.shape) for share in terms.statistics] == [(5, 4), (3,)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_options_are_those_of_the_gss_loss(backend: Backend) -> None:
    """Each of them at a value that matters."""
    logits, labels = random_tensor("cpu", SHAPE), random_labels("cpu")
    keep = torch.rand(3, 4, *SHAPE[3:], generator=torch.Generator().manual_seed(0)) > 0.5
    variants: list[dict[str, Any]] = [
        {"temperature": 2.0},
        {"leader_threshold": 0.3},
        {"member_threshold": 0.3},
        {"leader_blend": 1.0},
        {"mask_ratio": 0.9},
        {"seed": 8},
        {"seed": None, "voxel_mask": keep},
        {"available": available_tensor("cpu")},
        {"divergence": "cross_entropy"},
        {"semantics": "released"},
        {"class_weighting": False},
        {"clamp": 0.2},
    ]
    default = fused_gss_loss(logits, BRATS_2018, seed=1, backend=backend)
    for variant in variants:
        options = {"seed": 1, "backend": backend} | variant
        want = fused_gss_loss(logits, BRATS_2018, **options)
        got = fused_gss_objective(logits, labels, BRATS_2018, **options, return_terms=True).gss
        assert not torch.isclose(want, default), variant
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_an_objective_kept_for_the_record_does_not_keep_the_logits() -> None:
    leaf = random_tensor("cpu", SHAPE).requires_grad_()
    logits = 2 * leaf
    alive = weakref.ref(logits)
    terms = fused_gss_objective(logits, random_labels("cpu"), BRATS_2018, seed=0, return_terms=True, backend="cpu")
    del logits
    terms.total.backward()
    gc.collect()
    assert alive() is None
    assert terms.total.isfinite()


_LOGITS = torch.zeros(2, 4, 4, 3, 3)
_LABELS = torch.zeros(2, 3, 3, dtype=torch.int64)


def wrong_label(value: int, dtype: torch.dtype = torch.int64) -> Tensor:
    labels = _LABELS.to(dtype, copy=True)
    labels[1, 2, 0] = value
    return labels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (wrong_label(4), "got values from 0 to 4 in sample 1, need 0 to 3"),
        (wrong_label(-1), "got values from -1 to 0 in sample 1, need 0 to 3"),
        (wrong_label(255, torch.uint8), "got values from 0 to 255 in sample 1, need 0 to 3"),
        (_LABELS.float(), "got dtype torch.float32, need integers"),
        (_LABELS[:1], r"got shape \[1, 3, 3\], need \[2, 3, 3\]"),
        (_LABELS[:, None], r"got shape \[2, 1, 3, 3\], need \[2, 3, 3\]"),
        (_LABELS.to("meta"), "got a tensor on meta"),
        (None, "got NoneType, need a tensor"),
        ([[0]], "got list, need a tensor"),
    ],
)
def test_bad_labels(labels: Any, message: str, backend: Backend) -> None:
    with pytest.raises(ValueError, match=f"^labels: {message}"):
        fused_gss_objective(_LOGITS, labels, BRATS_2018, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_checked_where_any_modality_is_there(backend: Backend) -> None:
    labels = wrong_label(9)
    available = torch.tensor([[True] * 4, [False, False, True, False]])
    with pytest.raises(ValueError, match=r"^labels: got values from 0 to 9 in sample 1"):
        fused_gss_objective(_LOGITS, labels, BRATS_2018, available=available, backend=backend)
    available[1] = False
    assert fused_gss_objective(_LOGITS, labels, BRATS_2018, available=available, backend=backend).isfinite()


@pytest.mark.parametrize("name", ["supervised_weight", "gss_weight"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_bad_weights(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got {value}, need a finite number of 0 or more"):
        fused_gss_objective(_LOGITS, _LABELS, BRATS_2018, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: got 0.0"),
        ({"leader_threshold": 1.0}, "leader_threshold: got 1.0"),
        ({"member_threshold": 0.0}, "member_threshold: got 0.0"),
        ({"leader_blend": 1.1}, "leader_blend: got 1.1"),
        ({"mask_ratio": 1.1}, "mask_ratio: got 1.1"),
        ({"clamp": 0.0}, "clamp: got 0.0"),
        ({"divergence": "js"}, "divergence: got 'js'"),
        ({"semantics": "public"}, "semantics: got 'public'"),
        ({"backend": "gpu"}, "backend: got 'gpu'"),
        ({"available": torch.ones(2, 3, dtype=torch.bool)}, "available: got shape"),
        ({"available": torch.ones(2, 4)}, "available: got dtype"),
        ({"voxel_mask": torch.ones(2, 4, 3, 4, dtype=torch.bool)}, "voxel_mask: got shape"),
        ({"voxel_mask": torch.ones(2, 4, 3, 3, dtype=torch.bool), "seed": 0}, "seed: .*voxel_mask"),
        ({"seed": 2**64}, "seed: got 18446744073709551616"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fused_gss_objective(_LOGITS, _LABELS, BRATS_2018, **options)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (_LOGITS[:0], "logits: .*batch"),
        (_LOGITS[..., :0], "logits: .*voxel"),
        (_LOGITS[:, :3], "logits: got 3 modalities"),
        (_LOGITS[:, :, :3], "logits: got 3 categories"),
        (_LOGITS.long(), "logits: got dtype torch.int64"),
    ],
)
def test_bad_logits(logits: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fused_gss_objective(logits, _LABELS, BRATS_2018)


def test_reduction_is_no_option() -> None:
    with pytest.raises(TypeError, match="reduction"):
        fused_gss_objective(_LOGITS, _LABELS, BRATS_2018, reduction="none")  # type: ignore[call-overload]


def test_backends_that_do_not_take_the_logits() -> None:
    with pytest.raises(ValueError, match=r"^backend: got 'cpu' for logits on meta"):
        fused_gss_objective(_LOGITS.to("meta"), _LABELS.to("meta"), BRATS_2018, backend="cpu")
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match=r"^backend: got 'triton' for logits on the CPU"):
        fused_gss_objective(_LOGITS, _LABELS, BRATS_2018, backend="triton")
