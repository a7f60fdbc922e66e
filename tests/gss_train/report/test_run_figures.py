from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from gss_kernels import ROUTES
from gss_train.data import DATASETS, MODALITIES, REGIONS, PreparedSubject
from gss_train.data.prepared import VOXEL_DTYPE, Metadata, Recipe, write_prepared
from gss_train.inference import segment_tumour_crop
from gss_train.report import save_epoch_figure, save_summary
from gss_train.report.figures.curves import draw_line
from gss_train.report.figures.style import SCREEN_STYLE
from gss_train.runs.records import EpochRecord, ValidationRecord, VoteRecord

SHAPE = (10, 8, 6)
PANELS = (*MODALITIES, "truth", "prediction")
CATEGORIES = DATASETS["brats2015"].categories
VOTE = VoteRecord(
    2,
    {
        name: dict(zip(ROUTES, [0.0, 0.0, 1.0, 0.0] if name == "ET" else [0.5, 0.25, 0.125, 0.125], strict=True))
        for name in CATEGORIES
    },
    {
        name: {category: None if name == "T1" else place / 10 + row / 100 for row, category in enumerate(CATEGORIES)}
        for place, name in enumerate(("target", *MODALITIES, "fusion"))
    },
)
TERMS = ("total", "fused", "separate", "auxiliary", "gss", "regulariser")


def make_subject() -> PreparedSubject:
    """A subject whose slice 0 is two voxels of padding before slice 20 of the scan."""
    metadata = Metadata(
        name="Subject_7",
        grade=None,
        original_shape=(40, 40, 40),
        box=((0, 10), (0, 8), (20, 24)),
        affine=tuple(tuple(row) for row in np.eye(4).tolist()),
        spacing=(1.0, 1.0, 1.0),
        orientation="LPS",
        available=(True,) * 4,
        has_label=True,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
        background=(0.0,) * 4,
        sources={},
        digests={},
        warnings=(),
        recipe=Recipe(1, "brats2015", (0, 1, 2, 3, 4), SHAPE),
        tumour_voxels=(),
    )
    return PreparedSubject("Subject_7", Path("no-such.npy"), metadata, ((0, 0), (0, 0), (2, 0)))


def make_volumes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, truth with most tumour in slice 4, and a prediction with most in slice 1."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, *SHAPE, generator=generator)
    truth, prediction = torch.zeros((2, *SHAPE), dtype=torch.uint8)
    truth[2:4, 2:4, 3] = 4
    truth[2:6, 2:5, 4] = torch.randint(1, 5, (4, 3), generator=generator, dtype=torch.uint8)
    prediction[:, :, 1] = 1
    prediction[1:3, 1:3, 4] = 2
    return image, truth, prediction


