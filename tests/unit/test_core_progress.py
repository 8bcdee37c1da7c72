# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far an operation is: the words, the line on a terminal, and the file that a controller looks at."""

from __future__ import annotations

import io
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import progress as module
from ansible_collections.titan.ops.plugins.module_utils.core.progress import Progress, clear, published, shown
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock

TOKEN = "0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


class Work:
    """An operation whose bytes and time go on as the test says."""

    def __init__(self, total: int | None = None, *, about: bool = False) -> None:
        self.clock = FakeClock()
        self.done = 0
        self.progress = Progress(self.clock)
        self.progress.phase("dumping titan_brain", total, about=about, done=lambda: self.done)

    def after(self, seconds: float, done: int) -> str:
        """The line when so many seconds later so many bytes are done."""
        self.clock.sleep(seconds)
        self.done = done
        return self.progress.line()


def test_nothing_is_said_before_the_first_phase() -> None:
    assert Progress().line() == ""


def test_an_estimate_is_told_as_one() -> None:
    work = Work(1_000_000_000, about=True)
    assert work.after(0, 0) == "dumping titan_brain: 0 B of about 1.0 GB, 0 %"
    assert work.after(4, 412_000_000) == "dumping titan_brain: 412 MB of about 1.0 GB, 41 %, 103 MB/s, about 6 s left"


def test_what_takes_more_than_was_expected_has_no_percentage_and_no_end() -> None:
    work = Work(1_000_000, about=True)
    assert work.after(10, 2_000_000) == "dumping titan_brain: 2.0 MB, 200 kB/s"


def test_an_exact_total_ends_at_100_percent_and_then_tells_the_time() -> None:
    work = Work(1_000_000)
    assert work.after(10, 999_999) == "dumping titan_brain: 1.0 MB of 1.0 MB, 99 %, 100 kB/s"
    assert work.after(10, 1_000_000) == "dumping titan_brain: 1.0 MB, 100 %, 20 s so far"


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_total_there_are_bytes_and_a_rate(total: int | None) -> None:
    work = Work(total, about=True)
    assert work.after(5, 5_000_000) == "dumping titan_brain: 5.0 MB, 1.0 MB/s"


def test_the_first_instants_have_no_rate() -> None:
    work = Work(100_000)
    assert work.after(0, 50_000) == "dumping titan_brain: 50 kB of 100 kB, 50 %"


def test_what_stalls_says_so_and_promises_no_end() -> None:
    work = Work(100_000_000)
    lines = [work.after(1, 50_000_000) for _turn in range(40)]
    assert lines[-1] == "dumping titan_brain: 50 MB of 100 MB, 50 %, 0 B/s"


def test_bytes_never_go_back_and_a_file_that_is_gone_for_a_moment_is_as_before() -> None:
    work = Work(100_000)
    work.after(3, 60_000)
    assert "60 kB of 100 kB" in work.after(1, 20_000)

    def gone() -> int:
        raise FileNotFoundError

    work.progress.phase("x", 100_000, done=gone)
    assert work.progress.line() == "x: 0 B of 100 kB, 0 %"


def test_a_phase_without_bytes_tells_its_time() -> None:
    clock = FakeClock()
    progress = Progress(clock)
    progress.phase("counting the rows")
    assert progress.line() == "counting the rows"
    for seconds, words in ((12, "12 s"), (100, "2 min"), (7200, "2 h 1 min")):
        clock.sleep(seconds)
        assert progress.line() == f"counting the rows: {words} so far"


def test_long_times_are_told_in_minutes_and_hours() -> None:
    assert "about 16 min left" in Work(1_000_000_000).after(10, 10_000_000)
    assert "about 2 h 46 min left" in Work(10_000_000_000).after(10, 10_000_000)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _each_tick(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Ticks come at once; the event says that one was made."""
    ticked = threading.Event()
    plain = module.ticking

    def quick(report: Any, *, every: float = 0.01) -> Any:
        def reported() -> None:
            report()
            ticked.set()

        return plain(reported, every=every)

    monkeypatch.setattr(module, "ticking", quick)
    return ticked


def test_on_a_terminal_one_line_is_written_anew_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = _each_tick(monkeypatch)
    work = Work(1_000_000)
    stream = Terminal()
    with shown(work.progress, stream):
        assert ticked.wait(10)
    said = stream.getvalue()
    assert said.startswith("\rdumping titan_brain: 0 B of 1.0 MB, 0 %\x1b[K") and said.endswith("\r\x1b[K")
    assert "\n" not in said


def test_a_terminal_that_is_gone_does_not_end_what_it_showed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH is lost: every write to it fails with EIO, and so would the flush when Python ends."""
    ticked = _each_tick(monkeypatch)
    master, slave = pty.openpty()
    went_on = False
    with os.fdopen(slave, "w") as stream:
        with shown(Work(1_000_000).progress, stream):
            assert ticked.wait(10)
            os.close(master)
            ticked.clear()
            assert ticked.wait(10), "the thread beside it has ended"
            went_on = True
        stream.write("more")
    assert went_on


def test_elsewhere_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ticking", None)
    stream = io.StringIO()
    with shown(Work(1).progress, stream):
        pass
    assert stream.getvalue() == ""


def test_what_a_controller_sees_is_roots_alone_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticked = _each_tick(monkeypatch)
    place = tmp_path / f"progress-{TOKEN}"
    with published(Work(1_000_000).progress, TOKEN, run_dir=str(tmp_path)):
        assert ticked.wait(10)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / "line").stat().st_mode) == 0o600
        assert (place / "line").read_text() == "dumping titan_brain: 0 B of 1.0 MB, 0 %\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token", [None, "", "../x", "0123"])
def test_where_nobody_looks_nothing_is_made(tmp_path: Path, token: str | None) -> None:
    with published(Progress(), token, run_dir=str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_hinders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = _each_tick(monkeypatch)
    with published(Work(1).progress, TOKEN, run_dir=str(tmp_path)):
        (tmp_path / f"progress-{TOKEN}/new").mkdir()
        ticked.clear()
        assert ticked.wait(10)
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_the_operation_runs_unseen(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = False
    with published(Progress(), TOKEN, run_dir=str(tmp_path / "file")):
        ran = True
    assert ran


def test_a_request_to_end_is_a_signal_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _each_tick(monkeypatch)
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        with published(Progress(), TOKEN, run_dir=str(tmp_path)):
            (tmp_path / f"progress-{TOKEN}/end").touch()
            assert asked.wait(10)
            assert list(tmp_path.iterdir()) == [], "the controller waits until it is gone"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_killed_run_left_is_cleared_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    script = (
        "import sys; from ansible_collections.titan.ops.plugins.module_utils.core.progress import *\n"
        f"with published(Progress(), '{TOKEN}', run_dir=sys.argv[1]):\n    print('there', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "playbooks/collections")}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout and process.stdout.readline() == "there\n"
        clear(str(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == [f"progress-{TOKEN}"]
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == [f"progress-{TOKEN}"]
    clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_such_directory_there_is_nothing_to_clear(tmp_path: Path) -> None:
    clear(str(tmp_path / "none"))
