"""One prepared subject."""

from __future__ import annotations

from pathlib import Path

from gss_train.common import Triple
from gss_train.data.datasets import Dataset, Subject
from gss_train.data.preparation import prepare_dataset
from gss_train.data.prepared import PreparedSubject


def prepare_subject(
    subject: Subject,
    dataset: Dataset,
    folder: Path,
    minimum_size: Triple,
    grown_size: Triple | None = None,
    **options: bool,
) -> PreparedSubject:
    (prepared,) = prepare_dataset(
        [subject], dataset, folder, minimum_size, 1, grown_size=grown_size, **options
    ).subjects
    return prepared
