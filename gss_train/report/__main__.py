"""Command line: `python -m gss_train.report RUN [RUN ...]` writes the page that compares runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError, run_command


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

    runs: tuple[Path, ...]
    output: Path = Path("report.html")
    title: str | None = None
    viewer_subjects: int = 3
    figures: Path | None = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("RUN: got none, need the folder of one run or more")
        if self.viewer_subjects < 0:
            raise ValueError(f"--viewer-subjects: got {self.viewer_subjects}, need 0 or more")


def carry_out(options: ReportArguments) -> None:
    """Write the page, and the figures if they are wanted.

    Raises:
        UserError: a run cannot be read.
        OSError: a file cannot be written.
    """
    if options.output.is_dir():
        raise UserError(f"--output: {options.output} is a folder, need the name of a file such as report.html")
    # These import torch and Matplotlib, for which `--help` does not wait.
    from gss_train.report.figures.evaluation import save_evaluation_figures  # noqa: PLC0415
    from gss_train.report.page import write_report  # noqa: PLC0415

    runs = write_report(options.output, options.runs, title=options.title, viewer_subjects=options.viewer_subjects)
    print(f"Report: {options.output}")
    if options.figures is not None:
        save_evaluation_figures(
            options.figures, {run.name: run.evaluation for run in runs}, {run.name: run.segmented for run in runs}
        )
        print(f"Figures: {options.figures}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 130 if interrupted.
    """

    def report() -> None:
        import tyro  # noqa: PLC0415  (where it is missing, the command says so)

        positional = (tyro.conf.PositionalRequiredArgs,)
        carry_out(tyro.cli(ReportArguments, args=arguments, prog="python -m gss_train.report", config=positional))

    return run_command(report)


if __name__ == "__main__":
    sys.exit(main())
