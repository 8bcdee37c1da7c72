# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an operation under way: what to undo or finish if the process dies."""

from __future__ import annotations

import glob
import json
import os
from typing import Any

from .errors import OpsError
from .files import drop_staging, ensure_private_dir, fsync_dir, read_regular, remove, write_atomic

__all__ = ["Journal", "interrupted_operations"]

_VERSION = 1
_SUFFIX = ".journal"


def interrupted_operations(directory: str) -> list[str]:
    """The kinds of operations that left their journal in a state directory: they were interrupted, or are under way."""
    paths = glob.glob(os.path.join(glob.escape(directory), f"*{_SUFFIX}"))
    return sorted(os.path.basename(path)[: -len(_SUFFIX)] for path in paths)


class Journal:
    """One operation's record, a JSON file of mode 0600 in the state directory (0700).

    Every change is on disk before the step that it announces begins. The file may hold secrets; it is removed when
    the operation has ended, well or badly.

    Args:
        directory: the state directory.
        name: the operation's kind, e.g. hmac_rotate; one operation of a kind is under way at a time.
    """

    def __init__(self, directory: str, name: str) -> None:
        self.path = os.path.join(directory, f"{name}{_SUFFIX}")
        self._directory = directory
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
