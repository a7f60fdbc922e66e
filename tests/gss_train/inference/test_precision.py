"""What a network computes in, by what PyTorch says of itself while the network runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_train.config import ComputedPrecision, PrecisionName
from gss_train.evaluation import MEASURES, region_measures
from gss_train.inference import SlidingWindow, arithmetic, computing, describe_precision, pick_precision
from gss_train.inference.segmentation import Member, mean_probabilities, segment_subsets, subset_probabilities
from tests.gss_train.inference.arithmetic_seen import Arithmetic, arithmetic_now
from tests.gss_train.inference.networks import BrightestModality

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WINDOW, ALL = SlidingWindow((4, 4, 4)), (True,) * 4


def pretend_card(
    patch: pytest.MonkeyPatch, capability: tuple[int, int], *, hip: str | None = None, emulates: bool = True
) -> None:
    """A card of NVIDIA has bfloat16 from 8.0 on; before, PyTorch may emulate it."""
    patch.setattr("torch.cuda.get_device_capability", lambda _device=None: capability)
    patch.setattr("torch.version.hip", hip)

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return capability >= (8, 0) or (including_emulation and emulates)

    patch.setattr("torch.cuda.is_bf16_supported", is_bf16_supported)


@pytest.mark.parametrize(
    ("asked", "on_cpu", "on_t4", "on_a100"),
    [
        ("auto", "float32", "float32", "bfloat16"),
        ("float32", "float32", "float32", "float32"),
        ("tf32", "float32", "float32", "tf32"),
        ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", "float16", "float16"),
    ],
)
def test_a_network_computes_in_what_the_device_has(
    asked: PrecisionName, on_cpu: str, on_t4: str, on_a100: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pick_precision(asked, CPU) == on_cpu
    pretend_card(monkeypatch, (7, 5))
    assert pick_precision(asked, GPU) == on_t4
    pretend_card(monkeypatch, (8, 0))
    assert pick_precision(asked, GPU) == on_a100


def test_what_a_device_lacks_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_card(monkeypatch, (9, 4), hip="6.4")
    assert pick_precision("tf32", GPU) == "float32"
    pretend_card(monkeypatch, (7, 0), emulates=False)
    assert pick_precision("bfloat16", GPU) == "float32"
    monkeypatch.setattr("torch.amp.is_autocast_available", lambda _kind: False)
    assert pick_precision("float16", CPU) == "float32"


def test_another_precision_than_the_one_asked_for_is_said() -> None:
    assert describe_precision("bfloat16", CPU) == "bfloat16"
    assert describe_precision("auto", CPU) == "float32"
    assert describe_precision("tf32", CPU) == "float32 in place of tf32, which cpu lacks"


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_convolutions_are_in_tf32_with_tf32_alone(precision: ComputedPrecision, deterministic: bool) -> None:
    before = arithmetic_now()
    with arithmetic(precision, deterministic=deterministic):
        assert arithmetic_now() == Arithmetic(
            autocast=None,
            tf32_convolutions=precision == "tf32",
            tf32_products=False,
            benchmark=not deterministic,
            deterministic=deterministic,
        )
        # PyTorch refuses to read these after both of its ways to set them were used.
        with torch.backends.cudnn.flags(enabled=True):
            pass
        assert torch.backends.cudnn.conv.fp32_precision == ("tf32" if precision == "tf32" else "none")
    assert arithmetic_now() == before


def test_settings_of_before_come_back_whatever_they_were() -> None:
    """Such as TF32 in matrix products, which an environment variable turns on."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    usual, inside = arithmetic_now(), []

    def be_interrupted() -> None:
        with computing("bfloat16", CPU), arithmetic("tf32"):
            inside.append(arithmetic_now())
            raise KeyboardInterrupt

    try:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark, cudnn.deterministic = False, True, True, True
        unusual = arithmetic_now()
        with pytest.raises(KeyboardInterrupt):
            be_interrupted()
        assert arithmetic_now() == unusual
        assert inside == [Arithmetic(torch.bfloat16, True, False, True, False)]
    finally:
        cudnn.allow_tf32, products.allow_tf32 = usual.tf32_convolutions, usual.tf32_products
        cudnn.benchmark, cudnn.deterministic = usual.benchmark, usual.deterministic
    assert arithmetic_now() == usual


class Halving(BrightestModality):
    """Multiplies each scan by a half, which 16 bits round; remembers the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Arithmetic] = []

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        self.seen.append(arithmetic_now())
        return torch.nn.functional.conv3d(features[0], 0.5 * torch.eye(4)[..., None, None, None])


def image() -> Tensor:
    return torch.randn(4, 4, 4, 6, generator=torch.Generator().manual_seed(0))


def expected(precision: ComputedPrecision) -> Tensor:
    """Of the network above, from rounded scans; each step is exact or in float32."""
    rounded = image() if precision in {"float32", "tf32"} else image().to(getattr(torch, precision)).float()
    return torch.softmax(rounded / 2, dim=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_probabilities_and_labels_are_float32_of_logits_of_16_bits(precision: ComputedPrecision) -> None:
    network = Halving()
    with computing(precision, CPU):
        (probabilities,) = subset_probabilities(network, image(), WINDOW, [ALL])
        (labels,) = segment_subsets(network, image(), WINDOW, [ALL])
    assert {seen.autocast for seen in network.seen} == {getattr(torch, precision)}
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, expected(precision), rtol=1e-6, atol=1e-7)
    assert (probabilities - expected("float32")).abs().max() > 1e-5
    assert torch.equal(labels.long(), expected(precision).argmax(dim=0))


def test_each_network_of_an_ensemble_computes_in_its_own_precision() -> None:
    precisions: list[ComputedPrecision] = ["bfloat16", "float32", "tf32"]
    members = [Member(Halving(), WINDOW, precision) for precision in precisions]
    before = arithmetic_now()
    together = mean_probabilities(members, image(), ALL)
    assert arithmetic_now() == before
    for (network, _, precision), autocast in zip(members, [torch.bfloat16, None, None], strict=True):
        assert {(seen.autocast, seen.tf32_convolutions) for seen in network.seen} == {(autocast, precision == "tf32")}
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, torch.stack([expected(own) for own in precisions]).mean(dim=0))


def test_scores_are_the_same_to_the_bit_whatever_the_network_computes_in() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, truth = (torch.randint(4, (12, 13, 14), generator=generator, dtype=torch.uint8) for _ in range(2))
    plain = region_measures(prediction, truth, "brats2020", (1, 1.5, 2))
    with computing("bfloat16", CPU):
        found = region_measures(prediction, truth, "brats2020", (1, 1.5, 2))
    assert set(plain) == set(MEASURES)
    for measure, values in plain.items():
        assert torch.equal(found[measure], values)
