"""What RobustSeg and U-HVED minimise, by the formulas of their authors' TensorFlow code in NumPy."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gss_kernels import BRATS_2020
from gss_train.config import NetworkName, preset_config
from gss_train.models import SegmentationNetwork, build_network
from gss_train.training import Objective, baseline_objective

Array = NDArray[np.float64]

MODALITIES = range(4)
SUBSETS = [subset for count in (1, 2, 3, 4) for subset in combinations(MODALITIES, count)]


def small_network(name: str) -> SegmentationNetwork:
    """As published: without predictions of single modalities."""
    torch.manual_seed(0)
    network = build_network(name, 4, crop_size=16, width=2, separate_decoder=False).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def published_objective(network: NetworkName) -> Objective:
    return Objective(BRATS_2020, baseline_objective(preset_config("paper", network).training))


def draw(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scans, labels, subsets, and that everything is available."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, 16, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (batch, 16, 16, 16), generator=generator)
    labels[:, 0, 0, 0] = 3  # so rare that a Dice loss shows what is added to its denominator
    subsets = torch.tensor([[True, False, True, True], [False, True, False, False]])[:batch]
    return x, labels, subsets, torch.ones_like(subsets)


def record(modules: nn.ModuleList) -> list[Any]:
    """What these modules return from now on, in NumPy."""
    outputs: list[Any] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(numpy(output) if isinstance(output, Tensor) else tuple(numpy(part) for part in output))

    for module in modules:
        module.register_forward_hook(keep)
    return outputs


def numpy(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: Array = powers / powers.sum(1, keepdims=True)
    return result


def one_hot(labels: Tensor) -> Array:
    return np.moveaxis(np.eye(4)[labels.numpy()], -1, 1)


def weighted_cross_entropy(probabilities: Array, truth: Array) -> float:
    """RobustSeg's; weights are those of the whole batch."""
    voxel_losses = np.zeros_like(truth[:, 0])
    for category in range(4):
        weight = 1 - truth[:, category].sum() / truth.sum()
        voxel_losses -= weight * truth[:, category] * np.log(np.clip(probabilities[:, category], 0.005, 1))
    return float(voxel_losses.mean())


def dice_with_squares(probabilities: Array, truth: Array) -> float:
    """RobustSeg's."""
    score = 0.0
    for category in range(4):
        predicted, true = probabilities[:, category], truth[:, category]
        score += 2 * (predicted * true).sum() / ((predicted**2).sum() + true.sum() + 1e-7)
    return 1 - score / 4


def test_robustseg() -> None:
    """Of a batch of one, as published; for more, our class weights are each sample's own."""
    network = small_network("robustseg")
    images, styles = record(network.image_decoders), record(network.style_mappings)
    x, labels, subsets, available = draw(1)
    output = network(x, subsets, available)
    output = output._replace(fused=6 * output.fused)  # so that some logarithms are clipped
    terms = published_objective("robustseg")(output, labels, available, seed=0)

    probabilities, truth = softmax(numpy(output.fused)), one_hot(labels)
    fused = weighted_cross_entropy(probabilities, truth) + dice_with_squares(probabilities, truth)
    reconstruction = sum(np.abs(images[modality][:, 0] - numpy(x)[:, modality]).mean() for modality in MODALITIES)
    of_styles = 0.0
    for mean, deviation in styles:
        log_variance = np.log(np.square(deviation))
        of_styles += (0.5 * (np.square(mean) + np.exp(log_variance) - 1 - log_variance).sum(-1)).mean()
    regulariser = 0.1 * reconstruction + 0.1 * of_styles
    assert probabilities.min() < 0.005
    assert terms.fused.item() == pytest.approx(fused, rel=1e-12)
    assert terms.regulariser.item() == pytest.approx(regulariser, rel=1e-10)
    assert terms.total.item() == pytest.approx(fused + regulariser, rel=1e-10)


def product(means: Array, log_variances: Array, subset: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and log-variance of the product of a subset's Gaussians, `[M, ...]`, and the prior, by U-HVED's code."""
    precisions = [1 / (np.exp(log_variances[modality]) + 1e-7) for modality in subset]
    weighted = [means[modality] / (np.exp(log_variances[modality]) + 1e-7) for modality in subset]
    precision = sum(precisions, np.ones_like(means[0]))
    return sum(weighted, np.zeros_like(means[0])) / precision, np.log(1 / precision + 1e-7)


def divergence(mean: Array, log_variance: Array, other_mean: Array, other_log_variance: Array) -> float:
    """Kullback-Leibler divergence of the first from the second Gaussians, by U-HVED's code."""
    variance, other_variance = np.exp(log_variance), np.exp(other_log_variance)
    ratio = (variance + (mean - other_mean) ** 2) / (other_variance + 1e-7)
    return 0.5 * float((-1 + other_log_variance - log_variance + ratio).mean())


def divergence_of_level(means: Array, log_variances: Array, chosen: tuple[int, ...]) -> float:
    """Over the subsets, from the posterior of the chosen one and to the prior."""
    zeros = np.zeros_like(means[0])
    posterior = product(means, log_variances, chosen)
    parts = [product(means, log_variances, subset) for subset in SUBSETS]
    between = sum(divergence(*posterior, *part) for part in parts)
    return between / 14 + sum(divergence(*part, zeros, zeros) for part in parts) / 15


def nifty_dice(probabilities: Array, truth: Array) -> float:
    """NiftyNet's, of one sample."""
    axes = (0, 2, 3, 4)
    numerator = 2 * (probabilities * truth).sum(axes) + 1e-5
    return float(1 - (numerator / ((probabilities**2).sum(axes) + truth.sum(axes) + 1e-5)).mean())


def test_uhveds_supervised_loss() -> None:
    network = small_network("uhved")
    x, labels, subsets, available = draw(1)
    output = network(x, subsets, available)
    output = output._replace(fused=6 * output.fused)
    terms = published_objective("uhved")(output, labels, available, seed=0)
    probabilities, truth = softmax(numpy(output.fused)), one_hot(labels)
    assert probabilities.min() < 0.005
    cross_entropy = -np.log((probabilities * truth).sum(1)).mean()
    # Ours has 1e-7 in the denominator alone.
    assert terms.fused.item() == pytest.approx(cross_entropy + nifty_dice(probabilities, truth), abs=5e-6)
    assert terms.total.item() == pytest.approx(terms.fused.item() + output.regulariser.item(), rel=1e-12)


def test_uhveds_regulariser() -> None:
    network = small_network("uhved")
    images, levels = record(network.image_decoders), record(network.encoder)
    x, _, subsets, available = draw(2)
    output = network(x, subsets, available)

    reconstruction = np.square(np.concatenate(images, axis=1) - numpy(x)).mean()
    divergences = []
    for level in levels:
        halves = level.reshape(2, 4, 2, -1, *level.shape[2:])  # sample, modality, mean or log-variance
        clipped = np.clip(halves[:, :, 1], -50, 50)
        for sample in range(2):  # the published code chooses one subset for a batch
            chosen = tuple(int(modality) for modality in subsets[sample].nonzero())
            divergences.append(divergence_of_level(halves[sample, :, 0], clipped[sample], chosen))
    regulariser = 0.1 * reconstruction + 0.1 * np.mean(divergences)
    assert output.regulariser.item() == pytest.approx(regulariser, rel=1e-10)
