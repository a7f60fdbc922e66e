from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Test processes run side by side; more threads than processors only slow them down."""
    torch.set_num_threads(1)
