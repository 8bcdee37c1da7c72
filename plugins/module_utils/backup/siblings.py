# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The databases that a restore has beside the real one: the new one on its way, and old ones that are kept.

Each bears our mark as its comment; what has none is nobody's to drop.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.clock import parse_timestamp
from ..core.errors import OpsError
from ..database.login import Connection, connect
from ..database.psql import quote_ident, quote_literal
from .scratch import connected, create_statement, drop_database
from .session import RELATIONS, Way

__all__ = [
    "RESTORE",
    "Kept",
    "comment_statement",
    "create_side",
    "dress_side",
    "drop_expired",
    "drop_side",
    "drop_those",
    "expired_databases",
    "failed_name",
    "kept_databases",
    "kept_mark",
    "kept_name",
    "missing_roles",
    "own_comment",
    "side_databases",
    "side_mark",
    "side_name",
    "utc",
]

# The journal of a restore: while it is there, nobody else may drop any of them.
RESTORE = "db_restore"
_STEM = 38  # names have 63 bytes at most
_SIDE = "titan.ops: restore {id} of {database} under way; the next run drops this database"
_KEPT = (
    "titan.ops: {database} as it was before restore {id} of {what}; dropped after {until}, or with the next backup then"
)
_FAILED = (
    "titan.ops: {database} as left by the failed restore {id} of {what}; dropped after {until}, or with the next backup"
    " then"
)
_IS_KEPT = re.compile(
    r"titan\.ops: (?P<database>\S+) as (?:it was before|(?P<failed>left by the failed)) restore (?P<id>\d{14}) of "
    r"(?P<what>[^\n]+?); dropped after "
    r"(?P<until>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ), or with the next backup then(?:\n(?P<comment>.*))?",
    re.DOTALL,
)
_IS_SIDE = re.compile(
    r"titan\.ops: restore (?P<id>\d{14}) of (?P<database>\S+) under way; the next run drops this database"
)
# The letters of a grant (PostgreSQL 17 manual, table 5.1), as far as databases have them.
_PRIVILEGES = {"C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}
_GRANT = re.compile(r'(?P<grantee>"(?:[^"]|"")*"|[^"=]*)=(?P<letters>[A-Za-z*]*)/')
# Settings that are lists of names, each with quotes of its own (guc_tables.c, GUC_LIST_QUOTE).
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:,|$)')


@dataclass(frozen=True)
class Kept:
    """A database that is kept.

    Attributes:
        name: its name now.
        id: of the restore that it stood aside for, or that has made it.
        what: the backup that took its place, or, with "(an undo)" after it, the old database.
        until: when it may be dropped, seconds since the epoch.
        comment: its own.
        failed: it is what a restore has made that failed after the swap, with what was written into it meanwhile.
    """

    name: str
    id: str
    what: str
    until: float
    comment: str
    failed: bool = False


def utc(moment: float) -> str:
    """A moment as RFC 3339, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def side_name(database: str, ident: str) -> str:
    """What the new database is called until it takes the real one's place."""
    return f"{database[:_STEM]}__restore_{ident}"


def side_mark(database: str, ident: str) -> str:
    """Its mark until then."""
    return _SIDE.format(id=ident, database=database)


def kept_name(database: str, ident: str) -> str:
    """What the old one is called from then on."""
    return f"{database[:_STEM]}__before_{ident}"


def failed_name(database: str, ident: str) -> str:
    """What the new one is called from then on, where the old one got its name back."""
    return f"{database[:_STEM]}__failed_{ident}"


def kept_mark(database: str, ident: str, what: str, until: float, comment: str, *, failed: bool = False) -> str:
    """The mark of one that is kept, with its own comment, which it gets back with its name."""
    # a file's name need not be UTF-8, a comment must
    told = " ".join(what.split()).encode("utf-8", "backslashreplace").decode()
    mark = (_FAILED if failed else _KEPT).format(database=database, id=ident, what=told, until=utc(until))
    return f"{mark}\n{comment}" if comment else mark


