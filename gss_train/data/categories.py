"""Reads what the labels of users' own data mean: label values, category names, leaders and regions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gss_kernels.groups import CategoryGroups
from gss_train.data.conventions import MODALITIES, REGIONS, Dataset

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


class _Description:
    """The file's values, and where faults are noted."""

    def __init__(self, path: Path, values: dict[str, Any], faults: list[str]) -> None:
        self.values = values
        self.path = path
        self.faults = faults

    def fault(self, text: str) -> None:
        self.faults.append(f"{self.path}: {text}")


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
    before = len(faults)
    values = _read_object(path, faults)
    if values is None:
        return None
    description = _Description(path, values, faults)
    for key in values:
        if key not in _KEYS:
            description.fault(f"unknown key {key!r}, should be one of {', '.join(_KEYS)}")
    for key in _REQUIRED:
        if key not in values:
            description.fault(f"lacks {key!r}; an example: {_EXAMPLE}")
    categories = _read_names(description)
    label_values = _read_label_values(description, len(categories))
    leaders = _read_leaders(description, categories)
    regions = _read_regions(description, categories)
    spacing = _read_spacing(description)
    if len(faults) > before:
        return None
    groups = CategoryGroups(leaders, categories, MODALITIES)
    return Dataset("custom", f"{stem} (custom)", groups, label_values, regions, spacing=spacing)


def _read_object(path: Path, faults: list[str]) -> dict[str, Any] | None:
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
    return values


def _texts(value: Any) -> tuple[str, ...] | None:
    """The value as texts, if it is a list of different, non-empty ones."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item.strip() for item in value):
        return None
    return tuple(value) if len(set(value)) == len(value) else None


def _read_names(description: _Description) -> tuple[str, ...]:
    value = description.values.get("categories")
    names = _texts(value)
    if value is not None and (names is None or not 2 <= len(names) <= _MAX_CATEGORIES):
        description.fault(f"categories: is {value!r}, should be a list of 2 to {_MAX_CATEGORIES} different names")
        return ()
    return names or ()


def _read_label_values(description: _Description, count: int) -> tuple[int, ...]:
    value = description.values.get("label_values")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item <= _MAX_LABEL_VALUE for item in value):
        description.fault(f"label_values: is {value!r}, should be a list of whole numbers from 0 to {_MAX_LABEL_VALUE}")
        return ()
    repeated = [item for item, times in Counter(value).items() if times > 1]
    if repeated:
        description.fault(f"label_values: names {', '.join(map(str, repeated))} twice, should name each value once")
    if count and len(value) != count:
        description.fault(f"label_values: has {len(value)} values, should have one for each of {count} categories")
    if value and value[0] != 0:
        description.fault(f"label_values: the first category is the background, its value is {value[0]}, should be 0")
    return tuple(value)


def _read_leaders(description: _Description, categories: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    value = description.values.get("leaders")
    if value is None or not categories:
        return ()
    if not isinstance(value, dict):
        description.fault(f"leaders: is {value!r}, should be an object with the leaders of each category")
        return ()
    for category in value:
        if category not in categories:
            description.fault(f"leaders: unknown category {category!r}, should be one of {', '.join(categories)}")
    leaders = []
    for category in categories:
        names = _texts(value.get(category))
        if names is None:
            given = repr(value[category]) if category in value else "missing"
            description.fault(f"leaders of {category}: {given}, should be a list of different modalities")
            continue
        unknown = [name for name in names if name not in MODALITIES]
        if unknown:
            needed = ", ".join(MODALITIES)
            description.fault(f"leaders of {category}: unknown modality {', '.join(unknown)}, should be of {needed}")
        leaders.append(tuple(MODALITIES.index(name) for name in names if name not in unknown))
    return tuple(leaders)


def _read_regions(description: _Description, categories: Sequence[str]) -> dict[str, tuple[int, ...]]:
    value = description.values.get("regions")
    if not categories:
        return {}
    if value is None:
        return _default_regions(description, categories)
    if not isinstance(value, dict) or set(value) != set(REGIONS):
        description.fault(f"regions: is {value!r}, should be an object with the categories of {', '.join(REGIONS)}")
        return {}
    regions = {}
    for region in REGIONS:
        names = _texts(value[region])
        if names is None or not set(names) <= set(categories[1:]):
            foreground = ", ".join(categories[1:])
            description.fault(f"regions: {region} is {value[region]!r}, should be a list out of {foreground}")
        else:
            regions[region] = tuple(sorted(categories.index(name) for name in names))
    return regions


def _default_regions(description: _Description, categories: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if "ED" not in categories[1:] or "ET" not in categories[1:]:
        description.fault(
            f"lacks 'regions', which says what joins to {', '.join(REGIONS)}; it can be left out only where categories "
            "are named ED and ET"
        )
        return {}
    tumour = range(1, len(categories))
    oedema, enhancing = categories.index("ED"), categories.index("ET")
    return {
        "WT": tuple(tumour),
        "TC": tuple(category for category in tumour if category != oedema),
        "ET": (enhancing,),
    }


def _read_spacing(description: _Description) -> tuple[float, float, float] | None:
    value = description.values.get("spacing")
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(type(item) in {int, float} and 0 < item <= _MAX_SPACING for item in value)
    ):
        description.fault(f"spacing: is {value!r}, should be three voxel sizes in millimetres up to {_MAX_SPACING}")
        return None
    x, y, z = map(float, value)
    return x, y, z
