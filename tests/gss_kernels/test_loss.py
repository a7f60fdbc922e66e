"""`fused_gss_loss` and `gss_soft_targets` on the backends `cpu` and `reference`."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from gss_kernels import (
    BRATS_2018,
    CategoryGroups,
    fused_gss_loss,
    fused_gss_objective,
    gss_loss_reference,
    gss_soft_targets,
)
from gss_kernels.gss.cpu import _CHUNK_VOXELS as _CHUNK
from gss_kernels.settings import Backend
from tests.gss_kernels.behaviours import EVERYWHERE, FUSED, Behaviour, loss_and_gradient, random_tensor
from tests.gss_kernels.cases import BRATS_4, TABLE, Case, check, leaves, loss_options, problem, run, target_options
from tests.gss_kernels.oracle import Settings, vote, voxel_target

BACKENDS: tuple[Backend, ...] = ("cpu", "reference")
_LAYOUTS = ("stacked", "sequence", "permuted", "channels_last_3d", "sliced", "expanded")


@st.composite
def any_case(draw: st.DrawFn, *dtypes: torch.dtype) -> Case:
    M, C, B = draw(st.integers(2, 6)), draw(st.integers(2, 8)), draw(st.integers(1, 3))
    leader_set = st.sets(st.integers(0, M - 1), min_size=1).map(lambda leaders: tuple(sorted(leaders)))
    pairs = list(itertools.product(range(B), range(M)))
    hyper_parameters = Settings(
        temperature=draw(st.sampled_from([8.0, 4.0, 3.7, 2.0, 1.0, 16.0])),
        leader_threshold=draw(st.sampled_from([0.75, 0.5, 0.3])),
        member_threshold=draw(st.sampled_from([0.85, 0.4, 0.25])),
        leader_blend=draw(st.sampled_from([0.3, 0.0, 1.0])),
        semantics=draw(st.sampled_from(["paper", "released"])),
        divergence=draw(st.sampled_from(["kl", "cross_entropy"])),
        class_weighting=draw(st.booleans()),
        clamp=draw(st.sampled_from([0.005, 0.05, 0.2])),
    )
    return Case(
        name="drawn",
        leaders=tuple(draw(leader_set) for _ in range(C)),
        modalities=M,
        batch=B,
        spatial=tuple(draw(st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=3))),
        mask=draw(st.sampled_from(["drawn", "given", "none"])),
        mask_ratio=draw(st.sampled_from([0.2, 0.9, 1.0])),
        absent=draw(st.none() | st.lists(st.sampled_from(pairs), unique=True).map(tuple)),
        settings=hyper_parameters,
        reduction=draw(st.sampled_from(["mean", "none"])),
        layout=draw(st.sampled_from(_LAYOUTS)),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(-(2**63), 2**64 - 1)),
    )


def without_layout_conflicts(case: Case) -> bool:
    """An expanded batch shares its logits, but samples differ in what is absent."""
    return not (case.layout == "expanded" and case.absent)


def properties(examples: int) -> Any:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@properties(70)
@given(any_case(torch.float64).filter(without_layout_conflicts))
def test_float64_agrees_with_oracle(case: Case) -> None:
    for backend in BACKENDS:
        check(case, run(case, backend))
    problem.cache_clear()


@properties(40)
@given(any_case(torch.float32, torch.bfloat16, torch.float16).filter(without_layout_conflicts))
def test_other_dtypes_agree_with_oracle(case: Case) -> None:
    for backend in BACKENDS:
        check(case, run(case, backend))
    problem.cache_clear()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(name: str, backend: str, record_property: Any) -> None:
    case = TABLE[name]
    record_property("voxels moved off a threshold", problem(case).moved)
    check(case, run(case, backend))


def test_few_voxels_had_to_be_moved_off_a_threshold() -> None:
    moved = sum(problem(case).moved for case in TABLE.values())
    voxels = sum(case.batch * int(np.prod(case.spatial)) for case in TABLE.values())
    assert moved <= 10
    assert voxels > 5000


def test_table_takes_every_route() -> None:
    """Otherwise agreement would say little."""
    case = TABLE["brats_2018"]
    logits = problem(case).logits.reshape(2, 4, 4, -1)
    routes = set()
    sharp, tempered = (np.exp(z) / np.exp(z).sum(axis=2, keepdims=True) for z in (logits, logits / 8))
    for b, c, v in np.ndindex(2, 4, logits.shape[3]):
        p, q = (dict(enumerate(values[b, :, c, v].tolist())) for values in (sharp, tempered))
        routes.add((len(case.leaders[c]), vote(p, q, case.leaders[c], case.settings)[0]))
    want = set(itertools.product((1, 2), ("agree", "members", "minimum"))) | {(2, "split")}
    assert routes == want


def test_oracle_on_a_voxel_worked_out_by_hand() -> None:
    """Two modalities, T = 1; FLAIR leads category 0 with p = 0.8, T1ce leads category 1 with p = 0.9."""
    logits = {0: [float(np.log(0.8)), float(np.log(0.2))], 1: [float(np.log(0.1)), float(np.log(0.9))]}
    target = voxel_target(logits, ((0,), (1,)), Settings(temperature=1.0))
    np.testing.assert_allclose(target, [0.8 / 1.7, 0.9 / 1.7])
    target = voxel_target(logits, ((0,), (1,)), Settings(temperature=1.0, leader_threshold=0.85))
    np.testing.assert_allclose(target, [0.1 / 1.0, 0.9 / 1.0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("behaviour", EVERYWHERE, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour, backend: Backend) -> None:
    behaviour(backend, "cpu")


@pytest.mark.parametrize("behaviour", FUSED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour_of_a_handwritten_backward(behaviour: Behaviour) -> None:
    behaviour("cpu", "cpu")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 4, 4, _CHUNK), {}),
        ((2, 3, 2, _CHUNK + 1), {"available": [[True, False, True], [True, True, True]]}),
        ((1, 2, 3, 2, 33, 499), {"semantics": "released"}),
    ],
    ids=["one_chunk", "one_voxel_more", "three_chunks"],
)
def test_volumes_larger_than_a_chunk(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    groups = CategoryGroups(((0,), (1,), (0, 1), (1,))[: shape[2]])
    options = {name: torch.tensor(value) if name == "available" else value for name, value in options.items()}
    logits = random_tensor("cpu", shape).double()
    results = [loss_and_gradient(logits, backend, groups, seed=9, mask_ratio=0.2, **options) for backend in BACKENDS]
    targets = [gss_soft_targets(logits, groups, **options, backend=backend) for backend in BACKENDS]
    for one, other in zip((*results[0], targets[0]), (*results[1], targets[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", _LAYOUTS[1:])
def test_layout_does_not_matter(layout: Any, backend: Backend) -> None:
    case = Case(layout, layout=layout, mask="given")
    data = problem(case)
    logits = leaves(case, data.logits)[1]
    contiguous = torch.from_numpy(data.logits).float()
    losses = [fused_gss_loss(z, BRATS_2018, **loss_options(case), backend=backend) for z in (logits, contiguous)]
    targets = [gss_soft_targets(z, BRATS_2018, **target_options(case), backend=backend) for z in (logits, contiguous)]
    assert torch.equal(*losses)
    assert torch.equal(*targets)


def test_mean_is_over_samples_of_the_sum_over_modalities() -> None:
    logits = random_tensor("cpu")
    losses = fused_gss_loss(logits, BRATS_2018, seed=0, reduction="none")
    assert losses.shape == (2, 4)
    torch.testing.assert_close(fused_gss_loss(logits, BRATS_2018, seed=0), losses.sum(dim=1).mean())


@pytest.mark.parametrize("backend", BACKENDS)
def test_divergences_have_the_same_gradient(backend: Backend) -> None:
    logits = random_tensor("cpu")
    (kl, kl_gradient), (entropy, entropy_gradient) = (
        loss_and_gradient(logits, backend, divergence=name) for name in ("kl", "cross_entropy")
    )
    torch.testing.assert_close(kl_gradient, entropy_gradient)
    assert (kl < entropy).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_agreeing_modalities_lose_nothing(backend: Backend) -> None:
    """Where all modalities say the same and are sure of it, students and target agree."""
    logits = (6 * torch.eye(4)[torch.arange(24) % 4]).T.expand(1, 4, 4, 24)
    losses, gradient = loss_and_gradient(logits, backend, class_weighting=False, temperature=2.0)
    torch.testing.assert_close(losses, torch.zeros(1, 4), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)


def test_auto_is_cpu_on_the_cpu() -> None:
    logits = random_tensor("cpu")
    one, other = (fused_gss_loss(logits, BRATS_2018, seed=1, backend=name) for name in ("auto", "cpu"))
    assert torch.equal(one, other)


def test_loss_reference_is_the_backend() -> None:
    logits = random_tensor("cpu")
    want = fused_gss_loss(logits, BRATS_2018, seed=1, clamp=0.1, backend="reference")
    assert torch.equal(gss_loss_reference(logits, BRATS_2018, seed=1, clamp=0.1), want)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (0.0, -1.0, float("nan"), float("inf"))),
        ("leader_threshold", (0.0, 1.0, -0.1, 1.5, float("nan"))),
        ("member_threshold", (0.0, 1.0, -0.1, 1.5, float("nan"))),
        ("leader_blend", (-0.01, 1.01, float("nan"))),
        ("clamp", (0.0, 1.0, -1.0, float("nan"))),
        ("mask_ratio", (-0.1, 1.1, float("nan"))),
        ("divergence", ("js", "", "KL")),
        ("semantics", ("Paper", "public")),
        ("reduction", ("sum", "")),
        ("backend", ("gpu", "cuda")),
    ],
)
def test_hyper_parameters_out_of_range(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: got .*{value}.* need"):
            fused_gss_loss(random_tensor("cpu"), BRATS_2018, **{name: value})


_GOOD = torch.zeros(2, 4, 4, 3, 3)
_TWO = CategoryGroups(((0,), (1,)))


@pytest.mark.parametrize(
    ("logits", "groups", "message"),
    [
        (torch.zeros(0, 4, 4, 3), BRATS_2018, "logits: .*batch"),
        ([torch.zeros(0, 4, 3)] * 4, BRATS_2018, "logits: .*batch"),
        (torch.zeros(2, 4, 4, 0, 3), BRATS_2018, "logits: .*voxel"),
        (torch.zeros(2, 4, 4), BRATS_2018, "logits: .*spatial"),
        (torch.zeros(2, 4, 4, 2, 2, 2, 2), BRATS_2018, "logits: .*spatial"),
        (torch.zeros(2, 4, 5, 3), BRATS_2018, "logits: got 5 categories"),
        (torch.zeros(2, 3, 4, 3), BRATS_2018, "logits: got 3 modalities"),
        (torch.zeros(2, 2, 2, 3), CategoryGroups(((0,), (2,))), "groups: .*2"),
        (torch.zeros(2, 1, 2, 3), CategoryGroups(((0,), (0,))), "logits: got 1 modality"),
        (_GOOD.to(torch.int64), BRATS_2018, "logits: got dtype torch.int64"),
        (_GOOD.to(torch.complex64), BRATS_2018, "logits: got dtype torch.complex64"),
        ([torch.zeros(2, 2, 3)], _TWO, "logits: got 1 tensor"),
        ([torch.zeros(2, 2, 3), torch.zeros(2, 2, 4)], _TWO, r"logits\[1\]: got shape"),
        ([torch.zeros(2, 2, 3), torch.zeros(2, 2, 3).double()], _TWO, r"logits\[1\]: got dtype"),
        ([torch.zeros(2, 2, 3), torch.zeros(2, 2, 3, device="meta")], _TWO, r"logits\[1\]: got device"),
        ([torch.zeros(2, 2), torch.zeros(2, 2)], _TWO, r"logits\[0\]: got shape"),
        ([torch.zeros(2, 2, 3), None], _TWO, r"logits\[1\]: got NoneType"),
    ],
)
def test_bad_logits(logits: Any, groups: CategoryGroups, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused_gss_loss(logits, groups)
    with pytest.raises(ValueError, match=message):
        gss_soft_targets(logits, groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"available": torch.ones(2, 3, dtype=torch.bool)}, "available: got shape"),
        ({"available": torch.ones(2, 4)}, "available: got dtype"),
        ({"available": torch.ones(2, 4, dtype=torch.bool, device="meta")}, "available: .*device"),
        ({"voxel_mask": torch.ones(2, 4, 3, 4, dtype=torch.bool)}, "voxel_mask: got shape"),
        ({"voxel_mask": torch.ones(2, 4, 3, 3)}, "voxel_mask: got dtype"),
        ({"voxel_mask": torch.ones(2, 4, 3, 3, dtype=torch.bool), "seed": 0}, "seed: .*voxel_mask"),
        ({"seed": 2**64}, "seed: got 18446744073709551616"),
        ({"seed": -(2**63) - 1}, "seed: got -9223372036854775809"),
        ({"seed": 1.0}, "seed: got float"),
        ({"seed": True}, "seed: got bool"),
        ({"seed": torch.zeros(1, dtype=torch.int64)}, "seed: got a tensor of shape"),
        ({"seed": torch.zeros((), dtype=torch.int32)}, "seed: .*int64"),
        ({"seed": torch.zeros((), dtype=torch.int64, device="meta")}, "seed: .*device"),
    ],
)
def test_bad_masks_and_seeds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused_gss_loss(_GOOD, BRATS_2018, **options)


def test_triton_on_the_cpu_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend: got 'triton' for logits on the CPU"):
        fused_gss_loss(_GOOD, BRATS_2018, backend="triton")


def test_released_differs_only_where_it_should() -> None:
    """Semantics agree for sets of one leader whose members do not decide."""
    logits = random_tensor("cpu")
    groups = CategoryGroups(((0, 1, 2, 3),) * 4)
    alone = torch.tensor([[True, False, True, False], [False, True, True, False]])
    paper, released = (gss_soft_targets(logits, groups, semantics=name) for name in ("paper", "released"))
    assert not torch.equal(paper, released)
    groups = CategoryGroups(BRATS_4)
    options: dict[str, Any] = {"available": alone, "member_threshold": 0.999999}
    paper, released = (gss_soft_targets(logits, groups, semantics=name, **options) for name in ("paper", "released"))
    assert torch.equal(paper, released)


def test_a_loss_kept_for_the_record_does_not_keep_its_arguments() -> None:
    leaf = torch.randn(1, 4, 4, 6, 6, 6, requires_grad=True)
    logits, keep = 2 * leaf, torch.ones(1, 4, 6, 6, 6, dtype=torch.bool)
    labels = torch.randint(0, 4, (1, 6, 6, 6))
    alive = [weakref.ref(tensor) for tensor in (logits, keep, labels)]
    loss = fused_gss_objective(logits, labels, BRATS_2018, voxel_mask=keep, backend="cpu")
    del logits, keep, labels
    loss.backward()
    gc.collect()
    assert [tensor() for tensor in alive] == [None] * 3
    assert loss.isfinite()
