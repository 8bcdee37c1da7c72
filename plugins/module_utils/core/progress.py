# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a long operation is: said by the operation, put into words here, and shown to whoever wants to know."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable, TextIO

from .clock import Clock
from .errors import OpsError
from .files import ensure_private_dir
from .say import say

__all__ = ["RUN_DIR", "TOKEN", "Progress", "Tally", "clear", "progress_spec", "published", "shown", "ticking"]

# Names the directory that a controller looks into; it is in the environment of the module that it has started.
TOKEN = "TITAN_OPS_PROGRESS"
# In memory on any host with systemd, and gone after a reboot.
RUN_DIR = "/run/titan-ops"
_PREFIX = "progress-"
_EVERY = 1.0
# The rate is that of so many seconds: a longer time would hide that it stalls, a shorter one jumps.
_WINDOW = 15.0
_SPAN = 2.0


def progress_spec() -> dict[str, dict[str, Any]]:
    """The argument specification of the documentation fragment titan.ops.progress; the action plugin heeds it."""
    return {"progress": {"type": "bool", "default": True}, "progress_interval": {"type": "float", "default": 5.0}}


class _Phase:
    """One phase, with what was seen of it; only the thread that asks for lines touches the latter."""

    def __init__(self, what: str, began: float, total: int | None, about: bool, done: Callable[[], int] | None) -> None:
        self.what = what
        self.began = began
        self.total = total
        self.about = about
        self._done = done
        self._seen: collections.deque[tuple[float, int]] = collections.deque([(began, 0)])

    def line(self, now: float) -> str:
        if self._done is None:
            seconds = now - self.began
            return f"{self.what}: {_duration(seconds)} so far" if seconds >= 1 else self.what
        done = self._seen[-1][1]
        with contextlib.suppress(OSError):  # a file that is just being replaced: as before, then
            done = max(done, self._done())
        rate = self._rate(now, done)
        if self.total and not self.about and done >= self.total:
            # All is given, and whoever got it is still at work: a rate would only mislead.
            return f"{self.what}: {_bytes(done)}, 100 %, {_duration(now - self.began)} so far"
        # What takes more than was expected has no percentage any more.
        known = self.total if self.total and not (self.about and done > self.total) else None
        words = [_bytes(done)]
        if known:
            words = [f"{_bytes(done)} of {'about ' if self.about else ''}{_bytes(known)}"]
            words.append(f"{100 * done // known} %")
        if rate is not None:
            words.append(f"{_bytes(rate)}/s")
            left = (known - done) / rate if known and rate > 0 else 0.0
            if left >= 1:
                words.append(f"about {_duration(left)} left")
        return f"{self.what}: {', '.join(words)}"

    def _rate(self, now: float, done: int) -> float | None:
        """Bytes per second of the last seconds; None while there is too little to tell."""
        seen = self._seen
        while len(seen) > 1 and now - seen[0][0] > _WINDOW:
            seen.popleft()
        then, before = seen[0]
        if now > seen[-1][0]:
            seen.append((now, done))
        return (done - before) / (now - then) if now - then >= _SPAN else None


class Progress:
    """What an operation says of itself.

    Args:
        clock: the source of time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._phase: _Phase | None = None

    def phase(
        self, what: str, total: int | None = None, *, about: bool = False, done: Callable[[], int] | None = None
    ) -> None:
        """The operation goes on with something else.

        Args:
            what: what it does now, e.g. "dumping titan_brain".
            total: how many bytes that will be, if it is known.
            about: it is only estimated.
            done: tells how many bytes it has been so far; asked by another thread, about once a second.
        """
        self._phase = _Phase(what, self._clock.monotonic(), total, about, done)

    def line(self) -> str:
        """How far it is, in words; "" before the first phase."""
        phase = self._phase
        return phase.line(self._clock.monotonic()) if phase else ""


class Tally:
    """Counts the bytes that it is called with."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, data: bytes) -> None:
        self.bytes += len(data)


@contextlib.contextmanager
def ticking(report: Callable[[], None], *, every: float = _EVERY) -> Iterator[None]:
    """Call ``report`` every so many seconds while the body runs, in a thread beside it."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(every):
            report()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def shown(progress: Progress, stream: TextIO) -> Iterator[None]:
    """On a terminal, one line that is written anew every second while the body runs; elsewhere nothing.

    Nor on one that is lost meanwhile: the body goes on.
    """
    if not stream.isatty():
        yield
        return

    def report() -> None:
        # Cut to the terminal's width: a line that is folded could not be written over.
        say(stream, f"\r{progress.line()[: _columns(stream) - 1]}\x1b[K")

    try:
        with ticking(report):
            yield
    finally:
        say(stream, "\r\x1b[K")


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


@contextlib.contextmanager
def published(progress: Progress, token: str | None, *, run_dir: str = RUN_DIR) -> Iterator[None]:
    """Let a controller see how far the body is, and ask it to end.

    While the body runs there is a directory ``progress-<token>``, for root alone. The file ``line`` in it says how far
    it is; should a file ``end`` appear, this process gets SIGTERM. To make that file fails once the body has ended, so
    no request can be left lying about. A ``flock`` on the directory tells that its process lives.

    Args:
        progress: what is shown.
        token: the directory's name, as the controller chose it; None when nobody looks.
        run_dir: where the directory is.
    """
    place = _made(run_dir, token) if token and re.fullmatch(r"[0-9a-f]{8,64}", token) else None
    if place is None:
        yield
        return
    path, lock = place
    try:
        with ticking(lambda: _report(path, progress)):
            yield
    finally:
        _remove(path)
        os.close(lock)


def _remove(path: str) -> None:
    """Out of the way at once: nobody can put anything into it from then on."""
    gone = f"{path}.gone"
    with contextlib.suppress(FileNotFoundError):  # a request to end was there
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _report(path: str, progress: Progress) -> None:
    if os.path.lexists(os.path.join(path, "end")):
        # Gone first: that is how the controller knows that the request has arrived.
        _remove(path)
        os.kill(os.getpid(), signal.SIGTERM)
    staging = os.path.join(path, "new")
    # A courtesy: whatever hinders it (a full /run, the directory is gone), the operation goes on.
    with contextlib.suppress(OSError):
        fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(f"{progress.line()}\n")
        os.replace(staging, os.path.join(path, "line"))


def clear(run_dir: str = RUN_DIR) -> None:
    """Remove what killed runs have left."""
    with contextlib.suppress(OSError), _alone(run_dir):
        _clear(run_dir)


def _made(run_dir: str, token: str) -> tuple[str, int] | None:
    """The directory, and the descriptor that holds its lock; None where it cannot be made: nobody sees it, then."""
    path = os.path.join(run_dir, _PREFIX + token)
    try:
        ensure_private_dir(run_dir)
        with _alone(run_dir):
            _clear(run_dir)
            os.mkdir(path, 0o700)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, OpsError):
        return None
    return path, lock


def _clear(run_dir: str) -> None:
    for name in os.listdir(run_dir):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(run_dir, name)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its run has just ended
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its process lives
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _alone(run_dir: str) -> Iterator[None]:
    """Nobody else makes or clears directories meanwhile."""
    fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _bytes(size: float) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= power * 0.9995:
            number = size / power
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{size:.0f} B"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 90 * 60:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
