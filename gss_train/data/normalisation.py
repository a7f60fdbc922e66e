"""From the checked volumes of a subject to its prepared voxels: box of the brain, z-scores, category indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import Triple, to_triple
from gss_train.data.boxes import Pairs, grow, grow_as_released, read_box
from gss_train.data.datasets import LABEL, MODALITIES, Subject
from gss_train.data.grids import Affine, Grid, Spacing, bounding_box
from gss_train.data.prepared import VOXEL_DTYPE, Metadata, Recipe, SourceFile, TruthGrid
from gss_train.data.resampling import network_grid, place
from gss_train.data.verification import Categories, CheckedSubject, Scans, sum_of_scans, to_categories
from gss_train.data.volumes import Volume

# The authors' preparation grows the brain's box to this many voxels on each axis, whatever the crop.
PUBLISHED_BOX = (128, 128, 128)
_MAX_TUMOUR_VOXELS = 1024

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NormalisedScans:
    """What a network sees of a subject's scans; modalities are in the order of `MODALITIES`.

    Attributes:
        voxels: [D,H,W] of `VOXEL_DTYPE`; every label is 0.
        box: first and one past the last raw voxel that was kept, per axis.
        mean: of the raw brain voxels, [4] float32; 0 where there is no scan.
        std: their standard deviation, [4] float32; 1 where there is no scan.
    """

    voxels: npt.NDArray[Any]
    box: Pairs
    mean: Floats
    std: Floats

    @property
    def kept(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the raw volume."""
        x, y, z = (slice(start, stop) for start, stop in self.box)
        return x, y, z

    @property
    def background(self) -> tuple[float, ...]:
        """What a raw value of 0 became, per modality."""
        return tuple(((0 - self.mean) / self.std).tolist())

    def image(self, padding: Pairs) -> npt.NDArray[np.float16]:
        """The z-scores, [4,D,H,W], with so many voxels of background before and after them per axis."""
        lengths = zip(padding, self.voxels.shape, strict=True)
        size = [before + length + after for (before, after), length in lengths]
        image, _ = read_box(self.voxels, [-before for before, _ in padding], size, self.background)
        return image


def box_size(spacing: Spacing | None) -> Triple:
    """Voxels per axis that the brain's box is grown to: as published, or those of as many millimetres.

    Args:
        spacing: voxel size in millimetres that scans are brought to; None: that which they have.
    """
    if spacing is None:
        return PUBLISHED_BOX
    return to_triple([round(voxels / length) for voxels, length in zip(PUBLISHED_BOX, spacing, strict=True)])


def normalise_scans(scans: Scans, grown_size: Triple, *, released_box: bool = False) -> NormalisedScans:
    """Computes what a network sees of scans without errors, the same for training and for prediction.

    The scans are cut to the box of voxels that are non-zero in any modality, grown to `grown_size` where the raw volume
    allows. Each modality is normalised by the mean and standard deviation of the brain (voxels whose modalities' sum is
    above 0) over the whole box: the background becomes -mean/std, as in the public preprocessing of RFNet and mmFormer.
    A modality without a scan is 0 everywhere and counts for nothing else.

    Args:
        scans: by modality, one at least, [D,H,W] on one grid and in the orientation of `reorient`.
        grown_size: voxels per axis that the box is grown to; 1 leaves it as it is.
        released_box: whether the box is that of the public preparation of RFNet, GSS and mmFormer, which leaves out the
            brain's last plane along each axis, or has one plane more where it is grown by an even number.
    """
    box = _brain_box(scans, grown_size, released=released_box)
    inside = tuple(slice(start, stop) for start, stop in box)
    images = {modality: voxels[inside].astype(np.float32) for modality, voxels in scans.items()}
    mean, std = _brain_statistics(images)
    return NormalisedScans(_assemble(images, mean, std), box, mean, std)


