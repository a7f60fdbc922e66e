"""What docs/deviations.md says: that its settings are there, and what each of them changes on a phantom."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2020, draw_voxel_mask, fused_gss_loss, fused_segmentation_loss, gss_soft_targets
from gss_train.config import preset_config
from gss_train.config.options import KINDS, flag_of
from gss_train.data import DATASETS, PreparedSubject, find_subjects, prepare_dataset
from gss_train.data.augmentation import augment as augmentation
from gss_train.data.augmentation.augment import augment
from gss_train.data.augmentation.motion import Motion
from gss_train.data.augmentation.settings import AugmentationSettings
from gss_train.phantom import generate_phantoms
from gss_train.training.unfused_losses import plain_cross_entropy, squared_dice

PAGE = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
DATASET = DATASETS["brats2020"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nilearn", reason="the phantom's anatomy ships with nilearn")
    root = tmp_path_factory.mktemp("phantom")
    generate_phantoms("brats2020", root, 1, seed=0, size=(48, 56, 48), workers=1, compressed=False)
    return root


def prepare(phantoms: Path, *, released_box: bool) -> PreparedSubject:
    folder = phantoms.with_name(f"prepared-{released_box}")
    subjects = find_subjects(phantoms, DATASET)
    return prepare_dataset(subjects, DATASET, folder, (16, 16, 16), 1, released_box=released_box).subjects[0]


@pytest.fixture(scope="module")
def whole(phantoms: Path) -> PreparedSubject:
    return prepare(phantoms, released_box=False)


@pytest.fixture(scope="module")
def seen(whole: PreparedSubject) -> tuple[Tensor, list[Tensor]]:
    """Its label, `[1, D, H, W]`, and logits of four modalities that see it through noise."""
    label = torch.from_numpy(whole.crop((0, 0, 0), whole.shape)[1].astype(np.int64))[None]
    truth = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    noise = torch.randn(4, *truth.shape, generator=torch.Generator().manual_seed(0))
    return label, [4 * truth + 2 * own for own in noise]


def brain_voxels(subject: PreparedSubject) -> int:
    image, _ = subject.crop((0, 0, 0), subject.shape)
    background = np.array(subject.background, np.float16)[:, None, None, None]
    return int((image != background).any(axis=0).sum())


def test_every_setting_that_the_page_names_is_one() -> None:
    flags = {"--print-config", *(flag_of(name) for names in KINDS.values() for name in names)}
    named = set(re.findall(r"`(--[a-z0-9-]+)", PAGE))
    assert len(named) > 10
    assert {flag.replace("--no-", "--") for flag in named} <= flags


def test_the_released_box_is_a_plane_smaller_along_each_axis(phantoms: Path, whole: PreparedSubject) -> None:
    released = prepare(phantoms, released_box=True)
    assert released.shape == tuple(length - 1 for length in whole.shape)
    lost = 1 - brain_voxels(released) / brain_voxels(whole)
    assert f"{100 * lost:.1f} % of the brain's voxels" in PAGE
    # The z-scores hardly move.
    np.testing.assert_allclose(released.metadata.mean, whole.metadata.mean, rtol=0.002)
    np.testing.assert_allclose(released.metadata.std, whole.metadata.std, rtol=0.003)


def test_the_released_vote_differs_where_the_page_says(seen: tuple[Tensor, list[Tensor]]) -> None:
    label, logits = seen
    paper, released = (gss_soft_targets(logits, BRATS_2020, semantics=name) for name in ("paper", "released"))
    differs = ((paper - released).abs().amax(dim=1) > 1e-6)[0]
    shares = [100 * float(differs[label[0] == category].float().mean()) for category in range(4)]
    assert "BG {:.0f}, NCR/NET {:.0f}, ED {:.0f}, ET {:.0f} %".format(*shares) in PAGE


def test_the_divergences_differ_by_a_constant(seen: tuple[Tensor, list[Tensor]]) -> None:
    _, logits = seen
    values, gradients = [], []
    for divergence in ("kl", "cross_entropy"):
        leaves = [own.clone().requires_grad_() for own in logits]
        loss = fused_gss_loss(leaves, BRATS_2020, seed=0, divergence=divergence)
        values.append(loss.item())
        gradients.append(torch.stack(torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(*gradients)
    assert "{:.2f} and {:.2f}".format(*values) in PAGE


def test_masks_with_replacement_hit_fewer_voxels(whole: PreparedSubject) -> None:
    ratio = preset_config("paper", protocol="gss-released").self_support.mask_ratio
    voxels = int(np.prod(whole.shape))
    drawn = np.unique(np.random.default_rng(0).integers(voxels, size=int(0.2 * voxels))).size / voxels
    mask = draw_voxel_mask(0, num_samples=1, num_modalities=4, spatial=whole.shape, mask_ratio=ratio)
    assert 1 - mask.float().mean().item() == pytest.approx(drawn, abs=0.005)
    assert f"{100 * ratio:.1f} %" in PAGE


def test_losses_of_the_other_baselines(seen: tuple[Tensor, list[Tensor]]) -> None:
    label, (logits, *_) = seen
    cross_entropy, dice = fused_segmentation_loss(logits, label)
    assert f"Dice loss {squared_dice(logits, label):.2f} for {dice:.2f}" in PAGE
    assert f"cross-entropy {plain_cross_entropy(logits, label):.3f} for {cross_entropy:.3f}" in PAGE


def test_linear_interpolation_of_the_image_moves_no_label(
    whole: PreparedSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, label = (torch.from_numpy(part)[None] for part in whole.crop((0, 0, 0), whole.shape))
    monkeypatch.setattr(augmentation, "draw_motions", lambda count, *_: [Motion((0, 1), 9, (False,) * 3)] * count)
    results = [
        augment(image, label, torch.Generator(), AugmentationSettings(scale=0, shift=0, interpolation=name))
        for name in ("nearest", "linear")
    ]
    (nearest, nearest_label), (linear, linear_label) = results
    assert torch.equal(nearest_label, linear_label)
    inside = (nearest > -1).any(dim=1)[0] & (nearest_label > 0)[0]
    difference = (nearest - linear)[0][:, inside].abs().mean().item()
    assert f"{difference:.2f} standard deviations" in PAGE
