# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A database beside the real one, into which a backup is restored; always dropped again."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..compose.container import Container
from ..core.errors import OpsError, Refused
from ..database.login import Connection, connect
from ..database.psql import quote_ident, quote_literal
from .session import RELATIONS, UNLIMITED, Way

__all__ = [
    "connected",
    "create_statement",
    "drop_database",
    "drop_leftovers",
    "leftovers",
    "placed",
    "refuse_without_space",
    "scratch_database",
    "scratch_name",
    "sizes",
]

# The mark of a database that is ours to drop.
_COMMENT = "titan.ops: a backup restored for a drill; dropped at its end"
_NAME = re.compile(r"(.+)__verify_[0-9a-f]{8}")


@contextlib.contextmanager
def scratch_database(way: Way, name: str, properties: Mapping[str, Any], warnings: list[str]) -> Iterator[Way]:
    """Create the database; gives the way into it. Afterwards it is gone, or there is a warning.

    Args:
        way: how to log in to the real one.
        name: its name.
        properties: encoding, locale and owner, as in a manifest.
        warnings: is told when it cannot be dropped.

    Raises:
        OpsError: the server does not let us.
    """
    session = connected(way)
    try:
        properties = placed(session, properties, warnings)
        session.run([create_statement(name, properties, _owner(session, way, properties))])
        try:
            session.run([f"COMMENT ON DATABASE {quote_ident(name)} IS {quote_literal(_COMMENT)}"])
            yield replace(way, endpoint=replace(way.endpoint, database=name))
        finally:
            try:
                drop_database(way, name)
            except OpsError as exc:  # whatever has failed before must not be hidden by this
                warnings.append(
                    f"The scratch database {name}, a copy of {way.endpoint.database}, could not be dropped, and takes"
                    f" its space until the next drill drops it: {exc.msg}"
                )
    finally:
        session.close()


def scratch_name(database: str) -> str:
    """A name that no other database has."""
    return f"{_stem(database)}__verify_{secrets.token_hex(4)}"


def _stem(database: str) -> str:
    return database[:40]  # names have 63 bytes at most


def sizes(way: Way, names: Iterable[str]) -> int:
    """How many bytes databases take."""
    session = connected(way)
    try:
        found = [session.run([f"SELECT pg_catalog.pg_database_size({quote_literal(name)})"]) for name in names]
    finally:
        session.close()
    return sum(int(rows[0][0]) for rows in found)


def leftovers(way: Way) -> list[str]:
    """The scratch databases that killed drills have left."""
    session = connected(way)
    try:
        return _marked(session, way)
    finally:
        session.close()


def drop_leftovers(way: Way, warnings: list[str]) -> list[str]:
    """Drop what killed drills have left; gives the names of what went, and warns of what did not."""
    dropped = []
    for name in leftovers(way):
        try:
            drop_database(way, name)
            dropped.append(name)
        except OpsError as exc:  # no reason not to try another backup
            warnings.append(f"The scratch database {name} of an earlier drill could not be dropped: {exc.msg}")
    return dropped


def refuse_without_space(
    way: Way, container: Container, needed: int, left: Iterable[str] = (), *, tablespace: str | None = None
) -> None:
    """Refuse a restore that would fill the server's disk, where that can be told from here.

    Args:
        way: how to log in.
        container: the server's.
        needed: bytes that it may take.
        left: databases of killed drills, which are dropped before it.
        tablespace: where it is restored, if the server has that.

    Raises:
        Refused: there is not so much free.
    """
    session = connected(way)
    try:
        [(directory, superuser)] = session.run(
            [
                "SELECT CASE WHEN current_setting('is_superuser') = 'on' THEN coalesce(nullif((SELECT"
                " pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace WHERE spcname ="
                f" {quote_literal(tablespace or '')}), ''), current_setting('data_directory')) END,"
                " current_setting('is_superuser')"
            ]
        )
    finally:
        session.close()
    place = f"/proc/{container.pid}/root{directory}"
    if superuser != "on" or not os.path.isdir(place):
        return
    there = os.statvfs(place)
    free = there.f_bavail * there.f_frsize
    names = list(left)
    room = sizes(way, names)
    if free + room < needed:
        there_is = f"{free / 1e6:.1f} MB free"
        how = "Free some space"
        if names:
            there_is += f", and {room / 1e6:.1f} MB more without what a killed drill has left ({', '.join(names)})"
            how += " (what was left may go: DROP DATABASE)"
        raise Refused(
            f"The database's disk has {there_is}, and a second copy of it may take {needed / 1e6:.1f} MB",
            hint=f"{how}, or ask for less with space_margin.",
        )


