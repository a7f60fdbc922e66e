"""`fused_segmentation_loss` on the backends `cpu` and `reference`, and `SegmentationLoss`."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from gss_kernels import SegmentationLoss, SegmentationTerms, fused_segmentation_loss
from gss_kernels.segmentation import reference
from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.segmentation.cpu import _CHUNK_VOXELS as _CHUNK
from gss_kernels.settings import Backend, InputKind
from tests.gss_kernels.segmentation_behaviours import (
    EVERYWHERE,
    FUSED,
    KINDS,
    Behaviour,
    random_input,
    random_labels,
    terms_and_gradient,
)
from tests.gss_kernels.segmentation_cases import TABLE, SegmentationCase, check, problem, run
from tests.gss_kernels.segmentation_oracle import segmentation

BACKENDS: tuple[Backend, ...] = ("cpu", "reference")


@st.composite
def any_case(draw: st.DrawFn, *dtypes: torch.dtype) -> SegmentationCase:
    batch = draw(st.integers(1, 3))
    absent = draw(st.none() | st.lists(st.integers(0, batch - 1), unique=True).map(tuple))
    layouts = ("contiguous", "channels_last", "permuted", "sliced")
    # An expanded batch shares its voxels, which are filled with NaN where a sample is absent.
    return SegmentationCase(
        name="drawn",
        input_kind=draw(st.sampled_from(KINDS)),
        categories=draw(st.integers(2, 8)),
        batch=batch,
        spatial=tuple(draw(st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=3))),
        absent=absent,
        layout=draw(st.sampled_from(layouts if absent else (*layouts, "expanded"))),
        dtype=draw(st.sampled_from(dtypes)),
        label_dtype=draw(st.sampled_from([torch.uint8, torch.int64])),
        upstream=draw(st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (-0.5, 3.0)])),
        seed=draw(st.integers(0, 2**32)),
    )


def properties(examples: int) -> Any:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@properties(150)
@given(any_case(torch.float64))
def test_float64_agrees_with_oracle(case: SegmentationCase) -> None:
    for backend in BACKENDS:
        check(case, run(case, backend))
    problem.cache_clear()


@properties(150)
@given(any_case(torch.float32, torch.bfloat16, torch.float16))
def test_other_dtypes_agree_with_oracle(case: SegmentationCase) -> None:
    for backend in BACKENDS:
        check(case, run(case, backend))
    problem.cache_clear()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("categories", range(2, 9))
@pytest.mark.parametrize("input_kind", KINDS)
def test_every_size_agrees_with_oracle(input_kind: InputKind, categories: int, batch: int, backend: Backend) -> None:
    for number, spatial in enumerate(((7,), (3, 5), (3, 1, 5))):
        for absent in (None, (batch - 1,)):
            label_dtype = (torch.uint8, torch.int64)[(number + categories) % 2]
            case = SegmentationCase(
                "size", input_kind, categories, batch, spatial, absent, label_dtype=label_dtype, seed=number
            )
            check(case, run(case, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(name: str, backend: Backend) -> None:
    check(TABLE[name], run(TABLE[name], backend))


def test_oracle_on_two_voxels_worked_out_by_hand() -> None:
    """Both categories have weight 1/2; o is 0.8 and 0.4 for the right one."""
    prediction = torch.tensor([[[0.8, 0.6], [0.2, 0.4]]], dtype=torch.float64).numpy()
    answer = segmentation(prediction, torch.tensor([[0, 1]]).numpy(), "probabilities")
    assert answer.cross_entropy == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 4)
    assert answer.dice == pytest.approx(1 - (2 * 0.8 / 2.4 + 2 * 0.4 / 1.6) / 2)
    assert answer.cross_entropy_gradient[0, 1, 1] == pytest.approx(-0.5 / (0.4 * 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("behaviour", EVERYWHERE, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour, backend: Backend) -> None:
    behaviour(backend, "cpu")


@pytest.mark.parametrize("behaviour", FUSED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour_of_a_handwritten_backward(behaviour: Behaviour) -> None:
    behaviour("cpu", "cpu")


@pytest.mark.parametrize("available", [None, [True, False]])
@pytest.mark.parametrize("input_kind", KINDS)
def test_gradcheck(input_kind: InputKind, available: list[bool] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=generator)
    leaf = (leaf if input_kind == "logits" else leaf.softmax(dim=1)).requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 3), generator=generator)
    samples = None if available is None else torch.tensor(available)

    def terms(prediction: Tensor) -> tuple[Tensor, ...]:
        return fused_segmentation_loss(prediction, labels, input_kind=input_kind, available=samples, backend="cpu")

    assert torch.autograd.gradcheck(terms, leaf)


@pytest.mark.parametrize("shape", [(1, 4, _CHUNK), (2, 3, _CHUNK + 1), (2, 2, 2, 31, 1001)])
@pytest.mark.parametrize("input_kind", KINDS)
def test_volumes_larger_than_a_chunk(input_kind: InputKind, shape: tuple[int, ...]) -> None:
    prediction, labels = random_input("cpu", input_kind, shape).double(), random_labels("cpu", shape)
    available = torch.tensor([True, False])[-shape[0] :]
    for options in ({}, {"available": available}):
        results = [terms_and_gradient(prediction, labels, name, input_kind=input_kind, **options) for name in BACKENDS]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("input_kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_no_bit(dtype: torch.dtype, input_kind: InputKind, backend: Backend) -> None:
    prediction, labels = random_input("cpu", input_kind).to(dtype), random_labels("cpu")
    want = terms_and_gradient(prediction, labels, backend, input_kind=input_kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = terms_and_gradient(prediction, labels, backend, input_kind=input_kind)
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def test_auto_is_cpu_on_the_cpu() -> None:
    one, other = (terms_and_gradient(random_input("cpu"), random_labels("cpu"), name) for name in ("auto", "cpu"))
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_terms_have_names() -> None:
    terms = fused_segmentation_loss(random_input("cpu"), random_labels("cpu"))
    assert isinstance(terms, SegmentationTerms)
    assert terms._fields == ("cross_entropy", "dice")


@pytest.mark.parametrize("available", [None, torch.tensor([True, True, False])])
@pytest.mark.parametrize("label", [4, -1])
def test_reference_makes_of_a_label_that_is_no_category_nan(label: int, available: Tensor | None) -> None:
    """What a GPU shows, where labels are not checked; the gradient shows it too."""
    leaf, labels = random_input("cpu").requires_grad_(), random_labels("cpu").long()
    labels[1, 2, 2] = label
    terms = reference.loss(leaf, labels, SegmentationCall(from_logits=True), available)
    assert all(term.isnan() for term in terms)
    sum(terms).backward()
    assert leaf.grad is not None
    assert leaf.grad[:2].isnan().all()
    assert available is None or not leaf.grad[2].any()


def test_a_loss_kept_for_the_record_does_not_keep_the_prediction() -> None:
    leaf = random_input("cpu").requires_grad_()
    prediction = 2 * leaf
    alive = weakref.ref(prediction)
    terms = fused_segmentation_loss(prediction, random_labels("cpu"), backend="cpu")
    del prediction
    sum(terms).backward()
    gc.collect()
    assert alive() is None
    assert terms.dice.isfinite()


_INPUT = torch.zeros(2, 4, 3, 3)
_LABELS = torch.zeros(2, 3, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (torch.zeros(0, 4, 3, 3), "at least one sample"),
        (torch.zeros(2, 4, 0, 3), "at least one sample and one voxel"),
        (torch.zeros(2, 1, 3, 3), "at least 2 categories"),
        (torch.zeros(2, 0, 3, 3), "at least 2 categories"),
        (torch.zeros(2, 4), "one to three spatial axes"),
        (torch.zeros(2, 4, 1, 1, 3, 3), "one to three spatial axes"),
        (_INPUT.long(), "got dtype torch.int64"),
        (_INPUT.to(torch.complex64), "got dtype torch.complex64"),
        (None, "got NoneType"),
        ([_INPUT], "got list"),
    ],
)
def test_bad_input(prediction: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^input: .*{message}"):
        fused_segmentation_loss(prediction, _LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 3, 4, dtype=torch.int64), r"got shape \[2, 3, 4\], need \[2, 3, 3\]"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.int64), "got shape"),
        (torch.zeros(1, 3, 3, dtype=torch.int64), "got shape"),
        (_LABELS.float(), "got dtype torch.float32"),
        (_LABELS.bool(), "got dtype torch.bool"),
        (_LABELS.to("meta"), "device"),
        (None, "got NoneType"),
        (_LABELS + 4, "got values from 4 to 4 in sample 0, need 0 to 3"),
        (_LABELS - 1, "got values from -1 to -1 in sample 0"),
        (torch.cat((_LABELS[:1], _LABELS[1:] + 255)).to(torch.uint8), "got values from 255 to 255 in sample 1"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_labels(backend: Backend, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^labels: .*{message}"):
        fused_segmentation_loss(_INPUT, labels, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"available": torch.ones(3, dtype=torch.bool)}, "available: got shape"),
        ({"available": torch.ones(2, 1, dtype=torch.bool)}, "available: got shape"),
        ({"available": torch.ones(2)}, "available: got dtype"),
        ({"available": torch.ones(2, dtype=torch.bool, device="meta")}, "available: .*device"),
        ({"available": [True, True]}, "available: got list"),
        ({"input_kind": "logit"}, "input_kind: got 'logit', need one of 'logits', 'probabilities'"),
        ({"backend": "gpu"}, "backend: got 'gpu'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fused_segmentation_loss(_INPUT, _LABELS, **options)


def test_cpu_backend_takes_tensors_on_the_cpu() -> None:
    with pytest.raises(ValueError, match=r"^backend: got 'cpu' for input on meta"):
        fused_segmentation_loss(_INPUT.to("meta"), _LABELS.to("meta"), backend="cpu")


def test_triton_on_the_cpu_says_what_it_needs() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="backend: got 'triton' for input on the CPU"):
        fused_segmentation_loss(_INPUT, _LABELS, backend="triton")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("input_kind", KINDS)
def test_module_is_the_sum_of_both_terms(input_kind: InputKind, backend: Backend) -> None:
    available = torch.tensor([True, False, True])
    prediction, labels = random_input("cpu", input_kind), random_labels("cpu")
    module = SegmentationLoss(input_kind, backend)
    for options in ({}, {"available": available}):
        terms = fused_segmentation_loss(prediction, labels, input_kind=input_kind, backend=backend, **options)
        assert torch.equal(module(prediction, labels, **options), terms.cross_entropy + terms.dice)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_module_survives_copy_and_pickle(duplicate: Any) -> None:
    module = SegmentationLoss("probabilities", "reference")
    prediction, labels = random_input("cpu", "probabilities"), random_labels("cpu")
    assert torch.equal(duplicate(module)(prediction, labels), module(prediction, labels))
    assert repr(duplicate(module)) == (
        "SegmentationLoss(input_kind='probabilities', ignore_index=None, backend='reference')"
    )
    assert not module.state_dict()


@pytest.mark.parametrize(("name", "value"), [("input_kind", "softmax"), ("backend", "tpu")])
def test_module_checks_its_arguments_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got"):
        SegmentationLoss(**{name: value})


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_labels_are_those_of_that_number(backend: Backend) -> None:
    """And not those that an overflow makes alike: as bytes -1 is 255, and 258 is 2."""
    prediction, labels = random_input("cpu"), random_labels("cpu")
    want = fused_segmentation_loss(prediction, labels, backend=backend)
    got = fused_segmentation_loss(prediction, labels, ignore_index=258, backend=backend)
    assert torch.equal(torch.stack(got), torch.stack(want))
    labels[0, 0] = 255
    with pytest.raises(ValueError, match=r"got values from .* to 255 in sample 0, need 0 to 3, or -1 to be ignored"):
        fused_segmentation_loss(prediction, labels, ignore_index=-1, backend=backend)
