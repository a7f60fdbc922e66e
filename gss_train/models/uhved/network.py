"""U-HVED (Dorent et al., MICCAI 2019, arXiv 1907.11150), with one prediction per modality so that GSS can train it.

After the authors' TensorFlow code, not its PyTorch ports: upsampling repeats the last voxel of an axis rather than
stretch the axis end to end, weights start from a truncated normal distribution of deviation `sqrt(2 / fan_in)`, and
the Kullback-Leibler term has the divisors and epsilons of that code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.checks import NUM_MODALITIES, check_modality_mask, check_scans, hide_unavailable
from gss_train.models.interface import Features, SegmentationNetwork, SegmentationOutput
from gss_train.models.layers.gaussians import at_least_float32, product_of_gaussians, subset_divergence
from gss_train.models.layers.pointwise import multiply_channels
from gss_train.models.uhved.prenormalised import NEGATIVE_SLOPE, PreNormalisedConvolution, new_weight

NUM_LEVELS = 4
COARSEST_STRIDE = 2 ** (NUM_LEVELS - 1)
LEAST_AXIS = 2 * COARSEST_STRIDE  # a single voxel cannot be normalised
DEFAULT_WIDTH = 8
DIVERGENCE_WEIGHT = 0.1
RECONSTRUCTION_WEIGHT = 0.1

# The features of this network: finest level first; level l is [B, M * width * 2**l, D / 2**l, H / 2**l, W / 2**l], the
# modalities one after the other on the channel axis, of each first the means, then the log-variances.
# Its latents: the same with width / 2 * 2**l channels and without the modalities.


class Expansion(nn.Module):
    """The 1x1x1 convolution and leaky rectifier at the entrance of the four encoders.

    Args:
        width: channels of one modality after it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = new_weight(NUM_MODALITIES * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map scans `[B, M, D, H, W]` to `[B, M * width, D, H, W]`."""
        per_modality = self.weight.view(NUM_MODALITIES, -1, 1)
        expanded = multiply_channels(per_modality.repeat(len(x), 1, 1), x.reshape(-1, 1, *x.shape[2:]))
        return functional.leaky_relu_(expanded, NEGATIVE_SLOPE).reshape(len(x), -1, *x.shape[2:])


class EncoderLevel(nn.Module):
    """One level of the four modalities' encoders, side by side as channel groups.

    Args:
        enter: what precedes the convolutions.
        in_channels: channels of one modality after `enter`.
        out_channels: channels of one modality after the level.
    """

    def __init__(self, enter: nn.Module, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inputs, outputs = NUM_MODALITIES * in_channels, NUM_MODALITIES * out_channels
        self.enter = enter
        self.first = PreNormalisedConvolution(inputs, outputs, groups=NUM_MODALITIES)
        self.second = PreNormalisedConvolution(outputs, outputs, groups=NUM_MODALITIES)

    def forward(self, x: Tensor) -> Tensor:
        """Map the level before, or the scans, to `[B, M * out_channels, ...]`."""
        result: Tensor = self.second(self.first(self.enter(x)))
        return result


class Decoder(nn.Module):
    """Decodes latents, for an image or for the segmentation.

    Args:
        width: twice the channels of the finest latent.
        out_channels: channels of the result.
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        channels = [width // 2 * 2**level for level in range(NUM_LEVELS - 1)]
        self.first = nn.ModuleList(PreNormalisedConvolution(3 * count, 2 * count) for count in channels)
        self.second = nn.ModuleList(PreNormalisedConvolution(2 * count, count) for count in channels)
        self.weight = new_weight(out_channels, width // 2)

    def forward(self, *latents: Tensor) -> Tensor:
        """Decode latents `[B, width / 2 * 2**l, ...]`, finest level first, to `[B, out_channels, D, H, W]`."""
        x = latents[-1]
        for first, second, latent in zip(
            reversed(self.first), reversed(self.second), reversed(latents[:-1]), strict=True
        ):
            x = second(first(torch.cat((upsample_from_start(x), latent), dim=1)))
        return multiply_channels(self.weight, x)


class SeparateDecoder(Decoder):
    """The decoder that all modalities share for their own predictions; no part of the published network."""

    def forward(self, *features: Tensor) -> Tensor:
        """Decode the posterior means of single modalities.

        Args:
            *features: one modality's, `[B, width * 2**l, D / 2**l, H / 2**l, W / 2**l]`, finest level first.

        Returns:
            Logits `[B, C, D, H, W]`.
        """
        return super().forward(*(self._posterior_mean(level) for level in features))

    @staticmethod
    def _posterior_mean(level: Tensor) -> Tensor:
        means, log_variances = level[:, None].chunk(2, dim=2)
        mean, _ = product_of_gaussians(means, log_variances, torch.ones_like(means[:, :, 0, 0, 0, 0], dtype=torch.bool))
        return mean.to(level.dtype)


class UHVED(SegmentationNetwork):
    """Hetero-modal variational encoder-decoder, for crops whose axes are multiples of 8, at least 16.

    Args:
        num_categories: number of categories C, background included.
        width: channels of one modality at the finest level, an even number; 8 as published.
        activation_checkpointing: whether to recompute the finest encoder level and the decoders in the backward pass
            rather than keep what they computed: less memory, more time. The modalities are then decoded one by one.
        separate_decoder: whether the modalities have predictions of their own, which the published network lacks.

    Raises:
        ValueError: if `num_categories` is below 2 or `width` is no positive even number.
    """

    def __init__(
        self,
        num_categories: int,
        *,
        width: int = DEFAULT_WIDTH,
        activation_checkpointing: bool = False,
        separate_decoder: bool = True,
    ) -> None:
        super().__init__(activation_checkpointing=activation_checkpointing)
        if num_categories < 2:
            raise ValueError(f"num_categories is {num_categories}; it must be at least 2")
        if width < 2 or width % 2:
            raise ValueError(f"width is {width}; it must be a positive even number")
        self.num_categories = num_categories
        self.encoder = nn.ModuleList(
            EncoderLevel(
                nn.MaxPool3d(2) if level else Expansion(width), width * 2 ** max(level - 1, 0), width * 2**level
            )
            for level in range(NUM_LEVELS)
        )
        self.image_decoders = nn.ModuleList(Decoder(width, 1) for _ in range(NUM_MODALITIES))
        self.segmentation_decoder = Decoder(width, num_categories)
        self.separate_decoder = SeparateDecoder(width, num_categories) if separate_decoder else None

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """Segment a batch, see `SegmentationNetwork`.

        In training the latents are drawn from the fused posterior, in evaluation they are its means. Noise is drawn for
        the whole batch whatever the masks say. The regulariser is 0.1 times the mean squared error of the images
        reconstructed from the latents, plus 0.1 times the divergences of `subset_divergence` averaged over the levels;
        only available scans count, and every sample as much as the others. It is 0 unless `per_modality`.
        """
        features = self.encode(x, available)
        latents = self._draw_latents(features, fused_modalities)
        logits: Tensor = self.run(self.segmentation_decoder, *latents)
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, torch.zeros((), device=x.device))
        present = torch.ones_like(fused_modalities) if available is None else available
        # It loops over hundreds of chunks. As a decorator, this would load the compiler wherever a network is built.
        divergence = torch.compiler.disable(_mean_divergence)  # type: ignore[no-untyped-call]
        regulariser = RECONSTRUCTION_WEIGHT * self._reconstruction_error(
            latents, hide_unavailable(x, available), present
        ) + DIVERGENCE_WEIGHT * divergence(features, fused_modalities, present)
        separate = None if self.separate_decoder is None else self.decode_separately(features)
        return SegmentationOutput(logits, separate, None, regulariser)

    def encode(self, x: Tensor, available: Tensor | None = None) -> Features:
        """Encode every available modality as means and log-variances, see `SegmentationNetwork`."""
        check_scans(x, stride=COARSEST_STRIDE, least=LEAST_AXIS)
        x = hide_unavailable(x, available)
        features = []
        for index, level in enumerate(self.encoder):
            # To recompute the coarser levels as well takes time and frees nothing that counts at the peak.
            x = level(x) if index else self.run(level, x)
            features.append(x)
        return tuple(features)

    def fuse(self, features: Features, fused_modalities: Tensor) -> Tensor:
        """Segment by the means of the subset's posterior, in training by a draw from it; see `SegmentationNetwork`."""
        logits: Tensor = self.run(self.segmentation_decoder, *self._draw_latents(features, fused_modalities))
        return logits

    @property
    def has_separate_predictions(self) -> bool:
        """Whether it was built with a separate decoder."""
        return self.separate_decoder is not None

    def decode_separately(self, features: Features) -> tuple[Tensor, ...]:
        """Each modality's own prediction, see `SegmentationNetwork`."""
        return self.run_for_each_modality(self.separate_decoder, features)

    def _draw_latents(self, features: Features, fused_modalities: Tensor) -> tuple[Tensor, ...]:
        check_modality_mask("fused_modalities", fused_modalities, features[0])
        return tuple(self._draw_latent(level, fused_modalities) for level in features)

    def _draw_latent(self, level: Tensor, fused_modalities: Tensor) -> Tensor:
        """The latent of one level of the features, in their dtype."""
        latent, variance = product_of_gaussians(*_gaussian_parameters(level), fused_modalities)
        if self.training:
            latent = torch.addcmul(latent, variance.sqrt(), torch.randn_like(latent))
        return latent.to(level.dtype)

    def _reconstruction_error(self, latents: tuple[Tensor, ...], scans: Tensor, available: Tensor) -> Tensor:
        """Mean squared error over a sample's available scans, averaged over the samples."""
        errors = [
            (at_least_float32(self.run(decoder, *latents)[:, 0]) - at_least_float32(scan)).square().mean((1, 2, 3))
            for decoder, scan in zip(self.image_decoders, scans.unbind(1), strict=True)
        ]
        return ((torch.stack(errors, dim=1) * available).sum(1) / available.sum(1)).mean()


def upsample_from_start(x: Tensor) -> Tensor:
    """Double every spatial axis: each voxel, then its mean with the next one, the last voxel twice.

    This is linear interpolation as TensorFlow 1 has it by default. Unlike that of PyTorch its backward pass is
    deterministic on a GPU.

    Args:
        x: `[B, channels, D, H, W]`.

    Returns:
        `[B, channels, 2 * D, 2 * H, 2 * W]`.
    """
    for axis in (2, 3, 4):
        following = torch.cat((x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, -1, 1)), dim=axis)
        x = torch.stack((x, (x + following) / 2), dim=axis + 1).flatten(axis, axis + 1)
    return x


def _gaussian_parameters(level: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log-variances, each `[B, M, channels of one modality / 2, D, H, W]`, of one level of the features."""
    means, log_variances = level.reshape(len(level), NUM_MODALITIES, 2, -1, *level.shape[2:]).unbind(2)
    return means, log_variances


def _mean_divergence(features: Features, fused_modalities: Tensor, available: Tensor) -> Tensor:
    divergences = [subset_divergence(*_gaussian_parameters(level), fused_modalities, available) for level in features]
    return torch.stack(divergences).mean()