def make_records(*stages: str) -> list[EpochRecord]:
    """Two epochs of each stage; the baseline has no GSS term."""
    records = []
    for epoch in range(2 * len(stages)):
        stage = stages[epoch // 2]
        terms = {name: 1.0 / (epoch + 1) + index for index, name in enumerate(TERMS)}
        if stage == "baseline":
            terms["gss"] = 0.0
        records.append(EpochRecord(stage, epoch % 2 + 1, epoch + 1, 10 * (epoch + 1), 0.1, terms))
    return records


def make_validations(*means: float | None) -> list[ValidationRecord]:
    """One after every second epoch, from 2 on: FLAIR alone is the mean, and all four better by 0.1; no T1."""
    records = []
    best = None
    for number, mean in enumerate(means, start=1):
        scores = dict.fromkeys((*REGIONS, "ET post-processed"), mean)
        more = dict.fromkeys(scores, None if mean is None else mean + 0.1)
        dice = {"FLAIR": scores, "FLAIR+T1ce+T1+T2": more, "T1": dict.fromkeys(scores)}
        is_best = mean is not None and (best is None or mean >= best)
        best = mean if is_best else best
        records.append(ValidationRecord("baseline", 2 * number, 20 * number, mean, dice, is_best))
    return records


def with_votes(validations: Sequence[ValidationRecord]) -> list[ValidationRecord]:
    return [dataclasses.replace(record, vote=VOTE) for record in validations]


def assert_shows_validations(axis: Axes) -> None:
    """Those of 0.4, 0.7 and 0.6."""
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert drawn["mean"] == [[2, 0.4], [4, 0.7], [6, 0.6]]
    assert drawn["best"] == [[4, 0.7]]
    for region in REGIONS:
        assert drawn[region] == [[2, pytest.approx(0.45)], [4, pytest.approx(0.75)], [6, pytest.approx(0.65)]]
    assert "ET post-processed" not in drawn


def stacks(axis: Axes) -> list[dict[int, float]]:
    """For each route its share by epoch, in whose middle it is; they must lie upon each other from 0 to 1."""
    shares = []
    bottoms: dict[int, float] = {}
    for steps in axis.patches:
        data = steps.get_data()
        middles = ((data.edges[1:] + data.edges[:-1]) / 2).astype(int).tolist()
        tops = dict(zip(middles, data.values.tolist(), strict=True))
        given = dict(zip(middles, data.baseline.tolist(), strict=True))
        assert {epoch: given[epoch] for epoch in tops} == (bottoms or dict.fromkeys(tops, 0))
        shares.append({epoch: top - given[epoch] for epoch, top in tops.items()})
        bottoms = tops
    assert set(bottoms.values()) == {1.0}
    return shares


def draw_epoch(
    path: Path,
    figures: list[Figure],
    records: Sequence[EpochRecord],
    validations: Sequence[ValidationRecord] = (),
) -> Figure:
    save_epoch_figure(path, make_subject(), *make_volumes(), DATASETS["brats2015"], records, validations)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figures[-1]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved; a few pixels are, for what it would show is in its elements."""
    saved: list[Figure] = []

    def savefig(self: Figure, file: BinaryIO, **_settings: object) -> None:
        saved.append(self)
        Image.new("RGBA", (8, 8)).save(file, format="png")

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def draw(path: Path, figures: list[Figure], truth: torch.Tensor | None = None, stages: Sequence[str] = ()) -> Figure:
    image, usual_truth, prediction = make_volumes()
    records = make_records(*(stages or ("baseline", "GSS round 1")))
    chosen = usual_truth if truth is None else truth
    save_summary(path, make_subject(), image, chosen, prediction, DATASETS["brats2015"], records)
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    return figure


def panels(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.get_axes() if axis.images}


def curves(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title().removesuffix(" loss"): axis for axis in figure.get_axes() if not axis.images}


def shown(axis: Axes) -> np.ndarray:
    (image,) = axis.images
    return np.asarray(image.get_array())


def test_scans_truth_and_prediction_of_the_slice_with_most_tumour(tmp_path: Path, figures: list[Figure]) -> None:
    figure = draw(tmp_path / "summary.png", figures)
    image, truth, prediction = make_volumes()
    assert tuple(panels(figure)) == PANELS
    volumes = (*image, truth, prediction)
    for (name, axis), volume in zip(panels(figure).items(), volumes, strict=True):
        np.testing.assert_array_equal(shown(axis), volume[:, :, 4].T, err_msg=name)
        # The second axis of a BraTS scan runs from front to back: down the picture, the face is on top.
        assert axis.yaxis_inverted()
    titles = " ".join(part.get_suptitle() for part in figure.subfigs)
    assert "Subject_7" in titles
    assert "slice 22 of" in titles


def test_a_category_has_one_colour_which_the_legend_names(tmp_path: Path, figures: list[Figure]) -> None:
    axes = panels(draw(tmp_path / "summary.png", figures))
    colours = [
        [axes[name].images[0].to_rgba(np.array([[category]])).ravel().tolist() for category in range(5)]
        for name in ("truth", "prediction")
    ]
    assert colours[0] == colours[1]
    assert len({tuple(colour) for colour in colours[0]}) == 5
    legend = axes["prediction"].get_legend()
    named = {
        text.get_text(): patch.get_facecolor()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert tuple(named) == DATASETS["brats2015"].categories[1:]
    for colour, patch in zip(colours[0][1:], named.values(), strict=True):
        assert to_rgba(patch) == pytest.approx(colour)


def test_every_stage_has_its_curve(tmp_path: Path, figures: list[Figure]) -> None:
    axes = curves(draw(tmp_path / "summary.png", figures, stages=("baseline", "GSS round 1", "GSS round 2")))
    assert tuple(axes) == TERMS[:5]
    records = make_records("baseline", "GSS round 1", "GSS round 2")
    for term, axis in axes.items():
        stages = [line.get_label() for line in axis.lines]
        # The baseline has no GSS loss to show.
        assert stages == ["baseline", "GSS round 1", "GSS round 2"][term == "gss" :]
        for line in axis.lines:
            points = [(record.epoch, record.terms[term]) for record in records if record.stage == line.get_label()]
            assert line.get_xydata().tolist() == [list(point) for point in points]
    (legend,) = (legend for part in figures[0].subfigs for legend in part.legends)
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["baseline", "GSS round 1", "GSS round 2"]


def test_a_stage_has_one_colour_in_all_panels(tmp_path: Path, figures: list[Figure]) -> None:
    axes = curves(draw(tmp_path / "summary.png", figures))
    colours = {(line.get_label(), line.get_color()) for axis in axes.values() for line in axis.lines}
    assert len(colours) == 2


def test_a_volume_without_tumour_is_shown_at_its_middle(tmp_path: Path, figures: list[Figure]) -> None:
    figure = draw(tmp_path / "summary.png", figures, torch.zeros(SHAPE, dtype=torch.uint8))
    image, _, prediction = make_volumes()
    np.testing.assert_array_equal(shown(panels(figure)["FLAIR"]), image[0, :, :, 3].T)
    np.testing.assert_array_equal(shown(panels(figure)["prediction"]), prediction[:, :, 3].T)


def test_one_epoch_alone_is_visible(tmp_path: Path, figures: list[Figure]) -> None:
    image, truth, prediction = make_volumes()
    (record, _) = make_records("baseline")
    dataset = DATASETS["brats2015"]
    save_summary(tmp_path / "summary.png", make_subject(), image, truth, prediction, dataset, [record])
    (line,) = curves(figures[0])["total"].lines
    assert line.get_marker() not in {"None", "none", "", " "}


def test_the_summary_shows_what_the_vote_knew(tmp_path: Path, figures: list[Figure]) -> None:
    dataset = DATASETS["brats2015"]
    validations = with_votes(make_validations(0.4, 0.7, 0.6))
    records = make_records("baseline", "GSS round 1", "GSS round 2")
    save_summary(tmp_path / "summary.png", make_subject(), *make_volumes(), dataset, records, validations)
    axes = {axis.get_title(): axis for axis in figures[0].get_axes()}
    for category in dataset.categories:
        assert stacks(axes[f"routes in true {category}"]) == [
            {2 * number: share for number in (1, 2, 3)} for share in VOTE.routes[category].values()
        ]
    assert_shows_dice_of_votes(axes)


def assert_shows_dice_of_votes(axes: Mapping[str, Axes]) -> None:
    """Those after epochs 2, 4 and 6, for each category but the background, with its leaders."""
    titles = ("NCR, led by T1ce", "ED, led by FLAIR, T2", "NET, led by T1ce", "ET, led by T1ce")
    assert {title for title in axes if title.startswith("Dice of")} == {f"Dice of {title}" for title in titles}
    for title in titles:
        lines = axes[f"Dice of {title}"].get_lines()
        drawn = {line.get_label(): line.get_xydata().tolist() for line in lines if len(line.get_xdata()) == 3}
        dice = {name: scores[title.split(",")[0]] for name, scores in VOTE.dice.items()}
        assert drawn.keys() == dice.keys()
        for name, points in drawn.items():
            value = math.nan if dice[name] is None else dice[name]
            np.testing.assert_array_equal(points, [[2, value], [4, value], [6, value]])
        # Two stages have ended, after epochs 2 and 4.
        assert [line.get_xdata()[0] for line in lines if len(line.get_xdata()) == 2] == [2.5, 4.5]


def test_validations_lie_where_their_epochs_are(tmp_path: Path, figures: list[Figure]) -> None:
    """Epochs 1, 2 and 10: each stack reaches half way to the next; where a category has no voxel there is a gap."""
    votes = with_votes(make_validations(0.4, 0.7, 0.6))
    validations = [dataclasses.replace(vote, epoch=epoch) for vote, epoch in zip(votes, (1, 2, 10), strict=True)]
    nowhere = dataclasses.replace(VOTE, routes={**VOTE.routes, "ET": dict.fromkeys(ROUTES)})
    validations[1] = dataclasses.replace(validations[1], vote=nowhere)
    dataset = DATASETS["brats2015"]
    records = make_records(*(f"stage {number}" for number in range(5)))
    save_summary(tmp_path / "summary.png", make_subject(), *make_volumes(), dataset, records, validations)
    axes = {axis.get_title(): axis for axis in figures[0].get_axes()}
    for category, gaps in (("ED", [False] * 3), ("ET", [False, True, False])):
        for steps in axes[f"routes in true {category}"].patches:
            assert steps.get_data().edges.tolist() == [0.5, 1.5, 6, 14]
            assert np.isnan(steps.get_data().values).tolist() == gaps


def test_a_single_validation_is_visible(tmp_path: Path, figures: list[Figure]) -> None:
    dataset = DATASETS["brats2015"]
    drawn = (make_subject(), *make_volumes(), dataset, make_records("baseline"), with_votes(make_validations(0.5)))
    save_summary(tmp_path / "summary.png", *drawn)
    axes = {axis.get_title(): axis for axis in figures[0].get_axes()}
    assert stacks(axes["routes in true ET"])[0] == {2: VOTE.routes["ET"][ROUTES[0]]}


def test_the_summary_shows_the_validations(tmp_path: Path, figures: list[Figure]) -> None:
    records = make_records("baseline")
    validations = make_validations(0.4, 0.7, 0.6)
    dataset = DATASETS["brats2015"]
    save_summary(tmp_path / "summary.png", make_subject(), *make_volumes(), dataset, records, validations)
    assert_shows_validations(curves(figures[0])["validation Dice"])


def test_an_epoch_figure_shows_the_crop_and_the_curves(tmp_path: Path, figures: list[Figure]) -> None:
    records = make_records("baseline", "GSS round 1")
    figure = draw_epoch(tmp_path / "epoch.png", figures, records)
    image, truth, prediction = make_volumes()
    assert tuple(panels(figure)) == PANELS
    for (name, axis), volume in zip(panels(figure).items(), (*image, truth, prediction), strict=True):
        np.testing.assert_array_equal(shown(axis), volume[:, :, 4].T, err_msg=name)
    title = " ".join(part.get_suptitle() for part in figure.subfigs)
    assert all(part in title for part in ("Subject_7", "4", "GSS round 1"))
    axes = curves(figure)
    assert set(axes) == {"total", "loss terms"}
    drawn = {line.get_label(): line.get_xydata().tolist() for line in (*axes["total"].lines, *axes["loss terms"].lines)}
    for term in TERMS:
        assert drawn[term] == [[record.epoch, record.terms[term]] for record in records]


def test_an_epoch_figure_shows_validations_and_votes_if_there_are_any(tmp_path: Path, figures: list[Figure]) -> None:
    records = make_records("baseline", "GSS round 1", "GSS round 2")
    validations = with_votes(make_validations(0.4, 0.7, 0.6))
    axes = curves(draw_epoch(tmp_path / "epoch.png", figures, records, validations))
    assert_shows_validations(axes["validation Dice"])
    assert_shows_dice_of_votes(axes)


def test_an_epoch_without_finite_steps_leaves_a_gap(tmp_path: Path, figures: list[Figure]) -> None:
    records = make_records("baseline", "GSS round 1")
    records[1] = dataclasses.replace(records[1], terms=dict.fromkeys(TERMS))
    axes = curves(draw_epoch(tmp_path / "epoch.png", figures, records))
    (line,) = axes["total"].get_lines()[:1]
    assert [math.isnan(height) for height in line.get_ydata()] == [False, True, False, False]


def test_a_run_without_any_finite_step_is_drawn(tmp_path: Path) -> None:
    records = [dataclasses.replace(record, terms=dict.fromkeys(TERMS)) for record in make_records("baseline")]
    drawn = (make_subject(), *make_volumes(), DATASETS["brats2015"], records, make_validations(None))
    for save, size in ((save_epoch_figure, (1000, 600)), (save_summary, (1400, 640))):
        save(tmp_path / "picture.png", *drawn)
        with Image.open(tmp_path / "picture.png") as picture:
            assert picture.size == size


def test_an_epoch_figure_is_small(tmp_path: Path) -> None:
    records = make_records(*(f"stage {n}" for n in range(100)))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 128, 128, 8, generator=generator)
    truth, prediction = torch.randint(0, 5, (2, 128, 128, 8), generator=generator, dtype=torch.uint8)
    path = tmp_path / "epoch.png"
    validations = with_votes(make_validations(*(0.5 + 0.002 * number for number in range(200))))
    save_epoch_figure(path, make_subject(), image, truth, prediction, DATASETS["brats2015"], records, validations)
    height, width = imread(path).shape[:2]
    assert (width, height) == (1000, 600)
    assert path.stat().st_size < 150_000


def test_text_and_panels_of_an_epoch_figure_do_not_overlap(tmp_path: Path, figures: list[Figure]) -> None:
    records = make_records("baseline", "GSS round 1")
    figure = draw_epoch(tmp_path / "epoch.png", figures, records, with_votes(make_validations(0.5)))
    renderer = figure.canvas.get_renderer()
    with mpl.rc_context(SCREEN_STYLE):
        figure.draw_without_rendering()
        boxes = [axis.get_tightbbox(renderer) for axis in figure.get_axes()]
    boxes += [part._suptitle.get_window_extent(renderer) for part in figure.subfigs if part.get_suptitle()]
    assert all(not first.padded(-0.5).overlaps(second) for first, second in itertools.combinations(boxes, 2))
    width, height = figure.canvas.get_width_height()
    for box in boxes:
        assert min(box.x0, box.y0) >= -1
        assert (box.x1, box.y1) <= (width + 1, height + 1)


@pytest.mark.parametrize("write", [save_summary, save_epoch_figure])
def test_a_picture_that_was_not_finished_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"the one before")

    def fail_half_way(self: Image.Image, file: BinaryIO, **settings: object) -> None:
        file.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail_half_way)
    with pytest.raises(KeyboardInterrupt):
        write(path, make_subject(), *make_volumes(), DATASETS["brats2015"], make_records("baseline"), [])
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


class FirstScan:
    """Takes what the scans that it may use are together for the logits of category 1; keeps what it was given."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.given = x
        return (x,)

    def fuse(self, features: tuple[torch.Tensor, ...], fused_modalities: torch.Tensor) -> torch.Tensor:
        (x,) = features
        one = torch.where(fused_modalities[:, :, None, None, None], x, 0).sum(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(one), one], dim=1)


