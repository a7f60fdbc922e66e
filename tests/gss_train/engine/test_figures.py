from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from gss_train.data import DATASETS, MODALITIES, PreparedSubject
from gss_train.data.prepared import Metadata, PreparationSettings
from gss_train.engine.figures import save_summary
from gss_train.engine.training import EpochRecord

SHAPE = (10, 8, 6)
PANELS = (*MODALITIES, "truth", "prediction")
TERMS = ("total", "fused", "separate", "auxiliary", "gss", "regulariser")


def make_subject() -> PreparedSubject:
    """A subject whose slice 0 is two voxels of padding before slice 20 of the scan."""
    metadata = Metadata(
        name="Subject_7",
        grade=None,
        shape=SHAPE,
        original_shape=(40, 40, 40),
        box=((0, 10), (0, 8), (20, 24)),
        padding=((0, 0), (0, 0), (2, 0)),
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
        settings=PreparationSettings(1, "brats2015", (0, 1, 2, 3, 4), SHAPE, SHAPE),
        tumour_voxels=(),
    )
    return PreparedSubject("Subject_7", Path("no-such.npy"), metadata)


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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *arguments: object, **settings: object) -> None:
        saved.append(self)
        save(self, *arguments, **settings)

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
    names = [text.get_text() for text in axes["total"].get_legend().get_texts()]
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


def test_routes_are_stacked_to_one_and_agreement_is_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    image, truth, prediction = make_volumes()
    vote = {"routes": [[0.5, 0.25, 0.125, 0.125]] * 4 + [[0.0, 0.0, 1.0, 0.0]], "agreement": [0.9, 0.8, 0.7, 0.6]}
    records = make_records("baseline", "GSS round 1")
    records[2:] = [dataclasses.replace(record, vote=vote) for record in records[2:]]
    dataset = DATASETS["brats2015"]
    save_summary(tmp_path / "summary.png", make_subject(), image, truth, prediction, dataset, records)
    axes = {axis.get_title(): axis for axis in figures[0].get_axes()}
    for category, shares in zip(dataset.categories, vote["routes"], strict=True):
        bars = axes[f"routes of {category}"].containers
        assert [[bar.get_height() for bar in route] for route in bars] == [[share] * 2 for share in shares]
        assert {bar.get_y() + bar.get_height() for bar in bars[-1]} == {1.0}
    lines = axes["agreement with the target"].get_lines()
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}
    assert drawn == {name: ([3, 4], [share] * 2) for name, share in zip(MODALITIES, vote["agreement"], strict=True)}
