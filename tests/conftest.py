from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

# Launches are those of the table, whatever this machine's user asks for.
os.environ.pop("GSS_KERNELS_AUTOTUNE", None)
# The processes that tests start, too, run side by side with others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is imported and collected stays to the end: looking for garbage among it takes a tenth of all time, and a
# twentieth among what the tests make, as often as Python does.
gc.disable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> None:
    """A file's tests go to one process, so that what they share is made once; files go in their own order.

    Else those with few tests would come last, which may be long ones.
    """
    if config.option.dist == "load":
        config.option.dist, config.option.loadscopereorder = "loadfile", False


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Test processes run side by side; more threads than processors only slow them down."""
    import torch  # noqa: PLC0415  (the process that only hands out the tests does without)

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def triton_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of compiled kernels of their own for the tests of one run, whose processes compile much of the same."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        patch.setenv("TRITON_CACHE_DIR", str(shared / "triton_cache"))
        yield
