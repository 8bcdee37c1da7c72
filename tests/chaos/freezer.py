# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: stops the module's process at the boundary between two steps of its journal."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

STATE = "/opt/titan/state"
BEGIN, END = "(begin)", "(end)"
_MOVED_TO, _DELETE, _CLOEXEC = 0x80, 0x200, 0o2000000


def wait(what: str, true: Callable[[], Any], seconds: float, pause: float = 0.1) -> Any:
    """Until it is true; an error in words when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause)
    return found


class Stopper(threading.Thread):
    """Stops the module's process at one step.

    Attributes:
        step: where.
        pid: of the process, once it is stopped.
        secrets: old and new, where its journal has any.
        seen: the steps that it came to.
        error: why this one has ended before.
        frozen: set once it is stopped.
    """

    def __init__(self, step: str) -> None:
        super().__init__(daemon=True)
        self.step = step
        self.pid = 0
        self.secrets: list[str] = []
        self.seen: list[str] = []
        self.error = ""
        self.frozen = threading.Event()

    def give_up(self) -> None:
        """Watch no longer."""
        raise NotImplementedError


class Freezer(Stopper):
    """Stops the module's process (SIGSTOP) whenever it has written its journal; lets it go on unless the step is ours.

    The journal is renamed into place before its directory is synchronised, and both before the step acts; the kernel
    tells us of the rename at once. So whoever is stopped then has not begun the step.
    """

    def __init__(self, journal: str, step: str) -> None:
        super().__init__(step)
        self.journal = journal
        self.given_up = False
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, STATE.encode(), _MOVED_TO | _DELETE) < 0:
            raise RuntimeError(f"inotify on {STATE}: {os.strerror(ctypes.get_errno())}")

    def run(self) -> None:
        try:
            while not self.frozen.is_set() and not self.given_up:
                events = os.read(self._fd, 65536)
                while events:
                    _watch, mask, _cookie, length = struct.unpack_from("iIII", events)
                    name = events[16 : 16 + length].rstrip(b"\0").decode()
                    events = events[16 + length :]
                    if name == self.journal and not self.frozen.is_set():
                        self._look(mask)
        except Exception as exc:  # pylint: disable=broad-exception-caught
            self.error = f"{type(exc).__name__}: {exc}"
        finally:
            os.close(self._fd)

    def give_up(self) -> None:
        """Watch no longer."""
        self.given_up = True
        path = f"{STATE}/{self.journal}"
        # wakes the reader; the name is not the journal's
        with open(f"{path}.wake", "w", encoding="ascii"):
            pass
        os.unlink(f"{path}.wake")
        self.join(5)

    def _look(self, mask: int) -> None:
        try:
            pid = lock_holder()
        except (ValueError, OSError, RuntimeError):
            if mask & _DELETE:  # it let go of the lock right after its journal, and was faster than we
                self.seen.append(f"{END}, too late")
                return
            raise
        os.kill(pid, signal.SIGSTOP)
        wait("the process is stopped", lambda: state_of(pid) == "T", 30, 0.0005)
        record: dict[str, Any] = {}
        try:
            with open(f"{STATE}/{self.journal}", encoding="utf-8") as stream:
                record = json.load(stream)
            self.secrets = [record[name] for name in ("old", "new") if name in record]  # a restore has none
        except FileNotFoundError:
            pass
        at = END if mask & _DELETE else record.get("step", BEGIN)
        self.seen.append(at)
        if at == self.step:
            self.pid = pid
            self.frozen.set()
        else:
            os.kill(pid, signal.SIGCONT)


def lock_holder() -> int:
    """The process that the lock file names, which must have it open."""
    with open(f"{STATE}/deploy.lock", encoding="utf-8") as stream:
        pid = int(json.load(stream)["pid"])
    for entry in os.scandir(f"/proc/{pid}/fd"):
        if os.readlink(entry.path) == f"{STATE}/deploy.lock":
            return pid
    raise RuntimeError(f"process {pid} is not the one that holds the lock")


def state_of(pid: int) -> str:
    """The one-letter state of a process, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
        return int(stream.read().rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8") as stream:
        return stream.read().strip()
