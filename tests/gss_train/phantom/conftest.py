from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from gss_train.phantom import generate_phantoms

SMALL = (40, 48, 40)


@pytest.fixture(scope="session", autouse=True)
def _template_is_read_once() -> Iterator[None]:
    pytest.importorskip("scipy")
    pytest.importorskip("nilearn", reason="the phantom's anatomy ships with nilearn")
    generate = pytest.importorskip("gss_train.phantom.generate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "load_atlas", lru_cache(generate.load_atlas))
        yield


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small phantom of four subjects for each layout."""
    roots = {}
    for dataset in ("brats2015", "brats2018", "brats2020"):
        roots[dataset] = tmp_path_factory.mktemp("phantom") / dataset
        generate_phantoms(dataset, roots[dataset], 4, seed=3, size=SMALL, workers=1)
    return roots
