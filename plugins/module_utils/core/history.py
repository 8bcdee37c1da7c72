# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The history of operations: one JSON line for each that changed something or failed, and metrics of the last run.

Secrets appear in it by name, generation number and date only.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock, wait_for
from .errors import Mistaken, OpsError
from .files import fsync_dir
from .metrics import INTERRUPTION, LAST_RUN, ROTATED, SUCCESS, Sample, export

__all__ = ["Ended", "History", "Recovered", "conclude", "generation", "read_entries"]

Entry = dict[str, Any]

# Appending takes milliseconds; whoever holds the file's lock for longer than this is none of ours.
_PATIENCE = 5.0
_LONGEST = 300


@dataclass(frozen=True)
class Recovered:
    """An operation that had been interrupted, and could not write its own line.

    Attributes:
        operation: its name, e.g. rotate_hmac.
        secret: the variable of the secret that it rotated, if it was a rotation.
        how: what became of it: finished, undone or superseded (by another value, set by hand).
        began: when it began, seconds since the epoch, where that is known.
        ended: when it ended, where it had ended and only its line is missing.
    """

    operation: str
    secret: str | None
    how: str
    began: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class Ended:
    """How an operation ended.

    Attributes:
        operation: its name, e.g. rotate_hmac.
        result: ok, undone (it failed, and everything is as it was before) or failed.
        started: when it began, seconds since the epoch.
        seconds: how long it took.
        who: who ran it, for the line as it is.
        changed: whether it changed anything.
        interruption: seconds by service.
        secret: the variable of the secret that it rotates.
        keys: the variables that it set.
        services: the services that it started, stopped or replaced as such.
        recovered: what it recovered first.
        error: why it failed, one sentence without secrets.
        about: more for the line, by field.
        samples: more for the metrics.
        counts: whether it is a run for the metrics; not so what was not begun for a slip of who asked.
    """

    operation: str
    result: str
    started: float
    seconds: float
    who: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = True
    interruption: Mapping[str, float] = field(default_factory=dict)
    secret: str | None = None
    keys: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    recovered: tuple[Recovered, ...] = ()
    error: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    counts: bool = True

    @property
    def moment(self) -> float:
        """When it ended, seconds since the epoch."""
        return self.started + self.seconds

    @property
    def rotated(self) -> str | None:
        """The variable of the secret that has a new generation by it."""
        return self.secret if self.result == "ok" and self.changed else None


def conclude(
    operation: str,
    outcome: Mapping[str, Any] | Exception,
    *,
    started: float,
    seconds: float,
    who: Mapping[str, Any],
    secret: str | None = None,
    recovered: Iterable[Recovered] = (),
    redact: Callable[[str], str] = str,
) -> Ended:
    """Say how an operation ended, from the result that it returned or the error that it raised.

    Args:
        operation: its name.
        outcome: the result (``changed``, ``interruption``, ``variables`` and ``actions`` as the modules document them;
            ``about`` and ``samples`` of Ended), or the error (of an OpsError its ``rolled_back`` and ``interruption``).
        started: when it began, seconds since the epoch.
        seconds: how long it took.
        who: who ran it.
        secret: the variable of the secret that it rotates.
        recovered: what it recovered first.
        redact: takes secrets out of the error's sentence.
    """
    error = None
    result = "ok"
    if isinstance(outcome, Mapping):
        facts = outcome
    elif isinstance(outcome, OpsError):
        facts = outcome.facts
        result = "undone" if facts.get("rolled_back") else "failed"
        error = _first_sentence(redact(outcome.msg))
    else:
        facts, result = {}, "failed"
        error = f"Unexpected error {type(outcome).__name__}"  # its text may hold anything
    return Ended(
        operation,
        result,
        started=started,
        seconds=seconds,
        who=who,
        changed=bool(facts.get("changed", True)),
        interruption={
            name: float(times["until_healthy_seconds"]) for name, times in (facts.get("interruption") or {}).items()
        },
        secret=secret,
        keys=tuple(facts.get("variables") or ()) if result == "ok" else (),
        services=tuple(item["service"] for item in facts.get("actions") or () if item["action"] != "none"),
        recovered=tuple(recovered),
        error=error,
        about=dict(facts.get("about") or {}),
        samples=tuple(facts.get("samples") or ()),
        counts=not isinstance(outcome, Mistaken),
    )


