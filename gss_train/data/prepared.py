"""The prepared form of a subject: one memory-mappable array and a small description beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import Triple, UserError, open_replacing, remove, to_triple
from gss_train.data.boxes import Pairs, padding_to, read_box
from gss_train.data.datasets import MODALITIES
from gss_train.data.grids import Grid, Spacing

# The modalities of a voxel lie next to each other and to its label: a crop then reads each of its rows once.
# Half precision rounds a z-score by 2^-11 of itself at most, finer than the steps between a scan's own grey values.
VOXEL_DTYPE = np.dtype([("image", "<f2", (len(MODALITIES),)), ("label", "u1")])


class PreparedError(UserError):
    """A prepared file is damaged or does not fit its description; the message names it."""


@dataclass(frozen=True)
class SourceFile:
    """A raw file as it was when it was prepared.

    Attributes:
        path: where it lay.
        size: in bytes.
        mtime_ns: time of its last change, in nanoseconds since the epoch.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Recipe:
    """How raw files become prepared voxels: the same files and the same recipe give the same.

    Attributes:
        version: of the preparation itself; raised whenever its results change.
        dataset: name of the edition.
        label_values: for each category in training order, its value in the label files.
        grown_size: voxels per axis that the brain's box is grown to where the whole volume allows.
        spacing: voxel size in millimetres that scans and label are brought to; None: that which they have.
        released_box: whether the box is that of the authors' public preparation.
    """

    version: int
    dataset: str
    label_values: tuple[int, ...]
    grown_size: Triple
    spacing: Spacing | None = None
    released_box: bool = False


@dataclass(frozen=True)
class TruthGrid:
    """The label's own voxel grid, where the prepared voxels are others.

    Attributes:
        shape: voxels per axis.
        affine: [4][4], from its voxel indices to millimetres right, anterior and superior.
        box: first and one past the last voxel that was kept, per axis; all others are background.
    """

    shape: Triple
    affine: tuple[tuple[float, ...], ...]
    box: Pairs

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return Grid(self.shape, np.array(self.affine))


