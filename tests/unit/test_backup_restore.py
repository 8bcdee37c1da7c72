# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores on a real PostgreSQL server: proved and swapped in, or nothing has happened; wherever a run is killed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import (
    create,
    exchange,
    manifest,
    restore,
    scratch,
    siblings,
    swap,
    writers,
)
from ansible_collections.titan.ops.plugins.module_utils.backup.restore_options import RestoreOptions, restore_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.sqlscan import Scanner
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects
from ansible_collections.titan.ops.plugins.module_utils.compose.project import Project, StackOptions
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Mistaken, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.core.journal import Journal
from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.fakes import FakeCli, container
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD, Place, SidecarEngine
from ansible_collections.titan.ops.tests.unit.test_backup_create import SCHEMA
from ansible_collections.titan.ops.tests.unit.test_backup_progress import Recorder

pytest.importorskip("psycopg2")

BRAIN = "titan-brain"
DATABASES = ["postgres", "template0", "template1", "titan_brain"]


class Killed(BaseException):
    """SIGKILL: nothing catches it."""


class ServiceEngine(SidecarEngine):
    """Sidecars that run, and services that are started and stopped."""

    def start(self, container: str) -> None:
        if container in self._bodies:
            super().start(container)
            return
        found = self._find(container)
        self._answer("start", found.name)
        self.change(found.name, status="running", started_at=Clock().now())

    def stop(self, container: str, *, timeout: float) -> None:
        found = self._find(container)
        self._answer("stop", found.name, timeout)
        self.change(found.name, status="exited")

    def start_together(self, containers: Sequence[str]) -> None:
        for name in containers:
            self.start(name)

    def stop_together(self, containers: Mapping[str, float]) -> None:
        for name, grace in containers.items():
            self.stop(name, timeout=grace)

    def inspect_raw(self, container: str) -> dict[str, Any]:
        return {"Config": {"StopTimeout": 7}}

    def answers(self) -> bool:
        return True

    def logs(self, container: str, *, tail: int) -> list[str]:
        return super().logs(container, tail=tail) if container in self.processes else []


class Site(Place):
    """A place with a stack: brain writes into the database, and is healthy unless ``sick`` says otherwise."""

    def __init__(self, made: postgres.Postgres, src: Path) -> None:
        super().__init__(made, src)
        self.engine = self.services = ServiceEngine(made, src)
        self.services.put(
            container(BRAIN, health="healthy", labels={"com.docker.compose.project.working_dir": str(src)})
        )
        engine: Any = self.engine
        self.effects = Effects(engine, "unix:///nowhere", Clock(), run_dir=str(src / "run"))

    def open(self) -> Stack:
        engine: Any = self.engine
        cli: Any = FakeCli({"titan-postgres": {}, BRAIN: {}})
        project = Project(src=str(self.src), name="titan-prod", files=(), env_files=())
        return Stack(StackOptions(project_src=str(self.src)), project, cli=cli, engine=engine, clock=Clock())

    def asked(self, **changes: Any) -> RestoreOptions:
        params = {name: item.get("default") for name, item in restore_spec().items()}
        given = {"port": self.server.port, "probes": [], "health_timeout": 3.0, "space_margin": 0.0, **changes}
        return RestoreOptions.from_params({**params, **given}, str(self.src))

    def restore(self, name: str | None = None, *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        options = self.asked(backup=name, **{"confirm": "titan_brain", **changes})
        return restore.restore(self.open(), options, self.effects, check_mode=check_mode)

    def journal(self) -> Journal:
        return Journal(str(self.src / "state"), restore.JOURNAL)

    def databases(self) -> list[str]:
        return self.server.sql("SELECT datname FROM pg_database ORDER BY 1").split()

    def kept(self) -> list[str]:
        return [name for name in self.databases() if "__before_" in name]

    def failed(self) -> list[str]:
        return [name for name in self.databases() if "__failed_" in name]

    def brain(self) -> list[str]:
        """What was done with brain."""
        return [call[0] for call in self.services.calls if call[1] == BRAIN]

    def rows(self, database: str = "titan_brain") -> str:
        return self.server.sql("SELECT count(*) FROM orders", database=database)

    def left(self) -> list[str]:
        return [name for name in super().left() if name != BRAIN]

    def whole(self) -> None:
        """Nothing is left of any run."""
        assert self.left() == []
        assert not self.journal().load()
        assert self.services.inspect(BRAIN).status == "running"  # type: ignore[union-attr]
        assert not [name for name in self.databases() if "__restore_" in name]


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: backups are root's")
    with postgres.running() as made:
        quoted = PASSWORD.replace("'", "''")
        made.sql(f"CREATE ROLE titan LOGIN SUPERUSER PASSWORD '{quoted}'")
        made.sql("CREATE ROLE reader")
        made.sql("CREATE DATABASE titan_brain OWNER titan")
        # meant for services: no session that loads a dump would live with it
        made.sql("ALTER DATABASE titan_brain SET idle_in_transaction_session_timeout = '10ms'")
        made.sql("SET ROLE titan", *SCHEMA, database="titan_brain")
        yield made


@pytest.fixture
def site(server: postgres.Postgres, tmp_path: Path) -> Iterator[Site]:
    made = Site(server, tmp_path / "titan")
    yield made
    for name in made.databases():
        if name.startswith("titan_brain_"):
            made.server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    if made.rows() != "500":
        made.server.sql("DELETE FROM orders WHERE id > 500", database="titan_brain")
    assert made.databases() == DATABASES


def make(site: Site, **options: Any) -> Path:
    planned = create.plan(site.stack, site.options(**options), site.effects)
    create.apply(planned, site.effects)
    return Path(planned.path)


def more(site: Site) -> None:
    """Rows that no backup has."""
    site.server.sql("INSERT INTO orders SELECT i, 'new' FROM generate_series(501, 510) i", database="titan_brain")


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zstd"}, {"format": "custom"}, {"format": "directory", "jobs": 2}],
    ids=lambda value: "-".join(map(str, value.values())) or "plain",
)
def test_a_backup_takes_the_databases_place_and_an_undo_takes_it_back(site: Site, options: dict[str, Any]) -> None:
    path = make(site, **options)
    more(site)
    before = site.server.sql("SELECT oid FROM pg_database WHERE datname = 'titan_brain'")
    told = site.restore(path.name, jobs=2)
    assert (told["changed"], told["rows"], site.rows()) == (True, 507, "500")
    assert told["differences"] == {"public.orders": {"backup": 500, "today": 510}}
    assert site.kept() == [told["kept"]] and site.rows(told["kept"]) == "510"
    assert site.brain() == ["stop", "start"] and told["interruption"].keys() == {BRAIN}
    assert told["proved"][0] == "507 rows of 2 tables, and every object, as the manifest says"
    assert told["steps"] == [
        "create the new database",
        "load",
        "compare",
        "analyse",
        "stop the writers",
        "swap the names",
        "start the writers",
        "prove",
    ]
    site.whole()
    back = site.restore(undo=True)
    assert site.rows() == "510" and before == site.server.sql("SELECT oid FROM pg_database WHERE datname='titan_brain'")
    assert site.kept() == [back["kept"]] and site.rows(back["kept"]) == "500"
    site.whole()


