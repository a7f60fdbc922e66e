"""What determines a phantom data set."""

from __future__ import annotations

from dataclasses import dataclass

from gss_train.common import Triple, times
from gss_train.phantom.writers import SubjectFiles, subject_files

PHANTOM_DATASETS = ("brats2015", "brats2018", "brats2020")
GENERATOR_VERSION = 1
DEFAULT_SIZE = (96, 112, 96)
SMALLEST_SIZE = 24


@dataclass(frozen=True)
class Settings:
    """What determines every byte of a phantom; kept in its `phantom.json`."""

    dataset: str
    subjects: int
    seed: int
    size: Triple
    compressed: bool
    generator_version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        if self.dataset not in PHANTOM_DATASETS:
            raise ValueError(f"dataset: got {self.dataset!r}, need one of {', '.join(map(repr, PHANTOM_DATASETS))}")
        if self.subjects < 1:
            raise ValueError(f"subjects: got {self.subjects}, need at least 1")
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, need 0 or more")
        if len(self.size) != 3 or min(self.size) < SMALLEST_SIZE:
            raise ValueError(f"size: got {self.size}, need three voxel counts of at least {SMALLEST_SIZE}")

    def files(self, index: int) -> SubjectFiles:
        """Where subject `index` goes."""
        return subject_files(self.dataset, index, high_grade=is_high_grade(index), compressed=self.compressed)


def phantom_name(dataset: str, subjects: int, size: Triple) -> str:
    """Name of a folder in which later runs find the phantom again; another version of the generator has another."""
    return f"{dataset}-{subjects}-subjects-{times(size)}-version{GENERATOR_VERSION}"


def is_high_grade(index: int) -> bool:
    """Grade of subject `index`: every fourth is an LGG, the proportion of BraTS."""
    return index % 4 != 3
