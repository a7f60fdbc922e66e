"""The fused step of normalisation, rectifier and convolution against PyTorch's modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gss_train.models.uhved.prenormalised import PreNormalisedConvolution

CASES = [  # batch, groups, shape; a single sample without groups goes through slabs, of an odd number of slices too
    (2, 1, (4, 6, 8)),
    (1, 1, (4, 6, 8)),
    (1, 1, (9, 4, 5)),
    (1, 1, (1, 4, 5)),
    (1, 4, (4, 6, 8)),
    (2, 4, (2, 2, 2)),
]


def build(groups: int, dtype: torch.dtype) -> tuple[PreNormalisedConvolution, nn.Sequential]:
    torch.manual_seed(0)
    lean = PreNormalisedConvolution(8, 12, groups=groups)
    with torch.no_grad():
        lean.scale.copy_(torch.tensor([1.3, 0.6, -0.8, 1e-3, 1.0, -1.1, 0.9, 0.4]))
        lean.shift.normal_()
    convolution = nn.Conv3d(8, 12, 3, padding=1, groups=groups, bias=False)
    plain = nn.Sequential(nn.InstanceNorm3d(8, eps=1e-6, affine=True), nn.LeakyReLU(0.01), convolution)
    for target, source in zip(plain.parameters(), (lean.scale, lean.shift, lean.weight), strict=True):
        target.data.copy_(source.data)
    return lean.to(dtype), plain.to(dtype)


def scans(batch: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Channels whose mean is large against their deviation."""
    return 5 + torch.randn(batch, 8, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("batch", "groups", "shape"), CASES)
def test_equals_the_modules(
    batch: int, groups: int, shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    results = []
    for unit in build(groups, dtype):
        x = scans(batch, shape, dtype).requires_grad_()
        result = unit(x)
        gradients = torch.autograd.grad(result.square().sum() + result.sin().sum(), (x, *unit.parameters()))
        results.append([result, *gradients])
    for have, want in zip(*results, strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=tolerance * float(want.detach().abs().max()))


def test_large_single_sample_takes_no_slabs_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lean, _ = build(1, torch.float64)
    x = scans(1, (4, 6, 8), torch.float64)
    expected = lean(x)
    monkeypatch.setattr("gss_train.models.uhved.prenormalised.LARGEST_SLOW_INPUT", 0)
    torch.testing.assert_close(lean(x), expected, rtol=1e-12, atol=1e-12)


def test_keeps_its_input_alone() -> None:
    lean, _ = build(1, torch.float32)
    x = scans(2, (4, 6, 8), torch.float32).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        lean(x)
    voxel_sized = [tensor for tensor in kept if tensor.shape[2:] == x.shape[2:]]
    assert [tensor.data_ptr() for tensor in voxel_sized] == [x.data_ptr()]


def test_autocast_computes_in_its_dtype_and_gives_float32_gradients() -> None:
    lean, _ = build(4, torch.float32)
    x = scans(1, (4, 6, 8), torch.float32)
    exact = lean(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = lean(x)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).square().mean() < 1e-3 * exact.square().mean()
    rough.float().square().mean().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in lean.parameters())


@pytest.mark.parametrize(("batch", "groups", "depth"), [(2, 1, 2), (1, 1, 2), (2, 4, 2), (1, 1, 4)])
def test_bfloat16_gradients_read_no_memory_that_nobody_wrote(batch: int, groups: int, depth: int) -> None:
    lean, _ = build(groups, torch.bfloat16)
    x = scans(batch, (depth, 2, 2), torch.float32).bfloat16().requires_grad_()
    for _ in range(20):
        result = lean(x).sum()
        freed = [torch.full((2**k,), torch.nan, dtype=torch.bfloat16) for k in range(6, 20) for _ in range(4)]
        del freed  # what the allocator hands out next is full of NaN
        gradients = torch.autograd.grad(result, (x, *lean.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_weights_start_with_the_published_spread() -> None:
    torch.manual_seed(0)
    weight = PreNormalisedConvolution(64, 64, groups=2).weight
    deviation = (2 / (32 * 27)) ** 0.5
    assert weight.abs().max() <= 2 * deviation
    assert weight.std().item() == pytest.approx(0.88 * deviation, rel=0.02)
