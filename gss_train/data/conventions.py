"""What distinguishes the data sets: categories, label values, regions and published splits."""

from __future__ import annotations

from dataclasses import dataclass

from gss_kernels.groups import BRATS_2015, BRATS_2018, BRATS_2020, BRATS_MODALITIES, CategoryGroups

MODALITIES = BRATS_MODALITIES
REGIONS = ("WT", "TC", "ET")


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
