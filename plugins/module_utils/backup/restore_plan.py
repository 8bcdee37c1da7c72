# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore, or its undo, would do, and what forbids it; changes nothing."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable

from ..compose.stack import Stack
from ..core.errors import InvalidInput, Mistaken, OpsError, Refused
from ..core.progress import Progress
from ..database.login import Connection
from ..database.psql import quote_literal
from ..health.probe import Probe
from .compare import contents, counted
from .patience import Patience
from .restore_options import BRAIN_HEALTH, RestoreOptions
from .scratch import connected, placed, refuse_without_space
from .server import Server, reach
from .session import Facts, database_facts
from .siblings import (
    Kept,
    expired_databases,
    failed_name,
    kept_databases,
    kept_name,
    missing_roles,
    side_databases,
    side_name,
    utc,
)
from .source import Source, find_source
from .writers import running

__all__ = ["RestorePlan", "differences", "plan"]

_DAY = 86400


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do.

    Attributes:
        options: what was asked for.
        ident: what the names of its databases have in common.
        server: the server.
        today: what the database is; None where there is none.
        today_rows: its rows by table; None where they cannot be counted.
        source: what is restored; None for an undo.
        back: the old database that an undo takes back.
        back_rows: its rows by table.
        properties: of the new database, what a dump does not hold.
        writers: the services that are stopped.
        well: those of them that are well.
        expired: old databases that are dropped at the end.
        left: databases that interrupted restores have left, and that are dropped before.
        needed_bytes: the room that is asked for.
        warnings: what the operator should know.
        moment: when it was made, seconds since the epoch.
    """

    options: RestoreOptions
    ident: str
    server: Server
    today: Facts | None
    today_rows: Mapping[str, int] | None
    source: Source | None
    back: Kept | None
    back_rows: Mapping[str, int]
    properties: Mapping[str, Any]
    writers: tuple[str, ...]
    well: tuple[str, ...]
    probes: tuple[Probe, ...]
    expired: tuple[str, ...]
    left: tuple[str, ...]
    needed_bytes: int
    warnings: tuple[str, ...]
    moment: float

    @property
    def database(self) -> str:
        """The database that is replaced."""
        return self.options.target.database

    @property
    def incoming(self) -> str:
        """The database that takes its name."""
        return self.back.name if self.back else side_name(self.database, self.ident)

    @property
    def kept(self) -> str | None:
        """What it is called from then on; None where there is none."""
        return kept_name(self.database, self.ident) if self.today else None

    @property
    def until(self) -> float:
        """When that may be dropped, seconds since the epoch."""
        return self.moment + self.options.keep_days * _DAY

    @property
    def what(self) -> str:
        """What takes the database's place: a backup, or for an undo the old database."""
        return self.source.backup.name if self.source else self.incoming

    @property
    def rows(self) -> Mapping[str, int] | None:
        """The rows of what comes, by table, as far as they are known."""
        return self.source.rows if self.source else self.back_rows

    def differences(self) -> dict[str, dict[str, int | None]]:
        """The tables that have another number of rows than today's."""
        rows = self.rows
        if rows is not None and self.source and self.source.foreign:
            # such a file tells only which tables it has rows of, not which it makes
            rows = {**dict.fromkeys(self.today_rows or (), 0), **rows}
        return differences(rows, self.today_rows)

    def steps(self) -> list[str]:
        """The steps, in order."""
        load = ["create the new database", "load", "compare", "analyse"] if self.source else []
        stop, start = (["stop the writers"], ["start the writers"]) if self.writers else ([], [])
        return [*load, *stop, "swap the names", *start, "prove"]

    def diff(self) -> dict[str, str]:
        """Before and after."""
        told = _rows_of(self.today_rows) if self.today else "is not there"
        before = f"{self.database}: {told}\n" + (f"{self.incoming}: kept\n" if self.back else "")
        after = f"{self.database}: {_rows_of(self.rows)}, from {self.what}\n"
        if self.kept:
            after += f"{self.kept}: {told}, kept until {utc(self.until)}\n"
        return {"before": before, "after": after}


def differences(rows: Mapping[str, int] | None, others: Mapping[str, int] | None) -> dict[str, dict[str, int | None]]:
    """The tables with another number of rows here than there (None: no such table); none where one is not known."""
    if rows is None or others is None:
        return {}
    return {
        name: {"backup": rows.get(name), "today": others.get(name)}
        for name in sorted(set(rows) | set(others))
        if rows.get(name, 0) != others.get(name, 0)
    }


