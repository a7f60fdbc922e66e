"""A pytest plugin: what becomes of every test is a line of a file the moment it is known.

    python -m pytest -p benchmarks.recording --benchmark-lines FILE ...

Tests that have begun according to FILE are left out: the same command, given again, goes on behind the test that ended
the process before. A test that leaves the GPU unusable for its process ends pytest at once, with status `BROKEN`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lines import Lines, begun

BROKEN = 70
LINES = pytest.StashKey[Lines]()
_LONGEST_ERROR = 1000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark-lines",
        type=Path,
        metavar="FILE",
        help="append results and outcomes to this file, one JSON record a line; what has begun there is left out",
    )
    parser.addoption(
        "--benchmark-until",
        type=float,
        default=float("inf"),
        metavar="TIME",
        help="leave out the tests that would begin later than this, in seconds since 1970 (default: no limit)",
    )


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--benchmark-lines")
    if path is not None:
        config.stash[LINES] = Lines(path)
        config.pluginmanager.register(_Recorder(config))


def synchronise() -> None:
    """Wait for the GPU, if it is in use; an error that no process gets rid of is raised again."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


class _Recorder:
    """The hooks; of the processes of xdist, the one that the others report to writes the outcomes."""

    def __init__(self, config: pytest.Config) -> None:
        self._lines = config.stash[LINES]
        self._until: float = config.getoption("--benchmark-until")
        self._late = 0
        # Processes of xdist have to agree about it, though one of them may start later.
        from_xdist: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._reports = from_xdist is None
        self._begun: list[str] = from_xdist["begun"] if from_xdist else begun(self._lines.path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["begun"] = self._begun

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        before = set(self._begun)
        deselect(config, items, [item for item in items if item.nodeid in before])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._reports:
            self._lines.write("collected", tests=len(session.items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        if time.time() < self._until:
            return None
        self._late += 1
        return True

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._reports:
            self._lines.write("begin", id=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self._reports:
            return
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._lines.write("skipped", id=report.nodeid, reason=reason.removeprefix("Skipped: "))
        elif report.failed:
            self._lines.write("failed", id=report.nodeid, error=_error(report))
        elif report.when == "call":
            self._lines.write("passed", id=report.nodeid, seconds=report.duration)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            try:
                synchronise()
            except RuntimeError as error:
                self._lines.write("failed", id=item.nodeid, error=_error(report), unusable=str(error)[:_LONGEST_ERROR])
                os._exit(BROKEN)  # whatever else pytest would do, tearing down fixtures among it, may raise or hang
        return report

    def pytest_sessionfinish(self) -> None:
        if self._late:
            self._lines.write("left_out", tests=self._late, reason="they would have begun too late")


def deselect(config: pytest.Config, items: list[pytest.Item], unwanted: list[pytest.Item]) -> None:
    """Take items out of those collected, in the way that pytest counts."""
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        left = set(unwanted)
        items[:] = [item for item in items if item not in left]


def _error(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = f"{crash.message} ({Path(crash.path).name}:{crash.lineno})" if crash else str(report.longrepr)
    return text[:_LONGEST_ERROR]
