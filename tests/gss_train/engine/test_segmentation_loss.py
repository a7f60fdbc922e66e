from __future__ import annotations

import math

import numpy as np
import torch

from gss_train.engine.segmentation_loss import segmentation_loss


def expected(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The two losses voxel by voxel, from the formulas."""
    samples, categories, voxels = probabilities.shape
    cross_entropy = 0.0
    for sample in range(samples):
        for voxel in range(voxels):
            category = labels[sample, voxel]
            share = np.count_nonzero(labels[sample] == category) / voxels
            probability = min(max(probabilities[sample, category, voxel], 0.005), 1.0)
            cross_entropy += -(1 - share) * math.log(probability)
    dice = 0.0
    for category in range(categories):
        is_category = labels == category
        overlap = probabilities[:, category][is_category].sum()
        dice += 2 * overlap / (probabilities[:, category].sum() + is_category.sum() + 1e-7)
    return cross_entropy / (samples * voxels), 1 - dice / categories


def random_batch(seed: int, samples: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(samples, 5, 3, 4, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (samples, 3, 4, 2), generator=generator, dtype=torch.uint8)
    return torch.softmax(logits, dim=1), labels


def test_equals_the_formulas() -> None:
    probabilities, labels = random_batch(0)
    loss = segmentation_loss(probabilities, labels)
    cross_entropy, dice = expected(probabilities.flatten(2).numpy(), labels.flatten(1).numpy())
    np.testing.assert_allclose([loss.cross_entropy.item(), loss.dice.item()], [cross_entropy, dice], rtol=1e-5)


def test_unavailable_samples_leave_the_mean_and_the_sums() -> None:
    probabilities, labels = random_batch(1)
    available = torch.tensor([True, False, True])
    probabilities[1, 2, 0] = torch.nan
    loss = segmentation_loss(probabilities, labels, available)
    alone = segmentation_loss(probabilities[available], labels[available])
    torch.testing.assert_close(loss, alone)


def test_nobody_available_costs_nothing() -> None:
    probabilities, labels = random_batch(2)
    loss = segmentation_loss(probabilities, labels, torch.zeros(3, dtype=torch.bool))
    assert (loss.cross_entropy.item(), loss.dice.item()) == (0.0, 0.0)


def test_gradient_is_zero_below_the_clip_and_pulls_up_above_it() -> None:
    probabilities = torch.tensor([[[0.001, 0.5], [0.999, 0.5]]], requires_grad=True)
    segmentation_loss(probabilities, torch.tensor([[0, 1]])).cross_entropy.backward()
    assert probabilities.grad is not None
    assert probabilities.grad[0, 0, 0] == 0
    assert probabilities.grad[0, 1, 1] < 0
