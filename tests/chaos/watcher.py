# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: stops a backup or a drill at a boundary that the kernel tells of; no journal of theirs would."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator

from backup_matrix import (
    BYTES,
    CLOSED,
    COMPARE,
    GOING,
    HISTORY,
    LOCK,
    MADE,
    MANIFEST,
    MID_LOAD,
    NAMED,
    PARTIAL,
    PIPE,
    STAGED,
)
from final_state import BACKUPS, DATABASE
from final_state import HISTORY as HISTORY_FILE
from freezer import STATE, Stopper, command_of, lock_holder, state_of, wait

RUN = "/run/titan-ops"
WORK = f"{RUN}/restore"
# Where the server has a directory for each database, in its container.
DATABASES = "/var/lib/postgresql/data/base"
# So much must psql have read for a load to be in its middle: the tables are there by then, and some of the rows.
_SOME = 500_000
_MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x80, 0x100, 0x200
_CLOEXEC, _NONBLOCK = 0o2000000, 0o4000
_PROGRAMS = ("pg_dump", "pg_restore", "psql")
_EVENTS = (
    (PIPE, BACKUPS, _CREATE, r"\..*\.pipe"),
    (PARTIAL, BACKUPS, _CREATE, r"\..*\.partial"),
    (BYTES, BACKUPS, _MODIFY, r"\..*\.partial"),
    (CLOSED, BACKUPS, _CLOSE_WRITE, r"\..*\.partial"),
    (STAGED, BACKUPS, _CREATE, r"\..*\.manifest\.json\..*"),
    (MANIFEST, BACKUPS, _MOVED_TO, r"[^.].*\.manifest\.json"),
    (NAMED, BACKUPS, _MOVED_TO, r"[^.].*\.(sql(\.gz)?|dump|dir)"),
    (GOING, BACKUPS, _MOVED_TO, r"\..*\.removed"),
    (LOCK, STATE, _MODIFY, r"deploy\.lock"),
    (HISTORY, os.path.dirname(HISTORY_FILE), _MODIFY, re.escape(os.path.basename(HISTORY_FILE))),
    (MID_LOAD, WORK, _CREATE, r"dump"),
    (MADE, DATABASES, _CREATE, r"\d+"),
    (COMPARE, RUN, _DELETE, re.escape(os.path.basename(WORK))),
)

# What comes with a boundary, and is none of its own: a file is made by opening and closing it.
_AT_ONCE = {PIPE: (PARTIAL, CLOSED), PARTIAL: (CLOSED,)}


class Watcher(Stopper):
    """Stops the holder of the lock (SIGSTOP), and PostgreSQL's program beside it, at a boundary.

    Whoever has gone on to the next boundary before he was stopped is let go: that was too late.

    Args:
        step: the boundary.
    """

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.programs: list[int] = []
        self._given_up = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_CLOEXEC | _NONBLOCK)
        self._places: dict[int, str] = {}
        # Bytes and the lock are written all the time: only who waits for them shall be woken by that.
        mine = {STAGED, PIPE, PARTIAL, CLOSED, MANIFEST, NAMED, GOING, step} | ({BYTES} if step == CLOSED else set())
        self._mine = mine
        self._events = [event for event in _EVENTS if event[0] in mine]
        for place in {event[1] for event in self._events}:
            if place in (RUN, WORK):
                os.makedirs(RUN, mode=0o700, exist_ok=True)
            if place == WORK:
                self._watch(RUN, _CREATE)
            else:
                mask = 0
                for event in self._events:
                    mask |= event[2] if event[1] == place else 0
                self._watch(place, mask)

    def _watch(self, place: str, mask: int) -> None:
        path = _on_host(place) if place == DATABASES else place
        number = self._libc.inotify_add_watch(self._fd, path.encode(), mask)
        if number < 0:
            raise RuntimeError(f"inotify on {place}: {os.strerror(ctypes.get_errno())}")
        self._places[number] = place

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        try:
            while not self.frozen.is_set() and not self._given_up.is_set():
                if poll.poll(100):
                    told = list(self._boundaries())
                    for number, at in enumerate(told, 1):
                        self._reached(at, told[number:])
                        if self.frozen.is_set():
                            break
        except Exception as exc:  # pylint: disable=broad-exception-caught
            self.error = f"{type(exc).__name__}: {exc}"
        finally:
            os.close(self._fd)

    def give_up(self) -> None:
        """Watch no longer."""
        self._given_up.set()
        self.join(5)

    def let_go(self) -> None:
        """The program beside it goes on; what becomes of the frozen process itself, the fault says."""
        for pid in self.programs:
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)

    def _boundaries(self) -> Iterator[str]:
        """Those of which the kernel has told since."""
        try:
            events = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        while events:
            number, mask, _cookie, length = struct.unpack_from("iIII", events)
            name = events[16 : 16 + length].rstrip(b"\0").decode()
            events = events[16 + length :]
            place = self._places.get(number, "")
            if place == RUN and mask & _CREATE and name == os.path.basename(WORK):
                self._watch(WORK, _CREATE)
                if MID_LOAD in self._mine and os.path.lexists(f"{WORK}/dump"):  # it was made before we watched
                    yield MID_LOAD
            for step, where, kind, pattern in self._events:
                if where == place and kind & mask and re.fullmatch(pattern, name):
                    yield step

    def _reached(self, at: str, later: list[str]) -> None:
        if at == CLOSED and BYTES not in self.seen:
            return  # it was only made
        if at == self.step:
            try:
                pid = lock_holder()
                if at == MID_LOAD:  # the kernel does not tell of what goes through a pipe
                    wait("psql is in the middle of the dump", lambda: _has_read("psql") > _SOME, 60, 0.001)
            except (ValueError, OSError, RuntimeError):
                if at != LOCK:  # where it is just being written, or given up
                    self.seen.append(f"{at}, too late")
                return
            self._freeze(pid, at, later)
        elif at not in self.seen:
            self.seen.append(at)

    def _freeze(self, pid: int, at: str, later: list[str]) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.programs = [number for number in _processes() if command_of_any(number) in _PROGRAMS]
        for number in self.programs:
            os.kill(number, signal.SIGSTOP)
        wait("the process is stopped", lambda: state_of(pid) in ("T", "Z", ""), 30, 0.0005)
        later = [step for step in (*later, *self._boundaries()) if step != at and step not in _AT_ONCE.get(at, ())]
        if later or state_of(pid) != "T":
            self.seen.append(f"{at}, too late: {', '.join(later) or 'it has ended'}")
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)
            self.let_go()
            self.programs = []
            return
        self.seen.append(at)
        self.pid = pid
        self.frozen.set()


def _on_host(place: str) -> str:
    """A directory of the database's container, as this host sees it, whatever becomes of the container."""
    found = subprocess.run(["docker", "inspect", DATABASE], capture_output=True, text=True, timeout=60, check=True)
    for mount in json.loads(found.stdout)[0]["Mounts"]:
        if place.startswith(f"{mount['Destination']}/"):
            return str(mount["Source"]) + place[len(mount["Destination"]) :]
    raise RuntimeError(f"{place} of {DATABASE} lies on no volume")


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _has_read(program: str) -> int:
    """How many bytes the program has read, from whatever."""
    for pid in _processes():
        if command_of_any(pid) == program:
            try:
                with open(f"/proc/{pid}/io", encoding="ascii") as stream:
                    return int(stream.readline().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return 0


def command_of_any(pid: int) -> str:
    """The same as ``command_of``, "" when it is gone."""
    try:
        return command_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return ""
