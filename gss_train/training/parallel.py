"""The network as a step calls it: compiled, and in several processes that exchange their gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from gss_train.common import ALONE, Processes
from gss_train.models import SegmentationNetwork, SegmentationOutput


class ParallelNetwork:
    """Calls the network; the processes' gradients are averaged in the backward pass.

    Args:
        network: on its device; every process starts from the first one's weights.
        processes: that train together.
        compiled: by `torch.compile`, which takes minutes at the first step.
    """

    def __init__(self, network: SegmentationNetwork, processes: Processes = ALONE, *, compiled: bool = False) -> None:
        self._exchanging: DistributedDataParallel | None = None
        self._call: Any = network
        if processes.group is not None:
            on_gpu = next(network.parameters()).device.type == "cuda"
            self._exchanging = DistributedDataParallel(
                network,
                device_ids=[processes.local_rank] if on_gpu else None,
                process_group=processes.group,
                broadcast_buffers=False,  # they are constants
                gradient_as_bucket_view=True,
            )
            self._call = self._exchanging
        if compiled:
            self._call = torch.compile(self._call)

    def __call__(self, *inputs: torch.Tensor) -> SegmentationOutput:
        """The network's forward pass."""
        output: SegmentationOutput = self._call(*inputs)
        return output

    def accumulating(self, more: bool) -> AbstractContextManager[None]:
        """Around forward and backward pass: without an exchange of gradients while more passes of the step follow."""
        if self._exchanging is None or not more:
            return nullcontext()
        return self._exchanging.no_sync()
