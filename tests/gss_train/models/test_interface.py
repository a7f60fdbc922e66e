"""What every network promises: which scans may influence what, and what its parts and copies compute."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from gss_train.models import SegmentationNetwork, SegmentationOutput, build_network
from gss_train.models.registry import NETWORKS

SUBSETS = torch.tensor([[True, False, True, True], [False, True, False, False]])
AVAILABLE = torch.tensor([[True, False, True, True], [True, True, False, True]])
EDGES = {"mmformer": 32}
WIDTHS = {"rfnet": 4, "mmformer": 1, "robustseg": 2, "uhved": 2}

every_network = pytest.mark.parametrize("name", NETWORKS)


def small_network(name: str, seed: int = 0, *, activation_checkpointing: bool = False) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_network(
        name,
        4,
        crop_size=EDGES.get(name, 16),
        width=WIDTHS[name],
        activation_checkpointing=activation_checkpointing,
    )


def scans(name: str) -> Tensor:
    return torch.randn(2, 4, *(EDGES.get(name, 16),) * 3, generator=torch.Generator().manual_seed(1))


def tensors(output: SegmentationOutput) -> list[Tensor]:
    return [output.fused, *(output.separate or ()), *(output.auxiliary or ()), output.regulariser]


def total(output: SegmentationOutput) -> Tensor:
    """A scalar that depends on every voxel of every output."""
    logits = (output.fused, *(output.separate or ()))
    own = sum((tensor.log_softmax(1).square().mean() for tensor in logits), output.regulariser)
    return sum((tensor.square().mean() for tensor in output.auxiliary or ()), own)


@every_network
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_content_of_an_unavailable_modality_is_never_seen(name: str, activation_checkpointing: bool) -> None:
    clean = scans(name)
    unavailable = ~AVAILABLE[:, :, None, None, None]
    filler = torch.randn_like(clean)
    filler[..., ::2] = torch.nan
    results = []
    for x in (clean, torch.where(unavailable, filler, clean)):
        network = small_network(name, activation_checkpointing=activation_checkpointing)
        output = network(x, SUBSETS & AVAILABLE, AVAILABLE)
        total(output).backward()
        results.append([*tensors(output), *(parameter.grad for parameter in network.parameters())])
    for expected, actual in zip(*results, strict=True):
        assert expected.isfinite().all()
        assert torch.equal(actual, expected)


@every_network
def test_everything_available_equals_not_saying_so(name: str) -> None:
    network = small_network(name).eval()
    silent = network(scans(name), SUBSETS, per_modality=True)
    said = network(scans(name), SUBSETS, torch.ones_like(SUBSETS), per_modality=True)
    assert all(torch.equal(first, second) for first, second in zip(tensors(silent), tensors(said), strict=True))


@every_network
def test_modality_outside_the_subset_changes_no_fused_prediction_but_its_own(name: str) -> None:
    network = small_network(name).eval()
    x = scans(name)
    changed = x.clone()
    changed[~SUBSETS] = 3 * torch.randn_like(changed)[~SUBSETS]
    before, after = (network(voxels, SUBSETS, per_modality=True) for voxels in (x, changed))
    assert torch.equal(after.fused, before.fused)
    for first, second in zip(before.auxiliary or (), after.auxiliary or (), strict=True):
        assert torch.equal(first, second)
    assert before.separate is not None
    assert after.separate is not None
    for sample in range(2):
        for modality in range(4):
            same = torch.allclose(after.separate[modality][sample], before.separate[modality][sample], atol=1e-5)
            assert same == bool(SUBSETS[sample, modality])


@every_network
def test_fused_prediction_sends_no_gradient_to_scans_outside_the_subset(name: str) -> None:
    x = scans(name).requires_grad_()
    small_network(name)(x, SUBSETS).fused.square().mean().backward()
    assert x.grad is not None
    assert (x.grad[~SUBSETS] == 0).all()
    assert (x.grad[SUBSETS].flatten(1).abs().amax(1) > 0).all()


@every_network
def test_encoding_once_and_fusing_subsets_equals_the_whole_network(name: str) -> None:
    network = small_network(name).eval()
    with torch.inference_mode():
        features = network.encode(scans(name), AVAILABLE)
        for subsets in (SUBSETS & AVAILABLE, AVAILABLE):
            expected = network(scans(name), subsets, AVAILABLE, per_modality=True)
            assert torch.equal(network.fuse(features, subsets), expected.fused)
        for own, whole in zip(network.decode_separately(features), expected.separate, strict=True):
            assert torch.equal(own, whole)


@every_network
def test_state_dict_round_trip(name: str) -> None:
    network, other = small_network(name, seed=0).eval(), small_network(name, seed=1).eval()
    expected = network(scans(name), SUBSETS).fused
    assert not torch.allclose(other(scans(name), SUBSETS).fused, expected, atol=1e-3)
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    assert torch.equal(other(scans(name), SUBSETS).fused, expected)


@every_network
def test_per_modality_outputs_follow_the_training_mode_unless_asked(name: str) -> None:
    network = small_network(name)
    for training in (True, False):
        network.train(training)
        outputs = {asked: network(scans(name), SUBSETS, per_modality=asked) for asked in (None, True, False)}
        for asked, output in outputs.items():
            wanted = training if asked is None else asked
            assert (output.separate is not None) == wanted
            assert wanted or output.auxiliary is None
            assert (output.regulariser > 0) == (wanted and name in {"robustseg", "uhved"})
    assert torch.equal(outputs[False].fused, outputs[True].fused)


@every_network
def test_bad_inputs_are_named(name: str) -> None:
    network = small_network(name).eval()
    x = scans(name)
    with pytest.raises(ValueError, match=r"^x has shape"):
        network(x[:, :3], SUBSETS)
    with pytest.raises(ValueError, match=r"^x has spatial size"):
        network(x[..., :12], SUBSETS)
    with pytest.raises(ValueError, match=r"^x has spatial size"):
        network(x[..., : x.shape[-1] // 2], SUBSETS)
    with pytest.raises(ValueError, match="fused_modalities"):
        network(x, SUBSETS[:1])
    with pytest.raises(ValueError, match="fused_modalities"):
        network(x, SUBSETS.float())
    with pytest.raises(ValueError, match="available"):
        network(x, SUBSETS, AVAILABLE[:, :3])


@every_network
def test_the_channels_last_layout_changes_nothing_but_the_layout(name: str) -> None:
    network = small_network(name).double()
    other = copy.deepcopy(network).to(memory_format=torch.channels_last_3d)
    x = scans(name).double()
    results = []
    for one, image in ((network, x), (other, x.contiguous(memory_format=torch.channels_last_3d))):
        torch.manual_seed(2)
        output = one(image, SUBSETS, AVAILABLE)
        total(output).backward()
        gradients = [parameter.grad for parameter in one.parameters() if parameter.grad is not None]
        results.append([*tensors(output), *gradients])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-9)


def test_crop_size_is_one_number_or_three() -> None:
    with torch.device("meta"):
        one, three = (build_network("mmformer", 4, crop_size=size, width=1) for size in (48, (48, 48, 48)))
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (one, three)]
    assert shapes[0] == shapes[1]


@every_network
@pytest.mark.parametrize("size", [20, (64, 20, 64), (64, 64), 8, "64"])
def test_bad_crop_size_is_named(name: str, size: object) -> None:
    with pytest.raises(ValueError, match=r"^crop_size"):
        build_network(name, 4, crop_size=size)  # type: ignore[arg-type]