@dataclass(frozen=True)
class Metadata:
    """Description of a prepared subject; modalities are in the order of `MODALITIES`.

    Attributes:
        name: of the subject.
        grade: "HGG", "LGG" or None where unknown.
        original_shape: voxels per axis of the whole volume, in the orientation of `reorient`, as all below; where
            scans were resampled, of what they became, as all below.
        box: first and one past the last of its voxels that was kept, per axis.
        affine: [4][4], from the whole volume's voxel indices to millimetres right, anterior and superior.
        spacing: voxel size in millimetres.
        orientation: where the axes of the raw files point, such as "LPS".
        available: whether there is a scan, per modality; where not, its channel is 0 everywhere.
        has_label: whether there is an annotation; where not, every voxel has the category of the background.
        mean: of the raw brain voxels, per modality; 0 where there is no scan.
        std: their standard deviation, per modality; 1 where there is no scan.
        background: what a raw value of 0 became, per modality: -mean/std.
        sources: the raw files by modality and `LABEL`.
        digests: fingerprint of the voxels of each scan there is, by modality.
        warnings: what was suspicious: modality or `LABEL`, problem and remedy.
        recipe: what else the result depends on; `settings` in the file.
        tumour_voxels: indices into the prepared volume of up to 1024 voxels that are not background.
        truth: the label's own grid, where it was resampled.
    """

    name: str
    grade: str | None
    original_shape: Triple
    box: Pairs
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    orientation: str
    available: tuple[bool, ...]
    has_label: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[float, ...]
    sources: dict[str, SourceFile]
    digests: dict[str, str]
    warnings: tuple[tuple[str, str, str], ...]
    recipe: Recipe
    tumour_voxels: tuple[Triple, ...] = field(repr=False)
    truth: TruthGrid | None = None

    @property
    def shape(self) -> Triple:
        """Voxels per axis of the prepared volume."""
        return _lengths(self.box)

    def to_json(self) -> str:
        """Returns the description as JSON text."""
        fields = asdict(self)
        fields["settings"] = fields.pop("recipe")
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: `text` is not JSON.
            TypeError, KeyError: fields are missing, unknown or of another kind.
        """
        fields = _tuples(json.loads(text))
        fields["sources"] = {role: SourceFile(**source) for role, source in fields["sources"].items()}
        fields["recipe"] = Recipe(**fields.pop("settings"))
        if fields.get("truth") is not None:
            fields["truth"] = TruthGrid(**fields["truth"])
        return cls(**fields)


@dataclass(frozen=True)
class PreparedSubject:
    """A prepared subject on disk, as it is seen: with background around it where it is smaller than a crop.

    Attributes:
        name: of the subject.
        path: the `.npy` file of its voxels.
        metadata: description of that file, from the `.json` file beside it.
        padding: voxels of background before and after those of the file, per axis.
    """

    name: str
    path: Path
    metadata: Metadata
    padding: Pairs = ((0, 0),) * 3

    def padded_to(self, size: Triple) -> PreparedSubject:
        """The subject with at least so many voxels per axis, where a crop or window of that size fits in.

        Nothing is read or copied: `crop` makes the background of the voxels that it is asked for.
        """
        metadata = self.metadata
        padding = padding_to(size, metadata.box, metadata.original_shape, metadata.recipe.grown_size)
        return replace(self, padding=padding)

    @property
    def shape(self) -> Triple:
        """Voxels per axis."""
        return _lengths(self._ends)

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        x, y, z = (slice(start, stop) for start, stop in self._ends)
        return Grid(self.metadata.original_shape, np.array(self.metadata.affine)).part((x, y, z))

    @property
    def _ends(self) -> Pairs:
        """First and one past the last voxel per axis, counted as in `Metadata.box`."""
        pairs = zip(self.metadata.box, self.padding, strict=True)
        return tuple((start - before, stop + after) for (start, stop), (before, after) in pairs)

    @property
    def _before(self) -> tuple[int, ...]:
        return tuple(before for before, _ in self.padding)

    @property
    def available(self) -> tuple[bool, ...]:
        """Whether there is a scan, per modality; where not, its channel is 0 everywhere."""
        return self.metadata.available

    @property
    def has_label(self) -> bool:
        """Whether the categories are those of an annotation; if not, all are background."""
        return self.metadata.has_label

    @property
    def background(self) -> tuple[float, ...]:
        """Image value of the background, per modality."""
        return self.metadata.background

    @cached_property
    def tumour_voxels(self) -> npt.NDArray[np.int64]:
        """Indices of up to 1024 tumour voxels, [N,3] int64."""
        return np.array(self.metadata.tumour_voxels, np.int64).reshape(-1, 3) + self._before

    def open(self) -> npt.NDArray[Any]:
        """Maps the file's voxels, without padding, into memory, read-only: [D,H,W] of `VOXEL_DTYPE`.

        Nothing is read before it is used.

        Raises:
            PreparedError: the file is missing, cut short or not the one described.
        """
        return _load(self.path, VOXEL_DTYPE, self.metadata.shape)

    def truth(self) -> npt.NDArray[np.uint8]:
        """The category of each voxel of the label's own grid, which is `metadata.truth`: [D,H,W] uint8.

        Raises:
            PreparedError: the file is missing, cut short or not the one described.
            ValueError: the prepared voxels are the label's own.
        """
        own = self.metadata.truth
        if own is None:
            raise ValueError(f"{self.name}: has no label on another grid than {self.path}")
        path = _truth_of(self.path)
        kept = _load(path, np.dtype(np.uint8), _lengths(own.box))
        truth = np.zeros(own.shape, np.uint8)
        truth[tuple(slice(start, stop) for start, stop in own.box)] = kept
        return truth

    def crop(self, start: Sequence[int], size: Sequence[int]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        """Reads a box.

        Args:
            start: first voxel per axis.
            size: voxels per axis.

        Returns:
            image [4,d,h,w] float16 and label [d,h,w] uint8, both contiguous copies.

        Raises:
            ValueError: the box does not lie within the volume.
            PreparedError: see `open`.
        """
        bounds = zip(start, size, self.shape, strict=True)
        if any(first < 0 or length < 1 or first + length > total for first, length, total in bounds):
            raise ValueError(f"crop of {tuple(size)} from {tuple(start)}: reaches outside {self.name}, {self.shape}")
        return read_box(self.open(), np.subtract(start, self._before).tolist(), size, self.background)


def _lengths(ends: Pairs) -> Triple:
    return to_triple([stop - start for start, stop in ends])


def _load(path: Path, dtype: np.dtype[Any], shape: Triple) -> npt.NDArray[Any]:
    try:
        voxels: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise PreparedError(f"{path}: cannot be read, prepare the subject again: {error}") from error
    if voxels.dtype != dtype or voxels.shape != shape:
        found = f"{voxels.dtype} of shape {voxels.shape}"
        raise PreparedError(f"{path}: holds {found}, should hold {dtype} of shape {shape}")
    return voxels


def write_prepared(
    path: Path, voxels: npt.NDArray[Any], metadata: Metadata, truth: npt.NDArray[np.uint8] | None = None
) -> PreparedSubject:
    """Writes a prepared subject, such that it is there completely or not at all, whenever the process is killed.

    Args:
        path: its `.npy` file; the folder is made when missing.
        voxels: [D,H,W] of `VOXEL_DTYPE`.
        metadata: their description, which goes into the `.json` file beside it once the voxels are on the disk.
        truth: the categories in `metadata.truth.box`, where there is one; they go into a `.truth.npy` file.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    sidecar = sidecar_of(path)
    # The description of an earlier preparation must never stand beside newer voxels.
    remove(sidecar)
    remove(_truth_of(path))
    if truth is not None:
        with open_replacing(_truth_of(path)) as file:
            np.save(file, truth, allow_pickle=False)
    with open_replacing(path) as file:
        np.save(file, voxels, allow_pickle=False)
    with open_replacing(sidecar) as file:
        file.write(metadata.to_json().encode())
    return PreparedSubject(metadata.name, path, metadata)


