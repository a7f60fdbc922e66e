from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gss_train.common.errors import UserError
from gss_train.data.pool import map_unordered


@pytest.mark.parametrize("workers", [1, 2, None])
def test_every_item_comes_with_its_result(workers: int | None) -> None:
    assert sorted(map_unordered(abs, [-3, 2, -1], workers)) == [(-3, 3), (-1, 1), (2, 2)]
    assert list(map_unordered(abs, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_exception_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_unordered(int, ["1", "one"], workers))


def test_a_killed_process_is_an_error_that_says_why() -> None:
    with pytest.raises(UserError, match="one of 2 processes was killed"):
        list(map_unordered(os._exit, [1, 1], 2))


PARENT = """
import multiprocessing, os, signal, threading, time
from gss_train.data.pool import map_unordered

if __name__ == "__main__":
    threading.Thread(target=lambda: list(map_unordered(time.sleep, [600, 600], 2)), daemon=True).start()
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process with SIGKILL, which POSIX alone has")
def test_workers_end_when_their_parent_is_killed() -> None:
    """They share its standard output: reading that ends with the last of them."""
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, timeout=120, check=False)
    assert done.returncode == -9
