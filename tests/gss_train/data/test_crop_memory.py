"""What crops cost: the parts of the file that they touch, and the memory of a long run."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gss_train.data.prepared import VOXEL_DTYPE, PreparedSubject

needs_small_pages = pytest.mark.skipif(
    os.name != "posix" or mmap.PAGESIZE > 4096, reason="counts pages of 4 KiB, which POSIX's mprotect guards"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="reads resident memory and maps from /proc"
)

SHAPE, SIZE, START = (136, 168, 136), (80, 80, 80), (31, 43, 29)

# Takes the right to read all pages of the map but those that hold rows of the crop: to touch another kills the process,
# which a copy of it does.
READ_WHAT_IS_ALLOWED = """
import ctypes, dataclasses, mmap, os, pathlib, sys
import numpy as np
from gss_train.data.prepared import PreparedSubject, load_prepared

folder, path = sys.argv[1], pathlib.Path(sys.argv[2])
start, size, elsewhere = (tuple(map(int, text.split())) for text in sys.argv[3:])
subject = load_prepared(folder)[0]
shape = tuple(np.load(path, mmap_mode="r").shape)
metadata = dataclasses.replace(subject.metadata, box=tuple((0, length) for length in shape))
subject = dataclasses.replace(subject, path=path, metadata=metadata)
whole = subject.open()
assert isinstance(whole, np.memmap)
item = whole.dtype.itemsize
first_byte = whole.ctypes.data
first_page, page = first_byte // mmap.PAGESIZE, mmap.PAGESIZE
last_page = (first_byte + whole.nbytes - 1) // page
allowed = set()
for x in range(start[0], start[0] + size[0]):
    for y in range(start[1], start[1] + size[1]):
        row = first_byte + ((x * shape[1] + y) * shape[2] + start[2]) * item
        allowed |= set(range(row // page, (row + size[2] * item - 1) // page + 1))
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
for number in range(first_page, last_page + 1):
    if number not in allowed:
        assert protect(number * page, page, 0) == 0
PreparedSubject.open = lambda self: whole
child = os.fork()
if child == 0:
    subject.crop(elsewhere, size)
    os._exit(0)
ended = os.waitpid(child, 0)[1]
subject.crop(start, size)
print(len(allowed) * page, os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else 0)
"""

STEP_MANY_TIMES = """
import pathlib, sys
import torch
from torch.utils.data import DataLoader
from gss_train.data import TrainingCrops, augment, load_prepared

crops = TrainingCrops(load_prepared(sys.argv[1]), (8, 8, 8), length=1300, seed=0, tumour_share=0.5)
generator = torch.Generator().manual_seed(0)

def resident_kilobytes_and_maps():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return resident, len(pathlib.Path("/proc/self/maps").read_text().splitlines())

for step, batch in enumerate(DataLoader(crops, batch_size=1), start=1):
    augment(batch["image"], batch["label"], generator)
    if step in (300, 1300):
        print(*resident_kilobytes_and_maps())
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def large_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As large as a brain once it is cut out; the file has a hole instead of voxels."""
    path = tmp_path_factory.mktemp("large") / "large.npy"
    np.lib.format.open_memmap(path, "w+", VOXEL_DTYPE, SHAPE).flush()
    return path


def words(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))


@needs_small_pages
def test_a_crop_touches_no_pages_but_those_of_its_rows(
    prepared_subjects: list[PreparedSubject], large_volume: Path
) -> None:
    folder, elsewhere = prepared_subjects[0].path.parent, (START[0] + 1, *START[1:])
    process = run(READ_WHAT_IS_ALLOWED, folder, large_volume, words(START), words(SIZE), words(elsewhere))
    assert process.returncode == 0, process.stderr
    touched, ended_elsewhere = map(int, process.stdout.split())
    assert ended_elsewhere in {signal.SIGSEGV, signal.SIGBUS}
    own = int(np.prod(SIZE)) * VOXEL_DTYPE.itemsize
    assert own <= touched < 2 * own < large_volume.stat().st_size / 2


@needs_proc
def test_memory_does_not_grow_over_1000_steps(prepared_subjects: list[PreparedSubject]) -> None:
    process = run(STEP_MANY_TIMES, prepared_subjects[0].path.parent)
    assert process.returncode == 0, process.stderr
    (early, early_maps), (late, late_maps) = (map(int, line.split()) for line in process.stdout.splitlines())
    # A crop kept from each step would be 4.5 MB, a map from each 1000 lines.
    assert late - early < 2_000
    assert late_maps - early_maps < 20
