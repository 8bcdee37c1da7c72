# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session of the database whose snapshot a dump shares: what the dump must hold is counted in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..compose.container import Container
from ..compose.dotenv import parse
from ..compose.project import StackOptions, secrets_file
from ..core.errors import InvalidInput, OpsError, Refused
from ..core.files import read_regular
from ..database.login import Connection, Endpoint, LoginFailed, connect
from .options import Database

__all__ = [
    "RELATIONS",
    "Facts",
    "Way",
    "counts",
    "database_facts",
    "find_way",
    "locate_server",
    "objects",
    "open_session",
    "own_counts",
]

# Where servers keep their socket, in a container's own file system (/var/run is a link there, which would lead astray
# from outside). Sorted by how common they are.
_SOCKETS = ("run/postgresql", "tmp", "var/run/postgresql")
_SYSTEM = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
# What an extension brings is not dumped.
_OWN = (
    "NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
    " WHERE d.classid = '{}'::pg_catalog.regclass AND d.objid = {} AND d.deptype = 'e')"
)
RELATIONS = (
    "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE {_SYSTEM} AND c.relpersistence <> 't' AND {_OWN.format('pg_catalog.pg_class', 'c.oid')}"
)
_KINDS = {"r": "tables", "p": "partitioned tables", "i": "indexes", "I": "partitioned indexes", "S": "sequences"}
_KINDS.update({"v": "views", "m": "materialized views", "f": "foreign tables", "c": "composite types"})
# The one timeout that PostgreSQL has from 17 on only; a database or a role may set it.
UNLIMITED = (
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"
)
_SETTINGS = (
    "SET statement_timeout = 0",
    "SET lock_timeout = '60s'",
    "SET idle_in_transaction_session_timeout = 0",
    # Better an error than a count of some of the rows.
    "SET row_security = off",
    "SET standard_conforming_strings = on",
    "SET search_path = ''",
    UNLIMITED,
)


@dataclass(frozen=True)
class Way:
    """How to log in: ``password`` is None where the container's own socket lets us in without one."""

    endpoint: Endpoint
    password: str | None
    reason: str = ""

    def within(self, database: str) -> Way:
        """The same way into another database of the server."""
        return replace(self, endpoint=replace(self.endpoint, database=database))


@dataclass(frozen=True)
class Facts:
    """What a database is; ``properties`` and ``extensions`` as in a manifest."""

    server_version: str
    version_num: int
    size_bytes: int
    properties: Mapping[str, Any]
    extensions: Mapping[str, str]


def locate_server(containers: list[Container], service: str) -> Container:
    """The container of a server, by service or container name.

    Raises:
        InvalidInput: there is none, or it does not run.
    """
    named = [item for item in containers if service in (item.service, item.name)]
    running = [item for item in named if item.status == "running"]
    if running:
        return running[0]
    if named:
        raise Refused(
            f"The database {service} does not run: its container is {named[0].status}", hint="Start it first."
        )
    known = ", ".join(sorted({str(item.service) for item in containers})) or "none at all"
    raise InvalidInput(f"The stack has no container of a service {service}; it has: {known}")


def find_way(container: Container, target: Database, options: StackOptions) -> Way:
    """How the database lets us in: with the env file's password, else through the container's socket.

    A backup must be had even when the file's password is not the role's any more.

    Raises:
        OpsError: neither way is open; the message says why for each.
    """
    password, trouble = _password(target, options)
    if password is not None:
        way = Way(Endpoint(container.name, *_reachable(container, target), target.database, target.role), password)
        try:
            connect(way.endpoint, password).close()
            return way
        except LoginFailed as exc:
            trouble = exc.msg
    tried = []
    for place in _SOCKETS:
        path = f"/proc/{container.pid}/root/{place}"
        endpoint = Endpoint(container.name, path, target.port, target.database, target.role)
        try:
            connect(endpoint, "").close()
            return Way(endpoint, None, trouble)
        except LoginFailed as exc:
            if "No such file or directory" not in exc.msg:
                tried.append(exc.msg)
    raise OpsError(
        f"{trouble}. Neither does the container's own socket: {'; '.join(tried) or 'there is none'}",
        state="Nothing was changed.",
        hint=f"Put the right password into {target.env_file} as {target.key}, or set it anew with "
        "rotate_db_password.yml -e recover=true.",
    )


def _password(target: Database, options: StackOptions) -> tuple[str | None, str]:
    """The env file's password, or why there is none."""
    try:
        path = secrets_file(options.project_src, target.env_file)
        values = parse(read_regular(path, what="env file").data).resolve()
    except InvalidInput as exc:
        return None, exc.msg
    if not values.get(target.key):
        return None, f"The env file {path} does not set {target.key}"
    return values[target.key], ""


def _reachable(container: Container, target: Database) -> tuple[str, int]:
    """The container's own address, else where the host publishes its port."""
    if target.host:
        return target.host, target.port
    if container.addresses:
        return container.addresses[0], target.port
    for item in container.ports:
        if item.container_port == target.port and item.host_port:
            return (item.host_ip if item.host_ip not in (None, "0.0.0.0", "::") else "127.0.0.1"), item.host_port
    return container.address or "127.0.0.1", target.port


