# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A command that goes on after its operation was killed goes on holding the host lock; with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import LockHeld
from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Runner

HERE = Path(__file__).parent

# The command says who it is, and ends when the fifo is opened for writing.
COMMAND = 'echo "$$" > {pid}.part; mv {pid}.part {pid}; read -r line < {fifo}'
OPERATION = """\
import sys
sys.path.insert(0, {here!r})
import conftest
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Runner
runner = Runner()
with host_lock({path!r}, reason="test", holder="test", timeout=0, clock=Clock()) as lock:
    if {kept!r}:
        runner.keep_open(lock)
    runner.run(["sh", "-c", {command!r}])
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free(path: Path) -> bool:
    try:
        with host_lock(str(path), reason="look", holder="pytest", timeout=0, clock=Clock()):
            return True
    except LockHeld:
        return False


@contextlib.contextmanager
def killed_operation(tmp_path: Path, *, kept: bool) -> Iterator[Path]:
    """An operation that was killed while its command runs; the command ends with the body. Gives the lock's path."""
    path, pid, fifo = tmp_path / "deploy.lock", tmp_path / "pid", tmp_path / "fifo"
    os.mkfifo(fifo)
    command = COMMAND.format(pid=pid, fifo=fifo)
    code = OPERATION.format(here=str(HERE), path=str(path), command=command, kept=kept)
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        until(pid.exists)
        assert not free(path)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    child = int(pid.read_text())
    try:
        assert Path(f"/proc/{child}").exists()
        yield path
    finally:
        with open(fifo, "w", encoding="ascii"):
            pass
    until(lambda: not Path(f"/proc/{child}").exists())


def test_the_command_of_a_killed_operation_holds_the_lock_until_it_ends(tmp_path: Path) -> None:
    with killed_operation(tmp_path, kept=True) as path:
        assert not free(path)
    assert free(path)


def test_without_that_the_lock_would_be_free_while_the_command_still_works(tmp_path: Path) -> None:
    with killed_operation(tmp_path, kept=False) as path:
        assert free(path)


def test_a_command_that_has_ended_does_not_hold_it(tmp_path: Path) -> None:
    path, runner = tmp_path / "deploy.lock", Runner()
    with host_lock(str(path), reason="test", holder="pytest", timeout=0, clock=Clock()) as lock:
        runner.keep_open(lock)
        assert runner.run(["sh", "-c", f"[ -e /proc/self/fd/{lock} ] && echo there"]).out == "there\n"
    assert free(path)


@pytest.mark.parametrize("kept", [True, False])
def test_only_what_was_asked_for_is_handed_down(tmp_path: Path, kept: bool) -> None:
    runner = Runner()
    first = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    second = os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT)
    try:
        if kept:
            runner.keep_open(first)
        out = runner.run(["sh", "-c", f"[ -e /proc/self/fd/{first} ]; echo $?; [ -e /proc/self/fd/{second} ]; echo $?"])
        assert out.out.split() == ["0" if kept else "1", "1"]
    finally:
        os.close(first)
        os.close(second)
