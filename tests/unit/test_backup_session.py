# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sessions of backups and restores say to the server, and what of it only servers newer than this one mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import compare, scratch, session
from ansible_collections.titan.ops.plugins.module_utils.backup.session import UNLIMITED, Way
from ansible_collections.titan.ops.plugins.module_utils.database.login import Connection, Endpoint, Row, connect
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD
from ansible_collections.titan.ops.tests.unit.test_backup_create import SCHEMA

pytest.importorskip("psycopg2")


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    with postgres.running() as made:
        quoted = PASSWORD.replace("'", "''")
        made.sql(f"CREATE ROLE titan LOGIN SUPERUSER PASSWORD '{quoted}'")
        made.sql("CREATE DATABASE titan_brain OWNER titan")
        made.sql("SET ROLE titan", *SCHEMA, database="titan_brain")
        yield made


@pytest.fixture
def way(server: postgres.Postgres) -> Way:
    return Way(Endpoint("titan-postgres", "127.0.0.1", server.port, "titan_brain", "titan"), PASSWORD)


@pytest.fixture
def opened(way: Way) -> Iterator[Connection]:
    with contextlib.closing(connect(way.endpoint, PASSWORD)) as made:
        yield made


def counting(way: Way) -> None:
    with session.open_session(way) as (counted, _snapshot):
        session.counts(counted)


def statements(server: postgres.Postgres, does: Callable[[], object]) -> list[str]:
    """What the server is told meanwhile."""
    before = len(server.log())
    does()
    return [line.partition("statement: ")[2] for line in server.log()[before:].splitlines() if "statement: " in line]


@pytest.mark.parametrize("asks", [counting, session.database_facts, compare.contents, compare.own_rows])
def test_every_session_that_may_take_its_time_lifts_all_timeouts_before_it_does(
    server: postgres.Postgres, way: Way, asks: Callable[[Way], object]
) -> None:
    """A database or a role may set them for its services; transaction_timeout is there from PostgreSQL 17 on."""
    said = statements(server, lambda: asks(way))
    work = min(number for number, text in enumerate(said) if " FROM pg_catalog.pg_class" in text or "_size(" in text)
    # better an error than the number of those rows that somebody may see
    assert {UNLIMITED, "SET statement_timeout = 0", "SET lock_timeout = '60s'", "SET row_security = off"} <= set(
        said[:work]
    )


def test_so_does_one_that_creates_drops_and_analyses(server: postgres.Postgres, way: Way) -> None:
    said = statements(server, lambda: scratch.connected(way).close())
    assert {UNLIMITED, "SET statement_timeout = 0"} <= set(said)


def test_the_timeout_of_newer_servers_is_lifted_where_there_is_one_and_no_error_where_there_is_none(
    server: postgres.Postgres, opened: Connection
) -> None:
    [(version,)] = opened.run(["SHOW server_version_num"])
    # before 17, a timeout that this server has stands for the one that it lacks
    newer = int(version) >= 170000
    name = "transaction_timeout" if newer else "statement_timeout"
    opened.run([f"SET {name} = '7min'"])
    if not newer:
        assert opened.run([UNLIMITED]) == []
        assert opened.run([f"SHOW {name}"]) == [("7min",)]
    assert opened.run([UNLIMITED.replace("transaction_timeout", name)]) == [("0",)]
    assert opened.run([f"SHOW {name}"]) == [("0",)]


def test_the_icu_rules_of_newer_servers_are_noted_and_made_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """They came with PostgreSQL 16."""
    run = Connection.run

    def newer(self: Connection, asked: Sequence[str]) -> list[Row]:
        more = """'{"daticurules": "&a < b''c", "datlocprovider": "i", "daticulocale": "de"}'::jsonb"""
        record = "pg_catalog.to_jsonb(d)"
        return run(self, [text.replace(record, f"({record} || {more})") for text in asked])

    monkeypatch.setattr(Connection, "run", newer)
    properties = session.database_facts(way).properties
    assert properties["icu_rules"] == "&a < b'c"
    made = scratch.create_statement("new", properties, "titan")
    assert " LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&a < b''c'" in made


def test_a_not_null_is_no_constraint_that_is_counted_for_only_newer_servers_have_it_as_one(
    opened: Connection,
) -> None:
    """Or a backup of an older server would not be what its manifest says on a newer one, and the other way round."""
    opened.run(["BEGIN", "CREATE TABLE strict (id int NOT NULL, CONSTRAINT positive CHECK (id > 0))"])
    try:
        with_check = session.objects(opened)["constraints"]
        # as PostgreSQL 18 has it in its catalogue
        opened.run(
            [
                "ALTER TABLE strict ADD CONSTRAINT strict_id_not_null CHECK (id IS NOT NULL)",
                "UPDATE pg_catalog.pg_constraint SET contype = 'n' WHERE conname = 'strict_id_not_null'",
            ]
        )
        listed = opened.run(["SELECT contype FROM pg_catalog.pg_constraint WHERE conrelid = 'strict'::regclass"])
        assert {("n",), ("c",)} <= set(listed)
        assert session.objects(opened)["constraints"] == with_check
    finally:
        opened.run(["ROLLBACK"])
    # the one that is no NOT NULL does count
    assert session.objects(opened)["constraints"] == with_check - 1
