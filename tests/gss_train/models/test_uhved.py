"""U-HVED's behaviour: what it returns, what may influence what, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gss_train.models.interface import SegmentationOutput
from gss_train.models.uhved.network import UHVED, upsample_from_start

SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])
AVAILABLE = torch.tensor([[True, False, True, True], [True, True, False, True]])


def small_network(
    seed: int = 0,
    *,
    num_categories: int = 4,
    width: int = 2,
    activation_checkpointing: bool = False,
    separate_decoder: bool = True,
) -> UHVED:
    torch.manual_seed(seed)
    return UHVED(
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


@pytest.mark.parametrize(
    ("num_categories", "separate_decoder", "count"),
    [(4, False, 1_250_552), (5, False, 1_250_556), (4, True, 1_250_552 + 72_872)],
)
def test_has_as_many_parameters_as_published(num_categories: int, separate_decoder: bool, count: int) -> None:
    """The variables of the authors' checkpoint, without the optimiser's; then one more decoder."""
    network = UHVED(num_categories, separate_decoder=separate_decoder)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


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


def test_regulariser_is_the_mean_over_the_samples() -> None:
    network = small_network().eval()
    together = network(scans(), SUBSETS, AVAILABLE | SUBSETS, per_modality=True).regulariser
    alone = [
        network(scans()[b : b + 1], SUBSETS[b : b + 1], (AVAILABLE | SUBSETS)[b : b + 1], per_modality=True).regulariser
        for b in range(2)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=0, rtol=1e-4)


def test_latents_are_drawn_in_training_alone() -> None:
    network = small_network()
    assert not torch.equal(network(scans(), SUBSETS).fused, network(scans(), SUBSETS).fused)
    network.eval()
    assert torch.equal(network(scans(), SUBSETS).fused, network(scans(), SUBSETS).fused)


def test_same_seed_gives_the_same_bits() -> None:
    results = []
    for _ in range(2):
        network = small_network()
        output = network(scans(), SUBSETS)
        total(output).backward()
        results.append([*tensors(output), *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_masks_of_one_sample_leave_the_noise_of_the_others_alone() -> None:
    network = small_network()
    others = SUBSETS.clone()
    others[0] = torch.tensor([False, False, True, False])
    fused = []
    for subsets, available in ((SUBSETS, None), (others, others | SUBSETS)):
        torch.manual_seed(3)
        fused.append(network(scans(), subsets, available).fused)
    assert torch.equal(fused[0][1], fused[1][1])
    assert not torch.equal(fused[0][0], fused[1][0])


def test_unavailable_modality_gets_no_gradient_from_the_regulariser() -> None:
    network = small_network()
    subset = torch.tensor([[True, False, True, True]])
    network(scans()[:1], subset, subset).regulariser.backward()
    assert not network.image_decoders[1].weight.grad.any()
    for parameter in network.encoder.parameters():
        of_modality = parameter.grad.chunk(4)
        assert not of_modality[1].any()
        assert all(of_modality[m].any() for m in (0, 2, 3))


def test_separate_prediction_is_that_of_the_modality_alone() -> None:
    """With the same weights in both decoders it is the fused prediction of a subset of one."""
    network = small_network().eval()
    network.separate_decoder.load_state_dict(network.segmentation_decoder.state_dict())
    features = network.encode(scans())
    for modality, own in enumerate(network.decode_separately(features)):
        alone = torch.zeros_like(SUBSETS)
        alone[:, modality] = True
        torch.testing.assert_close(own, network.fuse(features, alone), atol=2e-4, rtol=1e-4)


def test_separate_decoder_can_be_left_out() -> None:
    with_decoder, without = small_network(), small_network(separate_decoder=False)
    without.load_state_dict(
        {key: value for key, value in with_decoder.state_dict().items() if not key.startswith("separate_decoder")}
    )
    outputs = []
    for network in (with_decoder, without):
        torch.manual_seed(3)
        outputs.append(network(scans(), SUBSETS))
    assert outputs[1].separate is None
    assert torch.equal(outputs[0].fused, outputs[1].fused)
    assert torch.equal(outputs[0].regulariser, outputs[1].regulariser)
    with pytest.raises(ValueError, match="separate_decoder"):
        without.decode_separately(without.encode(scans()))


def test_activation_checkpointing_changes_nothing() -> None:
    results = []
    for activation_checkpointing in (False, True):
        network = small_network(activation_checkpointing=activation_checkpointing).double()
        output = network(scans().double(), SUBSETS)
        total(output).backward()
        results.append([*tensors(output), *(parameter.grad for parameter in network.parameters())])
    for plain, lean in zip(*results, strict=True):
        torch.testing.assert_close(lean, plain, atol=1e-6 * float(plain.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_every_parameter_gets_a_gradient(activation_checkpointing: bool) -> None:
    network = small_network(activation_checkpointing=activation_checkpointing)
    total(network(scans(), SUBSETS)).backward()
    idle = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


def test_loss_falls_on_one_batch_to_near_zero() -> None:
    network = small_network(width=4)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    x = torch.nn.functional.interpolate(scans(shape=(2, 2, 2))[:1], scale_factor=8)
    labels = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    everything = torch.ones_like(SUBSETS[:1])
    for _ in range(18):
        output = network(x, everything)
        supervised = torch.nn.functional.cross_entropy(output.fused, labels)
        supervised = supervised + torch.nn.functional.cross_entropy(output.separate[0], labels)
        optimiser.zero_grad()
        (supervised + output.regulariser).backward()
        optimiser.step()
    assert supervised < 0.1


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


def test_upsampling_repeats_the_last_voxel() -> None:
    line = torch.tensor([0.0, 2.0, 6.0])
    doubled = torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0, 6.0])
    for axis in (2, 3, 4):
        shape = [1] * 5
        shape[axis] = 3
        target = [1, 1, 2, 2, 2]
        target[axis] = 6
        actual = upsample_from_start(line.view(shape))
        assert torch.equal(actual, doubled.view([6 if a == axis else 1 for a in range(5)]).expand(target))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"num_categories": 1}, "num_categories"), ({"width": 0}, "width"), ({"width": 3}, "width")],
)
def test_bad_build_arguments_are_named(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        UHVED(**({"num_categories": 4} | arguments))  # type: ignore[arg-type]