def write_subject(folder: Path, tumour: tuple[tuple[int, int, int], ...]) -> tuple[PreparedSubject, np.ndarray]:
    """A subject with the scans but T1ce on disk, whose tumour are the given voxels."""
    voxels = np.zeros(SHAPE, VOXEL_DTYPE)
    voxels["image"] = np.random.default_rng(0).standard_normal((*SHAPE, 4))
    for voxel in tumour:
        voxels["label"][voxel] = 2
    box, available = tuple((0, length) for length in SHAPE), (True, False, True, True)
    metadata = dataclasses.replace(make_subject().metadata, box=box, tumour_voxels=tumour, available=available)
    return write_prepared(folder / "Subject_7.npy", voxels, metadata), voxels


@pytest.mark.parametrize(
    ("tumour", "start"),
    [
        # Around the middle of the tumour, wherever one voxel strays to.
        (((4, 4, 2), (4, 4, 3), (4, 5, 2), (0, 0, 5)), (2, 2, 0)),
        (((9, 0, 5),), (6, 0, 2)),
        ((), (3, 2, 1)),
    ],
)
def test_one_crop_around_the_tumour_is_segmented_from_all_scans(
    tmp_path: Path, tumour: tuple[tuple[int, int, int], ...], start: tuple[int, int, int]
) -> None:
    subject, voxels = write_subject(tmp_path, tumour)
    network = FirstScan()
    image, truth, prediction = segment_tumour_crop(network, subject, (4, 4, 4), torch.device("cpu"))
    crop = voxels[tuple(slice(first, first + 4) for first in start)]
    np.testing.assert_array_equal(image, np.moveaxis(crop["image"], -1, 0).astype(np.float32))
    np.testing.assert_array_equal(truth, crop["label"])
    assert torch.equal(network.given, image[None])
    assert (prediction.dtype, prediction.shape) == (torch.uint8, (4, 4, 4))
    assert torch.equal(prediction, (image[[0, 2, 3]].sum(dim=0) > 0).to(torch.uint8))


def test_a_curve_of_thousands_of_epochs_has_no_more_points_than_a_panel_shows() -> None:
    axis = Figure().subplots()
    epochs = range(1, 6001)
    draw_line(axis, epochs, [1 / epoch for epoch in epochs], "total", "black")
    places, heights = axis.lines[0].get_data()
    assert len(places) <= 500
    assert places[-1] == 6000
    assert places[0] <= 20
    np.testing.assert_allclose(heights, 1 / np.array(places))
