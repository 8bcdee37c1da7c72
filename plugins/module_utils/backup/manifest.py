# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands beside every backup: how it was made, and what it must hold when it is restored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InvalidInput
from ..core.files import read_regular, write_atomic
from .naming import COMPRESSIONS, FORMATS

__all__ = ["SUFFIX", "Manifest", "path_of", "read", "write"]

SUFFIX = ".manifest.json"
_SCHEMA = 1
# The file's own checksum, over all the rest of it; manifests of earlier versions have none.
_SUM = "manifest_sha256"


@dataclass(frozen=True)
class Manifest:
    """A backup's manifest.

    Attributes:
        name: the backup's file or directory name.
        database: the database that was dumped.
        format: plain, custom or directory.
        compression: none, gzip or zstd.
        started: when its snapshot was taken, RFC 3339 in UTC.
        ended: when it was complete and checked.
        seconds: how long that took.
        size_bytes: its size; of a directory that of all files in it.
        sha256: of the file; of a directory that of the lines ``<sha256>  <name>`` of its files, sorted by name.
        rows: rows of every table in the dump's own snapshot, by quoted name.
        objects: how many tables, indexes, constraints and so on there were.
        properties: owner, encoding, locale, settings and grants of the database, which a dump does not hold.
        extensions: versions by name.
        server_version: of the server.
        pg_dump_version: of the program.
        raw_bytes: the size before the compression (plain format).
        label: the one that was asked for; None for a nightly backup.
        level: of the compression, where one was asked for.
        via: how it was made: sidecar or exec.
        verified: when a drill last restored it, RFC 3339 in UTC.
        damaged: when a drill proved it bad, RFC 3339 in UTC; None again when one restores it after all.
    """

    name: str
    database: str
    format: str
    compression: str
    started: str
    ended: str
    seconds: float
    size_bytes: int
    sha256: str
    rows: Mapping[str, int]
    objects: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)
    server_version: str = ""
    pg_dump_version: str = ""
    raw_bytes: int | None = None
    label: str | None = None
    level: int | None = None
    via: str = "sidecar"
    verified: str | None = None
    damaged: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain data."""
        return dataclasses.asdict(self)


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "database", "format", "compression", "started", "ended", "sha256", "via"), (str,)),
    **dict.fromkeys(("server_version", "pg_dump_version"), (str,)),
    **dict.fromkeys(("rows", "objects", "properties", "extensions"), (dict,)),
    "seconds": (int, float),
    "size_bytes": (int,),
    **dict.fromkeys(("raw_bytes", "level"), (int, type(None))),
    **dict.fromkeys(("label", "verified", "damaged"), (str, type(None))),
}
# Fields that manifests of earlier versions lack.
_LATER = {"damaged": None}


def path_of(backup: str) -> str:
    """Where the manifest of a backup is."""
    return backup + SUFFIX


def write(backup: str, manifest: Manifest) -> None:
    """Put a manifest beside its backup, atomically and durably, for root alone.

    Raises:
        OpsError: the file system refused.
    """
    record = {"schema": _SCHEMA, **manifest.as_dict()}
    text = json.dumps({**record, _SUM: _sum(record)}, indent=1, sort_keys=True)
    write_atomic(path_of(backup), text.encode() + b"\n", mode=0o600)


def read(backup: str) -> Manifest:
    """The manifest of a backup.

    Raises:
        InvalidInput: it is missing, was altered, or belongs to another file.
    """
    path = path_of(backup)
    data = read_regular(path, what="manifest").data
    try:
        record = json.loads(data)
    except ValueError as exc:
        raise InvalidInput(f"The manifest {path} is not JSON") from exc
    if not isinstance(record, dict) or record.get("schema") != _SCHEMA:
        raise InvalidInput(f"The manifest {path} is not one that this version of the collection knows")
    said = record.pop(_SUM, None)
    whole = said is None or said == _sum(record)
    del record["schema"]
    record = {**_LATER, **record}
    names = {item.name for item in dataclasses.fields(Manifest)}
    strange = sorted(set(record) ^ names)
    strange += [name for name in sorted(names & set(record)) if not _fits(record[name], _KINDS[name])]
    if strange:
        raise InvalidInput(f"The manifest {path} was altered: {', '.join(strange)}")
    manifest = Manifest(**record)
    if manifest.name != os.path.basename(backup):
        raise InvalidInput(f"The manifest {path} belongs to {manifest.name}")
    if manifest.format not in FORMATS or manifest.compression not in COMPRESSIONS:
        raise InvalidInput(f"The manifest {path} was altered: format or compression")
    if not all(_fits(value, (int,)) for value in [*manifest.rows.values(), *manifest.objects.values()]):
        raise InvalidInput(f"The manifest {path} was altered: its counts are not numbers")
    if not whole:
        raise InvalidInput(f"The manifest {path} was altered: its own sha256 differs")
    return manifest


def _sum(record: Mapping[str, Any]) -> str:
    """The sha256 of its canonical JSON: keys sorted, no blanks, nothing but ASCII."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
