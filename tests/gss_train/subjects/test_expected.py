"""How large prepared volumes will be, against what is then prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gss_train.config import parse_config
from gss_train.data import DATASETS, prepare_dataset
from gss_train.subjects import RawData, expect_volumes, find_raw, resolve_dataset
from tests.gss_train.data.raw_files import make_head, write_subject
from tests.real_scans import NOT_SET, real_subjects


def raw_data(root: Path, *flags: str) -> RawData:
    settings = ["--preset", "quick", "--dataset", "brats2020", "--data-root", str(root)]
    config = parse_config([*settings, "--cache", str(root / "cache"), "--spacing", "None", *flags])
    return find_raw(*resolve_dataset(config))


@pytest.mark.parametrize(
    ("flags", "shape"),
    [
        # No more than the scan, no more than a brain.
        ([], (24, 179, 24)),
        (["--spacing", "4"], (6, 45, 6)),
    ],
)
def test_a_volume_is_a_brain_and_no_more_than_what_is_scanned(
    flags: list[str], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    write_subject(tmp_path / "BraTS20_Training_001", make_head((24, 240, 24)), ".nii")
    expected = expect_volumes(raw_data(tmp_path, *flags))
    assert expected is not None
    assert expected.shape == shape
    assert expected.missing == {"BraTS20_Training_001"}


def test_scans_whose_headers_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    for number in (1, 2):
        write_subject(tmp_path / f"BraTS20_Training_00{number}", make_head((24, 24, 24)), ".nii")
    raw = raw_data(tmp_path)
    raw.subjects[0].images["FLAIR"].write_bytes(b"")
    expected = expect_volumes(raw)
    assert expected is not None
    assert expected.shape == (24, 24, 24)
    raw.subjects[1].images["FLAIR"].write_bytes(b"")
    assert expect_volumes(raw) is None


@pytest.mark.exhaustive
@pytest.mark.skipif(not real_subjects(), reason=NOT_SET)
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
def test_real_brains_take_about_what_is_expected(spacing: tuple[float, float, float] | None, tmp_path: Path) -> None:
    """On average, and no more."""
    subjects, dataset = real_subjects(), DATASETS["brats2018"]
    grown = (128, 128, 128) if spacing is None else (64, 64, 64)
    raw = RawData(dataset, subjects, "real", tmp_path, grown, spacing)
    expected = expect_volumes(raw)
    assert expected is not None
    prepare_dataset(subjects, dataset, tmp_path / "there", grown, spacing=spacing)
    mean = sum(path.stat().st_size for path in (tmp_path / "there").iterdir()) / len(subjects)
    assert np.isclose(expected.bytes_each, mean, rtol=0.25)
    assert mean <= expected.bytes_each
