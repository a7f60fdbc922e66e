"""These tests need a GPU; without one they are skipped, and pytest's summary says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: PyTorch finds no CUDA device, the Triton kernels were not run on hardware")


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    """Leave no memory in the allocator's cache: test processes may run side by side on one card."""
    yield
    torch.cuda.empty_cache()
