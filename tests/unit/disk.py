# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What reaches the disk, and in which order: a power cut leaves a beginning of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Lets everything happen, and writes down every fsync, rename (under the new name) and removal.

    Attributes:
        events: (what, path) in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        fsync = os.fsync

        def synced(fd: int) -> None:
            self.events.append(("fsync", os.readlink(f"/proc/self/fd/{fd}")))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", synced)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._renaming(getattr(os, name)))
        unlink = os.unlink

        def unlinked(path: Any, **options: Any) -> None:
            unlink(path, **options)
            self.events.append(("unlink", os.fspath(path)))

        monkeypatch.setattr(os, "unlink", unlinked)

    def _renaming(self, real: Any) -> Any:
        def renamed(old: Any, new: Any) -> None:
            real(old, new)
            self.events.append(("rename", os.fspath(new)))

        return renamed

    def when(self, what: str, path: Path) -> int:
        """The number of the first such event."""
        assert (what, str(path)) in self.events, (what, path, self.events)
        return self.events.index((what, str(path)))

    def last(self, what: str, path: Path) -> int:
        """The number of the last such event."""
        self.when(what, path)
        return max(number for number, event in enumerate(self.events) if event == (what, str(path)))