def _rows_of(rows: Mapping[str, int] | None) -> str:
    if rows is None:
        return "rows not counted"
    return f"{sum(rows.values())} rows of {len(rows)} tables"


def plan(
    stack: Stack, options: RestoreOptions, *, cancelled: Callable[[], bool], progress: Progress | None = None
) -> RestorePlan:
    """Look at everything that a restore needs; changes nothing.

    Raises:
        Mistaken: there is no kept database of that name.
        InvalidInput: there is no such backup, or it is not one.
        Refused: the server or the stack cannot have it restored as things are.
        OpsError: the database cannot be reached.
    """
    target, database = options.target, options.target.database
    if not options.undo and options.backup is None:
        find_source(options.directory, "", cancelled=cancelled)  # says which there are
    progress = progress or Progress()
    progress.phase("looking at the database and its backups")
    services = _services(stack, options)
    probes = tuple(_probes(stack, options))
    server = reach(stack, target)
    source = None
    if not options.undo:
        source = find_source(options.directory, str(options.backup), cancelled=cancelled, progress=progress)
        _refuse_of_another(source, options)
    moment = stack.clock.now()
    with contextlib.closing(connected(server.admin)) as session:
        names = {name for (name,) in session.run(["SELECT datname FROM pg_catalog.pg_database"])}
        kept = kept_databases(session, database)
        back = _to_take_back(options, kept) if options.undo else None
        _refuse_if_not_allowed(session, database, names)
        today = database_facts(server.admin.within(database)) if database in names else None
        properties = _properties(today, source)
        if source:
            _refuse_missing_roles(session, source, properties)
        warnings = _warnings(session, options, source, today, server)
        if source:
            properties = placed(session, properties, warnings)
        expired = [] if options.undo else _expired(server, database, moment, warnings)
        left = side_databases(session, database)
        room = sum(_size(session, name) for name in left)
    if options.undo and today is None:
        warnings.append(f"There is no database {database}: nothing is kept of it")
    needed = 0 if source is None else _needed(source, today, options, room)
    refuse_without_space(server.admin, server.container, needed, tablespace=properties.get("tablespace"))
    active, well = running(stack, services)
    warnings += _told_of_writers(services, active, well)
    progress.phase("counting today's rows")
    patience = Patience(stack.clock, cancelled, options.timeout)
    today_rows = counted(server.admin.within(database), warnings, patience) if today else {}
    back_rows = contents(server.admin.within(back.name), patience)[0] if back else {}
    return RestorePlan(
        options=options,
        ident=_free_ident(database, moment, names),
        server=server,
        today=today,
        today_rows=today_rows,
        source=source,
        back=back,
        back_rows=back_rows,
        properties=properties,
        writers=tuple(active),
        probes=probes,
        well=tuple(well),
        expired=tuple(expired),
        left=tuple(left),
        needed_bytes=needed,
        warnings=tuple(warnings),
        moment=moment,
    )


def _services(stack: Stack, options: RestoreOptions) -> list[str]:
    """The writers, by service."""
    services = list(dict.fromkeys(stack.resolve(name) for name in options.writers))
    if stack.resolve(options.target.service) in services:
        raise InvalidInput(f"{options.target.service} is the database itself, which must run while its name is swapped")
    return services


def _probes(stack: Stack, options: RestoreOptions) -> list[Probe]:
    """The deep health checks, by service; the default one only where there is such a service."""
    found = []
    for probe in options.probes:
        try:
            found.append(replace(probe, service=stack.resolve(str(probe.service))))
        except InvalidInput:
            if options.probes != (BRAIN_HEALTH,):
                raise
    return found


def _expired(server: Server, database: str, moment: float, warnings: list[str]) -> list[str]:
    """The kept databases to drop; none where the one in use cannot be looked into. (An undo drops none at all.)"""
    try:
        return expired_databases(server.admin, database, moment, warnings)
    except OpsError:
        return []


def _to_take_back(options: RestoreOptions, kept: list[Kept]) -> Kept:
    known = ", ".join(item.name for item in kept)
    before = [item for item in kept if not item.failed]
    if not before and (not kept or options.kept is None):
        raise Refused(
            f"There is nothing to undo: no database from before a restore of {options.target.database} is kept",
            hint=f"What a failed restore has left is taken with kept: {known}." if kept else None,
        )
    if options.kept is None:
        return before[0]  # one that has failed only comes back by its name
    found = next((item for item in kept if item.name == options.kept), None)
    if found is None:
        raise Mistaken(f"There is no kept database {options.kept}; there is: {known}")
    return found


