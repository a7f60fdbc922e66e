"""U-HVED with one prediction per modality, written down layer by layer: what the lean network is compared with."""

from __future__ import annotations

from itertools import combinations, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models import UHVED, SegmentationOutput

_MODALITIES = range(4)
_EPSILON = 1e-7
_UNIT_KINDS = {"scale": "0.weight", "shift": "0.bias", "weight": "2.weight"}

# Mean and log-variance of every modality at one level.
Level = list[tuple[Tensor, Tensor]]


class PlainUnit(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.InstanceNorm3d(in_channels, eps=1e-6, affine=True),
            nn.LeakyReLU(0.01),
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        )


class PlainEncoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv3d(1, width, 1, bias=False), nn.LeakyReLU(0.01))
        self.pool = nn.MaxPool3d(2)
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(PlainUnit(before, after), PlainUnit(after, after)) for before, after in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        x = self.enter(x)
        parameters = []
        for index, level in enumerate(self.levels):
            x = level(self.pool(x) if index else x)
            mean, log_variance = x.chunk(2, dim=1)
            parameters.append((mean, log_variance.clamp(-50, 50)))
        return parameters


class PlainDecoder(nn.Module):
    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        channels = [width // 2, width, 2 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(PlainUnit(3 * count, 2 * count), PlainUnit(2 * count, count)) for count in channels
        )
        self.classify = nn.Conv3d(width // 2, out_channels, 1, bias=False)

    def forward(self, latents: list[Tensor]) -> Tensor:
        x = latents[-1]
        for index in (2, 1, 0):
            x = self.levels[index](torch.cat((upsample(x), latents[index]), dim=1))
        logits: Tensor = self.classify(x)
        return logits


class PlainUHVED(nn.Module):
    """Takes and returns what `gss_train.models.uhved.UHVED` does."""

    def __init__(self, num_categories: int, *, width: int = 8) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(PlainEncoder(width) for _ in _MODALITIES)
        self.image_decoders = nn.ModuleList(PlainDecoder(width, 1) for _ in _MODALITIES)
        self.segmentation_decoder = PlainDecoder(width, num_categories)
        self.separate_decoder = PlainDecoder(width, num_categories)

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        if available is None:
            available = torch.ones_like(fused_modalities)
        x = torch.where(available[:, :, None, None, None], x, 0)
        encoded = [encoder(x[:, m : m + 1]) for m, encoder in enumerate(self.encoders)]
        levels: list[Level] = [list(level) for level in zip(*encoded, strict=True)]
        posteriors = [gaussian_product(level, fused_modalities) for level in levels]
        if self.training:
            latents = [
                mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) for mean, log_variance in posteriors
            ]
        else:
            latents = [mean for mean, _ in posteriors]
        logits = self.segmentation_decoder(latents)
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, logits.new_zeros(()))
        images = torch.cat([decoder(latents) for decoder in self.image_decoders], dim=1)
        divergence = torch.stack([divergence_over_subsets(level, fused_modalities, available) for level in levels])
        regulariser = 0.1 * divergence.mean() + 0.1 * reconstruction_error(images, x, available)
        return SegmentationOutput(logits, self._decode_separately(levels), None, regulariser)

    def _decode_separately(self, levels: list[Level]) -> tuple[Tensor, ...]:
        alone = torch.ones(len(levels[0][0][0]), 1, dtype=torch.bool, device=levels[0][0][0].device)
        return tuple(
            self.separate_decoder([gaussian_product([level[m]], alone)[0] for level in levels]) for m in _MODALITIES
        )


def upsample(x: Tensor) -> Tensor:
    """Linear interpolation at 0, 1/2, 1, ..., with the last voxel repeated: TensorFlow's without aligned corners."""
    size = [2 * length + 1 for length in x.shape[2:]]
    padded = functional.pad(x, (0, 1, 0, 1, 0, 1), mode="replicate")
    return functional.interpolate(padded, size=size, mode="trilinear", align_corners=True)[:, :, :-1, :-1, :-1]


def gaussian_product(level: Level, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the kept modalities' Gaussians times a standard normal one."""
    precisions = [
        kept[:, m, None, None, None, None] / (log_variance.exp() + _EPSILON)
        for m, (_, log_variance) in enumerate(level)
    ]
    total = 1 + torch.stack(precisions).sum(0)
    weighted = [precision * mean for precision, (mean, _) in zip(precisions, level, strict=True)]
    return torch.stack(weighted).sum(0) / total, torch.log(1 / total + _EPSILON)


def gaussian_divergence(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Kullback-Leibler divergence per sample, averaged over voxels and channels."""
    difference = (first[0] - second[0]).square()
    ratio = (first[1].exp() + difference) / (second[1].exp() + _EPSILON)
    return 0.5 * (ratio - 1 + second[1] - first[1]).flatten(1).mean(1)


def divergence_over_subsets(level: Level, fused_modalities: Tensor, available: Tensor) -> Tensor:
    full = gaussian_product(level, fused_modalities)
    prior = (torch.zeros_like(full[0]), torch.zeros_like(full[1]))
    count = 2 ** available.sum(1) - 1
    from_fused = to_prior = torch.zeros(len(available), device=available.device)
    for size in (1, 2, 3, 4):
        for subset in combinations(_MODALITIES, size):
            kept = torch.zeros_like(available)
            kept[:, list(subset)] = True
            weight = (available | ~kept).all(1).float()
            posterior = gaussian_product(level, kept)
            from_fused = from_fused + weight * gaussian_divergence(full, posterior)
            to_prior = to_prior + weight * gaussian_divergence(posterior, prior)
    return (from_fused / (count - 1).clamp(min=1) + to_prior / count).mean()


def reconstruction_error(images: Tensor, x: Tensor, available: Tensor) -> Tensor:
    errors = (images - x).square().mean((2, 3, 4))
    return ((errors * available).sum(1) / available.sum(1)).mean()


def copy_weights(lean: UHVED, plain: PlainUHVED) -> None:
    """Give the lean network the plain one's weights."""
    values = plain.state_dict()
    with torch.no_grad():
        for name, parameter in lean.named_parameters():
            parameter.copy_(torch.cat([values[key] for key in plain_keys(name)]).view_as(parameter))


def plain_keys(name: str) -> tuple[str, ...]:
    """The plain parameters that lie one after the other on the first axis of a lean network's parameter."""
    module, kind = name.rsplit(".", 1)
    part, *rest = module.split(".")
    if part != "encoder":
        number, unit = ([rest.pop(0)], rest) if part == "image_decoders" else ([], rest)
        return (".".join([part, *number, f"classify.{kind}" if not unit else _unit_key(unit[1], unit[0], kind)]),)
    level, unit_name = rest
    key = "enter.0.weight" if unit_name == "enter" else _unit_key(level, unit_name, kind)
    return tuple(f"encoders.{m}.{key}" for m in _MODALITIES)


def _unit_key(level: str, unit: str, kind: str) -> str:
    return f"levels.{level}.{('first', 'second').index(unit)}.{_UNIT_KINDS[kind]}"
