# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics of operations as text files, for the textfile collector of Prometheus' node_exporter.

Every operation has a file of its own: two files may bear the same metric, never the same metric with the same labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .errors import InvalidInput
from .files import read_regular, write_atomic

__all__ = [
    "BACKUP_DURATION",
    "BACKUP_SIZE",
    "BACKUP_SUCCESS",
    "BACKUP_VERIFIED",
    "INTERRUPTION",
    "LAST_RUN",
    "OFFSITE_CHECKED",
    "OFFSITE_SUCCESS",
    "RESTORE_DURATION",
    "RESTORE_SUCCESS",
    "ROTATED",
    "SUCCESS",
    "Sample",
    "default_directory",
    "export",
]

# Where the distributions' package has the collector look (Debian and Ubuntu, prometheus-node-exporter).
_DIRECTORY = "/var/lib/prometheus/node-exporter"

LAST_RUN = "titan_operation_last_run_timestamp_seconds"
SUCCESS = "titan_operation_last_success"
INTERRUPTION = "titan_operation_interruption_seconds"
ROTATED = "titan_secret_rotated_timestamp_seconds"
BACKUP_SUCCESS = "titan_backup_last_success_timestamp_seconds"
BACKUP_VERIFIED = "titan_backup_last_verified_timestamp_seconds"
BACKUP_SIZE = "titan_backup_size_bytes"
BACKUP_DURATION = "titan_backup_duration_seconds"
RESTORE_SUCCESS = "titan_restore_last_success_timestamp_seconds"
RESTORE_DURATION = "titan_restore_last_duration_seconds"
OFFSITE_SUCCESS = "titan_backup_offsite_last_success_timestamp_seconds"
OFFSITE_CHECKED = "titan_backup_offsite_last_checked_timestamp_seconds"
# The collector wants one text for a metric in all files.
_HELP = {
    LAST_RUN: "When the operation last ended, well or badly (Unix time).",
    SUCCESS: "Whether the operation's last run did what it was asked (1) or failed (0).",
    INTERRUPTION: "How long the operation last interrupted the service.",
    ROTATED: "When the secret was last rotated (Unix time).",
    BACKUP_SUCCESS: "When the last backup of the database was complete and checked (Unix time).",
    BACKUP_VERIFIED: "When a backup of the database was last restored by a drill, with equal counts (Unix time).",
    BACKUP_SIZE: "Size of the last backup of the database.",
    BACKUP_DURATION: "How long the last backup of the database took.",
    RESTORE_SUCCESS: "When the database was last restored and proved (Unix time).",
    RESTORE_DURATION: "How long the last restore of the database took.",
    OFFSITE_SUCCESS: "When every good backup of the database was last found or put into the repository (Unix time).",
    OFFSITE_CHECKED: "When the repository was last checked, and found whole (Unix time).",
}
_SAMPLE = re.compile(rf"({'|'.join(_HELP)})(\{{.*\}}) (\S+)")


@dataclass(frozen=True)
class Sample:
    """One value of a metric: times in seconds, moments as seconds since the epoch."""

    metric: str
    labels: Mapping[str, str]
    value: float


def default_directory() -> str | None:
    """The directory of the distribution's node_exporter, if it is installed."""
    return _DIRECTORY if os.path.isdir(_DIRECTORY) else None


def export(directory: str, operation: str, samples: Iterable[Sample], *, instead: Collection[str] = ()) -> None:
    """Write an operation's file, atomically; values that it has already and that are not given again stay.

    Args:
        directory: where the collector looks.
        operation: the operation's name, e.g. rotate_hmac.
        samples: the new values.
        instead: metrics of which only the new values are kept.

    Raises:
        OpsError: it cannot be written; the old file is untouched.
    """
    path = os.path.join(directory, f"titan_{operation}.prom")
    values = {key: value for key, value in _read(path).items() if key[0] not in instead}
    for sample in samples:
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in sorted(sample.labels.items()))
        values[sample.metric, f"{{{labels}}}"] = repr(round(sample.value, 3))
    lines: list[str] = []
    for metric, text in _HELP.items():
        found = sorted(f"{metric}{labels} {value}" for (name, labels), value in values.items() if name == metric)
        if found:
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", *found]
    # Read by the exporter's own user.
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode(), mode=0o644)


def _read(path: str) -> dict[tuple[str, str], str]:
    """The values of a file as it is; none of one that is missing or not ours."""
    try:
        text = read_regular(path, what="metrics file").data.decode("utf-8", "replace")
    except InvalidInput:
        return {}
    found = (_SAMPLE.fullmatch(line) for line in text.split("\n"))
    return {(match[1], match[2]): match[3] for match in found if match and _number(match[3])}


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escaped(text: str) -> str:
    """A label's value as the text format wants it (Prometheus manual, "Exposition formats")."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
