"""The units that encoders and decoders are built from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.normalisation import normalise_activate
from gss_train.models.padding import reflect_and_concatenate
from gss_train.models.pointwise import PointwiseConvolution
from gss_train.models.slabs import convolve_slabs


class ConvolutionUnit(nn.Module):
    """3x3x3 convolution with reflection padding, instance normalisation, leaky rectifier.

    Args:
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        stride: stride of the convolution; 2 halves an even axis.
        groups: number of channel groups convolved apart, for instance the modalities of an encoder.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, out_channels, 3, stride=stride, groups=groups)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Convolve tensors `[B, channels, D, H, W]`, concatenated along the channels.

        Returns:
            `[B, out_channels, D / stride, H / stride, W / stride]`.
        """
        on_cpu = tensors[0].device.type == "cpu"
        return normalise_activate(self._convolve_on_cpu(tensors) if on_cpu else self._convolve(tensors))

    def _convolve(self, tensors: tuple[Tensor, ...]) -> Tensor:
        joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
        result: Tensor = self.convolution(functional.pad(joined, (1,) * 6, mode="reflect"))
        return result

    def _convolve_on_cpu(self, tensors: tuple[Tensor, ...]) -> Tensor:
        if self.convolution.groups > 1 or self.convolution.stride != (1, 1, 1):
            return self._convolve(tensors)
        # oneDNN is faster in channels-last, above all with few channels; with groups it is slower.
        padded = reflect_and_concatenate(*tensors, memory_format=torch.channels_last_3d)
        result: Tensor = convolve_slabs(self.convolution, padded) if len(padded) == 1 else self.convolution(padded)
        return result


class PointwiseUnit(nn.Module):
    """1x1x1 convolution, instance normalisation, leaky rectifier.

    Args:
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        groups: number of channel groups convolved apart.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1) -> None:
        super().__init__()
        self.convolution = PointwiseConvolution(in_channels, out_channels, groups=groups)

    def forward(self, x: Tensor, kept_modalities: Tensor | None = None) -> Tensor:
        """Map `[B, in_channels, D, H, W]` to `[B, out_channels, D, H, W]`; see `PointwiseConvolution.forward`."""
        return normalise_activate(self.convolution(x, kept_modalities))