def test_what_a_dump_does_not_hold_is_carried_over(site: Site) -> None:
    site.server.sql(
        "ALTER DATABASE titan_brain SET search_path TO \"$user\", public, 'Odd, one'",
        "ALTER ROLE titan IN DATABASE titan_brain SET work_mem = '7MB'",
        "ALTER DATABASE titan_brain CONNECTION LIMIT 77",
        "COMMENT ON DATABASE titan_brain IS 'the brain''s own'",
        "REVOKE ALL ON DATABASE titan_brain FROM PUBLIC",
        "GRANT CONNECT ON DATABASE titan_brain TO reader WITH GRANT OPTION",
    )
    shown = (
        "SELECT to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid,dathasloginevt}'::text[] || jsonb_build_object("
        "'comment', shobj_description(d.oid, 'pg_database'), 'settings', (SELECT jsonb_agg(to_jsonb(s) - 'setdatabase'"
        " ORDER BY s.setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)) FROM pg_database d"
        " WHERE datname = 'titan_brain'"
    )
    try:
        before = json.loads(site.server.sql(shown))
        assert len(before["settings"]) == 2
        told = site.restore(make(site).name)
        assert json.loads(site.server.sql(shown)) == before
        # the kept one has its own comment back with its name
        site.restore(undo=True, kept=told["kept"])
        assert json.loads(site.server.sql(shown)) == before
    finally:
        site.server.sql(
            "ALTER DATABASE titan_brain RESET search_path",
            "ALTER ROLE titan IN DATABASE titan_brain RESET work_mem",
            "ALTER DATABASE titan_brain CONNECTION LIMIT -1",
            "COMMENT ON DATABASE titan_brain IS NULL",
            "GRANT CONNECT, TEMPORARY ON DATABASE titan_brain TO PUBLIC",
            "REVOKE ALL ON DATABASE titan_brain FROM reader",
        )


def test_the_tablespace_is_carried_over_as_far_as_the_server_has_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = site.server.home / "elsewhere"
    place.mkdir()
    shutil.chown(place, os.stat(site.server.home / "data").st_uid)
    site.server.sql(f"CREATE TABLESPACE \"else where\" LOCATION '{place}'")
    where = "SELECT spcname FROM pg_tablespace t, pg_database d WHERE dattablespace = t.oid AND datname = 'titan_brain'"
    asked: list[str] = []
    look = os.statvfs

    def looking(path: str) -> os.statvfs_result:
        asked.append(path)
        return look(path)

    monkeypatch.setattr(os, "statvfs", looking)
    try:
        site.server.sql('ALTER DATABASE titan_brain SET TABLESPACE "else where"')
        path = make(site)
        asked.clear()
        told = site.restore(path.name)
        assert site.server.sql(where) == "else where" and told["warnings"] == []
        assert [text.partition("/root/")[2] for text in asked] == [str(place)[1:]]
        made = manifest.read(str(path))
        manifest.write(str(path), replace(made, properties={**made.properties, "tablespace": "of another host"}))
        told = site.restore(path.name)
        assert site.server.sql(where) == "pg_default"
        assert told["warnings"] == [
            "The server has no tablespace of another host, so that the new database has the default one"
        ]
    finally:
        for name in site.kept():
            site.server.sql(f'DROP DATABASE "{name}"')
        site.server.sql("ALTER DATABASE titan_brain SET TABLESPACE pg_default")
        site.server.sql('DROP TABLESPACE "else where"')


def test_the_history_and_the_comment_of_an_undo_name_the_database_that_it_takes_back(site: Site) -> None:
    path = make(site)
    first = site.restore(path.name)
    assert first["about"] == {"backup": path.name, "kept": first["kept"]}
    back = site.restore(undo=True)
    assert (back["what"], back["about"]) == (first["kept"], {"taken_back": first["kept"], "kept": back["kept"]})
    comment = site.server.sql(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{back['kept']}'"
    )
    ident = back["kept"].rpartition("_")[2]
    assert comment.startswith(
        f"titan.ops: titan_brain as it was before restore {ident} of {first['kept']} (an undo); dropped after 2"
    )
    again = site.restore(undo=True)  # which finds that one by its comment
    assert again["what"] == back["kept"]


def test_without_confirm_and_in_check_mode_nothing_changes_and_the_plan_is_the_runs(site: Site) -> None:
    path = make(site)
    more(site)
    looked = site.restore(path.name, confirm=None)
    checked = site.restore(path.name, check_mode=True)
    assert (looked["changed"], looked["confirmed"], checked["changed"]) == (False, False, True)
    assert site.databases() == DATABASES and site.brain() == [] and site.rows() == "510"
    done = site.restore(path.name)
    for name in ("steps", "rows", "tables", "differences", "writers", "what", "dropped"):
        assert looked[name] == checked[name] == done[name], name


