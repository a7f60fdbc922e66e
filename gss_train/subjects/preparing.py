"""The work of `python -m gss_train.prepare`: find the scans, verify them, prepare them, say what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from gss_train.common import show_progress
from gss_train.config import Config, DataOptions, DatasetName
from gss_train.data import Dataset, Fault, SplitError, check_dataset, describe_faults, prepare_dataset, read_split
from gss_train.subjects.sources import RawData, find_raw, resolve_dataset


@dataclass(frozen=True)
class PrepareArguments:
    """Verify raw scans and prepare them for training; what an earlier call prepared is kept.

    Attributes:
        dataset: the BraTS edition; `auto` recognises the one below `--data-root`, `custom` is a data set of your own,
            listed by `--manifest`.
        data_root: folder of the raw data set.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        split_file: a published split, to be verified with the scans; as for training.
        cache: folder for prepared volumes; the same for training.
        crop_size: voxels of a training crop, one number or three; the same for training.
        check: only verify, and list every fault; nothing is written.
        skip_bad: leave out the subjects with errors, and prepare the others.
        workers: processes; by default one for each processor, at most 8. Each needs about 1 GB.
    """

    dataset: DatasetName
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    split_file: Path | None = None
    cache: Path = Path("runs/cache")
    crop_size: tuple[int, ...] = (80,)
    check: bool = False
    skip_bad: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.data_root is None and self.manifest is None:
            raise ValueError("--data-root: is missing, need the folder of the raw scans")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers: got {self.workers}, need 1 or more")
        if self.check and self.skip_bad:
            raise ValueError("--skip-bad: cannot go with --check, which prepares nothing")
        self.data_options()

    def data_options(self) -> DataOptions:
        """The options that training shares."""
        return DataOptions(
            self.dataset,
            self.data_root,
            self.manifest,
            self.categories,
            cache=self.cache,
            crop_size=self.crop_size,
            split_file=self.split_file,
        )


def parse_arguments(arguments: list[str] | None = None) -> PrepareArguments:
    """Read the command line.

    Raises:
        SystemExit: a flag that is unknown, unreadable or out of range, or `--help`.
    """
    return tyro.cli(PrepareArguments, args=arguments, prog="python -m gss_train.prepare")


def run(options: PrepareArguments) -> bool:
    """Verify the scans, and prepare them unless only that was asked for.

    Returns:
        Whether the scans can be used; with `--skip-bad`, those that were not left out.

    Raises:
        UserError: no scans are found, or, unless `--check` lists them, there are faults in them or in the split.
        OSError: a prepared file cannot be written.
    """
    config, dataset = resolve_dataset(Config(options.data_options()))
    raw = find_raw(config, dataset)
    if options.check:
        return _check(options, dataset, raw)
    _prepare(options, config, dataset, raw)
    return True


def _check(options: PrepareArguments, dataset: Dataset, raw: RawData) -> bool:
    with show_progress("verifying") as meter:
        faults = check_dataset(raw.subjects, dataset, options.workers, meter)
    bad, doubtful = _count(faults, "error"), _count(faults, "warning")
    faults += _check_split(options.split_file, raw)
    if faults:
        print(describe_faults(faults))
    print(f"Verified {_subjects(len(raw.subjects))}: {bad} with errors, {doubtful} with warnings")
    return all(fault.severity == "warning" for fault in faults)


def _check_split(path: Path | None, raw: RawData) -> list[Fault]:
    try:
        _read_split(path, raw)
    except SplitError as error:
        title, *faults = str(error).splitlines()
        problem = f"{title.removeprefix(f'{path}: ')} {'; '.join(fault.strip() for fault in faults)}"
        return [Fault("(split)", path, problem, "mend these lines of the split file")]
    return []


def _read_split(path: Path | None, raw: RawData) -> None:
    if path is not None:
        read_split(path, [subject.name for subject in raw.subjects])


def _prepare(options: PrepareArguments, config: Config, dataset: Dataset, raw: RawData) -> None:
    _read_split(options.split_file, raw)
    with show_progress("preparing") as meter:
        preparation = prepare_dataset(
            raw.subjects,
            dataset,
            raw.prepared_folder,
            config.data.crop,
            options.workers,
            meter,
            raw.grown_size,
            skip_bad=options.skip_bad,
        )
    listed = [*preparation.left_out, *preparation.warnings]
    if listed:
        print(describe_faults(listed))
    left_out = preparation.names_left_out
    if left_out:
        print(f"Left out {_subjects(len(left_out))}: {', '.join(left_out)}")
    print(f"Prepared {_subjects(len(preparation.subjects))} in {raw.prepared_folder}")


def _count(faults: Sequence[Fault], severity: str) -> int:
    return len({fault.subject for fault in faults if fault.severity == severity})


def _subjects(number: int) -> str:
    return f"{number} subject{'s' * (number != 1)}"
