# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups as results show them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from .catalog import DAMAGED, GOOD, Backup, digest
from .retention import is_ahead

__all__ = ["stamp", "told", "told_of_future"]


def stamp(moment: float) -> str:
    """Seconds since the epoch as RFC 3339, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def told(backup: Backup, *, now: float, checksums: bool = False) -> dict[str, Any]:
    """A backup as plain data.

    Args:
        backup: the backup.
        now: seconds since the epoch.
        checksums: read it all, and compare with its manifest.

    Raises:
        OpsError: it cannot be read.
    """
    state, trouble = backup.state, backup.trouble
    if checksums and state == GOOD and backup.manifest and digest(backup.path) != backup.manifest.sha256:
        state, trouble = DAMAGED, "its sha256 is not the one of its manifest"
    made = backup.manifest
    return {
        "name": backup.name,
        "path": backup.path,
        "size_bytes": backup.size_bytes,
        "time": stamp(backup.moment),
        "age_seconds": max(0, round(now - backup.moment)),
        "format": made.format if made else None,
        "compression": made.compression if made else None,
        "label": made.label if made else None,
        "verified": made.verified if made else None,
        "state": state,
        "trouble": trouble,
        "manifest": made.as_dict() if made else None,
    }


def told_of_future(there: Iterable[Backup], now: float) -> list[str]:
    """A warning for every good backup that is dated in the future."""
    return [
        f"The backup {item.name} is dated {stamp(item.moment)}, which is yet to come: a clock was wrong. It takes no "
        "part in the retention and is not the one that a drill takes by itself; remove it, or verify it by its name"
        for item in there
        if item.state == GOOD and is_ahead(item.moment, now)
    ]