def test_a_plan_made_while_another_one_is_under_way_says_so_and_takes_nothing_of_it_for_left_over(site: Site) -> None:
    path = make(site)
    side = siblings.side_name("titan_brain", "20260206140312")
    mark = siblings.side_mark("titan_brain", "20260206140312")
    site.server.sql(f"CREATE DATABASE {side}", f"COMMENT ON DATABASE {side} IS '{mark}'")
    for how in ({"confirm": None}, {"check_mode": True}):
        assert site.restore(path.name, **how)["tidied"] == [side]
        with host_lock(site.open().options.lock_file, reason="restore", holder="alice", timeout=0, clock=Clock()):
            told = site.restore(path.name, **how)
        [warning] = told["warnings"]
        assert warning.startswith("An operation is under way, so that this plan may not hold: alice (process ")
        assert told["tidied"] == [] and side in site.databases()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"confirm": "titan"}, "confirm names 'titan', but the database"),
        ({"undo": True}, "undo takes the database from before back, and needs no backup"),
        ({"kept": "x"}, "goes with it"),
        ({"keep_days": -1}, "keep_days must be 0 or more"),
        ({"jobs": 0}, "jobs must be from 1"),
        ({"database": "template1", "confirm": "template1"}, "the server's own database"),
        ({"writers": ["titan-postgres"]}, "the database itself"),
        ({"writers": ["nobody"]}, "nobody"),
    ],
)
def test_bad_input_is_refused(site: Site, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        site.restore("x.sql", **changes)
    assert isinstance(caught.value, Mistaken) is ("writers" not in changes)
    assert site.databases() == DATABASES and site.brain() == []


def test_nothing_to_undo_is_said(site: Site) -> None:
    with pytest.raises(Refused, match="nothing to undo"):
        site.restore(undo=True)


def test_a_kept_database_that_is_not_there_is_a_slip_and_the_others_are_named(site: Site) -> None:
    kept = site.restore(make(site).name)["kept"]
    with pytest.raises(Mistaken, match=f"There is no kept database titan_brain__before_1; there is: {kept}") as caught:
        site.restore(undo=True, kept="titan_brain__before_1")
    assert str(caught.value.state) == "Nothing was changed." and site.kept() == [kept]
    site.whole()


# What does not match, or does not load, never takes the database's place


def refused(site: Site, path: Path, match: str, **changes: Any) -> OpsError:
    before = site.server.sql("SELECT oid FROM pg_database WHERE datname = 'titan_brain'")
    with pytest.raises(OpsError, match=match) as caught:
        site.restore(str(path), **changes)
    assert before == site.server.sql("SELECT oid FROM pg_database WHERE datname = 'titan_brain'")
    assert site.databases() == DATABASES and "stop" not in site.brain()
    site.whole()
    return caught.value


def rewritten(path: Path, data: bytes) -> None:
    """Another content, with a manifest to match: what only a restore finds out."""
    path.write_bytes(data)
    told = manifest.read(str(path))
    manifest.write(str(path), replace(told, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))


def test_a_row_too_few_is_no_restore(site: Site) -> None:
    path = make(site)
    rewritten(path, path.read_bytes().replace(b"500\tnote 500\n", b""))
    error = refused(site, path, r"499 rows of public\.orders, not 500")
    assert "was not touched, and no service was stopped; the new database was dropped" in str(error)


def test_a_backup_of_another_database_is_refused_unless_that_is_said(site: Site) -> None:
    path = make(site)
    manifest.write(str(path), replace(manifest.read(str(path)), database="other"))
    error = refused(site, path, "is a backup of another database, other, and not of titan_brain")
    assert isinstance(error, Refused) and error.state == "Nothing was changed." and "partial=true" in str(error.hint)
    with pytest.raises(Refused, match="another database"):
        site.restore(str(path), confirm=None)
    told = site.restore(str(path), partial=True)
    assert f"{path.name} is a backup of another database, other" in told["warnings"] and site.rows() == "500"
    site.whole()


def test_a_role_that_the_server_lacks_is_named(site: Site) -> None:
    path = make(site)
    rewritten(path, path.read_bytes().replace(b"OWNER TO titan", b"OWNER TO stranger"))
    error = refused(site, path, 'role "stranger" does not exist')
    assert "CREATE ROLE stranger" in str(error)
    told = manifest.read(str(path))
    manifest.write(str(path), replace(told, properties={**told.properties, "grants": ['"a b"=c/titan', "=Tc/titan"]}))
    refused(site, path, r"lacks roles that .* wants: a b")


def test_one_flipped_bit_is_no_restore(site: Site) -> None:
    for options in ({}, {"format": "custom"}):
        path = make(site, label=options.get("format", "plain"), **options)
        data = path.read_bytes()
        spot = data.index(b"note 250")
        path.write_bytes(data[:spot] + b"nofe" + data[spot + 4 :])
        refused(site, path, "its sha256 is not the one of its manifest")


def test_a_command_to_go_elsewhere_never_reaches_psql_even_with_a_manifest(site: Site) -> None:
    path = make(site)
    rewritten(path, path.read_bytes().replace(b"COPY public.orders", b"\\connect postgres\nCOPY public.orders"))
    refused(site, path, "goes to another database by itself")


def test_a_request_to_end_drops_the_new_database(site: Site) -> None:
    path = make(site)
    site.effects.cancelled = lambda: True
    refused(site, path, "asked to end")


def test_a_full_journal_disk_begins_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(site)

    def full(_self: Journal, _record: dict[str, Any]) -> None:
        raise OpsError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "begin", full)
        refused(site, path, "was not begun: No space left")


# Made by hand


def dumped(site: Site, *options: str) -> bytes:
    argv = [f"{site.server.binaries}/pg_dump", f"--host={site.server.home}", f"--port={site.server.port}"]
    return subprocess.run(
        [*argv, "--username=postgres", *options, "titan_brain"], check=True, capture_output=True
    ).stdout


@pytest.mark.parametrize("kind", ["plain", "returns", "inserts", "custom", "clean"])
def test_a_dump_made_by_hand_restores_and_says_that_less_is_proved(site: Site, kind: str, tmp_path: Path) -> None:
    options = {"inserts": ["--inserts"], "custom": ["-Fc"], "clean": ["--clean", "--if-exists"]}.get(kind, [])
    data = dumped(site, *options)
    path = tmp_path / "by hand: monday"
    path.write_bytes(data.replace(b"\n", b"\r\n") if kind == "returns" else data)
    more(site)
    told = site.restore(str(path))
    assert site.rows() == "500" and told["rows"] == 507
    assert "as the manifest says" not in str(told["proved"])
    assert any("has no manifest" in text for text in told["warnings"])
    site.whole()


