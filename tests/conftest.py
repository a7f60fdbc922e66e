from __future__ import annotations

import os

import pytest
import torch

# Launches are those of the table, whatever this machine's user has tuned.
os.environ["GSS_KERNELS_CACHE"] = "off"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Test processes run side by side; more threads than processors only slow them down."""
    torch.set_num_threads(1)