def normalise(
    subject: Subject, checked: CheckedSubject, recipe: Recipe, sources: dict[str, SourceFile]
) -> tuple[npt.NDArray[Any], Metadata, Categories | None]:
    """Computes the voxels of a prepared subject from volumes without errors.

    All are brought to one grid, of the recipe's voxel size, where they are on others. The image is then that of
    `normalise_scans`. Labels become category indices; without a label all is background.

    Returns:
        [D,H,W] of `VOXEL_DTYPE`; its description; and what belongs to `Metadata.truth`, if the label was on another
        grid.

    Raises:
        ResamplingError: the volumes cannot be brought to that voxel size.
    """
    grid = network_grid(checked.volumes, recipe.spacing)
    # Without a voxel size they are on one grid, to within what the check of them lets pass.
    volumes = checked.volumes if recipe.spacing is None else place(checked.volumes, grid)
    scans = {modality: volumes[modality] for modality in MODALITIES if modality in volumes}
    normalised = normalise_scans(
        {modality: scan.voxels for modality, scan in scans.items()},
        recipe.grown_size,
        released_box=recipe.released_box,
    )
    voxels, mean, std = normalised.voxels, normalised.mean, normalised.std
    if LABEL in volumes:
        label = volumes[LABEL].voxels[normalised.kept]
        voxels["label"] = to_categories(label, recipe.label_values)
    truth, kept = _truth(checked.volumes.get(LABEL), grid, recipe)
    metadata = Metadata(
        name=subject.name,
        grade=subject.grade,
        original_shape=grid.shape,
        box=normalised.box,
        affine=_rows(grid.affine),
        spacing=grid.spacing,
        orientation=checked.orientation,
        available=tuple(modality in scans for modality in MODALITIES),
        has_label=LABEL in volumes,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        background=normalised.background,
        sources=sources,
        digests=checked.digests,
        warnings=_warnings(subject, checked),
        recipe=recipe,
        tumour_voxels=_draw_tumour_voxels(voxels["label"]),
        truth=truth,
    )
    return voxels, metadata, kept


def _truth(label: Volume | None, grid: Grid, recipe: Recipe) -> tuple[TruthGrid | None, Categories | None]:
    """The label's own grid, and the categories in the box of its tumour, if it is on another grid than this."""
    if label is None or recipe.spacing is None or label.grid.is_same(grid):
        return None, None
    box = bounding_box(label.voxels != 0) or (slice(0, 0),) * 3
    kept = to_categories(label.voxels[box], recipe.label_values)
    ends = tuple((axis.start, axis.stop) for axis in box)
    return TruthGrid(label.grid.shape, _rows(label.affine), ends), kept


def _rows(affine: Affine) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in affine.tolist())


def _warnings(subject: Subject, checked: CheckedSubject) -> tuple[tuple[str, str, str], ...]:
    roles = {path: role for role, path in subject.files.items()}
    return tuple((roles[fault.file], fault.problem, fault.remedy) for fault in checked.faults if fault.file is not None)


def _brain_box(scans: Scans, grown_size: Triple, *, released: bool) -> Pairs:
    occupied = np.zeros(next(iter(scans.values())).shape, bool)
    for voxels in scans.values():
        occupied |= voxels != 0
    box = bounding_box(occupied)
    assert box is not None
    grow_axis = grow_as_released if released else grow
    return tuple(
        grow_axis(axis.start, axis.stop, least, length)
        for axis, least, length in zip(box, grown_size, to_triple(occupied.shape), strict=True)
    )


def _brain_statistics(images: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """Mean and standard deviation per modality, [4] each; 0 and 1 where there is no scan."""
    brain = sum_of_scans(images) > 0
    mean, std = np.zeros(len(MODALITIES), np.float32), np.ones(len(MODALITIES), np.float32)
    for number, modality in enumerate(MODALITIES):
        if modality in images:
            inside = images[modality][brain]
            mean[number], std[number] = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    return mean, std


def _assemble(images: Mapping[str, Floats], mean: Floats, std: Floats) -> npt.NDArray[Any]:
    """Interleaves the z-scores of images [D,H,W]; the labels are 0."""
    voxels = np.zeros(next(iter(images.values())).shape, VOXEL_DTYPE)
    for number, modality in enumerate(MODALITIES):
        if modality in images:
            voxels["image"][..., number] = (images[modality] - mean[number]) / std[number]
    return voxels


def _draw_tumour_voxels(label: Categories) -> tuple[Triple, ...]:
    tumour = np.flatnonzero(label)
    if len(tumour) > _MAX_TUMOUR_VOXELS:
        tumour = np.sort(np.random.default_rng(0).choice(tumour, _MAX_TUMOUR_VOXELS, replace=False))
    return tuple(to_triple(voxel) for voxel in np.stack(np.unravel_index(tumour, label.shape), axis=-1))
