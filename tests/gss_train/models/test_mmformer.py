"""mmFormer's behaviour: what it returns, what may influence what, and that it learns."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gss_train.models import SegmentationOutput
from gss_train.models.mmformer import MMFormer
from gss_train.models.mmformer.public_keys import mmformer_public_keys
from gss_train.models.mmformer.transformers import InterModalTransformer, TransformerLayer

SMALL = (32, 32, 32)
SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])
PUBLIC_SHAPES = json.loads((Path(__file__).parents[2] / "data" / "mmformer_c4_keys.json").read_text(encoding="utf-8"))


def small_network(
    seed: int = 0,
    *,
    num_categories: int = 4,
    crop_size: tuple[int, int, int] = SMALL,
    dropout: float = 0.1,
    activation_checkpointing: bool = False,
) -> MMFormer:
    torch.manual_seed(seed)
    return MMFormer(
        num_categories,
        crop_size=crop_size,
        width=1,
        dropout=dropout,
        activation_checkpointing=activation_checkpointing,
    )


def scans(seed: int = 1, shape: tuple[int, int, int] = SMALL) -> Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(seed))


def tensors(output: SegmentationOutput) -> list[Tensor]:
    return [output.fused, *(output.separate or ()), *(output.auxiliary or ()), output.regulariser]


def total(output: SegmentationOutput) -> Tensor:
    """A scalar that depends on every voxel of every output."""
    assert output.separate is not None
    assert output.auxiliary is not None
    separate = torch.stack(output.separate, dim=1).log_softmax(2).square().mean()
    auxiliary = sum(maps.square().mean() for maps in output.auxiliary)
    return output.fused.log_softmax(1).square().mean() + separate + auxiliary + output.regulariser


def step(network: MMFormer, x: Tensor) -> list[Tensor]:
    """All outputs, then the gradients of all parameters."""
    output = network(x, SUBSETS)
    torch.autograd.backward(total(output))
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [tensor.detach() for tensor in tensors(output)] + gradients


@pytest.fixture(scope="module")
def reference() -> list[Tensor]:
    """What a step of the network of seed 0 gives."""
    return step(small_network(), scans())


@pytest.mark.parametrize(("num_categories", "crop"), [(4, 32), (4, 48), (4, 128), (5, 128)])
def test_has_the_published_parameters_that_are_used(num_categories: int, crop: int) -> None:
    with torch.device("meta"):
        network = MMFormer(num_categories, crop_size=(crop, crop, crop))
    published = {32: 35_622_224, 48: 35_661_136, 128: 36_654_416}[crop]
    never_used = 4 * (512 * 128 + 128)
    # Each category takes a row of every 1x1x1 convolution that classifies: 8 channels twice, 16, 32, 64 and 128 once.
    per_category = 2 * (8 + 1) + (16 + 1) + (32 + 1) + (64 + 1) + (128 + 1)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == published - never_used + (num_categories - 4) * per_category


def test_public_keys_cover_every_parameter_and_all_but_the_unused_convolutions() -> None:
    with torch.device("meta"):
        network = MMFormer(4, crop_size=SMALL)
    keys = mmformer_public_keys(network)
    assert keys.keys() == dict(network.named_parameters()).keys()
    named = [key for sources in keys.values() for key in sources]
    assert len(set(named)) == len(named)
    unused = {
        f"{modality}_decode_conv.{kind}"
        for modality, kind in product(("flair", "t1ce", "t1", "t2"), ("weight", "bias"))
    }
    assert PUBLIC_SHAPES.keys() - set(named) == unused
    for name, sources in keys.items():
        count = sum(torch.Size(PUBLIC_SHAPES[source]).numel() for source in sources)
        assert count == network.get_parameter(name).numel(), name


def test_five_categories_and_unequal_axes() -> None:
    shape = (32, 64, 48)
    with torch.no_grad():
        output = small_network(num_categories=5, crop_size=shape)(scans(shape=shape), SUBSETS)
    assert output.separate is not None
    assert output.auxiliary is not None
    assert len(output.separate) == len(output.auxiliary) == 4
    assert {tuple(tensor.shape) for tensor in tensors(output)[:-1]} == {(2, 5, *shape)}
    for maps in output.auxiliary:
        torch.testing.assert_close(maps.sum(1), torch.ones(2, *shape))
    assert output.regulariser.shape == ()
    assert output.regulariser == 0
    assert all(tensor.isfinite().all() for tensor in tensors(output))


def test_single_sample_gives_what_it_gives_in_a_batch() -> None:
    network = small_network().eval().double()
    together = network(scans().double(), SUBSETS, per_modality=True)
    alone = network(scans()[1:].double(), SUBSETS[1:], per_modality=True)
    for whole, part in zip(tensors(together)[:-1], tensors(alone)[:-1], strict=True):
        torch.testing.assert_close(whole[1:], part, atol=1e-9, rtol=0)


def test_tokens_of_fused_modalities_reach_the_fused_prediction_through_the_transformers_alone() -> None:
    network = small_network().eval()
    with torch.no_grad():
        *levels, tokens = network.encode(scans())
        before = network.fuse((*levels, tokens), SUBSETS)
        for modality in range(4):
            changed = tokens.clone()
            changed[:, modality] += 1.0
            after = network.fuse((*levels, changed), SUBSETS)
            differs = (after != before).flatten(1).any(1)
            assert differs.tolist() == SUBSETS[:, modality].tolist()


def test_activation_checkpointing_changes_no_output_and_no_gradient_with_dropout(reference: list[Tensor]) -> None:
    recomputed = step(small_network(activation_checkpointing=True), scans())
    for expected, actual in zip(reference, recomputed, strict=True):
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_is_bit_identical_under_a_seed_and_every_parameter_gets_a_gradient(reference: list[Tensor]) -> None:
    network = small_network()
    assert all(torch.equal(one, two) for one, two in zip(step(network, scans()), reference, strict=True))
    assert not torch.equal(small_network(seed=1)(scans(), SUBSETS).fused, reference[0])
    # A bias in front of a normalisation has gradient 0 by nature; a weight has not.
    idle = [name for name, parameter in network.named_parameters() if parameter.dim() > 1 and not parameter.grad.any()]
    assert idle == []


def test_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    network = MMFormer(3, crop_size=SMALL, width=2, dropout=0.0)
    labels = torch.zeros(1, *SMALL, dtype=torch.long)
    labels[:, :16] = 1
    labels[..., 20:] = 2
    x = labels[:, None] - 1.0 + 0.1 * torch.randn(1, 4, *SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=8e-2)
    everything = torch.ones(1, 4, dtype=torch.bool)
    for _ in range(21):
        output = network(x, everything)
        losses = torch.stack([functional.cross_entropy(logits, labels) for logits in (output.fused, *output.separate)])
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
    assert losses.max() < 0.25


def test_bfloat16_autocast_stays_near_float32() -> None:
    network = small_network(dropout=0.0)
    exact = network(scans(), SUBSETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(scans(), SUBSETS)
        loss = total(output)
    loss.backward()
    for maps in output.auxiliary:
        assert maps.dtype == torch.float32
    for index, (rough, fine) in enumerate(zip(tensors(output)[:-1], tensors(exact)[:-1], strict=True)):
        share = (rough.float() - fine).square().mean() / fine.square().mean()
        assert share < 0.02, f"output {index}"
    infinite = [name for name, parameter in network.named_parameters() if not parameter.grad.isfinite().all()]
    assert infinite == []


def test_dropout_is_for_training_alone() -> None:
    network = small_network(dropout=0.5)
    with torch.no_grad():
        first, second = (network(scans(), SUBSETS, per_modality=False).fused for _ in range(2))
        assert not torch.equal(first, second)
        network.eval()
        first, second = (network(scans(), SUBSETS).fused for _ in range(2))
    torch.testing.assert_close(second, first, atol=0, rtol=0)


def test_dropout_keeps_the_layers_mean() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(16, dropout=0.1)
    tokens, positions = torch.randn(1, 6, 16), torch.randn(6, 16)
    with torch.no_grad():
        drawn = layer(tokens.expand(4000, -1, -1), positions)
        # What attention adds is all of the result once the feed-forward network adds nothing.
        layer.reduce.weight.zero_()
        layer.reduce.bias.zero_()
        attended = layer(tokens.expand(4000, -1, -1), positions) - tokens - positions
        expected = layer.eval()(tokens, positions) - tokens - positions
    assert drawn.std(0).min() > 0
    torch.testing.assert_close(attended.mean(0), expected[0], atol=0.02, rtol=0)
    # Two dropouts of 0.1 in a row, as published.
    torch.testing.assert_close((attended.abs() < 1e-6).float().mean(), torch.tensor(0.19), atol=0.005, rtol=0)


def test_attention_between_modalities_sees_the_places_of_those_left_out_and_no_more() -> None:
    torch.manual_seed(0)
    transformer = InterModalTransformer(3, 16, dropout=0.0)
    tokens, positions = torch.randn(2, 4, 5, 16), torch.randn(4, 5, 16)
    with torch.no_grad():
        attended = transformer(tokens, SUBSETS, positions)
        other = transformer(torch.where(SUBSETS[:, :, None, None], tokens, torch.nan), SUBSETS, positions)
        moved = positions.clone()
        moved[1] += 1.0
        elsewhere = transformer(tokens, SUBSETS, moved)
    assert attended.shape == (2, 12, 5)
    torch.testing.assert_close(other, attended, atol=0, rtol=0)
    assert not torch.allclose(elsewhere[0], attended[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_categories": 1}, "num_categories"),
        ({"crop_size": (32, 40, 32)}, "crop_size"),
        ({"crop_size": (32, 16, 32)}, "crop_size"),
        ({"crop_size": (32, 32)}, "crop_size"),
        ({"width": 0}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
    ],
)
def test_bad_build_arguments_are_named(arguments: dict[str, object], named: str) -> None:
    good: dict[str, object] = {"num_categories": 4, "crop_size": SMALL}
    with pytest.raises(ValueError, match=named):
        MMFormer(**(good | arguments))  # type: ignore[arg-type]


def test_another_crop_size_than_it_was_built_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"built for crop_size \(32, 32, 32\)"):
        small_network()(scans(shape=(32, 32, 48)), SUBSETS)
