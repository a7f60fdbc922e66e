"""Training samples as the networks' public code makes them: whole volumes from disk, NumPy and SciPy on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import torch
from torch import Tensor

Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.uint8]
Sizes = tuple[int, int, int]

_PLANES = ((0, 1), (1, 2), (0, 2))
_DEGREES = (-10, 10)
_OUTSIDE = -1.0
_SCALE, _SHIFT = 0.1, 0.1


class PlainFiles(NamedTuple):
    """Where a subject lies.

    Attributes:
        image: `.npy` file of [D,H,W,4] float32.
        label: `.npy` file of [D,H,W] uint8.
    """

    image: Path
    label: Path


def plain_sample(
    files: PlainFiles, crop_size: Sizes, categories: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Reads a subject and makes a training sample of it.

    Source: the training code of RFNet (Ding et al., ICCV 2021), rewritten.

    Args:
        files: of the subject.
        crop_size: voxels per axis.
        categories: C.
        generator: of all draws.

    Returns:
        image [4,d,h,w] float32 and one-hot label [C,d,h,w] float64.
    """
    image, label = np.load(files.image), np.load(files.label)
    image, label = crop(image, label, crop_size, generator)
    image, label = rotate(image, label, generator)
    image = change_intensity(image, generator)
    image, label = flip(image, label, generator)
    wanted = np.moveaxis(np.eye(categories)[label], -1, 0)
    channels_first = np.moveaxis(image, -1, 0).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(channels_first)), torch.from_numpy(np.ascontiguousarray(wanted))


def crop(image: Image, label: Label, size: Sizes, generator: np.random.Generator) -> tuple[Image, Label]:
    """Cuts out a box, anywhere with equal chance."""
    starts = [int(generator.integers(whole - part + 1)) for whole, part in zip(label.shape, size, strict=True)]
    box = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
    return image[box], label[box]


def rotate(image: Image, label: Label, generator: np.random.Generator) -> tuple[Image, Label]:
    """Turns a random plane by a whole number of degrees; every voxel takes its nearest one."""
    plane, degrees = _PLANES[generator.integers(len(_PLANES))], int(generator.integers(*_DEGREES))

    def turn(volume: npt.NDArray[np.generic], outside: float) -> npt.NDArray[np.generic]:
        turned: npt.NDArray[np.generic] = scipy.ndimage.rotate(
            volume, degrees, axes=plane, reshape=False, order=0, mode="constant", cval=outside
        )
        return turned

    channels = [turn(image[..., channel], _OUTSIDE) for channel in range(image.shape[-1])]
    return np.stack(channels, axis=-1).astype(np.float32), turn(label, 0).astype(np.uint8)


def change_intensity(image: Image, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Scales and shifts every modality and slice of the first axis by numbers of its own."""
    shape = (image.shape[0], 1, 1, image.shape[-1])
    scale = generator.uniform(1 - _SCALE, 1 + _SCALE, shape)
    return image * scale + generator.uniform(-_SHIFT, _SHIFT, shape)


def flip(
    image: npt.NDArray[np.floating], label: Label, generator: np.random.Generator
) -> tuple[npt.NDArray[np.floating], Label]:
    """Turns each axis around with probability 1/2."""
    axes = tuple(axis for axis in range(3) if generator.random() < 0.5)
    return np.flip(image, axes), np.flip(label, axes)
