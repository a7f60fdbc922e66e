"""Which modality leads the vote for which category: data, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from gss_kernels.settings import is_integer

BRATS_MODALITIES = ("FLAIR", "T1ce", "T1", "T2")


@dataclass(frozen=True)
class CategoryGroups:
    """The leaders of every category; a category's members are all other modalities.

    Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023, section 3 (category-aware grouping).

    Args:
        leaders: for each of the C categories, a sequence of the indices of the modalities that lead its vote. Order
            and length fix the category axis of the logits.
        categories: names of the categories, for messages and reports; length C.
        modalities: names of the modalities in the order of the logits' modality axis; length M. When given, leader
            indices are checked against it.

    Raises:
        ValueError: fewer than two categories, a category without leader, a repeated or impossible modality index,
            names that do not match in number or are not distinct strings, or what is no sequence.
    """

    leaders: tuple[tuple[int, ...], ...]
    categories: tuple[str, ...] | None = None
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not is_sequence(self.leaders):
            raise ValueError(f"leaders: got {self.leaders!r}, need a sequence of one leader set for each category")
        for name in ("categories", "modalities"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _checked_names(name, getattr(self, name)))
        names, M = self.categories, None if self.modalities is None else len(self.modalities)
        if M is not None and M < 2:
            raise ValueError(f"modalities: got {M} name, need at least 2")
        leaders = tuple(_checked_set(f"leaders[{c}]", indices, M) for c, indices in enumerate(self.leaders))
        object.__setattr__(self, "leaders", leaders)
        if len(leaders) < 2:
            raise ValueError(f"leaders: got {len(leaders)} category, need at least 2")
        if names is not None and len(names) != len(leaders):
            raise ValueError(f"categories: got {len(names)} names, need one for each of {len(leaders)} leader sets")

    @property
    def num_categories(self) -> int:
        """Number of categories C."""
        return len(self.leaders)

    def members(self, category: int, num_modalities: int) -> tuple[int, ...]:
        """Indices of the modalities that are not leaders of `category`, ascending."""
        return tuple(m for m in range(num_modalities) if m not in self.leaders[category])


def check_groups(groups: object) -> None:
    """Raise ValueError unless `groups` is a `CategoryGroups`."""
    if not isinstance(groups, CategoryGroups):
        raise ValueError(f"groups: got {type(groups).__name__}, need a CategoryGroups")  # noqa: TRY004


def _checked_set(where: str, indices: object, num_modalities: int | None) -> tuple[int, ...]:
    if not is_sequence(indices):
        raise ValueError(f"{where}: got {indices!r}, need a sequence of indices of modalities")
    for index in indices:
        if not is_integer(index):
            raise ValueError(f"{where}: got {index!r}, need indices of modalities")
    own = tuple(int(index) for index in indices)
    if not own:
        raise ValueError(f"{where}: got an empty leader set, need at least one modality index")
    if len(set(own)) != len(own):
        raise ValueError(f"{where}: got {own}, need each modality index once")
    if min(own) < 0:
        raise ValueError(f"{where}: got {own}, need modality indices of 0 or more")
    if num_modalities is not None and max(own) >= num_modalities:
        raise ValueError(f"{where}: got {own}, need modality indices below {num_modalities}")
    return own


def _checked_names(argument: str, names: object) -> tuple[str, ...]:
    if not is_sequence(names):
        raise ValueError(f"{argument}: got {names!r}, need a sequence of names")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{argument}: got {name!r}, need names that are strings")  # noqa: TRY004
    if len(set(names)) != len(names):
        raise ValueError(f"{argument}: got {tuple(names)}, need each name once")
    return tuple(names)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether `value` is a sequence of values; text is none."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


BRATS_2015 = CategoryGroups(
    leaders=((0,), (1,), (0, 3), (1,), (1,)),
    categories=("BG", "NCR", "ED", "NET", "ET"),
    modalities=BRATS_MODALITIES,
)
BRATS_2018 = CategoryGroups(
    leaders=((0,), (1,), (0, 3), (1,)),
    categories=("BG", "NCR/NET", "ED", "ET"),
    modalities=BRATS_MODALITIES,
)
BRATS_2020 = BRATS_2018
