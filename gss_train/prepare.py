"""Command line: `python -m gss_train.prepare --dataset brats2020 --data-root DIR` verifies and prepares scans."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

# Doors, which open when a name is asked for: `--help` does not wait for torch.
from gss_train import subjects
from gss_train.common import run_command
from gss_train.config import BoxName, Config, DataOptions, DatasetName, SplitName
from gss_train.data import in_use


@dataclass(frozen=True)
class PrepareArguments:
    """Verify raw scans and prepare them for training; what an earlier call prepared is kept, whatever the crop size.

    At the end it lists what the cache holds.

    Attributes:
        dataset: the BraTS edition; `auto` recognises the one below `--data-root`, `custom` is a data set of your own,
            listed by `--manifest`. With `--clean`, that whose prepared files are deleted; by default all.
        data_root: folder of the raw data set.
        manifest: your own data, a CSV or JSON with `subject, flair, t1ce, t1, t2, seg` (see the README).
        categories: what the labels of your own data mean; by default `<manifest's stem>.dataset.json` beside it.
        spacing: voxel size in mm that scans and labels are brought to; the same for training.
        box: that subjects are cut to, the `whole` brain or as `released` by authors; the same for training.
        split: a published list of subjects, to be verified with the scans; as for training.
        split_file: a list of your own, likewise.
        cache: folder for prepared volumes; the same for training.
        check: only verify, and list every fault; nothing is written.
        skip_bad: leave out the subjects with errors, and prepare the others.
        workers: processes; by default one for each processor, at most 8. Each needs about 1 GB.
        clean: list what was prepared in the cache, and then delete it: only files that the preparation has made, and
            not those that a training or an evaluation needs.
    """

    dataset: DatasetName | None = None
    data_root: Path | None = None
    manifest: Path | None = None
    categories: Path | None = None
    spacing: tuple[float, ...] | None = None
    box: BoxName = "whole"
    split: SplitName = "auto"
    split_file: Path | None = None
    cache: Path = Path("runs/cache")
    check: bool = False
    skip_bad: bool = False
    workers: int | None = None
    clean: bool = False

    def __post_init__(self) -> None:
        if self.clean:
            self._check_clean()
            return
        if self.dataset is None:
            raise ValueError("--dataset: is missing, need the edition of the scans, or auto")
        if self.data_root is None and self.manifest is None:
            raise ValueError("--data-root: is missing, need the folder of the raw scans")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers: got {self.workers}, need 1 or more")
        if self.check and self.skip_bad:
            raise ValueError("--skip-bad: cannot go with --check, which prepares nothing")
        self.config()

    def _check_clean(self) -> None:
        if self.dataset == "auto":
            raise ValueError("--dataset: auto cannot go with --clean, need the edition whose files shall go")
        for setting in fields(self):
            if setting.name not in {"clean", "cache", "dataset"} and getattr(self, setting.name) != setting.default:
                raise ValueError(f"--{setting.name.replace('_', '-')}: cannot go with --clean, which only deletes")

    def config(self) -> Config:
        """These settings as a training has them, which checks them too."""
        shared = {name: value for name, value in vars(self).items() if name not in {"check", "workers", "clean"}}
        return Config(DataOptions(**shared))


def carry_out(options: PrepareArguments) -> bool:
    """Find the scans, verify them and, unless only that was asked for, prepare them; or clean the cache.

    Returns:
        Whether the scans can be used; with `--skip-bad`, those that were not left out; with `--clean`, whether all
        files went that should.

    Raises:
        UserError: no scans are found, or, unless `--check` lists them, there are faults in them or in the split; or an
            index is damaged.
        OSError: a prepared file cannot be written or deleted.
    """
    if options.clean:
        return subjects.clean_cache(options.cache, options.dataset)
    config, dataset = subjects.resolve_dataset(options.config())
    raw = subjects.find_raw(config, dataset)
    if options.check:
        return subjects.verify_subjects(raw, config.data, options.workers)
    subjects.find_listed(raw, config.data)
    with in_use(raw.prepared_folder):
        preparation = subjects.prepare_subjects(raw, skip_bad=options.skip_bad, workers=options.workers)
    bad = preparation.names_left_out
    if bad:
        print(f"Left out {_count(len(bad))}: {', '.join(bad)}")
    print(f"Prepared {_count(len(preparation.subjects))} in {raw.prepared_folder}\n")
    print(subjects.describe_cache(options.cache))
    return True


def _count(number: int) -> str:
    return f"{number} subject{'s' * (number != 1)}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, with warnings too; 2 after an error that the user can mend, such as faults in the scans; 130 if interrupted.
    """

    def prepare() -> bool:
        import tyro  # noqa: PLC0415  (where it is missing, the command says so)

        return carry_out(tyro.cli(PrepareArguments, args=arguments, prog="python -m gss_train.prepare"))

    return run_command(prepare, interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
