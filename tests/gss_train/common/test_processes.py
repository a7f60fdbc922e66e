from __future__ import annotations

import pytest
import torch

from gss_train.common.devices import pick_device
from gss_train.common.errors import UserError
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


def test_each_of_several_processes_takes_its_own_device() -> None:
    assert pick_device("cpu", local_rank=1) == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device: got 'cuda:0' below torchrun, need 'cuda'"):
        pick_device("cuda:0", local_rank=1)
