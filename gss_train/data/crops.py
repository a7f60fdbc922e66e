"""Random crops of prepared subjects, for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gss_train.common import Triple
from gss_train.data.prepared import PreparedSubject

# Keep the draws for the order of subjects and those for single items apart.
_ORDER, _ITEM = 0, 1


class Crop(TypedDict):
    """One training sample.

    Keys:
        image: [4,d,h,w] float16, z-scores in the order of `MODALITIES`; 0 everywhere where the subject has no scan.
        label: [d,h,w] uint8, category indices.
        available: [4] bool, the modalities that the subject has.
        subject: [] int64, index into the subjects given to `TrainingCrops`.
    """

    image: Tensor
    label: Tensor
    available: Tensor
    subject: Tensor


class TrainingCrops(Dataset[Crop]):
    """Random crops; what an index gives depends on nothing but the seed, the epoch and the index.

    Within an epoch the subjects come in shuffled order, each as often as any other to within one.

    Args:
        subjects: to crop from; those smaller than the crop are padded with background.
        crop_size: voxels per axis.
        length: samples per epoch.
        seed: of every draw; 0 or more.
        tumour_share: probability that a crop is placed such that it contains a tumour voxel drawn at random, anywhere
            in the crop with equal chance. Otherwise, as published, and for subjects without tumour, every position of
            the crop is equally likely.

    Raises:
        ValueError: no subjects, one that has no label, or a number out of range.
    """

    def __init__(
        self,
        subjects: Sequence[PreparedSubject],
        crop_size: Triple,
        length: int,
        seed: int,
        tumour_share: float = 0.0,
    ) -> None:
        if not subjects:
            raise ValueError("subjects: got none, need at least 1")
        if unlabelled := [subject.name for subject in subjects if not subject.has_label]:
            raise ValueError(f"subjects: got some without label, training needs labels: {', '.join(unlabelled)}")
        if len(crop_size) != 3 or min(crop_size) < 1:
            raise ValueError(f"crop_size: got {crop_size}, need three sizes of at least 1 voxel")
        if length < 1 or seed < 0:
            raise ValueError(f"length, seed: got {length} and {seed}, need at least 1 and 0")
        if not 0 <= tumour_share <= 1:
            raise ValueError(f"tumour_share: got {tumour_share}, need a probability from 0 to 1")
        self.subjects = tuple(subject.padded_to(crop_size) for subject in subjects)
        self.crop_size = crop_size
        self.length = length
        self.seed = seed
        self.tumour_share = tumour_share
        # Shared memory: loader processes that outlive an epoch see the next one.
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch whose crops are given, 0 at first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, 0 or more, for this process and its loader processes; call it before iterating."""
        if epoch < 0:
            raise ValueError(f"epoch: got {epoch}, need 0 or more")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Crop:
        if not 0 <= index < self.length:
            raise IndexError(f"index: got {index}, need 0 to {self.length - 1}")
        epoch = self.epoch
        number = self._subject_number(epoch, index)
        subject = self.subjects[number]
        generator = np.random.default_rng((self.seed, epoch, _ITEM, index))
        image, label = subject.crop(self._draw_start(subject, generator), self.crop_size)
        return Crop(
            image=torch.from_numpy(image),
            label=torch.from_numpy(label),
            available=torch.tensor(subject.available),
            subject=torch.tensor(number),
        )

    def _subject_number(self, epoch: int, index: int) -> int:
        turn, place = divmod(index, len(self.subjects))
        order = np.random.default_rng((self.seed, epoch, _ORDER, turn)).permutation(len(self.subjects))
        return int(order[place])

    def _draw_start(self, subject: PreparedSubject, generator: np.random.Generator) -> Triple:
        last = np.subtract(subject.shape, self.crop_size)
        first = np.zeros(3, np.int64)
        if generator.random() < self.tumour_share and len(subject.tumour_voxels):
            voxel = subject.tumour_voxels[generator.integers(len(subject.tumour_voxels))]
            first = np.maximum(first, voxel - self.crop_size + 1)
            last = np.minimum(last, voxel)
        depth, height, width = generator.integers(first, last, endpoint=True).tolist()
        return depth, height, width
