"""RFNet's behaviour: what it returns, what may influence what, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gss_train.models import SegmentationOutput, build_network
from gss_train.models.rfnet import RFNet

SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])


def small_network(seed: int = 0, *, num_categories: int = 4, activation_checkpointing: bool = False) -> RFNet:
    torch.manual_seed(seed)
    network = build_network(
        "rfnet", num_categories, crop_size=(16, 16, 16), width=4, activation_checkpointing=activation_checkpointing
    )
    assert isinstance(network, RFNet)
    return network


def scans(seed: int = 1, shape: tuple[int, int, int] = (16, 16, 16)) -> torch.Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(seed))


def tensors(output: SegmentationOutput) -> list[torch.Tensor]:
    return [output.fused, *(output.separate or ()), *(output.auxiliary or ()), output.regulariser]


def total(output: SegmentationOutput) -> torch.Tensor:
    """A scalar that depends on every voxel of every output."""
    assert output.separate is not None
    assert output.auxiliary is not None
    logits = (output.fused, *output.separate)
    value = sum(tensor.log_softmax(1).square().mean() for tensor in logits)
    return value + sum(tensor.square().mean() for tensor in output.auxiliary) + output.regulariser


@pytest.mark.parametrize(("num_categories", "count"), [(4, 8_984_960), (5, 9_132_790)])
def test_has_as_many_parameters_as_published(num_categories: int, count: int) -> None:
    network = build_network("rfnet", num_categories, crop_size=(16, 16, 16))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 24, 32)])
def test_five_categories_and_unequal_axes(shape: tuple[int, int, int]) -> None:
    network = small_network(num_categories=5)
    output = network(scans(shape=shape), SUBSETS)
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
    network = small_network().eval()
    together = network(scans(), SUBSETS, per_modality=True)
    alone = network(scans()[1:], SUBSETS[1:], per_modality=True)
    for whole, part in zip(tensors(together)[:-1], tensors(alone)[:-1], strict=True):
        torch.testing.assert_close(whole[1:], part, atol=2e-4, rtol=1e-4)


def test_activation_checkpointing_changes_no_gradient() -> None:
    plain = small_network()
    lean = small_network(activation_checkpointing=True)
    for network in (plain, lean):
        total(network(scans(), SUBSETS)).backward()
    for (name, parameter), other in zip(plain.named_parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_every_parameter_gets_a_gradient() -> None:
    network = small_network()
    total(network(scans(), SUBSETS)).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    # A bias in front of a normalisation has gradient 0 by nature; a weight has not.
    idle = [name for name, parameter in network.named_parameters() if parameter.dim() > 1 and not parameter.grad.any()]
    assert idle == []


def test_learns_one_batch_by_heart() -> None:
    network = small_network(num_categories=3)
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    labels[:, :8] = 1
    labels[..., 11:] = 2
    x = labels[:, None] - 1 + 0.1 * scans()[:1]
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-2)
    for _ in range(36):
        output = network(x, torch.ones(1, 4, dtype=torch.bool))
        losses = torch.stack(
            [
                *(functional.cross_entropy(logits, labels) for logits in (output.fused, *output.separate)),
                functional.nll_loss(output.auxiliary[0].log(), labels),
            ]
        )
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
    assert losses.max() < 0.15


def test_is_bit_identical_under_a_seed() -> None:
    first, second = (total(small_network(seed=3)(scans(), SUBSETS)) for _ in range(2))
    assert torch.equal(first, second)


def test_bfloat16_autocast_stays_near_float32() -> None:
    network = small_network()
    exact = network(scans(), SUBSETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(scans(), SUBSETS)
        loss = total(output)
    loss.backward()
    for rough, fine in zip(tensors(output)[:-1], tensors(exact)[:-1], strict=True):
        difference = rough.float() - fine
        assert difference.square().mean() < 0.02 * fine.square().mean()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "unet"}, "rfnet"),
        ({"num_categories": 1}, "num_categories"),
        ({"width": 0}, "width"),
        ({"width": 6}, "width"),
    ],
)
def test_bad_build_arguments_are_named(arguments: dict[str, object], named: str) -> None:
    good: dict[str, object] = {"name": "rfnet", "num_categories": 4, "crop_size": (16, 16, 16)}
    with pytest.raises(ValueError, match=named):
        build_network(**(good | arguments))  # type: ignore[arg-type]
