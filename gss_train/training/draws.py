"""The random numbers of training: functions of the seed, the step and the sample, and of nothing that came before.

A run that goes on after a stop, or among another number of processes, therefore draws what it would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch

# Keep the draws for one purpose apart from those for another.
_SAMPLE, _MASK, _NETWORK = 0, 1, 2


def sample_generator(seed: int, step: int, sample: int) -> torch.Generator:
    """Of the modality subset and the augmentation of one sample, which is counted through the step's whole batch."""
    return torch.Generator().manual_seed(_number(seed, step, _SAMPLE, sample))


def mask_seed(seed: int, step: int) -> int:
    """Of the GSS loss's voxel mask, one for the whole batch of a step."""
    return _number(seed, step, _MASK)


def network_seed(seed: int, step: int, first_sample: int) -> int:
    """Of what the network draws itself, dropout and latent variables, for the samples from the given one on."""
    return _number(seed, step, _NETWORK, first_sample)


def _number(*key: int) -> int:
    # 63 bits, which every generator and the kernels' signed seeds take.
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
