"""Convolutions and matrix products are of the precision that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv3d

from gss_train.inference import arithmetic

# Of sums of 432 products, in standard deviations of the sums: float32 rounds each by 2^-24, TF32 by 2^-11.
_LARGEST_ERROR_OF_FLOAT32 = 1e-4


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double().cpu() - exact).abs().max() / exact.std())


def test_convolutions_in_float32_are_not_in_tf32() -> None:
    scans, kernel = noise(1, 16, 24, 24, 24), noise(16, 16, 3, 3, 3)
    exact = conv3d(scans.double(), kernel.double())
    with arithmetic("float32"):
        assert error(conv3d(scans.to("cuda"), kernel.to("cuda")), exact) < _LARGEST_ERROR_OF_FLOAT32


def test_matrix_products_are_never_in_tf32() -> None:
    left, right = noise(256, 432), noise(432, 256)
    exact = left.double() @ right.double()
    with arithmetic("tf32"):
        assert error(left.to("cuda") @ right.to("cuda"), exact) < _LARGEST_ERROR_OF_FLOAT32
