# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new backup: what would be made and what would go, and then making it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..compose.container import Container
from ..compose.project import StackOptions, members
from ..compose.sidecar import remove_leftovers
from ..core.clock import parse_timestamp
from ..core.errors import InvalidInput, OpsError, Refused
from ..core.files import ensure_private_dir, fsync_dir
from ..core.journal import interrupted_operations
from ..core.metrics import BACKUP_DURATION, BACKUP_SIZE, BACKUP_SUCCESS, Sample
from . import catalog, manifest
from .catalog import Backup
from .dump import Dumped, dump
from .naming import hidden, named, nightly, suffix
from .options import BackupOptions
from .patience import Patience, under_way
from .report import told_of_future
from .retention import Item, decide
from .session import Facts, Way, counts, database_facts, find_way, locate_server, objects, open_session
from .siblings import RESTORE, drop_expired, expired_databases
from .tools import Effects, drop_passfile

__all__ = ["BackupPlan", "apply", "plan"]

_AGAIN = "Mend the cause and run again."
_NOTHING = "No backup was made; what had been written of it was removed, and the earlier ones are as they were."


@dataclass(frozen=True)
class BackupPlan:
    """What a backup would be.

    Attributes:
        options: what was asked for.
        name: its name.
        container: the server's container.
        way: how to log in.
        facts: what the database is.
        present: the backups that there are.
        removed: those that go after it, by name.
        leftovers: what killed runs have left, by name.
        needed_bytes: the free space that it should find.
        expected_bytes: what pg_dump will about write.
        warnings: what the operator should know.
        expired: databases from before a restore that need not be kept any longer, by name.
    """

    options: BackupOptions
    name: str
    container: Container
    way: Way
    facts: Facts
    present: tuple[Backup, ...]
    removed: tuple[str, ...]
    leftovers: tuple[str, ...]
    needed_bytes: int
    expected_bytes: int
    warnings: tuple[str, ...]
    expired: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where it would be."""
        return os.path.join(self.options.directory, self.name)

    def diff(self) -> dict[str, str]:
        """The names in the directory before and after."""
        before = sorted(item.name for item in self.present)
        after = sorted({*before, self.name} - set(self.removed))
        return {"before": "".join(f"{name}\n" for name in before), "after": "".join(f"{name}\n" for name in after)}


def plan(stack: StackOptions, options: BackupOptions, effects: Effects) -> BackupPlan:
    """Look at everything that a backup needs; changes nothing.

    Raises:
        InvalidInput: there is no such server or directory, or there is not enough space.
        OpsError: the database cannot be reached.
    """
    effects.progress.phase("looking at the database and its backups")
    directory, target = options.directory, options.target
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise InvalidInput(f"{directory} is not a directory", hint="Name another with directory.")
    container = locate_server(members(stack, effects.engine.project_containers()), target.service)
    way = find_way(container, target, stack)
    if way.password is not None:
        effects.redact.add(way.password)
    facts = database_facts(way)
    present = catalog.listed(directory)
    mine = [item for item in present if item.manifest is not None and item.manifest.database == target.database]
    left = catalog.leftovers(directory)
    needed = _needed(options, mine, facts)
    _refuse_without_space(directory, needed, sum(catalog.size_of(os.path.join(directory, item)) for item in left))
    moment = effects.clock.now()
    name = _free_name(options, moment, {item.name for item in present})
    warnings = [
        f"The backup {item.name} is damaged: {item.trouble}" for item in present if item.state == catalog.DAMAGED
    ]
    warnings += told_of_future(mine, moment)
    if way.password is None:
        warnings.append(f"The backup is made through the container's own socket. {way.reason}")
    half_done = RESTORE in interrupted_operations(stack.state_path)
    if half_done:
        warnings.append(f"An interrupted restore of {target.database} was found: run recover.yml to finish or undo it")
    clears = options.label is None and not half_done
    expired = expired_databases(way, target.database, moment, warnings) if clears else []
    return BackupPlan(
        options,
        name,
        container,
        way,
        facts,
        tuple(present),
        _going(options, mine, name, moment),
        tuple(left),
        needed,
        _expected(options, mine, facts),
        tuple(warnings),
        tuple(expired),
    )


def _free_name(options: BackupOptions, moment: float, taken: set[str]) -> str:
    """The runbook's name for the day's first backup without a label; an earlier backup is never replaced."""
    database, end = options.target.database, suffix(options.format, options.compression)
    if options.label is None:
        name = nightly(database, moment, end)
        if name not in taken:
            return name
    name = named(database, moment, options.label, end)
    if name in taken:
        raise Refused(f"There is a backup {name} already", hint="Run again: a second later it has another name.")
    return name


def _needed(options: BackupOptions, mine: list[Backup], facts: Facts) -> int:
    """What the last whole one of this kind took, else what the database takes, and a margin."""
    for item in mine:
        made = item.manifest if item.state == catalog.GOOD else None
        if made and (made.format, made.compression) == (options.format, options.compression):
            return round(item.size_bytes * options.space_margin)
    return round(facts.size_bytes * options.space_margin)


def _expected(options: BackupOptions, mine: list[Backup], facts: Facts) -> int:
    """What pg_dump wrote the last time, else what the database takes: with its indexes more than a dump, or less."""
    for item in mine:
        made = item.manifest if item.state == catalog.GOOD else None
        if made and made.format == "plain" == options.format and made.raw_bytes:
            return made.raw_bytes
        if made and (made.format, made.compression) == (options.format, options.compression):
            return item.size_bytes
    return facts.size_bytes


def _refuse_without_space(directory: str, needed: int, coming: int) -> None:
    """``coming``: what is free once the leftovers of killed runs are removed."""
    place = directory
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    try:
        there = os.statvfs(place)
    except OSError as exc:
        raise InvalidInput(f"The directory {directory} cannot be used: {exc.strerror or exc}") from exc
    free = there.f_bavail * there.f_frsize + coming
    if there.f_flag & os.ST_RDONLY:
        raise Refused(f"The directory {directory} is on a read-only file system", hint="Name another with directory.")
    if free < needed:
        raise Refused(
            f"{directory} has {_megabytes(free)} free, and the backup may take {_megabytes(needed)}",
            hint="Free some space, keep fewer backups, or ask for less with space_margin.",
        )


def _going(options: BackupOptions, mine: list[Backup], name: str, moment: float) -> tuple[str, ...]:
    """What retention takes once this backup is there; nothing after one with a label, which stands apart."""
    if options.label is not None:
        return ()
    whole = [item.as_item() for item in mine if item.state == catalog.GOOD]
    reasons = decide([*whole, Item(name, moment)], options.keep, now=moment, made=name)
    return tuple(sorted(found for found, why in reasons.items() if not why))


def apply(planned: BackupPlan, effects: Effects) -> dict[str, Any]:
    """Make the backup; gives what a result says of it.

    Raises:
        Refused: nothing can be written into the directory.
        OpsError: there is no new backup, and nothing is left of the attempt.
    """
    options = planned.options
    ensure_private_dir(options.directory)
    _refuse_unless_writable(options.directory)
    tidied = [*catalog.clean(options.directory), *remove_leftovers(effects.engine, planned.container)]
    drop_passfile(effects, planned.container)
    started, ticks = effects.clock.utc(), effects.clock.monotonic()
    made = None
    try:
        with open_session(planned.way) as (session, snapshot):
            patience = Patience(effects.clock, effects.cancelled, options.timeout)
            late = f"The rows were not counted within {options.timeout:g} seconds after the dump"
            with under_way(session, lambda: (counts(session), objects(session)), patience, late) as counted:
                made = dump(
                    effects,
                    planned.container,
                    planned.way,
                    options,
                    name=planned.name,
                    snapshot=snapshot,
                    expected_bytes=planned.expected_bytes,
                )
                effects.progress.phase("counting the rows")
                rows, kinds = counted()
        record = manifest.Manifest(
            name=planned.name,
            database=options.target.database,
            format=options.format,
            compression=options.compression,
            started=started,
            ended=effects.clock.utc(),
            seconds=round(effects.clock.monotonic() - ticks, 3),
            size_bytes=made.size_bytes,
            sha256=made.sha256,
            rows=rows,
            objects=kinds,
            properties=planned.facts.properties,
            extensions=planned.facts.extensions,
            server_version=planned.facts.server_version,
            pg_dump_version=made.pg_dump_version,
            raw_bytes=made.raw_bytes,
            label=options.label,
            level=options.level,
            via=made.via,
        )
        _publish(planned, made, record)
    except (OpsError, OSError) as exc:
        raise _failed(exc, options.directory) from exc
    removed, warnings = _retain(planned, effects.clock.now())
    dropped = _drop_expired(planned, effects, warnings)
    told = {"removed": removed, "tidied": tidied, "dropped": dropped, "warnings": warnings}
    return {**_told(planned, made, record), **told}


def _refuse_unless_writable(directory: str) -> None:
    """Try it before the database is asked for anything: modes do not tell what root may do (an immutable directory)."""
    trial = os.path.join(directory, hidden("trial.sql", "removed"))
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.unlink(trial)
    except OSError as exc:
        raise Refused(
            f"Nothing can be written into the directory {directory}: {exc.strerror or exc}",
            hint="See what forbids it (lsattr -d shows whether it is immutable), or name another with directory.",
        ) from exc


def _publish(planned: BackupPlan, made: Dumped, record: manifest.Manifest) -> None:
    """Manifest first, name last: whatever has its final name is whole, and says so."""
    if os.path.lexists(planned.path):
        raise OpsError(f"{planned.path} has appeared meanwhile")
    manifest.write(planned.path, record)
    os.rename(made.path, planned.path)
    fsync_dir(planned.options.directory)


def _failed(exc: OpsError | OSError, directory: str) -> OpsError:
    """The error of an attempt of which nothing is left."""
    state = _NOTHING
    try:
        catalog.clean(directory)
    except OpsError as trouble:
        state = f"No backup was made, and the earlier ones are as they were. {trouble.msg}; the next run removes it."
    if isinstance(exc, OpsError):
        return OpsError(exc.msg, state=state, hint=exc.hint or _AGAIN, facts=exc.facts)
    return OpsError(f"The backup in {directory} could not be finished: {exc.strerror or exc}", state=state, hint=_AGAIN)


def _retain(planned: BackupPlan, now: float) -> tuple[list[str], list[str]]:
    """Remove what goes. What is there is looked at again: only what is whole by its manifest counts."""
    options = planned.options
    warnings = list(planned.warnings)
    removed: list[str] = []
    if options.label is None:
        whole = [
            item
            for item in catalog.listed(options.directory)
            if item.state == catalog.GOOD and item.manifest and item.manifest.database == options.target.database
        ]
        reasons = decide([item.as_item() for item in whole], options.keep, now=now, made=planned.name)
        for item in whole:
            if reasons[item.name]:
                continue
            try:
                catalog.take_away(item.path)
                removed.append(item.name)
            except OpsError as exc:
                warnings.append(f"The new backup is whole, but an old one stays: {exc.msg}")
    return sorted(removed), warnings


def _drop_expired(planned: BackupPlan, effects: Effects, warnings: list[str]) -> list[str]:
    """Drop what restores have kept for long enough."""
    if not planned.expired:
        return []
    try:
        return drop_expired(planned.way, planned.options.target.database, effects.clock.now())
    except OpsError as exc:
        warnings.append(f"The new backup is whole, but a database from before a restore stays: {exc.msg}")
        return []


def _told(planned: BackupPlan, made: Dumped, record: manifest.Manifest) -> dict[str, Any]:
    database = {"database": record.database}
    return {
        "sha256": record.sha256,
        "size_bytes": record.size_bytes,
        "seconds": record.seconds,
        "rows": sum(record.rows.values()),
        "tables": len(record.rows),
        "via": made.via,
        "via_reason": made.reason,
        # for the history and the metrics
        "about": {"backup": record.name, "size_bytes": record.size_bytes},
        "samples": [
            Sample(BACKUP_SUCCESS, database, _ended(record)),
            Sample(BACKUP_SIZE, database, float(record.size_bytes)),
            Sample(BACKUP_DURATION, database, record.seconds),
        ],
    }


def _ended(record: manifest.Manifest) -> float:
    """When a backup was complete, seconds since the epoch."""
    return parse_timestamp(record.ended) or 0.0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
