"""3x3x3 convolution with zeros around."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ZeroPaddedConvolution(nn.Conv3d):
    """3x3x3 convolution with zeros around.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, D, H, W]` to `[B, out_channels, D, H, W]`."""
        if x.device.type == "cpu" and x.shape[2] == 2:
            # oneDNN's weight gradient in bfloat16 reads memory that nobody wrote where the axis that it pads has two
            # slices.
            return functional.conv3d(functional.pad(x, (1,) * 6), self.weight, self.bias)
        return super().forward(x)
