"""What the tests of RFNet and mmFormer, lean beside plain, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gss_train.models import SegmentationOutput


def scans(seed: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks(fused: str, available: str) -> tuple[Tensor, Tensor]:
    """Masks `[2, 4]` from one digit per modality, such as "1011 0100"."""
    first, second = ([[digit == "1" for digit in sample] for sample in text.split()] for text in (fused, available))
    return torch.tensor(first), torch.tensor(second)


def meaningful(output: SegmentationOutput, available: Tensor) -> dict[str, Tensor]:
    """All outputs but the own predictions from scans that do not exist, which amplify the rounding of a zero."""
    assert output.separate is not None
    assert output.auxiliary is not None
    separate = {
        f"separate {modality}": logits[exists]
        for modality, (logits, exists) in enumerate(zip(output.separate, available.unbind(1), strict=True))
        if exists.any()
    }
    auxiliary = {f"auxiliary {level}": maps for level, maps in enumerate(output.auxiliary)}
    return {"fused": output.fused, **separate, **auxiliary}


def largest(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max())


def assert_near(actual: Tensor, expected: Tensor, bound: float, name: str) -> None:
    assert actual.shape == expected.shape
    assert largest(actual - expected) <= bound, name


def assert_same_outputs(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_near(actual[name], tensor, tolerance * largest(tensor), name)


def assert_same_gradients(
    lean: nn.Module, plain: nn.Module, plain_keys: Mapping[str, Sequence[str]], tolerance: float
) -> None:
    """Of every weight; `plain_keys` has, for each of the lean network's, those of which it is the concatenation."""
    for name, keys in plain_keys.items():
        module = lean.get_submodule(name.rpartition(".")[0])
        # A bias in front of a normalisation has gradient 0 by nature, so that its own size says nothing.
        size = max(largest(gradient(parameter)) for parameter in module.parameters(recurse=False))
        actual = gradient(lean.get_parameter(name))
        expected = torch.cat([gradient(plain.get_parameter(key)) for key in keys])
        assert_near(actual, expected.view_as(actual), tolerance * size, name)


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def run(network: nn.Module, x: Tensor, fused_modalities: Tensor, available: Tensor) -> dict[str, Tensor]:
    """One forward and backward pass of a scalar that depends on every voxel of every meaningful output."""
    outputs = meaningful(network(x, fused_modalities, available), available)
    value = x.new_zeros(())
    for name, tensor in outputs.items():
        prediction = tensor if name.startswith("auxiliary") else tensor.log_softmax(1)
        value = value + prediction.square().mean()
    torch.autograd.backward(value)
    return outputs
