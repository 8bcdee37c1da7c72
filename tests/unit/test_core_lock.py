# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host lock, with real processes that hold it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import lock as lock_module
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, LockHeld
from ansible_collections.titan.ops.plugins.module_utils.core.lock import held_by, host_lock, lock_holder
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock

HERE = Path(__file__).parent


def locked(
    path: Path, *, timeout: float = 0, clock: Clock | None = None, reason: str = "a test"
) -> contextlib.AbstractContextManager[None]:
    return host_lock(str(path), reason=reason, holder="pytest", timeout=timeout, clock=clock or FakeClock())


@contextlib.contextmanager
def other_process(path: Path, *, plain: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input is closed; ``plain`` leaves no record, as flock(1)."""
    body = (
        "import fcntl, os\n"
        f"fd = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
        if plain
        else "from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock\n"
        "from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock\n"
        f"with host_lock({str(path)!r}, reason='back up the database', holder='cron', timeout=0, clock=Clock()):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import conftest\n" + body
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def test_the_lock_is_taken_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deploy.lock"
    with locked(path, reason="rotate HMAC_SECRET"):
        assert lock_holder(str(path)) == (
            f"pytest (process {os.getpid()}) since 2026-02-06T14:03:12Z for: rotate HMAC_SECRET"
        )
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_bytes() == b""
    with locked(path):
        pass


def test_the_next_caller_is_told_who_holds_it_since_when_and_for_what(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    clock = FakeClock()
    with other_process(path) as process, pytest.raises(LockHeld) as caught, locked(path, timeout=7, clock=clock):
        pass
    said = str(caught.value)
    assert f"held by cron (process {process.pid}) since 2" in said
    assert "for: back up the database; waited 7 seconds for it." in said
    assert "Nothing was changed. Run again when that operation has ended" in said
    assert sum(clock.sleeps) == pytest.approx(7)
    with locked(path):
        assert "pytest" in lock_holder(str(path))


def test_whoever_waits_is_told_meanwhile_who_holds_it_once_for_each_holder(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    told: list[str] = []
    more: dict[str, Any] = {"reason": "a test", "holder": "pytest", "clock": FakeClock(), "waiting": told.append}
    with other_process(path) as process, pytest.raises(LockHeld), host_lock(str(path), timeout=7, **more):
        pass
    [holder] = told
    assert holder.startswith(f"cron (process {process.pid}) since 2") and holder.endswith("for: back up the database")
    with host_lock(str(path), timeout=7, **more):
        assert told == [holder], "nobody had to be waited for"


def test_whoever_waits_gets_it_as_soon_as_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    clock = FakeClock()
    with other_process(path) as process:

        def release() -> None:
            if len(clock.sleeps) == 3:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(30)

        clock.on_sleep = release
        with locked(path, timeout=60, clock=clock):
            assert len(clock.sleeps) == 3


def test_a_holder_without_a_record_is_said_to_have_left_no_name(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    said = r"held by an operation that left no name \(find it with: fuser -v "
    with other_process(path, plain=True), pytest.raises(LockHeld, match=said), locked(path):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    with other_process(path) as process:
        process.kill()
        process.wait(30)
        assert b"back up the database" in path.read_bytes()
        with locked(path):
            assert lock_holder(str(path)).startswith("pytest")


def test_the_record_of_a_killed_holder_is_not_taken_for_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    with other_process(path) as process:
        process.kill()
        process.wait(30)
    with other_process(path, plain=True), pytest.raises(LockHeld, match="left no name"), locked(path):
        pass


def test_whoever_takes_no_lock_can_ask_who_holds_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert held_by(path) is None
    with host_lock(path, reason="try it", holder="pytest", timeout=0, clock=Clock()):
        assert str(held_by(path)).startswith("pytest (process ")
    assert held_by(path) is None
    with host_lock(path, reason="again", holder="pytest", timeout=0, clock=Clock()):
        pass  # who asked holds nothing


def test_a_longer_record_leaves_nothing_behind_in_a_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    path.write_text("x" * 10_000)
    with locked(path):
        assert lock_holder(str(path)).startswith("pytest")
        assert path.stat().st_size < 1000


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    with locked(path):
        pass


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    with locked(path):
        child = subprocess.Popen(["sleep", "300"], close_fds=False)
    try:
        with locked(path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_does_not_keep_anybody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock_module.os, "pwrite", full)
    path = tmp_path / "deploy.lock"
    with locked(path), path.open("rb") as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("kind", ["symlink", "directory"])
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "deploy.lock"
    if kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(InvalidInput, match=r"The lock file .* cannot be opened"), locked(path):
        pass
    assert not (tmp_path / "elsewhere").exists()