@pytest.mark.parametrize("options", [("-Z0",), ("-Z6",), ("-Z0", "--inserts")], ids=" ".join)
def test_a_directory_made_by_hand_restores_unless_it_was_cut(
    site: Site, options: tuple[str, ...], tmp_path: Path
) -> None:
    """At a line, where pg_restore takes it for whole."""
    path = tmp_path / "by hand"
    dumped(site, "-Fd", f"--file={path}", *options)
    data = max(path.glob("[0-9]*.dat*"), key=lambda item: item.stat().st_size)
    whole, gzipped = data.read_bytes(), data.suffix == ".gz"
    plain = gzip.decompress(whole) if gzipped else whole
    at_a_line = plain[: plain.index(b"\n", 900) + 1]
    data.write_bytes(gzip.compress(at_a_line) if gzipped else at_a_line)
    refused(site, path, f"{data.name} ends too early")
    data.write_bytes(whole)
    more(site)
    assert site.restore(str(path))["rows"] == 507 and site.rows() == "500"
    site.whole()


@pytest.mark.parametrize(
    ("options", "phases"),
    [((), ["reading"]), (("-Fc",), ["reading"]), (("-Fd", "-Z6"), ["unpacking", "reading"])],
    ids=["plain", "custom", "directory"],
)
def test_a_plan_tells_how_far_it_has_read_a_dump_made_by_hand(
    site: Site, options: tuple[str, ...], phases: list[str], tmp_path: Path
) -> None:
    path, recorder = tmp_path / "by hand", Recorder()
    dumped(site, f"--file={path}", *options)
    files = list(path.iterdir()) if path.is_dir() else [path]
    size = sum(item.stat().st_size for item in files)
    site.effects.progress = recorder
    site.restore(str(path), check_mode=True)
    recorder.close()
    told = [f"{phase} by hand" for phase in phases]
    assert list(recorder.seen) == ["looking at the database and its backups", *told, "counting today's rows"]
    assert recorder.seen["reading by hand"] == (size, False, size)
    packed = sum(item.stat().st_size for item in files if item.suffix == ".gz")
    assert packed == 0 or recorder.seen["unpacking by hand"] == (size, True, packed)


# Seven ways to hide a command from the scanner, each of which once reached psql.
AWAY = b"\\connect titan_brain\nDELETE FROM public.orders;\nCOMMIT;\n"
SMUGGLED = {
    "returns": b"COPY public.orders FROM stdin;\n\\.\r\n" + AWAY + b"\\.\n",
    "dollars": b"SELECT 1$a$ ' $a$;\n" + AWAY + b"SELECT ' ';\n",
    "comments": b"COPY/**/public.orders/**/FROM/**/STDIN;\n\\.\n" + AWAY,
    "query": b"COPY (WITH stdin AS (SELECT 1 AS i) SELECT i FROM stdin) TO STDOUT;\n" + AWAY + b"\\.\n",
    "set_config": b"SELECT set_config('standard_conforming_strings', 'off', false);\nSELECT '\\'';\n"
    + AWAY
    + b"--';\n",
    "f": b"SET standard_conforming_strings = f;\nSELECT '\\'';\n" + AWAY + b"--';\n",
    "zero": b"SELECT 1; \0 '\n" + AWAY + b"--';\n",
    "parenthesis": b"SELECT (1;\nCOPY public.orders FROM stdin;\n" + AWAY + b"\\.\n",
}


def smuggling(site: Site, how: str) -> bytes:
    """A dump by hand without a \\restrict of its own."""
    data = re.sub(rb"\\(un)?restrict .*\n", b"", dumped(site))
    assert b"restrict" not in data
    return data.replace(b"COPY public.orders", SMUGGLED[how] + b"COPY public.orders", 1)


@pytest.mark.parametrize("how", SMUGGLED)
def test_nothing_smuggled_into_a_dump_reaches_production(site: Site, how: str, tmp_path: Path) -> None:
    path = tmp_path / "by hand.sql"
    path.write_bytes(smuggling(site, how))
    more(site)
    refused(
        site, path, r"goes to another database|psql's|COPY that|standard_conforming|zero byte|not every psql|stdin;"
    )
    assert site.rows() == "510"


@pytest.mark.parametrize("how", SMUGGLED)
def test_psql_itself_takes_no_command_even_where_the_scanner_sees_none(
    site: Site, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "by hand.sql"
    path.write_bytes(smuggling(site, how))
    more(site)
    monkeypatch.setattr(Scanner, "passed", lambda _self, chunks: chunks)
    refused(site, path, "failed at|backslash commands are restricted")
    assert site.rows() == "510"


@pytest.mark.parametrize(
    ("version", "guarded"),
    [
        *(("17.12 (Debian 17.12-0+deb13u1)", True), ("17.6", True), ("17.5", False), ("16.10", True), ("16.9", False)),
        *(("15.14", True), ("14.19", True), ("13.22", True), ("13.21", False), ("12.22", False), ("18.0", True)),
        *(("19devel", True), ("8.4.1", False)),
    ],
)
def test_a_psql_that_knows_it_is_told_to_take_no_command(
    site: Site, version: str, guarded: bool, tmp_path: Path
) -> None:
    """Where it does not, the dump's own \\restrict must not reach it, either."""
    psql = tmp_path / "psql"
    psql.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "psql (PostgreSQL) {version}";;'
        f' *) exec {site.server.binaries}/psql "$@";; esac\n'
    )
    psql.chmod(0o755)
    site.services.instead = {"psql": str(psql)}
    path = tmp_path / "by hand.sql"
    path.write_bytes(dumped(site))
    calls: list[list[str]] = []
    site.services.on_start = calls.append
    assert site.restore(str(path))["tables"] == 2
    [loading] = [argv for argv in calls if argv[0] == "psql" and "--version" not in argv]
    keys = [text for text in loading if "restrict" in text]
    assert bool(keys) is guarded and all(re.fullmatch(r"--command=\\restrict [0-9a-f]{32}", text) for text in keys)


