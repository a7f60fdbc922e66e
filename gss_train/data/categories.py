"""Reads what the labels of users' own data mean: label values, category names, leaders and regions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gss_kernels.groups import CategoryGroups
from gss_train.data.datasets import MODALITIES, REGIONS, Dataset

_REQUIRED = ("categories", "label_values", "leaders")
_KEYS = (*_REQUIRED, "regions", "spacing")
_EXAMPLE = (
    '{"categories": ["BG", "NCR", "ED", "ET"], "label_values": [0, 1, 2, 4], '
    '"leaders": {"BG": ["FLAIR"], "NCR": ["T1ce"], "ED": ["FLAIR", "T2"], "ET": ["T1ce"]}}'
)
# Prepared labels are 8-bit category indices, of which the last marks values that belong to none.
_MAX_CATEGORIES = 255
_MAX_LABEL_VALUE = 65_535
_MAX_SPACING = 1000


def read_categories(path: Path, stem: str, faults: list[str]) -> Dataset | None:
    """Reads the JSON object that goes with a manifest.

    Its keys are `categories`, names in training order, background first; `label_values`, for each category its value in
    the label files; `leaders`, for each category the modalities (FLAIR, T1ce, T1, T2) that lead its vote; if wanted
    `regions`, for each of WT, TC and ET the categories it joins; and `spacing`, three voxel sizes in millimetres that
    all files should have. Without `regions`, WT is all but the background, TC all of it but ED, and ET is ET.

    Args:
        path: the file.
        stem: of the manifest, for the data set's title.
        faults: gets one text for each fault.

    Returns:
        The data set, or None if there is a fault.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        faults.append(f"{path}: no such file; it should say what the labels mean, such as {_EXAMPLE}")
        return None
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path}: cannot be read, should be a JSON object: {error}")
        return None
    if not isinstance(values, dict):
        faults.append(f"{path}: holds a JSON {type(values).__name__}, should hold an object such as {_EXAMPLE}")
        return None
    description = _Description(values)
    categories = description.read_names()
    label_values = description.read_label_values(len(categories))
    leaders = description.read_leaders(categories)
    regions = description.read_regions(categories)
    spacing = description.read_spacing()
    if description.faults:
        faults += [f"{path}: {fault}" for fault in description.faults]
        return None
    groups = CategoryGroups(leaders, categories, MODALITIES)
    return Dataset("custom", f"{stem} (custom)", groups, label_values, regions, spacing=spacing)


class _Description:
    """The values in the file, and what is wrong with them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.faults = [
            f"unknown key {key!r}, should be one of {', '.join(_KEYS)}" for key in values if key not in _KEYS
        ]
        self.faults += [f"lacks {key!r}; an example: {_EXAMPLE}" for key in _REQUIRED if values.get(key) is None]

    def _get(self, key: str, accept: Callable[[Any], bool], needed: str) -> Any:
        """The value of a key; None if it is not there or not acceptable."""
        value = self.values.get(key)
        if value is None or accept(value):
            return value
        self.faults.append(f"{key}: is {value!r}, should be {needed}")
        return None

    def read_names(self) -> tuple[str, ...]:
        names = self._get(
            "categories",
            lambda v: _are_names(v) and 2 <= len(v) <= _MAX_CATEGORIES,
            f"a list of 2 to {_MAX_CATEGORIES} different names",
        )
        return tuple(names or ())

    def read_label_values(self, count: int) -> tuple[int, ...]:
        values = self._get(
            "label_values",
            lambda v: isinstance(v, list) and all(type(item) is int and 0 <= item <= _MAX_LABEL_VALUE for item in v),
            f"a list of whole numbers from 0 to {_MAX_LABEL_VALUE}",
        )
        if values is None:
            return ()
        repeated = [str(value) for value, times in Counter(values).items() if times > 1]
        if repeated:
            self.faults.append(f"label_values: names {', '.join(repeated)} twice, should name each value once")
        if count and len(values) != count:
            self.faults.append(
                f"label_values: has {len(values)} values, should have one for each of {count} categories"
            )
        if values and values[0] != 0:
            self.faults.append(
                f"label_values: the first category is the background, its value is {values[0]}, should be 0"
            )
        return tuple(values)

    def read_leaders(self, categories: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        leaders = self._get("leaders", lambda v: isinstance(v, dict), "an object with the leaders of each category")
        if leaders is None or not categories:
            return ()
        for category in leaders:
            if category not in categories:
                self.faults.append(f"leaders: unknown category {category!r}, should be one of {', '.join(categories)}")
        return tuple(self._leaders_of(category, leaders) for category in categories)

    def _leaders_of(self, category: str, leaders: dict[str, Any]) -> tuple[int, ...]:
        names: Any = leaders.get(category)
        if not _are_names(names):
            given = repr(names) if category in leaders else "missing"
            self.faults.append(f"leaders of {category}: {given}, should be a list of different modalities")
            return ()
        unknown = [name for name in names if name not in MODALITIES]
        if unknown:
            needed = ", ".join(MODALITIES)
            self.faults.append(f"leaders of {category}: unknown modality {', '.join(unknown)}, should be of {needed}")
        return tuple(MODALITIES.index(name) for name in names if name not in unknown)

    def read_regions(self, categories: Sequence[str]) -> dict[str, tuple[int, ...]]:
        if not categories:
            return {}
        tumour = list(categories[1:])
        if self.values.get("regions") is not None:
            given = self._get(
                "regions",
                lambda v: isinstance(v, dict) and set(v) == set(REGIONS),
                f"an object with the categories of {', '.join(REGIONS)}",
            )
        elif {"ED", "ET"} <= set(tumour):
            given = {"WT": tumour, "TC": [name for name in tumour if name != "ED"], "ET": ["ET"]}
        else:
            given = None
            self.faults.append(
                f"lacks 'regions', which says what joins to {', '.join(REGIONS)}; it can be left out only where "
                "categories are named ED and ET"
            )
        regions = {}
        for region, names in (given or {}).items():
            if _are_names(names) and set(names) <= set(tumour):
                regions[region] = tuple(sorted(map(categories.index, names)))
            else:
                self.faults.append(f"regions: {region} is {names!r}, should be a list out of {', '.join(tumour)}")
        return regions

    def read_spacing(self) -> tuple[float, float, float] | None:
        spacing = self._get(
            "spacing",
            lambda v: (
                isinstance(v, list)
                and len(v) == 3
                and all(type(item) in {int, float} and 0 < item <= _MAX_SPACING for item in v)
            ),
            f"three voxel sizes in millimetres up to {_MAX_SPACING}",
        )
        if spacing is None:
            return None
        x, y, z = map(float, spacing)
        return x, y, z


def _are_names(value: Any) -> bool:
    """Whether it is a list of different texts that are not empty."""
    return (
        isinstance(value, list)
        and value != []
        and all(isinstance(item, str) and item.strip() for item in value)
        and len(set(value)) == len(value)
    )