def sidecar_of(path: Path) -> Path:
    """Returns where the description of the prepared file `path` lies."""
    return path.with_name(path.name.removesuffix(".npy") + ".json")


def files_of(path: Path, recipe: Recipe) -> tuple[Path, ...]:
    """Returns the files that a subject prepared as `path` may have."""
    return path, sidecar_of(path), *(() if recipe.spacing is None else (_truth_of(path),))


def _truth_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".npy") + ".truth.npy")


def read_prepared(path: Path) -> PreparedSubject:
    """Reads the description of one prepared subject.

    Args:
        path: its `.npy` file.

    Raises:
        PreparedError: the description is missing or cannot be understood.
    """
    sidecar = sidecar_of(path)
    try:
        metadata = Metadata.from_json(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PreparedError(f"{sidecar}: cannot be read, prepare the subject again: {error!r}") from error
    return PreparedSubject(metadata.name, path, metadata)


def load_prepared(folder: Path) -> list[PreparedSubject]:
    """Finds the completely prepared subjects of a folder.

    A subject is complete once its `.json` is there, which is written last.

    Returns:
        The subjects, sorted by name; an empty list when the folder holds none.

    Raises:
        PreparedError: `folder` is not a folder, or a description cannot be understood.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PreparedError(f"{folder}: no such folder, should hold prepared subjects")
    complete = [path for path in folder.glob("*.npy") if sidecar_of(path).exists()]
    return sorted((read_prepared(path) for path in complete), key=lambda subject: subject.name)


def _tuples(value: Any) -> Any:
    """A JSON value with tuples in place of its lists."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
