from __future__ import annotations

import io
import itertools
import sys
from types import SimpleNamespace

import pytest

from gss_train.common import progress
from gss_train.common.progress import show_progress


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("rich.console.monotonic", clock)
    return clock


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard output a terminal; pytest would undo this after a fixture."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


def test_a_line_holds_the_count_the_note_and_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("training") as meter:
        meter(0, 100)
        clock.now += 1200
        meter(25, 100, "baseline, loss 1.250")
        clock.now += 60
        meter(26, 100)
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "training: 0/100 (0 s)"
    assert second == "training: 25/100, baseline, loss 1.250 (20 min, about 1 h 0 min left)"


def test_lines_come_each_minute_at_first_and_each_ten_minutes_later(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("training") as meter:
        meter(0, 30_000)
        for done in range(1, 30_001):
            clock.now += 1
            meter(done, 30_000)
    counts = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().out.splitlines()]
    apart = [after - before for before, after in itertools.pairwise(counts[:-1])]
    assert counts[:4] == [0, 60, 120, 180]
    assert apart == sorted(apart)
    assert apart[-1] == 600
    assert counts[-1] == 30_000


def test_work_that_ends_early_says_how_far_it_came(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("training") as meter:
        meter(0, 100)
        clock.now += 5
        meter(40, 100, "baseline, loss 1.250")
        meter(50, 100, "baseline, loss 1.125")
    _, last = capsys.readouterr().out.splitlines()
    assert last.startswith("training: 50/100, baseline, loss 1.125 (5 s")


def test_nothing_is_said_twice(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("training") as meter:
        meter(0, 1)
        clock.now += 600
        meter(1, 1)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_quiet_progress_shows_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with show_progress("training", quiet=True) as meter:
            meter(0, 2)
            clock.now += 1000
            meter(2, 2, "a note")

    work()
    assert capsys.readouterr() == ("", "")
    terminal = use_terminal(monkeypatch)
    work()
    assert terminal.getvalue() == ""


def test_the_last_line_names_no_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("preparing") as meter:
        meter(0, 2)
        clock.now += 3
        meter(2, 2)
    assert capsys.readouterr().out.splitlines()[-1] == "preparing: 2/2 (3 s)"


def test_what_was_done_before_does_not_shorten_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("preparing") as meter:
        meter(90, 100)
        clock.now += 30
        meter(93, 100)
    assert capsys.readouterr().out.splitlines()[-1] == "preparing: 93/100 (30 s, about 1 min left)"


def test_nothing_to_do_is_said_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("preparing") as meter:
        meter(4, 4)
    assert capsys.readouterr().out == "preparing: 4/4 (0 s)\n"


def test_plain_lines_hold_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("phantom") as meter:
        meter(1, 3, "a note")
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_gets_a_bar_with_the_loss_and_the_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    with show_progress("training") as meter:
        meter(0, 100)
        clock.now += 10
        meter(10, 100)
        clock.now += 10
        meter(20, 100, "baseline, loss 1.250")
    shown = terminal.getvalue()
    last = shown.splitlines()[-2:]
    assert "\x1b[" in shown
    assert any(all(part in line for part in ("training", " 20/100", "loss 1.250", "0:01:20")) for line in last)


def test_a_bar_too_leaves_out_what_was_done_before(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    with show_progress("preparing") as meter:
        meter(90, 100)
        clock.now += 30
        meter(93, 100)
    assert "0:01:10" in terminal.getvalue()


def work_until_interrupted() -> None:
    with show_progress("training") as meter:
        meter(1, 10)
        raise KeyboardInterrupt


def test_an_interrupted_bar_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        work_until_interrupted()
    hides, shows = terminal.getvalue().rfind("\x1b[?25l"), terminal.getvalue().rfind("\x1b[?25h")
    assert 0 <= hides < shows
