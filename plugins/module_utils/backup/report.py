# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups as results show them."""

from __future__ import annotations

import datetime
from typing import Any

from .catalog import DAMAGED, GOOD, Backup, digest

__all__ = ["told"]


def told(backup: Backup, *, checksums: bool = False) -> dict[str, Any]:
    """A backup as plain data.

    Args:
        backup: the backup.
        checksums: read it all, and compare with its manifest.

    Raises:
        OpsError: it cannot be read.
    """
    state, trouble = backup.state, backup.trouble
    if checksums and state == GOOD and backup.manifest and digest(backup.path) != backup.manifest.sha256:
        state, trouble = DAMAGED, "its sha256 is not the one of its manifest"
    moment = datetime.datetime.fromtimestamp(backup.moment, datetime.timezone.utc)
    return {
        "name": backup.name,
        "path": backup.path,
        "size_bytes": backup.size_bytes,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "state": state,
        "trouble": trouble,
        "manifest": backup.manifest.as_dict() if backup.manifest else None,
    }
