"""What a data set is: the meaning of its labels, its published split, and the raw files of its subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gss_kernels.groups import BRATS_2015, BRATS_2018, BRATS_2020, BRATS_MODALITIES, CategoryGroups

MODALITIES = BRATS_MODALITIES
LABEL = "label"
"""Stands beside the names of `MODALITIES` for the annotation."""
REGIONS = ("WT", "TC", "ET")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha")
"""Of the names of files that a scan or an annotation can be read from."""


@dataclass(frozen=True)
class Dataset:
    """One BraTS edition, or a data set of the user's own.

    Attributes:
        name: the name on the command line.
        title: the name in text.
        groups: category names in training order and their leaders.
        label_values: for each category in training order, its value in the label files.
        regions: for each of WT, TC and ET the categories it joins.
        published_split: number of training, validation and test subjects in the papers. Editions that the papers do
            not use, and users' own data, are divided in the proportions of BraTS2020.
        spacing: voxel size in millimetres that the files of a user's own data should have; None: any.
    """

    name: str
    title: str
    groups: CategoryGroups
    label_values: tuple[int, ...]
    regions: dict[str, tuple[int, ...]]
    published_split: tuple[int, int, int] = (219, 50, 100)
    spacing: tuple[float, float, float] | None = None

    @property
    def num_categories(self) -> int:
        """Number of categories C, background included."""
        return self.groups.num_categories

    @property
    def categories(self) -> tuple[str, ...]:
        """Category names in training order."""
        assert self.groups.categories is not None
        return self.groups.categories

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values, so that weights can be used without the files that the data set was read from."""
        return {
            "name": self.name,
            "title": self.title,
            "categories": list(self.categories),
            "leaders": [list(leaders) for leaders in self.groups.leaders],
            "label_values": list(self.label_values),
            "regions": {region: list(categories) for region, categories in self.regions.items()},
            "published_split": list(self.published_split),
            "spacing": None if self.spacing is None else list(self.spacing),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: values that do not make a data set; the message names the first.
        """
        try:
            groups = CategoryGroups(
                tuple(tuple(map(int, leaders)) for leaders in values["leaders"]),
                tuple(map(str, values["categories"])),
                MODALITIES,
            )
            training, validation, test = map(int, values["published_split"])
            spacing = values["spacing"]
            if spacing is not None:
                x, y, z = map(float, spacing)
                spacing = (x, y, z)
            label_values = tuple(map(int, values["label_values"]))
            regions = {region: tuple(map(int, values["regions"][region])) for region in REGIONS}
            name, title = str(values["name"]), str(values["title"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"data set: got {values!r}, need what `Dataset.to_json` gives: {error!r}") from error
        count = groups.num_categories
        if len(label_values) != count or not all(0 < c < count for indices in regions.values() for c in indices):
            raise ValueError(
                f"data set: label_values {label_values} or regions {regions} do not fit {count} categories"
            )
        return cls(name, title, groups, label_values, regions, (training, validation, test), spacing)


@dataclass(frozen=True)
class Subject:
    """The raw files of one subject.

    Attributes:
        name: unique within the data set. The folder's name; for BraTS2015, whose folder names occur in both grades,
            the grade and the folder's name, such as `HGG_brats_2013_pat0001_1`.
        grade: "HGG", "LGG", or None where the edition does not tell.
        images: one to four files, by names in `MODALITIES` and in that order; a scan that is missing is left out.
        label: the file of the annotation, or None where there is none.
        patient: what the time points of one patient share, in BraTS2015 and 2023; None: no other subject is of this
            patient.
    """

    name: str
    grade: str | None
    images: dict[str, Path]
    label: Path | None
    patient: str | None = None

    @property
    def files(self) -> dict[str, Path]:
        """All files, by modality and `LABEL`."""
        return dict(self.images) if self.label is None else {**self.images, LABEL: self.label}


_REGIONS_OF_FIVE = {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (4,)}
_REGIONS_OF_FOUR = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
_VALUES_UNTIL_2021 = (0, 1, 2, 4)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("brats2015", "BraTS2015", BRATS_2015, (0, 1, 2, 3, 4), _REGIONS_OF_FIVE, (242, 12, 20)),
        Dataset("brats2018", "BraTS2018", BRATS_2018, _VALUES_UNTIL_2021, _REGIONS_OF_FOUR, (199, 29, 57)),
        Dataset("brats2019", "BraTS2019", BRATS_2018, _VALUES_UNTIL_2021, _REGIONS_OF_FOUR),
        Dataset("brats2020", "BraTS2020", BRATS_2020, _VALUES_UNTIL_2021, _REGIONS_OF_FOUR, (219, 50, 100)),
        Dataset("brats2021", "BraTS2021", BRATS_2020, _VALUES_UNTIL_2021, _REGIONS_OF_FOUR),
        Dataset("brats2023", "BraTS2023-GLI", BRATS_2020, (0, 1, 2, 3), _REGIONS_OF_FOUR),
    )
}