@contextlib.contextmanager
def open_session(way: Way) -> Iterator[tuple[Connection, str]]:
    """A session with an exported snapshot, and its name; the snapshot lives as long as the session.

    Raises:
        OpsError: the server does not let us.
    """
    session = connect(way.endpoint, way.password or "")
    try:
        # What is counted here competes with the dump, and with the traffic, for one core at most.
        alone = "SET max_parallel_workers_per_gather = 0"
        session.run([*_SETTINGS, alone, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"])
        [(snapshot,)] = session.run(["SELECT pg_catalog.pg_export_snapshot()"])
        yield session, snapshot
    finally:
        session.close()


def database_facts(way: Way) -> Facts:
    """What the database is, its size, and what a dump of it does not hold.

    Raises:
        OpsError: the server does not let us.
    """
    session = connect(way.endpoint, way.password or "")
    try:
        return _facts(session)
    finally:
        session.close()


def _facts(session: Connection) -> Facts:
    session.run([*_SETTINGS])
    [row] = session.run(
        [
            "SELECT current_setting('server_version'), current_setting('server_version_num'),"
            " pg_catalog.pg_database_size(d.oid)::text, pg_catalog.to_jsonb(d)::text,"
            " pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),"
            " coalesce(pg_catalog.shobj_description(d.oid, 'pg_database'), ''),"
            " (SELECT t.spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = d.dattablespace)"
            " FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
        ]
    )
    settings = session.run(
        [
            "SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole) END,"
            " pg_catalog.to_jsonb(s.setconfig)::text FROM pg_catalog.pg_db_role_setting s"
            " JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase"
            " WHERE d.datname = pg_catalog.current_database() ORDER BY 1"
        ]
    )
    extensions = session.run(["SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1"])
    record = json.loads(row[3])
    properties = {
        "owner": row[4],
        "encoding": row[5],
        "collate": record.get("datcollate"),
        "ctype": record.get("datctype"),
        "provider": record.get("datlocprovider"),
        # called daticulocale before PostgreSQL 17
        "locale": record.get("datlocale", record.get("daticulocale")),
        "icu_rules": record.get("daticurules"),
        "tablespace": row[7],
        "grants": record.get("datacl"),
        "settings": {role: json.loads(text) for role, text in settings},
        "comment": row[6],
        "connection_limit": record.get("datconnlimit", -1),
    }
    return Facts(row[0], int(row[1]), int(row[2]), properties, {row[0]: row[1] for row in extensions})


def own_counts(session: Connection) -> dict[str, int]:
    """As ``counts``, for the tables that others inherit from, without those: what COPY writes of them."""
    parents = "EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)"
    return _counted(session, f"c.relkind = 'r' AND {parents}", "ONLY ")


def counts(session: Connection) -> dict[str, int]:
    """The rows of every table (of a partitioned one: of its partitions), by quoted name.

    Views and what can be computed again are not data.
    """
    return _counted(session, "c.relkind = 'r'")


def _counted(session: Connection, which: str, only: str = "") -> dict[str, int]:
    names = session.run([f"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM {RELATIONS} AND {which}"])
    found: dict[str, int] = {}
    for (name,) in sorted(names):
        [(rows,)] = session.run([f"SELECT pg_catalog.count(*) FROM {only}{name}"])
        found[name] = int(rows)
    return found


def objects(session: Connection) -> dict[str, int]:
    """How many objects of each kind there are, as far as a dump holds them."""
    kinds = session.run([f"SELECT c.relkind::text, pg_catalog.count(*) FROM {RELATIONS} GROUP BY 1"])
    found = {_KINDS[kind]: int(number) for kind, number in kinds if kind in _KINDS}
    for what, table, namespace, condition in (
        # NOT NULL is a constraint with a row of its own from PostgreSQL 18 on only.
        ("constraints", "pg_constraint", "connamespace", "o.contype <> 'n'"),
        ("functions", "pg_proc", "pronamespace", "true"),
        ("types", "pg_type", "typnamespace", "o.typtype IN ('d', 'e', 'r')"),
    ):
        own = _OWN.format(f"pg_catalog.{table}", "o.oid")
        [(number,)] = session.run(
            [
                f"SELECT pg_catalog.count(*) FROM pg_catalog.{table} o JOIN pg_catalog.pg_namespace n"
                f" ON n.oid = o.{namespace} WHERE {_SYSTEM} AND {own} AND {condition}"
            ]
        )
        found[what] = int(number)
    for what, table in (("triggers", "pg_trigger"), ("policies", "pg_policy")):
        column = {"pg_trigger": "tgrelid", "pg_policy": "polrelid"}[table]
        internal = " AND NOT o.tgisinternal" if table == "pg_trigger" else ""
        [(number,)] = session.run(
            [
                f"SELECT pg_catalog.count(*) FROM pg_catalog.{table} o WHERE o.{column} IN"
                f" (SELECT c.oid FROM {RELATIONS}){internal}"
            ]
        )
        found[what] = int(number)
    return {what: number for what, number in sorted(found.items()) if number}