def _comments(session: Connection) -> dict[str, str]:
    rows = session.run(
        [
            "SELECT datname, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '')"
            " FROM pg_catalog.pg_database ORDER BY 1"
        ]
    )
    return {row[0]: row[1] for row in rows}


def kept_databases(session: Connection, database: str) -> list[Kept]:
    """The databases that are kept, newest first."""
    found = []
    for name, comment in _comments(session).items():
        mark = _IS_KEPT.fullmatch(comment)
        if mark is None or mark["database"] != database:
            continue
        failed = mark["failed"] is not None
        if name == (failed_name if failed else kept_name)(database, mark["id"]):
            until = parse_timestamp(mark["until"]) or 0.0
            found.append(Kept(name, mark["id"], mark["what"], until, mark["comment"] or "", failed))
    return sorted(found, key=lambda item: item.id, reverse=True)


def side_databases(session: Connection, database: str) -> list[str]:
    """Databases that interrupted restores have left on their way.

    By mark and name: one that somebody has renamed since, mark and all, may be the one in use.
    """
    found = []
    for name, comment in _comments(session).items():
        mark = _IS_SIDE.fullmatch(comment)
        if mark and mark["database"] == database and name == side_name(database, mark["id"]):
            found.append(name)
    return found


def own_comment(text: str) -> str:
    """A database's comment without our marks, which stay with it when somebody renames it by hand."""
    while True:
        mark = _IS_KEPT.fullmatch(text)
        if mark is None:
            return "" if _IS_SIDE.fullmatch(text) else text
        text = mark["comment"] or ""


def drop_side(admin: Way, database: str, ident: str) -> bool:
    """Drop the new database of one restore, if it is there and ours; whether it was.

    Raises:
        OpsError: the server does not let us.
    """
    name = side_name(database, ident)
    session = connected(admin)
    try:
        comment = _comments(session).get(name)
    finally:
        session.close()
    # without any comment: killed before it got the mark
    if comment is None or comment not in ("", side_mark(database, ident)):
        return False
    drop_database(admin, name)
    return True


def drop_expired(admin: Way, database: str, moment: float) -> list[str]:
    """Drop the old databases whose time is over, as long as their successor is there and holds a row.

    Raises:
        OpsError: the server does not let us.
    """
    expired = expired_databases(admin, database, moment)
    for name in expired:
        drop_database(admin, name)
    return expired


def drop_those(admin: Way, database: str, names: Sequence[str], moment: float, warnings: list[str]) -> list[str]:
    """Drop the old databases of these names, as ``drop_expired`` does; gives those that went, and warns of others."""
    dropped: list[str] = []
    try:
        going = expired_databases(admin, database, moment, warnings) if names else []
    except OpsError as exc:
        warnings.append(f"{', '.join(names)} stays, for whether it may go cannot be told: {exc.msg}")
        return dropped
    for name in (name for name in names if name in going):
        try:
            drop_database(admin, name)
            dropped.append(name)
        except OpsError as exc:
            warnings.append(f"The database {name} could not be dropped, although its time is over: {exc.msg}")
    return dropped


def expired_databases(admin: Way, database: str, moment: float, warnings: list[str] | None = None) -> list[str]:
    """The old databases that may be dropped; ``warnings`` is told when they stay because their successor has no row."""
    session = connected(admin)
    try:
        expired = [item.name for item in kept_databases(session, database) if item.until <= moment]
        there = database in _comments(session)
    finally:
        session.close()
    if not expired or not there:
        return []
    if _holds_a_row(admin, database):
        return sorted(expired)
    if warnings is not None:
        told = ", ".join(sorted(expired))
        warnings.append(
            f"No table of {database} is known to hold a row, so that {told} stays, although its time is over"
        )
    return []


def _holds_a_row(admin: Way, database: str) -> bool:
    """Whether a row is found in any table; one that cannot be read, or not now, is none in which there is one."""
    session = connect(admin.within(database).endpoint, admin.password or "")
    try:
        tables = f"{RELATIONS} AND c.relkind = 'r'"
        names = session.run([f"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM {tables}"])
        session.run(["SET statement_timeout = '10s'"])  # who waits for a lock waits no longer, either
        for (name,) in names:
            with contextlib.suppress(OpsError):
                if session.run([f"SELECT 1 FROM {name} LIMIT 1"]):
                    return True
        return False
    finally:
        session.close()