def test_a_name_that_is_not_utf_8_is_told_in_the_comment_as_far_as_it_goes(site: Site, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"d\xfcmp.sql")
    with open(path, "wb") as stream:
        stream.write(dumped(site))
    kept = site.restore(os.fsdecode(path))["kept"]
    text = site.server.sql(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{kept}'")
    assert " of d\\udcfcmp.sql; dropped after " in text
    assert site.restore(undo=True)["what"] == kept
    site.whole()


def test_a_dump_without_the_data_is_refused_unless_that_is_said(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "part.sql"
    for options in (["--schema-only"], ["--exclude-table-data=orders"], ["--exclude-table-data=orders", "--inserts"]):
        path.write_bytes(dumped(site, *options))
        refused(site, path, r"has no data for \d tables that titan_brain has rows of now: .*public\.orders")
    path.write_bytes(dumped(site, "--schema-only", "-Fc"))
    refused(site, path, "has no data for 2 tables")
    assert site.restore(str(path), partial=True)["rows"] == 0
    assert site.restore(undo=True)["rows"] == 507


def test_a_table_that_was_empty_then_is_no_missing_one(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "by hand.sql"
    site.server.sql("CREATE TABLE young (id int)", database="titan_brain")
    try:
        path.write_bytes(dumped(site))
        site.server.sql("INSERT INTO young VALUES (1)", database="titan_brain")
        assert site.restore(str(path))["differences"] == {"public.young": {"backup": 0, "today": 1}}
        site.restore(undo=True)
    finally:
        site.server.sql("DROP TABLE young", database="titan_brain")


def test_a_table_that_is_not_there_at_all_is_told_apart_from_an_empty_one(site: Site, tmp_path: Path) -> None:
    older, path = make(site), tmp_path / "by hand.sql"
    site.server.sql("CREATE TABLE young (id int)", "INSERT INTO young VALUES (1)", database="titan_brain")
    try:
        newer = make(site, label="newer")
        looked = site.restore(older.name, confirm=None)
        assert looked["differences"] == {"public.young": {"backup": None, "today": 1}}
        # of such a file nobody knows whether it makes the table
        path.write_bytes(dumped(site, "--exclude-table-data=young"))
        looked = site.restore(str(path), confirm=None)
        assert looked["differences"] == {"public.young": {"backup": 0, "today": 1}}
    finally:
        site.server.sql("DROP TABLE young", database="titan_brain")
    looked = site.restore(newer.name, confirm=None)
    assert looked["differences"] == {"public.young": {"backup": 1, "today": None}}


def test_of_inserts_no_number_is_claimed(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "by hand.sql"
    path.write_bytes(dumped(site, "--inserts"))
    looked = site.restore(str(path), confirm=None)
    assert (looked["rows"], looked["tables"], looked["differences"]) == (None, None, {})
    told = site.restore(str(path))
    assert told["proved"][0] == "psql has run the file, whose INSERTs nobody counts, to its end: 507 rows of 2 tables"


def test_a_table_that_others_inherit_from_is_counted_alone(site: Site, tmp_path: Path) -> None:
    statements = ("CREATE TABLE child () INHERITS (orders)", "INSERT INTO child VALUES (9001, 'child')")
    site.server.sql("SET ROLE titan", *statements, database="titan_brain")
    try:
        path = tmp_path / "by hand.sql"
        path.write_bytes(dumped(site))
        told = site.restore(str(path))
        assert told["proved"][0] == "508 rows of 3 tables, as many as the file holds; it has no manifest"
        site.restore(undo=True)
        assert site.restore(make(site).name)["changed"]
        site.restore(undo=True)
    finally:
        site.server.sql("DROP TABLE child", database="titan_brain")


def test_a_dump_that_would_create_the_database_itself_is_refused(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "created.sql"
    path.write_bytes(dumped(site, "--create"))
    refused(site, path, r"goes to another database by itself \(line \d+: \\connect titan_brain\)")


def test_an_archive_that_ends_too_early_is_refused(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(dumped(site, "-Fc")[:-400])
    refused(site, path, "pg_restore failed")


def test_a_partial_dump_is_refused_unless_that_is_said(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "part.sql"
    path.write_bytes(dumped(site, "--table=orders"))
    refused(site, path, "lacks 1 of the tables that titan_brain has now")
    assert site.restore(str(path), partial=True)["tables"] == 1
    assert site.restore(undo=True)["tables"] == 2


# Killed, and sick


STEPS = [
    *("create the new database", "load", "compare", "analyse"),
    *("stop the writers", "swap the names", "start the writers", "prove"),
]


def killed_at(monkeypatch: pytest.MonkeyPatch, step: str, *, written: bool) -> None:
    note = Journal.note

    def dying(self: Journal, **changes: Any) -> None:
        if changes.get("step") == step and written:
            note(self, **changes)
        if changes.get("step") == step:
            raise Killed
        note(self, **changes)

    monkeypatch.setattr(Journal, "note", dying)


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_is_finished_or_undone_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = make(site)
    more(site)
    for written in (False, True):
        with monkeypatch.context() as patched:
            killed_at(patched, step, written=written)
            with pytest.raises(Killed):
                site.restore(path.name)
        swapped = site.rows() == "500"
        assert swapped == (step in ("start the writers", "prove"))
        assert site.journal().load()
        how = restore.recover(site.open(), site.effects)
        assert how == ("finished" if swapped else "undone")
        assert site.rows() == ("500" if swapped else "510")
        site.whole()
        assert restore.recover(site.open(), site.effects) is None
        if swapped:
            site.restore(undo=True)


@pytest.mark.parametrize("step", ["stop the writers", "swap the names", "start the writers", "prove"])
def test_an_undo_that_is_killed_is_done_by_its_repetition(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = make(site)
    more(site)
    site.restore(path.name)
    for written in (False, True):
        with monkeypatch.context() as patched:
            killed_at(patched, step, written=written)
            with pytest.raises(Killed):
                site.restore(undo=True)
        swapped = site.rows() == "510"
        told = site.restore(undo=True)
        assert site.rows() == "510"
        assert (told["recovered"], told["steps"] == []) == (("finished", True) if swapped else ("undone", False))
        assert len(site.kept()) == 1
        site.whole()
        site.restore(undo=True)
        assert site.rows() == "500"


def test_killed_right_after_the_swap_it_is_finished_and_not_restored_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    done = swap.swap

    def dying(*args: Any) -> None:
        done(*args)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(exchange, "swap", dying)
        with pytest.raises(Killed):
            site.restore(path.name)
    told = site.restore(path.name)
    assert told["recovered"] == "finished" and told["changed"] and told["steps"] == []
    assert len(site.kept()) == 1 and site.rows() == "500"
    site.whole()


def sick_with(site: Site, monkeypatch: pytest.MonkeyPatch, sick: Callable[[], bool]) -> None:
    prove = writers.Writers._prove

    def proving(self: writers.Writers, name: str, proved: list[str]) -> None:
        if sick():
            raise OpsError(f"{name} is not well")
        prove(self, name, proved)

    monkeypatch.setattr(writers.Writers, "_prove", proving)


def test_a_brain_that_is_sick_with_the_new_database_gets_the_old_one_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    sick_with(site, monkeypatch, lambda: site.rows() == "500")
    with pytest.raises(OpsError, match='failed at "prove": titan-brain is not well') as caught:
        site.restore(path.name)
    assert caught.value.facts["rolled_back"] is True
    assert "is the one from before, and titan-brain was stopped for a while and runs with it again" in str(caught.value)
    [failed] = site.failed()
    assert site.rows() == "510" and site.databases() == sorted([*DATABASES, failed])
    assert site.brain() == ["stop", "start", "stop", "start"]
    site.whole()


def test_what_was_written_into_a_database_whose_proof_fails_stays_and_comes_back_by_its_name_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brain has run with it for as long as the proof has waited."""
    path = make(site)
    more(site)
    with monkeypatch.context() as patched:

        def sick() -> bool:
            if site.rows() == "500":  # right after the swap
                site.server.sql("INSERT INTO orders VALUES (900, 'a trade')", database="titan_brain")
            return site.rows() == "501"

        sick_with(site, patched, sick)
        with pytest.raises(OpsError, match='failed at "prove"') as caught:
            site.restore(path.name)
    [failed] = site.failed()
    assert f"written into it meanwhile, is kept as {failed} until 20" in str(caught.value.state)
    assert site.server.sql("SELECT note FROM orders WHERE id = 900", database=failed) == "a trade"
    with pytest.raises(Refused, match="nothing to undo") as refusal:  # what is sick is no database from before
        site.restore(undo=True)
    assert str(refusal.value.hint) == f"What a failed restore has left is taken with kept: {failed}."
    assert site.restore(undo=True, kept=failed)["rows"] == 508 and site.rows() == "501"
    site.restore(undo=True)
    assert (site.rows(), len(site.kept()), site.failed()) == ("510", 1, [])
    site.whole()


def test_what_a_failed_restore_has_left_goes_when_its_time_is_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(site)
    with monkeypatch.context() as patched:
        sick_with(site, patched, lambda: not site.failed())
        with pytest.raises(OpsError, match='failed at "prove"'):
            site.restore(path.name, keep_days=0)
    [failed] = site.failed()
    assert create.apply(create.plan(site.stack, site.options(), site.effects), site.effects)["dropped"] == [failed]


def test_an_undo_to_a_failed_one_that_fails_gives_it_its_name_and_mark_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    with monkeypatch.context() as patched:
        sick_with(site, patched, lambda: site.rows() == "500")
        with pytest.raises(OpsError, match='failed at "prove"'):
            site.restore(path.name)
        before = site.failed()
        with pytest.raises(OpsError, match='The undo of titan_brain failed at "prove"') as caught:
            site.restore(undo=True, kept=before[0])
    assert "meanwhile" not in str(caught.value.state)
    assert (site.rows(), site.failed(), site.kept()) == ("510", before, [])
    way = restore.plan(site.open(), site.asked(backup=path.name), cancelled=lambda: False).server.admin
    with contextlib.closing(scratch.connected(way)) as session:
        [item] = siblings.kept_databases(session, "titan_brain")
    assert (item.name, item.failed, item.what) == (before[0], True, path.name)
    site.whole()


def test_a_brain_that_was_sick_before_need_not_be_well_after(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(site)
    site.services.change(BRAIN, health="unhealthy")
    told = site.restore(path.name)
    assert any("was not well before, and is not now" in text for text in told["warnings"])
    assert len(site.kept()) == 1


def test_a_brain_that_does_not_run_stays_so(site: Site) -> None:
    path = make(site)
    site.services.change(BRAIN, status="exited")
    told = site.restore(path.name)
    assert site.brain() == [] and told["writers"] == [] and "stop the writers" not in told["steps"]
    assert any("titan-brain does not run" in text for text in told["warnings"])
    site.services.change(BRAIN, status="running")


def test_a_brain_that_was_stopped_by_a_killed_run_is_started_by_the_next_backup_free_recovery(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    with monkeypatch.context() as patched:
        killed_at(patched, "swap the names", written=True)
        with pytest.raises(Killed):
            site.restore(path.name)
    assert site.services.inspect(BRAIN).status == "exited"  # type: ignore[union-attr]
    planned = create.plan(site.stack, site.options(), site.effects)
    assert any("run recover.yml" in text for text in planned.warnings)
    assert restore.recover(site.open(), site.effects) == "undone"
    site.whole()


# Kept, and dropped


def test_a_kept_database_goes_with_the_next_backup_when_its_time_is_over(site: Site) -> None:
    path = make(site)
    told = site.restore(path.name, keep_days=0)
    site.server.sql('CREATE DATABASE "titan_brain__before_20200101000000"')  # without our mark: nobody's
    done = create.apply(create.plan(site.stack, site.options(label="x"), site.effects), site.effects)
    assert done["dropped"] == [] and told["kept"] in site.databases()
    planned = create.plan(site.stack, site.options(), site.effects)
    assert list(planned.expired) == [told["kept"]]
    assert create.apply(planned, site.effects)["dropped"] == [told["kept"]]
    assert site.kept() == ["titan_brain__before_20200101000000"]


def test_a_kept_database_whose_time_is_over_goes_after_the_next_restore_was_proved_and_not_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    first, data = site.restore(path.name, keep_days=0)["kept"], path.read_bytes()
    assert site.restore(path.name, confirm=None)["dropped"] == [first]
    path.write_bytes(data.replace(b"note 250", b"nofe 250"))
    with pytest.raises(OpsError, match="its sha256 is not"):
        site.restore(path.name)
    path.write_bytes(data)

    def refusing(*_args: Any) -> None:
        raise OpsError("it is in use")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "begin", refusing)
        with pytest.raises(OpsError, match="was not begun") as caught:
            site.restore(path.name)
    assert str(caught.value.state) == "Nothing was changed." and site.kept() == [first]
    with monkeypatch.context() as patched:
        patched.setattr(siblings, "drop_database", refusing)
        told = site.restore(path.name)
    assert told["dropped"] == [] and len(site.kept()) == 2
    assert f"The database {first} could not be dropped, although its time is over: it is in use" in told["warnings"]
    assert site.restore(path.name)["dropped"] == [first]
    site.whole()


def test_a_kept_database_never_goes_while_its_successor_is_missing_or_empty(site: Site) -> None:
    path = make(site)
    told = site.restore(path.name, keep_days=0)
    admin = site.open()
    way = restore.plan(admin, site.asked(undo=True), cancelled=lambda: False).server.admin
    site.server.sql("ALTER DATABASE titan_brain RENAME TO away")
    try:
        assert siblings.expired_databases(way, "titan_brain", Clock().now()) == []
        site.server.sql("CREATE DATABASE titan_brain")
        assert siblings.drop_expired(way, "titan_brain", Clock().now()) == []
        # brain makes its tables by itself when it finds none
        site.server.sql("CREATE TABLE orders (id int)", "CREATE TABLE fills (id int)", database="titan_brain")
        told_of: list[str] = []
        assert siblings.expired_databases(way, "titan_brain", Clock().now(), told_of) == []
        assert told_of == [
            f"No table of titan_brain is known to hold a row, so that {told['kept']} stays, although its time is over"
        ]
        planned = create.plan(site.stack, site.options(), site.effects)
        assert planned.expired == () and told_of[0] in planned.warnings
        looked = site.restore(path.name, confirm=None)
        assert looked["dropped"] == [] and told_of[0] in looked["warnings"]
        site.server.sql("INSERT INTO orders VALUES (1)", database="titan_brain")
        assert siblings.expired_databases(way, "titan_brain", Clock().now()) == [told["kept"]]
        site.server.sql("DROP DATABASE titan_brain")
    finally:
        site.server.sql("ALTER DATABASE away RENAME TO titan_brain")
    assert siblings.drop_expired(way, "titan_brain", Clock().now()) == [told["kept"]]


def test_what_an_interrupted_restore_has_left_counts_as_room_for_the_one_that_drops_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    with monkeypatch.context() as patched:
        killed_at(patched, "compare", written=True)
        with pytest.raises(Killed):
            site.restore(path.name)
    os.remove(site.journal().path)  # or the next run would undo the killed one before it plans
    [left] = [name for name in site.databases() if "__restore_" in name]
    size = int(site.server.sql("SELECT pg_database_size('titan_brain')"))
    # the server's container is this process here, and its root is ours
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=size * 3 // 2, f_frsize=1))
    with pytest.raises(Refused, match="a second copy of it may take"):
        site.restore(path.name, space_margin=3.0)
    assert left in site.databases()
    # twice as much as it takes, of which the half is free once that one is gone
    planned = site.restore(path.name, confirm=None, space_margin=2.0)
    assert planned["tidied"] == [left] and size / 2 < planned["needed_bytes"] < size * 3 / 2
    assert site.restore(path.name, space_margin=2.0)["tidied"] == [left]
    site.whole()
    with pytest.raises(Refused, match="a second copy of it may take"):
        site.restore(path.name, space_margin=2.0)


def test_a_database_that_is_damaged_is_restored_all_the_same(site: Site) -> None:
    """Its rows cannot be counted any more: that is what the restore is for."""
    path = make(site)
    more(site)
    site.server.sql("CHECKPOINT", database="titan_brain")
    file = site.server.sql("SELECT pg_relation_filepath('orders')", database="titan_brain")
    site.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'titan_brain'")
    os.rename(site.server.home / "data" / file, site.server.home / "data" / f"{file}.away")
    try:
        looked = site.restore(path.name, confirm=None)
        assert looked["today"]["rows"] is None and looked["differences"] == {}
        told = site.restore(path.name)
        assert site.rows() == "500" and told["rows"] == 507
        assert any("cannot be counted" in text for text in told["warnings"])
        site.whole()
    finally:
        os.rename(site.server.home / "data" / f"{file}.away", site.server.home / "data" / file)
    site.restore(undo=True)
    assert site.rows() == "510"


def test_a_database_that_is_gone_is_restored(site: Site) -> None:
    path = make(site)
    site.server.sql("ALTER DATABASE titan_brain RENAME TO away")
    try:
        told = site.restore(path.name)
        assert told["kept"] is None and told["today"] is None and site.rows() == "500"
        site.whole()
    finally:
        site.server.sql("DROP DATABASE IF EXISTS titan_brain")
        site.server.sql("ALTER DATABASE away RENAME TO titan_brain")


def test_sessions_that_come_again_and_again_do_not_hold_the_swap_up(site: Site) -> None:
    path = make(site)
    over = threading.Event()
    argv = [f"{site.server.binaries}/psql", f"--host={site.server.home}", f"--port={site.server.port}"]

    def come() -> None:
        while not over.is_set():
            subprocess.run(
                [*argv, "--username=postgres", "--dbname=titan_brain", "--command=SELECT pg_sleep(60)"],
                capture_output=True,
                check=False,
            )

    guests = [threading.Thread(target=come) for _number in range(3)]
    for guest in guests:
        guest.start()
    try:
        assert site.restore(path.name)["kept"]
    finally:
        over.set()
        site.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE '%sleep(60)%' AND pid <> pg_backend_pid()"
        )
        for guest in guests:
            guest.join(30)
    site.whole()


def test_prepared_transactions_are_told_before_anything_happens(site: Site) -> None:
    path = make(site)
    # the database's own setting is one for services
    statements = (
        "SET idle_in_transaction_session_timeout = 0",
        "BEGIN",
        "CREATE TABLE unborn (id int)",
        "PREPARE TRANSACTION 'half done'",
    )
    site.server.sql(*statements, database="titan_brain")
    try:
        refused(site, path, "prepared transactions, with which it cannot be renamed: half done")
    finally:
        site.server.sql("ROLLBACK PREPARED 'half done'", database="titan_brain")


# What must never be dropped


def test_an_undo_drops_nothing_however_old_that_is(site: Site) -> None:
    path = make(site)
    more(site)
    site.restore(path.name, keep_days=0)
    assert site.restore(undo=True, check_mode=True)["dropped"] == []
    told = site.restore(undo=True)
    assert told["dropped"] == [] and site.rows() == "510"
    site.restore(undo=True)


@pytest.mark.parametrize("mark", ["side", "kept"])
def test_a_database_that_somebody_has_renamed_with_our_mark_is_the_one_in_use_all_the_same(
    site: Site, mark: str
) -> None:
    """The mark stays with a database that is renamed by hand, and says nothing any more."""
    old = siblings.kept_mark("titan_brain", "20200101000000", "some.sql", 0.0, "its own")
    text = siblings.side_mark("titan_brain", "20200101000000") if mark == "side" else old
    path = make(site)
    more(site)
    site.server.sql(f"COMMENT ON DATABASE titan_brain IS '{text}'")
    try:
        told = site.restore(path.name)
        assert told["tidied"] == [] and told["dropped"] == [] and site.rows(told["kept"]) == "510"
        planned = create.plan(site.stack, site.options(), site.effects)
        assert planned.expired == ()
        site.restore(undo=True)
        shown = site.server.sql(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = 'titan_brain'"
        )
        assert (site.rows(), shown) == ("510", "" if mark == "side" else "its own")
    finally:
        site.server.sql("COMMENT ON DATABASE titan_brain IS NULL")


def test_a_late_recovery_keeps_what_was_written_since_and_says_who_is_not_well(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    with monkeypatch.context() as patched:
        killed_at(patched, "prove", written=True)
        with pytest.raises(Killed):
            site.restore(path.name)
    more(site)  # brain runs for days
    sick_with(site, monkeypatch, lambda: True)
    stack = site.open()
    assert restore.recover(stack, site.effects) == "finished"
    sick, hint = stack.warnings
    assert sick == "titan-brain is not well: titan-brain is not well"
    assert hint.endswith("restore.yml -e undo=true -e confirm=titan_brain takes the database from before back")
    assert site.rows() == "510" and len(site.kept()) == 1
    monkeypatch.undo()
    site.whole()
    site.restore(undo=True)


def test_a_journal_that_cannot_be_written_after_the_swap_is_no_reason_to_go_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    note = Journal.note

    def full(self: Journal, **changes: Any) -> None:
        if changes.get("step") in ("start the writers", "prove"):
            raise OpsError("No space left on device")
        note(self, **changes)

    monkeypatch.setattr(Journal, "note", full)
    told = site.restore(path.name)
    assert told["changed"] and site.rows() == "500"
    site.restore(undo=True)


def test_an_undo_after_an_interrupted_restore_undoes_that_one_and_not_the_one_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    first = site.restore(path.name)
    site.server.sql("INSERT INTO orders SELECT i, 'new' FROM generate_series(501, 505) i", database="titan_brain")
    with monkeypatch.context() as patched:
        killed_at(patched, "swap the names", written=True)
        with pytest.raises(Killed):
            site.restore(path.name)
    told = site.restore(undo=True)
    assert (told["recovered"], told["steps"]) == ("undone", [])
    assert site.rows() == "505" and site.kept() == [first["kept"]]
    site.whole()


@pytest.mark.parametrize("undo", [False, True], ids=["restore", "undo"])
@pytest.mark.parametrize("step", ["swap the names", "start the writers"])
def test_whether_a_killed_run_had_swapped_is_known_without_the_kept_database(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, undo: bool
) -> None:
    """Somebody has dropped, by hand, what the new names or the old ones would be known by."""
    path = make(site)
    more(site)
    if undo:
        site.restore(path.name)
    with monkeypatch.context() as patched:
        killed_at(patched, step, written=True)
        with pytest.raises(Killed):
            site.restore(undo=True) if undo else site.restore(path.name)
    swapped = step == "start the writers"
    assert site.rows() == ("500" if swapped != undo else "510")
    others = [name for name in site.databases() if name.startswith("titan_brain_")]
    assert len(others) == 1
    site.server.sql(f'DROP DATABASE "{others[0]}"')
    assert restore.recover(site.open(), site.effects) == ("finished" if swapped else "undone")
    assert site.rows() == ("500" if swapped != undo else "510") and site.databases() == DATABASES
    site.whole()


def test_a_database_that_is_neither_the_one_nor_the_other_is_said_and_left_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    with monkeypatch.context() as patched:
        killed_at(patched, "start the writers", written=True)
        with pytest.raises(Killed):
            site.restore(path.name)
    [kept] = site.kept()
    site.server.sql("ALTER DATABASE titan_brain RENAME TO titan_brain_aside")
    with pytest.raises(OpsError, match="has no database titan_brain"):
        restore.recover(site.open(), site.effects)
    site.server.sql("CREATE DATABASE titan_brain OWNER titan")
    with pytest.raises(OpsError, match="neither the one from before nor the new one") as caught:
        restore.recover(site.open(), site.effects)
    assert site.journal().path in str(caught.value) and site.journal().load() and site.brain() == ["stop"]
    site.server.sql("DROP DATABASE titan_brain", f"ALTER DATABASE {kept} RENAME TO titan_brain")
    assert restore.recover(site.open(), site.effects) == "undone"
    site.server.sql("COMMENT ON DATABASE titan_brain IS NULL")
    assert site.rows() == "510"
    site.whole()


def test_a_probe_of_a_service_that_is_not_there_is_refused_before_anything(site: Site) -> None:
    path = make(site)
    probe = {"service": "titan-brian", "port": 3100, "path": "/health"}
    refused(site, path, "titan-brian", probes=[probe])


def test_a_database_that_somebody_makes_meanwhile_is_not_taken_for_the_new_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    site.server.sql("ALTER DATABASE titan_brain RENAME TO titan_brain_aside")
    try:
        with monkeypatch.context() as patched:
            killed_at(patched, "create the new database", written=True)
            with pytest.raises(Killed):
                site.restore(path.name)
        site.server.sql("CREATE DATABASE titan_brain OWNER titan")
        assert restore.recover(site.open(), site.effects) == "undone"
        assert "titan_brain" in site.databases()
    finally:
        site.server.sql("DROP DATABASE IF EXISTS titan_brain")
        site.server.sql("ALTER DATABASE titan_brain_aside RENAME TO titan_brain")
