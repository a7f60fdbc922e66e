"""Convolving a tensor twice as fine, without making it."""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gss_train.models.layers.slabs import LARGEST_SLOW_INPUT

_ENDS = ((0, 1), (-1, -2))  # the first voxel of an axis and the one next to it, and the last


class UpsampledConvolution(nn.Conv3d):
    """Upsampling by 2, each voxel repeated, and a convolution with reflection padding, in one.

    Of the taps of such a convolution several fall on copies of one coarse voxel. With their weights added up, each of
    the eight positions of a fine voxel within a coarse one (its phase) has a kernel of two taps an axis in place of
    three, or three in place of five, and all phases are one convolution of the coarse tensor. That convolution sees
    the border voxels repeated. For three taps this is what reflection of the fine tensor amounts to; for five, the
    outermost planes of the result miss the difference between a border voxel and the next one, which is added.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps per axis, 3 or 5.
    """

    bias: Tensor
    taps: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        if kernel_size not in {3, 5}:
            raise ValueError(f"kernel_size is {kernel_size}; it must be 3 or 5")
        super().__init__(in_channels, out_channels, kernel_size)
        along_axis = _taps_of_phases(kernel_size).flatten(0, 1)
        self.register_buffer(
            "taps", torch.kron(along_axis, torch.kron(along_axis, along_axis)).T.contiguous(), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, D, H, W]`, axes of two voxels or more, to `[B, out_channels, 2*D, 2*H, 2*W]`.

        Differentiable once.
        """
        padded = functional.pad(x, (1,) * 6, mode="replicate")
        windows = _convolve(padded, self._phase_kernels(), self.bias.repeat(8))
        planes = self._border_planes(x) if self.kernel_size[0] == 5 else []
        return cast("Tensor", _Interleave.apply(x.shape[2:], windows, *planes))  # type: ignore[no-untyped-call]

    def _phase_kernels(self) -> Tensor:
        """The kernels of all phases, `[8 * out_channels, in_channels, t, t, t]` with t of 2 or 3 taps."""
        with torch.autocast(self.weight.device.type, enabled=False):
            kernels = self.weight.flatten(2).flatten(0, 1) @ self.taps
        taps = self.kernel_size[0] // 2 + 1
        by_phase = kernels.view(self.out_channels, self.in_channels, *(2, taps) * 3).permute(2, 4, 6, 0, 1, 3, 5, 7)
        return by_phase.reshape(-1, self.in_channels, *[taps] * 3)

    def _border_planes(self, x: Tensor) -> list[Tensor]:
        """What reflection in place of repetition adds to the first and last plane along each axis.

        Padding is one linear map per axis, reflection = repetition + difference. Their product over the axes is the
        product of the repetitions plus, for each axis, its difference with repetition along the axes before it and
        reflection along those after it. The difference along an axis concerns the outermost tap alone.
        """
        planes = []
        for axis in (2, 3, 4):
            rows, columns = ("reflect" if other > axis else "replicate" for other in (2, 3, 4) if other != axis)
            for end, following in _ENDS:
                difference = functional.interpolate(x.select(axis, following) - x.select(axis, end), scale_factor=2)
                padded = functional.pad(difference, (0, 0, 2, 2), mode=rows)
                padded = functional.pad(padded, (2, 2, 0, 0), mode=columns)
                planes.append(functional.conv2d(padded, self.weight.select(axis, end)))
        return planes


def _taps_of_phases(kernel_size: int) -> Tensor:
    """Which taps of the fine tensor fall on which coarse voxel, along one axis: `[phase, coarse tap, tap]`, 0 or 1."""
    reach = kernel_size // 2
    taps = torch.zeros(2, reach + 1, kernel_size)
    for phase, tap in product(range(2), range(kernel_size)):
        taps[phase, (phase + tap - reach) // 2 - (phase - reach) // 2, tap] = 1
    return taps


def _convolve(padded: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    batch, channels, depth, height, _ = padded.shape
    if padded.device.type != "cpu" or batch > 1 or channels * depth * height > LARGEST_SLOW_INPUT:
        return functional.conv3d(padded, kernels, bias)
    # PyTorch's CPU convolution is several times slower for one small sample than for two.
    taps = kernels.shape[-1]
    length = depth - taps + 1
    half = (length + 1) // 2
    halves = torch.cat((padded[:, :, : half + taps - 1], padded[:, :, length - half :]))
    first, second = functional.conv3d(halves, kernels, bias).chunk(2)
    return torch.cat((first, second[:, :, 2 * half - length :]), dim=2)


class _Interleave(torch.autograd.Function):
    """Puts the phases in their places and adds to the border planes."""

    @staticmethod
    def forward(ctx: Any, size: torch.Size, windows: Tensor, *planes: Tensor) -> Tensor:
        ctx.size, ctx.shape, ctx.has_planes = size, windows.shape, bool(planes)
        result = windows.new_empty((len(windows), windows.shape[1] // 8, *(2 * length for length in size)))
        for fine, coarse in zip(_phases(result), _windows_of_phases(windows, size), strict=True):
            fine.copy_(coarse)
        for border, plane in zip(_borders(result), planes, strict=False):
            border.add_(plane)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_windows = gradient.new_zeros(ctx.shape)
        for fine, coarse in zip(_phases(gradient), _windows_of_phases(to_windows, ctx.size), strict=True):
            coarse.copy_(fine)
        to_planes = [border.contiguous() for border in _borders(gradient)] if ctx.has_planes else []
        return (None, to_windows, *to_planes)


def _phases(fine: Tensor) -> list[Tensor]:
    """Views of a fine tensor `[B, channels, 2*D, 2*H, 2*W]`, its voxels of one phase each."""
    return [fine[:, :, i::2, j::2, k::2] for i, j, k in product(range(2), repeat=3)]


def _windows_of_phases(windows: Tensor, size: torch.Size) -> list[Tensor]:
    """Views `[B, channels, D, H, W]` of each phase's results among those of all windows.

    With two taps an axis the windows of the second phase start a voxel later, and there is one window more than
    coarse voxels.
    """
    depth, height, width = size
    delay = windows.shape[2] - depth
    return [
        results[:, :, i * delay :, j * delay :, k * delay :][:, :, :depth, :height, :width]
        for (i, j, k), results in zip(product(range(2), repeat=3), windows.chunk(8, dim=1), strict=True)
    ]


def _borders(fine: Tensor) -> list[Tensor]:
    return [fine.select(axis, end) for axis in (2, 3, 4) for end, _ in _ENDS]
