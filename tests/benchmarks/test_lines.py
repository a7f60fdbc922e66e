"""Records in a file, whatever ends the processes that write them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.lines import Lines, begun, of_kind, read

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from benchmarks.lines import Lines
Lines(Path(sys.argv[1])).write("result", figures={"wall_ms": 1.23456789})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_record_outlives_the_process_that_is_killed_after_it(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(file)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    (record,) = read(file)
    assert record["figures"] == {"wall_ms": 1.2346}


def test_line_that_broke_off_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    Lines(file).write("begin", id="one")
    with file.open("a") as half:
        half.write('{"kind": "begin", "id": "tw')
    assert begun(file) == ["one"]
    Lines(file).write("begin", id="three")
    assert begun(file) == ["one", "three"]


def test_records_of_several_writers_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    one, other = Lines(file), Lines(file)
    for number in range(3):
        one.write("begin", id=f"one {number}")
        other.write("failed", id=f"other {number}")
    assert [record["id"] for record in of_kind(read(file), "failed")] == ["other 0", "other 1", "other 2"]
    assert len(begun(file)) == 3