class History:
    """The history file of a host (mode 0640), and the directory of its metrics.

    Args:
        path: the file; it and its directory are created, the directory above must be there.
        metrics_dir: where node_exporter looks for text files; None for no metrics.
        clock: for waiting.

    Attributes:
        told: whether what was written last is in the file.
    """

    told = False

    def __init__(self, path: str, *, metrics_dir: str | None, clock: Clock) -> None:
        self._path = path
        self._metrics_dir = metrics_dir
        self._clock = clock

    def write(self, ended: Ended) -> list[str]:
        """Add a line, one more for each interrupted operation that was recovered, and bring the metrics up to date.

        A run that found nothing to do is in the metrics only. Never fails, for the operation has ended already.

        Returns:
            Warnings: what could not be written.
        """
        warnings: list[str] = []
        with contextlib.ExitStack() as stack:
            try:
                # Held over the metrics as well, which are read, changed and written: a run that was refused because
                # another holds the host's lock may write at the same moment as that other.
                fd = stack.enter_context(self._opened())
                if ended.changed or ended.result != "ok" or ended.recovered:
                    _append(fd, _lines(ended, _parse(_content(fd))))
                self.told = True
            except OSError as exc:
                warnings.append(f"The history {self._path} could not be written ({exc.strerror or exc}). {_HARMLESS}")
            if self._metrics_dir:
                try:
                    self._export(ended, self._metrics_dir)
                except OpsError as exc:
                    warnings.append(f"The metrics were not brought up to date: {exc.msg}. {_HARMLESS}")
        return warnings

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, open for reading and appending, with its lock."""
        directory = os.path.dirname(self._path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o755)
        new = not os.path.lexists(self._path)
        # Never through a link: the directory may belong to the user of the deployments.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if new:
                os.fchown(fd, -1, os.stat(directory).st_gid)
                os.fchmod(fd, 0o640)
                fsync_dir(directory)
            # Without the lock, should somebody sit on it, a generation could be counted twice: better than no line.
            wait_for(lambda: _try_lock(fd), timeout=_PATIENCE, clock=self._clock)
            yield fd
        finally:
            os.close(fd)

    def _export(self, ended: Ended, directory: str) -> None:
        operation = {"operation": ended.operation}
        samples = [
            Sample(LAST_RUN, operation, ended.moment),
            Sample(SUCCESS, operation, float(ended.result == "ok")),
            *ended.samples,
            *(Sample(INTERRUPTION, {**operation, "service": name}, out) for name, out in ended.interruption.items()),
        ]
        for item in ended.recovered:
            finished = item.how == "finished"
            of_it = {"operation": item.operation}
            told = [Sample(SUCCESS, of_it, float(finished))]
            if item.ended is not None:
                told.append(Sample(LAST_RUN, of_it, item.ended))
            # In the file of the operation that rotates it: a secret's date may stand in one file only.
            if finished and item.secret:
                told.append(Sample(ROTATED, {"secret": item.secret}, item.ended or ended.moment))
            export(directory, item.operation, told)
        if ended.rotated:
            samples.append(Sample(ROTATED, {"secret": ended.rotated}, ended.moment))
        if ended.counts:
            export(directory, ended.operation, samples, instead=[INTERRUPTION] if ended.interruption else ())


_HARMLESS = "The operation itself is not affected."


def read_entries(path: str) -> list[Entry]:
    """The lines of a history file, oldest first; what is no whole line (torn by a power cut, say) is left out.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        return _parse(stream.read())


def generation(entries: list[Entry], secret: str) -> int:
    """The number of a secret's latest rotation, counted from 1; 0 when it was never rotated."""
    found = [entry.get("secret") for entry in entries]
    numbers = [item.get("generation") for item in found if isinstance(item, dict) and item.get("name") == secret]
    return max((number for number in numbers if isinstance(number, int)), default=0)


def _lines(ended: Ended, entries: list[Entry]) -> bytes:
    lines: list[Entry] = []

    def add(line: Entry, rotated: str | None, moment: float = ended.moment) -> None:
        if rotated:
            number = generation([*entries, *lines], rotated) + 1
            line["secret"] = {"name": rotated, "generation": number, "rotated": _utc(moment)}
        lines.append({name: value for name, value in line.items() if value not in (None, {}, [])})

    for item in ended.recovered:
        if _stands(item, [*entries, *lines]):
            continue  # killed between its line and the removal of the note
        line: Entry = {
            "started": _utc(ended.started),
            "interrupted": None if item.began is None else _utc(item.began),
            "operation": item.operation,
            "result": "recovered",
            "recovered": item.how,
            "who": dict(ended.who),
        }
        add(line, item.secret if item.how == "finished" else None, item.ended or ended.moment)
    if ended.changed or ended.result != "ok":
        line = {
            "started": _utc(ended.started),
            "operation": ended.operation,
            "result": ended.result,
            "seconds": round(ended.seconds, 3),
            "who": dict(ended.who),
            "interruption_seconds": {name: round(out, 3) for name, out in ended.interruption.items()},
            "keys": list(ended.keys),
            "services": list(ended.services),
            "error": ended.error,
            **ended.about,
        }
        add(line, ended.rotated)
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _stands(item: Recovered, entries: Iterable[Entry]) -> bool:
    """Whether an interrupted operation has its line: its own, or one that says when it began."""
    if item.began is None:
        return False
    began = _utc(item.began)
    return any(
        entry.get("operation") == item.operation and began in (entry.get("started"), entry.get("interrupted"))
        for entry in entries
    )


def _append(fd: int, lines: bytes) -> None:
    """Add whole lines by a single write, durably; on a full disk none of them.

    Raises:
        OSError: they are not there.
    """
    size = os.fstat(fd).st_size
    torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
    data = b"\n" + lines if torn else lines
    written = os.write(fd, data)
    if written < len(data):
        if os.fstat(fd).st_size == size + written:
            os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)


def _content(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as stream:
        stream.seek(0)
        return stream.read()


def _parse(data: bytes) -> list[Entry]:
    entries = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return entries


def _first_sentence(text: str) -> str:
    """A message up to the end of its first sentence or clause; a container's last words come after that."""
    first = re.split(r"(?<=[.!?])\s|;\s|\n", text.strip(), maxsplit=1)[0].rstrip(".")
    return first if len(first) <= _LONGEST else first[: _LONGEST - 3] + "..."


def _utc(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _try_lock(fd: int) -> bool | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return True
