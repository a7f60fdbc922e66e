"""RobustSeg's behaviour: what it returns, what may influence what, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_train.models.interface import SegmentationOutput
from gss_train.models.robustseg import RobustSeg

SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])
AVAILABLE = torch.tensor([[True, False, True, True], [True, True, False, True]])


def small_network(
    seed: int = 0,
    *,
    num_categories: int = 4,
    width: int = 2,
    activation_checkpointing: bool = False,
    separate_decoder: bool = True,
) -> RobustSeg:
    torch.manual_seed(seed)
    return RobustSeg(
        num_categories,
        width=width,
        activation_checkpointing=activation_checkpointing,
        separate_decoder=separate_decoder,
    )


def scans(seed: int = 1, shape: tuple[int, int, int] = (16, 16, 16)) -> Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(seed))


def tensors(output: SegmentationOutput) -> list[Tensor]:
    return [output.fused, *(output.separate or ()), output.regulariser]


def total(output: SegmentationOutput) -> Tensor:
    """A scalar that depends on every voxel of every output."""
    logits = (output.fused, *(output.separate or ()))
    return sum((tensor.float().log_softmax(1).square().mean() for tensor in logits), output.regulariser)


@pytest.mark.parametrize("num_categories", [4, 5])
@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 24, 32)])
def test_shapes(num_categories: int, shape: tuple[int, int, int]) -> None:
    output = small_network(num_categories=num_categories)(scans(shape=shape), SUBSETS)
    assert output.separate is not None
    assert len(output.separate) == 4
    assert output.auxiliary is None
    assert {tuple(tensor.shape) for tensor in tensors(output)[:-1]} == {(2, num_categories, *shape)}
    assert output.regulariser.shape == ()
    assert output.regulariser.dtype == torch.float32
    assert output.regulariser > 0
    assert all(tensor.isfinite().all() for tensor in tensors(output))


def test_single_sample_gives_what_it_gives_in_a_batch() -> None:
    network = small_network().eval()
    together = network(scans(), SUBSETS, per_modality=True)
    alone = network(scans()[1:], SUBSETS[1:], per_modality=True)
    for whole, part in zip(tensors(together)[:-1], tensors(alone)[:-1], strict=True):
        torch.testing.assert_close(whole[1:], part, atol=2e-4, rtol=1e-4)


def test_same_seed_gives_the_same_bits() -> None:
    results = []
    for _ in range(2):
        network = small_network()
        output = network(scans(), SUBSETS)
        total(output).backward()
        results.append([*tensors(output), *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_activation_checkpointing_changes_nothing() -> None:
    results = []
    for activation_checkpointing in (False, True):
        network = small_network(activation_checkpointing=activation_checkpointing).double()
        output = network(scans().double(), SUBSETS)
        total(output).backward()
        results.append([*tensors(output), *(parameter.grad for parameter in network.parameters())])
    for plain, lean in zip(*results, strict=True):
        torch.testing.assert_close(lean, plain, atol=1e-8 * float(plain.detach().abs().max()) + 1e-12, rtol=0)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_bfloat16_autocast_stays_near_float32(activation_checkpointing: bool) -> None:
    network = small_network(activation_checkpointing=activation_checkpointing)
    torch.manual_seed(3)
    exact = network(scans(), SUBSETS)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(scans(), SUBSETS)
        loss = total(output)
    loss.backward()
    assert output.regulariser.dtype == torch.float32
    for rough, fine in zip(tensors(output), tensors(exact), strict=True):
        difference = rough.float() - fine
        assert difference.square().mean() < 0.05 * fine.square().mean()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"num_categories": 1}, "num_categories"), ({"width": 0}, "width"), ({"width": -2}, "width")],
)
def test_bad_build_arguments_are_named(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        RobustSeg(**({"num_categories": 4} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_categories", "separate_decoder", "count"),
    [(4, False, 37_455_749), (5, False, 37_455_766), (4, True, 37_455_749 + 587_060)],
)
def test_has_as_many_parameters_as_published(num_categories: int, separate_decoder: bool, count: int) -> None:
    """The trainable variables of the authors' code, counted layer by layer; then one more mask decoder.

    Its layer normalisation has a scale and shift per channel, its instance normalisation too, and the last convolution
    of the image decoders is one variable.
    """
    with torch.device("meta"):
        network = RobustSeg(num_categories, separate_decoder=separate_decoder)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_regulariser_is_the_mean_over_the_samples() -> None:
    network = small_network().eval()
    available = AVAILABLE | SUBSETS
    together = network(scans(), SUBSETS, available, per_modality=True).regulariser
    alone = [
        network(scans()[b : b + 1], SUBSETS[b : b + 1], available[b : b + 1], per_modality=True).regulariser
        for b in range(2)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=0, rtol=1e-4)


def test_regulariser_scales_the_terms_of_available_scans_to_the_published_sum() -> None:
    """A modality fused or not, the terms of the others are the same; with n available, their sum counts 4 / n times."""
    network = small_network().eval()
    subset = torch.tensor([[True, False, False, False]])
    values = []
    for available in ([1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]):
        mask = torch.tensor([available], dtype=torch.bool)
        values.append(network(scans()[:1], subset, mask, per_modality=True).regulariser * mask.sum() / 4)
    everything, *pairs, alone = values
    torch.testing.assert_close(everything, alone + sum(pair - alone for pair in pairs))


def test_unavailable_modality_gets_no_gradient_from_the_regulariser() -> None:
    network = small_network()
    subset = torch.tensor([[True, False, True, True]])
    network(scans()[:1], subset, subset).regulariser.backward()
    for parts in (network.style_encoders, network.style_mappings, network.image_decoders):
        for modality, part in enumerate(parts):
            reached = [parameter.grad.any() for parameter in part.parameters() if parameter.dim() > 1]
            assert all(reached) if modality != 1 else not any(reached)
    for parameter in network.encoder.parameters():
        assert not parameter.grad.chunk(4)[1].any()


def test_nothing_is_drawn_in_the_forward_pass() -> None:
    network = small_network()
    first, second = network(scans(), SUBSETS), network(scans(), SUBSETS)
    assert all(torch.equal(*pair) for pair in zip(tensors(first), tensors(second), strict=True))


def test_separate_prediction_sees_its_modality_before_any_fusion() -> None:
    network = small_network().eval()
    levels = network.encode(scans())[:4]
    for modality, own in enumerate(network.decode_separately(network.encode(scans()))):
        expected = network.separate_decoder(*(level.chunk(4, dim=1)[modality] for level in levels))
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=1e-4)


def test_separate_decoder_can_be_left_out() -> None:
    with_decoder, without = small_network(), small_network(separate_decoder=False)
    without.load_state_dict(
        {key: value for key, value in with_decoder.state_dict().items() if not key.startswith("separate_decoder")}
    )
    outputs = [network(scans(), SUBSETS) for network in (with_decoder, without)]
    assert outputs[1].separate is None
    assert torch.equal(outputs[0].fused, outputs[1].fused)
    assert torch.equal(outputs[0].regulariser, outputs[1].regulariser)
    with pytest.raises(ValueError, match="separate_decoder"):
        without.decode_separately(without.encode(scans()))


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_every_parameter_gets_a_gradient(activation_checkpointing: bool) -> None:
    network = small_network(activation_checkpointing=activation_checkpointing)
    total(network(scans(), SUBSETS)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    # A bias in front of a normalisation has gradient 0 by nature; a weight has not.
    idle = [name for name, parameter in network.named_parameters() if parameter.dim() > 1 and not parameter.grad.any()]
    assert idle == []


def test_loss_falls_on_one_batch_to_near_zero() -> None:
    network = small_network(width=4)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-2)
    x = torch.nn.functional.interpolate(scans(shape=(2, 2, 2))[:1], scale_factor=8)
    labels = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    everything = torch.ones_like(SUBSETS[:1])
    for _ in range(20):
        features = network.encode(x)
        predictions = network.fuse(features, everything), network.decode_separately(features)[0]
        loss = sum(torch.nn.functional.cross_entropy(logits, labels) for logits in predictions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_regulariser_falls_on_one_batch() -> None:
    network = small_network()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    x = torch.nn.functional.interpolate(scans(shape=(4, 4, 4))[:1], scale_factor=4)
    values = []
    for _ in range(10):
        regulariser = network(x, torch.ones_like(SUBSETS[:1])).regulariser
        optimiser.zero_grad()
        regulariser.backward()
        optimiser.step()
        values.append(regulariser.item())
    assert values[-1] < 0.5 * values[0]
