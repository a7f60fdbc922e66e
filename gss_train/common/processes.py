"""The processes that train together, one for each GPU, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

_LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0; the first writes all files.
        size: how many there are.
        local_rank: its number among those of the same machine, and of its GPU there.
        local_size: how many there are on the same machine.
        host_group: for what is agreed on between the hosts, without the devices; None alone.
        group: for what the devices add up; None alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host_group: distributed.ProcessGroup | None = None
    group: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes of a tensor on the CPU, the same in each.

        Where only one process has a value and the others 0, it is that value, NaN included.
        """
        if self.host_group is None:
            return values
        total = values.clone()
        distributed.all_reduce(total, group=self.host_group)
        return total

    def gather(self, number: int) -> list[int]:
        """Every process's number, by rank."""
        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = number
        gathered: list[int] = self.sum(numbers).tolist()
        return gathered

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(torch.tensor(int(flag))))

    def barrier(self) -> None:
        """Wait for each other."""
        self.any(False)


ALONE = Processes()


@contextmanager
def join_processes(device_type: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, if it did, and leave them at the end.

    Args:
        device_type: "cuda" or "cpu", what each of them trains on.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    # Preparation may take long, while the other processes wait.
    host_group = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    size = distributed.get_world_size()
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    yield Processes(distributed.get_rank(), size, local_rank, local_size, host_group, distributed.group.WORLD)
    # Not after an error: the others would hear of the end before anybody hears of the cause.
    distributed.destroy_process_group()
