"""Properties of the simulated heads, tumours and contrasts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gss_train.phantom.anatomy import Atlas, load_atlas, push_outwards, random_warp, sample
from gss_train.phantom.grid import Grid, bounding_box
from gss_train.phantom.subject import SimulatedSubject, simulate_subject
from gss_train.phantom.tumour import (
    ENHANCING,
    NECROSIS,
    NON_ENHANCING,
    OEDEMA,
    _travel_time,
    grow_tumour,
    plan_tumour,
)

GRID = Grid.for_brain((48, 56, 48))


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return load_atlas(GRID.spacing)


@pytest.fixture(scope="module")
def high_grade(atlas: Atlas) -> list[SimulatedSubject]:
    return [simulate_subject(atlas, GRID, 11, index, high_grade=True) for index in range(6)]


@pytest.fixture(scope="module")
def low_grade(atlas: Atlas) -> list[SimulatedSubject]:
    return [simulate_subject(atlas, GRID, 12, index, high_grade=False) for index in range(4)]


def effect_size(sample: np.ndarray, other: np.ndarray) -> float:
    """Cohen's d."""
    return float((sample.mean() - other.mean()) / np.sqrt((sample.var() + other.var()) / 2))


def mean_effect(subjects: list[SimulatedSubject], modality: str, category: int, others: tuple[int, ...]) -> float:
    effects = []
    for subject in subjects:
        image, categories = subject.images[modality].astype(float), subject.categories
        effects.append(effect_size(image[categories == category], image[np.isin(categories, others)]))
    return float(np.mean(effects))


def white_matter(subject: SimulatedSubject) -> np.ndarray:
    """Healthy white matter by its T1 intensity: the brightest third of the healthy brain."""
    t1 = subject.images["T1"]
    healthy = (t1 > 0) & (ndimage.binary_dilation(subject.categories > 0, iterations=2) == 0)
    return healthy & (t1 > np.percentile(t1[healthy], 67))


def test_enhancement_shows_in_t1ce_alone(high_grade: list[SimulatedSubject]) -> None:
    neighbours = (OEDEMA, NON_ENHANCING)
    assert mean_effect(high_grade, "T1ce", ENHANCING, neighbours) > 2
    for modality in ("FLAIR", "T1", "T2"):
        assert abs(mean_effect(high_grade, modality, ENHANCING, neighbours)) < 1, modality
    for subject in high_grade:
        t1ce = subject.images["T1ce"]
        assert t1ce[subject.categories == ENHANCING].mean() > 1.15 * t1ce[white_matter(subject)].mean()


def test_necrosis_is_dark_in_t1ce(high_grade: list[SimulatedSubject]) -> None:
    assert mean_effect(high_grade, "T1ce", NECROSIS, (ENHANCING,)) < -2
    assert mean_effect(high_grade, "T1ce", NECROSIS, (OEDEMA,)) < -1


@pytest.mark.parametrize("modality", ["FLAIR", "T2"])
def test_oedema_is_bright_in_flair_and_t2(
    high_grade: list[SimulatedSubject], low_grade: list[SimulatedSubject], modality: str
) -> None:
    for subject in high_grade + low_grade:
        image = subject.images[modality]
        assert image[subject.categories == OEDEMA].mean() > 1.4 * image[white_matter(subject)].mean()


def test_flair_suppresses_the_fluid_that_t2_shows_brightest(atlas: Atlas) -> None:
    subject = simulate_subject(atlas, GRID, 11, 0, high_grade=True)
    healthy = (subject.images["T2"] > 0) & (subject.categories == 0)
    fluid = healthy & (subject.images["T2"] > np.percentile(subject.images["T2"][healthy], 98))
    for modality in ("FLAIR", "T1"):
        image = subject.images[modality]
        assert image[fluid].mean() < 0.7 * image[healthy].mean()


def test_grades_differ_as_in_the_clinic(high_grade: list[SimulatedSubject], low_grade: list[SimulatedSubject]) -> None:
    def share(subject: SimulatedSubject, category: int) -> float:
        return float((subject.categories == category).sum() / (subject.categories > 0).sum())

    assert all(share(subject, ENHANCING) > 0.08 for subject in high_grade)
    assert all(share(subject, ENHANCING) < 0.06 for subject in low_grade)
    assert all(share(subject, NON_ENHANCING) > 0.25 for subject in low_grade)
    assert all(share(subject, OEDEMA) > 0.3 for subject in high_grade + low_grade)


def test_necrosis_lies_within_the_core(high_grade: list[SimulatedSubject]) -> None:
    """Mostly enclosed by the rest of the core; a rim is thin in places and may be interrupted."""
    enclosed = []
    for subject in high_grade:
        necrosis = subject.categories == NECROSIS
        border = ndimage.binary_dilation(necrosis) & ~necrosis
        enclosed.append(np.isin(subject.categories[border], (ENHANCING, NON_ENHANCING)).mean())
    assert min(enclosed) > 0.6
    assert np.mean(enclosed) > 0.8


