"""The splits that published scores are of; their lists come with the package."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from gss_train.data.split_files import NamesAtHand, SplitError, read_split
from gss_train.data.splits import Split

_FOLDER = Path(__file__).parent / "published"
_SHOWN = 5


@dataclass(frozen=True)
class PublishedSplit:
    """One published split of a data set; `published/README.md` has its sources.

    Attributes:
        name: that `--split` has for it.
        title: for people.
        file: the list.
    """

    name: str
    title: str
    file: str

    @property
    def path(self) -> Path:
        """Of the list."""
        return _FOLDER / self.file

    @cached_property
    def listed(self) -> Split:
        """The list, in its own names."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[1:]
        return replace(read_split(self.path, [line.partition(",")[0] for line in lines])[0], name=self.name)

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects of the list, in its own names."""
        return (*self.listed.train, *self.listed.validation, *self.listed.test)

    def find(self, names: Collection[str]) -> tuple[Split, tuple[str, ...]]:
        """Find the list's subjects among those at hand, whose names may have or lack the grade.

        Args:
            names: the labelled subjects at hand.

        Returns:
            The split, in the names given here, and those of `names` that the list does not have.

        Raises:
            SplitError: subjects of the list are missing; the message counts them.
        """
        at_hand = NamesAtHand(names)
        lacking = [name for name in self.subjects if not at_hand.find(name)]
        if lacking:
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            raise SplitError(
                f"--split {self.name}: {len(lacking)} of the {len(self.subjects)} subjects of the {self.title} are not "
                f"there with a label: {', '.join(lacking[:_SHOWN])}{more}; need all of them, or --split seeded"
            )
        split, left_out = read_split(self.path, list(names))
        return replace(split, name=self.name), left_out


def same_subjects(listed: Iterable[str], names: Collection[str]) -> bool:
    """Whether names, with or without grades, are those of exactly the subjects that are listed."""
    at_hand = NamesAtHand(names)
    found = [at_hand.find(name) for name in listed]
    return all(len(candidates) == 1 for candidates in found) and sorted(name for (name,) in found) == sorted(names)


def published_splits(dataset: str) -> dict[str, PublishedSplit]:
    """Those of a data set, by the names that `--split` has for them; most data sets have none."""
    return _SPLITS.get(dataset, {})


def describe_split(dataset: str, name: str) -> str:
    """A split's name for people: a published one has a title."""
    published = published_splits(dataset).get(name)
    return name if published is None else f"{published.title}, --split {name}"


def _by_name(*splits: PublishedSplit) -> dict[str, PublishedSplit]:
    return {split.name: split for split in splits}


_SPLITS = {
    "brats2015": _by_name(
        PublishedSplit("published", "published split of BraTS2015 (242/12/20 subjects)", "brats2015.csv")
    ),
    "brats2018": _by_name(
        *(
            PublishedSplit(
                f"published-{number}",
                f"published split {number} of 3 of BraTS2018 (199/29/57 subjects)",
                f"brats2018-{number}.csv",
            )
            for number in (1, 2, 3)
        )
    ),
    "brats2020": _by_name(
        PublishedSplit("published", "published split of BraTS2020 (219/50/100 subjects)", "brats2020.csv")
    ),
    "brats2023": _by_name(
        PublishedSplit("published", "published split of BraTS2023-GLI (875/125/251 subjects)", "brats2023.csv")
    ),
}