def missing_roles(session: Connection, properties: Mapping[str, Any]) -> list[str]:
    """The roles that a database's properties name and the server lacks."""
    wanted = {str(properties.get("owner") or ""), *(properties.get("settings") or {})}
    wanted |= {grantee for grantee, _letters in _grants(properties)}
    there = {name for (name,) in session.run(["SELECT rolname FROM pg_catalog.pg_roles"])}
    return sorted(wanted - there - {""})


def create_side(admin: Way, database: str, ident: str, properties: Mapping[str, Any]) -> Way:
    """Create the new database, empty, and mark it; gives the way into it.

    Raises:
        OpsError: the server does not let us.
    """
    name = side_name(database, ident)
    owner = str(properties.get("owner") or admin.endpoint.role)
    session = connected(admin)
    try:
        session.run([create_statement(name, properties, owner)])
        session.run([comment_statement(name, side_mark(database, ident))])
    finally:
        session.close()
    return admin.within(name)


def dress_side(admin: Way, database: str, ident: str, properties: Mapping[str, Any]) -> None:
    """Give the new database the settings, grants and connection limit, which a dump does not hold.

    After it was loaded: a limit or a time-out that is meant for services may not be fit for that.

    Raises:
        OpsError: the server does not let us.
    """
    name = side_name(database, ident)
    owner = str(properties.get("owner") or admin.endpoint.role)
    session = connected(admin)
    try:
        session.run([*_settings(name, properties), *_granted(name, owner, properties), "SELECT 1"])
    finally:
        session.close()


def comment_statement(name: str, text: str) -> str:
    """COMMENT ON DATABASE; without a text it loses its comment."""
    return f"COMMENT ON DATABASE {quote_ident(name)} IS {quote_literal(text) if text else 'NULL'}"


def _settings(name: str, properties: Mapping[str, Any]) -> list[str]:
    statements = []
    for role, values in (properties.get("settings") or {}).items():
        whom = f"ROLE {quote_ident(role)} IN DATABASE {quote_ident(name)}" if role else f"DATABASE {quote_ident(name)}"
        for entry in values or ():
            setting, _separator, value = entry.partition("=")
            items = [(quoted or plain).replace('""', '"') for quoted, plain in _ITEM.findall(value)]
            if setting.lower() in _LISTS:
                text = ", ".join(quote_literal(item) for item in items if item) or "''"
            else:
                text = quote_literal(value)
            statements.append(
                f"ALTER {whom} SET {'.'.join(quote_ident(part) for part in setting.split('.'))} TO {text}"
            )
    limit = properties.get("connection_limit", -1)
    if isinstance(limit, int) and limit >= 0:
        statements.append(f"ALTER DATABASE {quote_ident(name)} CONNECTION LIMIT {limit}")
    return statements


def _grants(properties: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who ("" for everybody) was granted which letters."""
    found = []
    for entry in properties.get("grants") or ():
        match = _GRANT.match(str(entry))
        if match is None:
            raise OpsError(f"The grant {entry!r} of the manifest cannot be read")
        grantee = match["grantee"]
        found.append((grantee[1:-1].replace('""', '"') if grantee.startswith('"') else grantee, match["letters"]))
    return found


def _granted(name: str, owner: str, properties: Mapping[str, Any]) -> list[str]:
    if properties.get("grants") is None:  # as PostgreSQL has them by default
        return []
    quoted = quote_ident(name)
    statements = [f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC, {quote_ident(owner)}"]
    for grantee, letters in _grants(properties):
        whom = quote_ident(grantee) if grantee else "PUBLIC"
        for letter, star in re.findall(r"([A-Za-z])(\*?)", letters):
            if letter in _PRIVILEGES:
                option = " WITH GRANT OPTION" if star else ""
                statements.append(f"GRANT {_PRIVILEGES[letter]} ON DATABASE {quoted} TO {whom}{option}")
    return statements
