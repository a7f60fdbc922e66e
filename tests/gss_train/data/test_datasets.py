from __future__ import annotations

import json
from typing import Any

import pytest

from gss_train.data import DATASETS, Dataset


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_a_data_set_survives_json(dataset: Dataset) -> None:
    assert Dataset.from_json(json.loads(json.dumps(dataset.to_json()))) == dataset


@pytest.mark.parametrize(
    "change",
    [
        {"label_values": [0, 1]},
        {"regions": {"WT": [9], "TC": [1], "ET": [1]}},
        {"regions": {"WT": [1]}},
        {"leaders": None},
        {"categories": ["BG"]},
        {"spacing": [1.0]},
    ],
    ids=str,
)
def test_values_that_are_no_data_set_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"data set|categories|leaders|values"):
        Dataset.from_json({**DATASETS["brats2018"].to_json(), **change})
