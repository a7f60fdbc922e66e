"""The units that encoders and decoders are built from."""

from __future__ import annotations

from torch import Tensor, nn

from gss_train.models.layers.normalisation import normalise_activate
from gss_train.models.layers.pointwise import PointwiseConvolution
from gss_train.models.layers.reflected_convolution import ReflectedConvolution


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
        self.convolution = ReflectedConvolution(in_channels, out_channels, stride=stride, groups=groups)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Convolve tensors `[B, channels, D, H, W]`, concatenated along the channels.

        Returns:
            `[B, out_channels, D / stride, H / stride, W / stride]`.
        """
        return normalise_activate(self.convolution(*tensors))


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
