"""Which configuration a launch takes: the one that `python -m gss_kernels.tune` measured on this card, or the table's.

What was measured is a JSON file in the user's cache folder, a list of records: card, Triton's version and the rest of
`Launch`, and the configuration that was fastest. It is read once per process, at the first launch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import reprlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import triton

from gss_kernels.triton.configuration import TABLE, Configuration, KernelName

FOLDER_VARIABLE = "GSS_KERNELS_CACHE"
OFF = "off"
# Another number for kernels so different that what was measured before means nothing.
_FORMAT = 1
_LARGEST_FILE = 2**20
_CONFIGURATION: dict[str, Sequence[Any]] = {
    "voxels_per_thread": (1, 2, 4),
    "num_warps": (1, 2, 4, 8),
    "programs_per_multiprocessor": range(1, 33),
}
_CHOICES: dict[str, Sequence[Any]] = {
    **_CONFIGURATION,
    "kernel": get_args(KernelName),
    "supervised": (True, False),
    "dtype": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Launch:
    """What a configuration is chosen by: nothing else, so that missing modalities and statistics change no bit.

    Attributes:
        card: name of the GPU.
        triton_version: of the compiler.
        kernel: which one; the target is launched as the backward pass.
        modalities: M.
        categories: C.
        supervised: with labels.
        dtype: of the logits, "float32" and so on.
    """

    card: str
    triton_version: str
    kernel: KernelName
    modalities: int
    categories: int
    supervised: bool
    dtype: str

    @classmethod
    def of(
        cls,
        kernel: KernelName,
        num_modalities: int,
        num_categories: int,
        supervised: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Launch:
        """Of a launch on `device` now."""
        name = str(dtype).removeprefix("torch.")
        return cls(card_name(device), triton.__version__, kernel, num_modalities, num_categories, supervised, name)

    def from_table(self) -> Configuration:
        """What the table has for it."""
        return TABLE.of(self.kernel, self.modalities, self.categories, supervised=self.supervised)


Choices = Mapping[Launch, Configuration]
_tried: dict[Launch, Configuration] = {}


@functools.cache
def configuration_for(
    kernel: KernelName,
    num_modalities: int,
    num_categories: int,
    supervised: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Configuration:
    """The configuration that was measured for such a launch on this card, else the table's."""
    launch = Launch.of(kernel, num_modalities, num_categories, supervised, dtype, device)
    return _tried.get(launch) or _of_this_process().get(launch) or launch.from_table()


@contextlib.contextmanager
def trying(choices: Choices) -> Iterator[None]:
    """Have launches take these configurations meanwhile."""
    before = dict(_tried)
    _tried.update(choices)
    configuration_for.cache_clear()
    try:
        yield
    finally:
        _tried.clear()
        _tried.update(before)
        configuration_for.cache_clear()


def forget() -> None:
    """Have the next launch read the file again."""
    _of_this_process.cache_clear()
    configuration_for.cache_clear()


def card_name(device: torch.device) -> str:
    """The GPU's name; "cpu" for Triton's interpreter."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def cache_file() -> Path | None:
    """Where measurements are kept; None if switched off, or without a home folder.

    In the folder `GSS_KERNELS_CACHE`, else in `gss_kernels` of `XDG_CACHE_HOME` or of `~/.cache`.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder == OFF:
        return None
    if folder:
        return Path(folder) / "tuned.json"
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(os.path.expanduser("~/.cache"))  # noqa: PTH111  (Path.home() raises where there is none)
    return base / "gss_kernels" / "tuned.json" if base.is_absolute() else None


def read(path: Path) -> dict[Launch, Configuration]:
    """The measurements in a file; none if there is no such file.

    Raises:
        ValueError: it holds something else, or values that no launch could have.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    if len(text) > _LARGEST_FILE:
        raise ValueError(f"got more than {_LARGEST_FILE} bytes")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("got brackets nested too deeply") from error
    if (
        not isinstance(content, dict)
        or content.get("format") != _FORMAT
        or not isinstance(content.get("fastest"), list)
    ):
        raise ValueError(f'need {{"format": {_FORMAT}, "fastest": [...]}}')
    return dict(_record(record) for record in content["fastest"])


def save(choices: Choices) -> Path:
    """Add measurements to the file, replacing older ones of the same launches; other processes may do so meanwhile.

    Raises:
        ValueError: the cache is switched off, or has no place.
        OSError: the file cannot be written.
    """
    path = cache_file()
    if path is None:
        raise ValueError(
            f"{FOLDER_VARIABLE}: got {os.environ.get(FOLDER_VARIABLE)!r}, need a folder to keep what was measured"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent / "tuned.lock"):
        every = _read_or_warn(path) | dict(choices)
        records = [dataclasses.asdict(launch) | dataclasses.asdict(every[launch]) for launch in every]
        _replace(path, json.dumps({"format": _FORMAT, "fastest": records}, indent=1))
    forget()
    return path


@functools.cache
def _of_this_process() -> dict[Launch, Configuration]:
    path = cache_file()
    return {} if path is None else _read_or_warn(path)


def _read_or_warn(path: Path) -> dict[Launch, Configuration]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{path}: not used, launches take the built-in table instead: {error}. `python -m gss_kernels.tune` writes "
            f"it anew, {FOLDER_VARIABLE}={OFF} does without",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}


def _record(record: Any) -> tuple[Launch, Configuration]:
    """A record, all of whose fields are checked: a file may hold anything."""
    names = [field.name for field in dataclasses.fields(Launch)]
    if not isinstance(record, dict) or set(record) != {*names, *_CONFIGURATION}:
        raise ValueError(
            f"got {reprlib.repr(record)} in its list, need the fields {', '.join((*names, *_CONFIGURATION))}"
        )
    for name, allowed in _CHOICES.items():
        value = record[name]
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise ValueError(f"{name}: got {reprlib.repr(value)}, need one of {', '.join(map(str, allowed))}")
    for name in ("modalities", "categories"):
        if type(record[name]) is not int or record[name] < 1:
            raise ValueError(f"{name}: got {reprlib.repr(record[name])}, need an integer, 1 or more")
    for name in ("card", "triton_version"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name}: got {reprlib.repr(record[name])}, need a name")  # noqa: TRY004
    return Launch(*(record[name] for name in names)), Configuration(*(record[name] for name in _CONFIGURATION))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing: what they add between reading and writing would be lost."""
    import fcntl  # noqa: PLC0415  (Windows has none)

    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, text: str) -> None:
    """Write a file such that others find the old one or the new one, and never half of it."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            file.write(text)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