def _refuse_if_not_allowed(session: Connection, database: str, names: set[str]) -> None:
    """What PostgreSQL would only say when the writers stand still."""
    [(superuser, creates, standby, owns)] = session.run(
        [
            "SELECT r.rolsuper, r.rolcreatedb, pg_catalog.pg_is_in_recovery(),"
            f" (SELECT pg_catalog.pg_has_role(datdba, 'MEMBER') FROM pg_catalog.pg_database WHERE datname ="
            f" {quote_literal(database)}) FROM pg_catalog.pg_roles r WHERE r.rolname = current_user"
        ]
    )
    if standby == "True":
        raise Refused("The server is a standby, which takes no change", hint="Restore on the primary.")
    if superuser != "True" and not (creates == "True" and (database not in names or owns == "True")):
        raise Refused(
            f"The role may not rename {database} and create another: it wants to own it, and have CREATEDB",
            hint="Name another role, or grant it that.",
        )
    prepared = session.run(
        [f"SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = {quote_literal(database)} ORDER BY 1"]
    )
    if prepared:
        raise Refused(
            f"{database} has prepared transactions, with which it cannot be renamed: "
            + ", ".join(gid for (gid,) in prepared),
            hint="Commit them or roll them back (COMMIT PREPARED, ROLLBACK PREPARED).",
        )


def _properties(today: Facts | None, source: Source | None) -> dict[str, Any]:
    """What the dump does not hold: the manifest's, else today's."""
    known = dict(today.properties) if today else {}
    made = dict(source.made.properties) if source else {}
    if made.get("encoding"):  # these go together
        for name in ("encoding", "collate", "ctype", "provider", "locale"):
            known.pop(name, None)
    return {**known, **made}


def _refuse_of_another(source: Source, options: RestoreOptions) -> None:
    """A backup of another database has another's tables, and titan-brain empties a database that is not whole."""
    made, database = source.made.database, options.target.database
    if made not in ("", database) and not options.partial:
        raise Refused(
            f"{source.backup.name} is a backup of another database, {made}, and not of {database}",
            hint="Name a backup of that one. If this is what you want, say partial=true.",
        )


def _refuse_missing_roles(session: Connection, source: Source, properties: Mapping[str, Any]) -> None:
    missing = missing_roles(session, properties)
    if missing:
        raise Refused(
            f"The server lacks roles that {source.backup.name} wants: {', '.join(missing)}",
            hint="Create them (CREATE ROLE ...), and run again.",
        )


def _size(session: Connection, name: str) -> int:
    [(size,)] = session.run([f"SELECT pg_catalog.pg_database_size({quote_literal(name)})"])
    return int(size)


def _needed(source: Source, today: Facts | None, options: RestoreOptions, room: int) -> int:
    size = max(today.size_bytes if today else 0, source.raw_bytes)
    return max(0, round(size * options.space_margin) - room)


def _free_ident(database: str, moment: float, names: set[str]) -> str:
    """The moment, or the next one after it of which there is no database yet."""
    while True:
        ident = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y%m%d%H%M%S")
        if not {side_name(database, ident), kept_name(database, ident), failed_name(database, ident)} & names:
            return ident
        moment += 1


def _warnings(
    session: Connection, options: RestoreOptions, source: Source | None, today: Facts | None, server: Server
) -> list[str]:
    warnings = []
    database = options.target.database
    if server.admin.password is None:
        warnings.append(f"The restore goes through the container's own socket. {server.admin.reason}")
    if source is not None:
        made = source.made
        if made.database not in ("", database):  # and partial was said
            warnings.append(f"{source.backup.name} is a backup of another database, {made.database}")
        if source.foreign:
            warnings.append(
                f"{source.backup.name} has no manifest: that it is whole is known from itself alone, and nothing tells "
                "which rows it ought to hold"
            )
        [(here,)] = session.run(["SELECT current_setting('server_version_num')"])
        there = re.match(r"\d+", made.server_version)
        if there and int(there[0]) > int(here) // 10000:
            warnings.append(f"{source.backup.name} comes from a newer server ({made.server_version})")
    slots = session.run(
        [f"SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = {quote_literal(database)} ORDER BY 1"]
    )
    if today and slots:
        told = ", ".join(name for (name,) in slots)
        warnings.append(f"Logical replication slots stay with the old database: {told}")
    return warnings


def _told_of_writers(services: list[str], active: list[str], well: list[str]) -> list[str]:
    warnings = [f"{name} does not run, and stays so" for name in services if name not in active]
    warnings += [f"{name} is not well now, and need not be after it" for name in active if name not in well]
    return warnings