def _marked(session: Connection, way: Way) -> list[str]:
    """Databases with our mark, and empty ones with such a name: a drill was killed before it could set the mark."""
    rows = session.run(
        [
            "SELECT datname, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '')"
            " FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"
        ]
    )
    stem = _stem(way.endpoint.database)
    ours = [(name, mark) for name, mark in rows if (match := _NAME.fullmatch(name)) and match[1] == stem]
    return [name for name, mark in ours if mark == _COMMENT or (not mark and _empty(way, name))]


def _empty(way: Way, name: str) -> bool:
    session = connect(replace(way.endpoint, database=name), way.password or "")
    try:
        return session.run([f"SELECT 1 FROM {RELATIONS} LIMIT 1"]) == []
    finally:
        session.close()


def _owner(session: Connection, way: Way, properties: Mapping[str, Any]) -> str:
    wanted = str(properties.get("owner") or way.endpoint.role)
    found = session.run([f"SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {quote_literal(wanted)}"])
    return wanted if found else way.endpoint.role


def placed(session: Connection, properties: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The properties with a tablespace that this server has: the backup may come from another one."""
    wanted = properties.get("tablespace")
    there = session.run([f"SELECT 1 FROM pg_catalog.pg_tablespace WHERE spcname = {quote_literal(str(wanted))}"])
    if wanted is None or there:
        return dict(properties)
    warnings.append(f"The server has no tablespace {wanted}, so that the new database has the default one")
    return {**properties, "tablespace": None}


def create_statement(name: str, properties: Mapping[str, Any], owner: str) -> str:
    """CREATE DATABASE with the same encoding and locale (PostgreSQL 17 manual, CREATE DATABASE)."""
    text = f"CREATE DATABASE {quote_ident(name)} TEMPLATE template0 OWNER {quote_ident(owner)}"
    for word, key in (("ENCODING", "encoding"), ("LC_COLLATE", "collate"), ("LC_CTYPE", "ctype")):
        if properties.get(key):
            text += f" {word} {quote_literal(str(properties[key]))}"
    provider = properties.get("provider")
    if provider == "i" and properties.get("locale"):
        text += f" LOCALE_PROVIDER icu ICU_LOCALE {quote_literal(str(properties['locale']))}"
        if properties.get("icu_rules"):
            text += f" ICU_RULES {quote_literal(str(properties['icu_rules']))}"
    elif provider == "b" and properties.get("locale"):
        text += f" LOCALE_PROVIDER builtin BUILTIN_LOCALE {quote_literal(str(properties['locale']))}"
    if properties.get("tablespace") not in (None, "pg_default"):
        text += f" TABLESPACE {quote_ident(str(properties['tablespace']))}"
    return text


def drop_database(way: Way, name: str) -> None:
    """Drop a database, whoever is in it; nothing there is fine.

    Raises:
        OpsError: the server does not let us.
    """
    # By hand in place of WITH (FORCE), which came with PostgreSQL 13.
    statements = [
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        f" WHERE datname = {quote_literal(name)} AND pid <> pg_catalog.pg_backend_pid()",
        f"DROP DATABASE IF EXISTS {quote_ident(name)}",
    ]
    session = connected(way)
    try:
        try:
            session.run(statements)
        except OpsError:
            if not _unsubscribed(session, way, name):
                raise
            session.run(statements)
    finally:
        session.close()


def _unsubscribed(session: Connection, way: Way, name: str) -> bool:
    """Drop the database's subscriptions, with which it cannot be dropped, and leave the publisher's slots alone.

    A restored one has the slot of the database that was dumped, which goes on with it.

    Returns:
        Whether there were any.
    """
    rows = session.run(
        [
            "SELECT s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid"
            f" WHERE d.datname = {quote_literal(name)}"
        ]
    )
    if rows:
        with contextlib.closing(connected(way.within(name))) as inside:
            for (subscription,) in rows:
                quoted = quote_ident(subscription)
                alter = f"ALTER SUBSCRIPTION {quoted}"
                inside.run([f"{alter} DISABLE", f"{alter} SET (slot_name = NONE)", f"DROP SUBSCRIPTION {quoted}"])
    return bool(rows)


def connected(way: Way) -> Connection:
    """A session for statements that may take their time.

    Raises:
        OpsError: the server does not let us in.
    """
    session = connect(way.endpoint, way.password or "")
    session.run([UNLIMITED, "SET standard_conforming_strings = on", "SET statement_timeout = 0"])
    return session