def test_oedema_avoids_fluid_and_prefers_white_matter(atlas: Atlas) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        warp = random_warp(atlas, GRID, rng)
        centre = warp.locate(atlas.tumour_sites[rng.integers(len(atlas.tumour_sites))])
        anatomy = sample(atlas, warp)
        oedema = grow_tumour(plan_tumour(rng, high_grade=True), anatomy, GRID, centre, rng) == OEDEMA
        csf, grey, white = anatomy.tissues
        assert csf[oedema].max() <= 0.5
        assert white[oedema].mean() > 1.3 * white[anatomy.brain].mean()
        assert grey[oedema].mean() < grey[anatomy.brain].mean()


def test_volumes_are_those_of_brats() -> None:
    plans = [plan_tumour(np.random.default_rng(seed), high_grade=bool(seed % 4)) for seed in range(400)]
    volumes = np.array([plan.whole_volume for plan in plans])
    assert volumes.min() >= 20
    assert volumes.max() <= 150
    assert 80 < volumes.mean() < 100


def test_heads_are_of_human_size_and_differ(atlas: Atlas) -> None:
    masks = [sample(atlas, random_warp(atlas, GRID, np.random.default_rng(seed))).brain for seed in range(8)]
    volumes = np.array([mask.sum() for mask in masks]) * GRID.voxel_volume
    assert 1200 < volumes.mean() < 1700
    assert volumes.std() > 30
    overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    assert overlap < 0.98


def test_tissue_shares_fill_the_brain_and_nothing_else(atlas: Atlas) -> None:
    anatomy = sample(atlas, random_warp(atlas, GRID, np.random.default_rng(0)))
    total = anatomy.tissues.sum(axis=0)
    np.testing.assert_allclose(total[anatomy.brain], 1, rtol=1e-5)
    assert not total[~anatomy.brain].any()
    # The head keeps clear of the sides, and no more than the neck touches the bottom.
    for face in (anatomy.brain[0], anatomy.brain[-1], anatomy.brain[:, 0], anatomy.brain[:, -1]):
        assert not face.any()


def test_mass_effect_moves_tissue_away_from_the_centre(atlas: Atlas) -> None:
    warp = random_warp(atlas, GRID, np.random.default_rng(0))
    centre = warp.locate(atlas.tumour_sites[0])
    pushed = push_outwards(warp, GRID, centre, radius=20.0, shift=6.0)
    at_centre = (slice(None), *centre)
    np.testing.assert_allclose(pushed.source[at_centre], warp.source[at_centre], atol=1e-4)
    # What is now at a voxel came from nearer to the centre.
    near = np.linalg.norm(GRID.offset_from(centre), axis=0)
    ring = (near > 10) & (near < 40)
    distance = [
        np.linalg.norm(w.source - w.source[at_centre][:, None, None, None], axis=0)[ring] for w in (pushed, warp)
    ]
    assert np.mean(distance[0] < distance[1]) > 0.99


def test_travel_time_at_unit_speed_is_the_distance() -> None:
    start = np.zeros((21, 21, 21), dtype=bool)
    start[10, 10, 10] = True
    arrival = _travel_time(start, np.ones(start.shape, dtype=np.float32), steps=60)
    distance = ndimage.distance_transform_edt(~start)
    # The first-order scheme overestimates along diagonals close to a point source.
    assert np.all(arrival >= distance - 1e-3)
    assert np.all(arrival <= 1.25 * distance + 0.5)


def test_travel_time_does_not_cross_a_wall() -> None:
    start = np.zeros((9, 5, 5), dtype=bool)
    start[0] = True
    speed = np.ones(start.shape, dtype=np.float32)
    speed[4] = 0
    arrival = _travel_time(start, speed, steps=40)
    assert np.isfinite(arrival[:4]).all()
    assert np.isinf(arrival[4:]).all()


def test_noise_is_smooth_with_zero_mean_and_unit_variance() -> None:
    grid = Grid((48, 40, 44), 2.0)
    fields = np.stack([grid.smooth_noise(np.random.default_rng(seed), 24.0) for seed in range(40)])
    assert fields.shape == (40, *grid.size)
    assert abs(fields.mean()) < 0.05
    assert fields.std() == pytest.approx(1, abs=0.05)
    # Neighbours 2 mm apart agree; voxels a wavelength and a half apart do not.
    assert np.corrcoef(fields[:, :-1].ravel(), fields[:, 1:].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(fields[:, :-18].ravel(), fields[:, 18:].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("size", "spacing"), [((240, 240, 155), 1.0), ((96, 112, 96), 2.0), ((64, 72, 64), 3.0), ((40, 48, 40), 4.8)]
)
def test_spacing_lets_the_head_fill_the_grid(size: tuple[int, int, int], spacing: float) -> None:
    assert Grid.for_brain(size).spacing == spacing


def test_bounding_box_is_cut_at_the_volume() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[1, 3, 5] = mask[2, 3, 4] = True
    inside = np.zeros_like(mask)
    inside[bounding_box(mask, margin=1)] = True
    expected = np.zeros_like(mask)
    expected[0:4, 2:5, 3:6] = True
    assert np.array_equal(inside, expected)
