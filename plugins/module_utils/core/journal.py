# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an operation under way: what to undo or finish if the process dies."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from typing import Any

from .errors import OpsError
from .files import drop_staging, ensure_private_dir, fsync_dir, read_regular, remove, write_atomic

__all__ = ["Journal", "drop_endings", "endings", "interrupted_operations"]

_VERSION = 1
_SUFFIX = ".journal"
_ENDED = ".ended"


def interrupted_operations(directory: str) -> list[str]:
    """The kinds of operations that left their journal in a state directory: they were interrupted, or are under way."""
    paths = glob.glob(os.path.join(glob.escape(directory), f"*{_SUFFIX}"))
    return sorted(os.path.basename(path)[: -len(_SUFFIX)] for path in paths)


def endings(directory: str) -> list[dict[str, Any]]:
    """What operations have left that ended and were killed before they could say so: their last notes, oldest first.

    Returns:
        Of each the ``operation``, ``how`` it ended, when it ``began`` and ``ended`` (seconds since the epoch), and what
        else it said.
    """
    found = []
    for path in _endings(directory):
        with contextlib.suppress(ValueError, OpsError):  # torn, or none of ours: it tells nothing
            note = json.loads(read_regular(path, what="note").data)
            if isinstance(note, dict) and note.get("version") == _VERSION:
                found.append(note)
    return sorted(found, key=lambda note: float(note["ended"]))


def drop_endings(directory: str) -> None:
    """Remove these notes: all of it stands elsewhere by now."""
    for path in [*_endings(directory), *_endings(directory, hidden=True)]:
        remove(path)


def _endings(directory: str, *, hidden: bool = False) -> list[str]:
    """The notes, or what killed runs have left of writing one."""
    return glob.glob(os.path.join(glob.escape(directory), f".*{_ENDED}.*" if hidden else f"*{_ENDED}"))


class Journal:
    """One operation's record, a JSON file of mode 0600 in the state directory (0700).

    Every change is on disk before the step that it announces begins. The file may hold secrets; it is removed when
    the operation has ended, well or badly.

    Args:
        directory: the state directory.
        name: the operation's kind, e.g. hmac_rotate; one operation of a kind is under way at a time.
        operation: what the history calls it, e.g. rotate_hmac.
    """

    def __init__(self, directory: str, name: str, operation: str | None = None) -> None:
        self.path = os.path.join(directory, f"{name}{_SUFFIX}")
        self._directory = directory
        self._operation = operation or name
        self.record: dict[str, Any] = {}

    def begin(self, record: dict[str, Any]) -> None:
        """Write the first record, durable before this returns."""
        ensure_private_dir(self._directory)
        self.record = {"version": _VERSION, **record}
        self._write()

    def note(self, **changes: Any) -> None:
        """Add to the record, durable before this returns."""
        self.record.update(changes)
        self._write()

    def load(self) -> dict[str, Any] | None:
        """The record that an interrupted run left, or None.

        Raises:
            OpsError: it is there but cannot be understood.
        """
        if not os.path.lexists(self.path):
            return None
        try:
            record = json.loads(read_regular(self.path, what="journal").data)
        except ValueError as exc:
            raise self._strange("is not JSON") from exc
        if not isinstance(record, dict) or record.get("version") != _VERSION:
            raise self._strange("was written by another version of this collection")
        self.record = record
        return record

    def conclude(self, how: str, *, ended: float, **about: Any) -> None:
        """End it, and leave a note that it has, until the history says so (``drop_endings``): no secret is in that.

        Args:
            how: finished, undone or the like.
            ended: seconds since the epoch.
            about: more for the note.
        """
        began = self.record.get("began", ended)
        note = {"version": _VERSION, "operation": self._operation, "how": how, "began": began, "ended": ended, **about}
        path = os.path.join(self._directory, f"{self._operation}-{began * 1000:.0f}{_ENDED}")
        # A full disk must not fail what has ended well: the history's own line tells it, unless we are killed first.
        with contextlib.suppress(OSError, OpsError):
            write_atomic(path, json.dumps(note).encode() + b"\n", mode=0o600)
        self.end()

    def end(self) -> None:
        """Remove the record, durably, and what a killed run may have left of writing one. Nothing there is fine."""
        drop_staging(self.path)
        if remove(self.path):
            fsync_dir(self._directory)

    def _write(self) -> None:
        write_atomic(self.path, json.dumps(self.record).encode() + b"\n", mode=0o600)

    def _strange(self, what: str) -> OpsError:
        return OpsError(
            f"The journal {self.path} of an interrupted operation {what}",
            state="Nothing was changed by this run; what the interrupted one left is as it was.",
            hint="Finish or undo that operation by hand, then move the journal away.",
        )
