# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host lock: one mutating operation at a time, whoever started it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Callable

from .clock import Clock, wait_for
from .errors import InvalidInput, LockHeld
from .files import ensure_private_dir

__all__ = ["held_by", "host_lock", "lock_holder"]


@contextlib.contextmanager
def host_lock(
    path: str,
    *,
    reason: str,
    holder: str,
    timeout: float,
    clock: Clock,
    waiting: Callable[[str], None] = lambda _holder: None,
) -> Iterator[int]:
    """Hold the host's lock while the body runs.

    It is a ``flock`` (as Titan's own deployments take on the same file), so the kernel drops it when the process
    dies. Who holds it, why and since when is written into the file for the next caller to read.

    Args:
        path: the lock file; created with mode 0600 if missing, never removed.
        reason: what for, e.g. "rotate HMAC_SECRET".
        holder: who, e.g. "ansible, user deploy".
        timeout: seconds to wait for another holder to finish.
        clock: the source of time.
        waiting: told who holds it, in words, when this must wait, and again when that is another one.

    Yields:
        The lock's file descriptor; a child process that inherits it goes on holding the lock.

    Raises:
        LockHeld: still held after ``timeout``; the message names the holder.
        InvalidInput: the lock file cannot be opened.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        ensure_private_dir(parent)
    try:
        new = not os.path.lexists(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if new:  # a deployment that runs as the directory's owner locks the same file
            owner = os.stat(parent)
            os.fchown(fd, owner.st_uid, owner.st_gid)
    except OSError as exc:
        raise InvalidInput(
            f"The lock file {path} cannot be opened: {exc.strerror or exc}", hint="Run as root (become: true)."
        ) from exc
    try:
        if wait_for(_told_meanwhile(fd, path, waiting), timeout=timeout, clock=clock, interval=0.1) is None:
            raise LockHeld(
                f"The host lock {path} is held by {lock_holder(path)}; waited {timeout:g} seconds for it",
                hint="Run again when that operation has ended, or wait longer with lock_timeout.",
            )
        record = {"holder": holder, "reason": reason, "since": clock.utc(), "pid": os.getpid()}
        with contextlib.suppress(OSError):  # a courtesy to others: on a full disk the lock holds without it
            os.ftruncate(fd, 0)
            os.pwrite(fd, (json.dumps(record) + "\n").encode(), 0)
        try:
            yield fd
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def held_by(path: str) -> str | None:
    """Who holds the lock at this moment, in words; None when nobody does, or it cannot be told (no file, no right).

    For whoever takes no lock (check mode). Asking takes it for an instant, shared with others that ask.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        return lock_holder(path) if exc.errno in (errno.EAGAIN, errno.EACCES) else None
    finally:
        os.close(fd)
    return None


def lock_holder(path: str) -> str:
    """Who holds the lock, in words; a holder that left no record (a deployment's plain ``flock``) is said so."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            record = json.loads(stream.read() or "null")
    except (OSError, ValueError):
        record = None
    # One that was killed leaves its record; whoever holds the lock now is then somebody else.
    if not isinstance(record, dict) or not os.path.exists(f"/proc/{record.get('pid')}"):
        return f"an operation that left no name (find it with: fuser -v {path})"
    return (
        f"{record.get('holder', 'unknown')} (process {record.get('pid', '?')}) "
        f"since {record.get('since', '?')} for: {record.get('reason', '?')}"
    )


def _told_meanwhile(fd: int, path: str, waiting: Callable[[str], None]) -> Callable[[], bool | None]:
    """Tries to take the lock, and says who holds it as often as that is somebody new."""
    told = ""

    def attempt() -> bool | None:
        nonlocal told
        if _try_lock(fd):
            return True
        now = lock_holder(path)
        if now != told:
            told = now
            waiting(now)
        return None

    return attempt


def _try_lock(fd: int) -> bool | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return True
