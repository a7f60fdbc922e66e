"""The flags of `python -m gss_train.report`, and what it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gss_train.common import UserError
from gss_train.report.page import write_report
from gss_train.report.runs import read_runs


@dataclass(frozen=True)
class ReportArguments:
    """Compare runs on one page, a file that needs nothing else and is opened from disk.

    Runs that differ in nothing but the seed are shown as one, with the spread over the seeds. GSS is compared with the
    baseline of the same network; other runs with the first.

    Attributes:
        runs: folders of finished runs, or of evaluations.
        output: the page.
        title: of the page; by default what is compared.
        viewer_subjects: how many subjects can be looked at slice by slice; each adds to the page's size.
        figures: folder for figures of the scores, for papers: PNG and SVG.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    output: Path = Path("report.html")
    title: str | None = None
    viewer_subjects: int = 3
    figures: Path | None = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("RUN: got none, need the folder of one run or more")
        if self.viewer_subjects < 0:
            raise ValueError(f"--viewer-subjects: got {self.viewer_subjects}, need 0 or more")


def parse_arguments(arguments: list[str] | None = None) -> ReportArguments:
    """Read the command line.

    Raises:
        SystemExit: a flag that is unknown, unreadable or out of range, or `--help`.
    """
    return tyro.cli(ReportArguments, args=arguments, prog="python -m gss_train.report")


def run(options: ReportArguments) -> None:
    """Write the page, and the figures if they are wanted.

    Raises:
        UserError: a run cannot be read.
        OSError: a file cannot be written.
    """
    if options.output.is_dir():
        raise UserError(f"--output: {options.output} is a folder, need the name of a file such as report.html")
    write_report(options.output, options.runs, title=options.title, viewer_subjects=options.viewer_subjects)
    print(f"Report: {options.output}")
    if options.figures is not None:
        # Here, so that the page alone does not wait for it.
        from gss_train.report.figures.everything import save_evaluation_figures  # noqa: PLC0415

        runs = read_runs(options.runs)
        save_evaluation_figures(
            options.figures,
            {reported.name: reported.evaluation for reported in runs},
            {reported.name: reported.segmented for reported in runs},
        )
        print(f"Figures: {options.figures}")
