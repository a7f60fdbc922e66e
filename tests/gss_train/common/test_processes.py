from __future__ import annotations

import pytest
import torch

from gss_train.common.processes import ALONE, join_processes


def test_alone_there_is_nothing_to_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join_processes("cpu") as processes:
        assert processes == ALONE
    assert ALONE.is_first
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert ALONE.gather(7) == [7]
    values = torch.tensor([1.0, torch.nan])
    assert ALONE.sum(values) is values
    ALONE.barrier()
