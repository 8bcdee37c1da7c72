# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill on a real PostgreSQL server: what restores with equal counts is verified, everything else is told."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import (
    catalog,
    compare,
    create,
    load,
    manifest,
    scratch,
    verify,
)
from ansible_collections.titan.ops.plugins.module_utils.backup.absent import remove_backup
from ansible_collections.titan.ops.plugins.module_utils.backup.session import Way
from ansible_collections.titan.ops.plugins.module_utils.backup.sqlscan import Scanner
from ansible_collections.titan.ops.plugins.module_utils.core.errors import (
    Damaged,
    InvalidInput,
    Mistaken,
    OpsError,
    Refused,
)
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD, Place
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup

pytest.importorskip("psycopg2")


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: backups are root's")
    with postgres.running() as made:
        quoted = PASSWORD.replace("'", "''")
        made.sql(f"CREATE ROLE titan LOGIN SUPERUSER PASSWORD '{quoted}'")
        made.sql("CREATE DATABASE titan_brain OWNER titan")
        made.sql(
            "SET ROLE titan",
            "CREATE TABLE orders (id int PRIMARY KEY, note text)",
            "INSERT INTO orders SELECT i, 'note ' || i FROM generate_series(1, 500) i",
            "CREATE TABLE fills (id int REFERENCES orders) PARTITION BY RANGE (id)",
            "CREATE TABLE fills_default PARTITION OF fills DEFAULT",
            "INSERT INTO fills SELECT generate_series(1, 20)",
            database="titan_brain",
        )
        yield made


@pytest.fixture
def place(server: postgres.Postgres, tmp_path: Path) -> Iterator[Place]:
    yield Place(server, tmp_path / "titan")
    assert databases(server) == ["postgres", "template0", "template1", "titan_brain"], "a scratch database is left"


def databases(server: postgres.Postgres) -> list[str]:
    return server.sql("SELECT datname FROM pg_database ORDER BY 1").split()


def make(place: Place, **options: Any) -> Path:
    planned = create.plan(place.stack, place.options(**options), place.effects)
    create.apply(planned, place.effects)
    return Path(planned.path)


def drill(
    place: Place, name: str | None = None, *, jobs: int = 1, space_margin: float = 1.2, timeout: float = 60
) -> dict[str, Any]:
    target = place.options().target
    directory = str(place.backups)
    planned = verify.plan(place.stack, target, directory, name, place.effects, space_margin=space_margin)
    return {**verify.apply(planned, place.effects, jobs=jobs, timeout=timeout), "name": planned.backup.name}


def rewritten(path: Path, data: bytes) -> None:
    """Another content, with a manifest to match: what only a restore finds out."""
    path.write_bytes(data)
    told = manifest.read(str(path))
    manifest.write(str(path), replace(told, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))


def fails(place: Place, path: Path, match: str) -> OpsError:
    with pytest.raises(OpsError, match=match) as caught:
        drill(place, path.name)
    assert manifest.read(str(path)).verified is None
    assert place.left() == [] and not [name for name in place.names() if name.startswith(".")]
    return caught.value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip", "threads": 2},
        {"compression": "zstd"},
        {"format": "custom"},
        {"format": "directory", "jobs": 2},
    ],
    ids=lambda value: "-".join(map(str, value.values())) or "plain",
)
def test_a_good_backup_is_verified_and_nothing_is_left(place: Place, options: dict[str, Any]) -> None:
    path = make(place, **options)
    told = drill(place, jobs=2)
    assert (told["name"], told["rows"], told["tables"]) == (path.name, 520, 2)
    assert manifest.read(str(path)).verified == told["verified"]
    assert place.left() == [] and not [name for name in place.names() if name.startswith(".")]


def test_the_newest_good_one_is_taken_and_damaged_ones_are_refused(place: Place) -> None:
    good = make(place, label="a")
    bad = make(place, label="b")
    bad.write_bytes(b"cut")
    assert drill(place)["name"] == good.name
    with pytest.raises(Damaged, match="is damaged: it has 3 bytes"):
        drill(place, bad.name)
    Path(f"{bad}.manifest.json").write_text("{}")
    with pytest.raises(Refused, match=r"cannot be verified: The manifest .* is not one"):
        drill(place, bad.name)
    for asked in ("../x.sql", "nope.sql", "/nope/" + good.name, f"{place.backups}/x.sql"):
        with pytest.raises(Mistaken, match="There is no backup") as caught:
            drill(place, asked)
        assert good.name in str(caught.value.hint)


def test_another_databases_newer_backup_beside_it_is_not_taken_for_the_newest(place: Place) -> None:
    place.backups.mkdir(parents=True)
    backup(place.backups, "titan_other_2099-01-01.sql", database="titan_other", started="2099-01-01T02:00:00Z")
    with pytest.raises(InvalidInput, match="There is no good backup of titan_brain"):
        drill(place)
    good = make(place)
    assert drill(place)["name"] == good.name
    assert manifest.read(str(place.backups / "titan_other_2099-01-01.sql")).verified is None


def test_one_of_a_wrong_clock_is_not_the_newest_and_is_told(place: Place) -> None:
    ahead, good = make(place, label="a"), make(place, label="b")
    manifest.write(str(ahead), replace(manifest.read(str(ahead)), started="2131-01-01T02:00:00Z"))
    for told in (drill(place), drill(place, "latest")):
        [warning] = told["warnings"]
        assert told["name"] == good.name and ahead.name in warning and "dated 2131-01-01T02:00:00Z" in warning
    named = drill(place, ahead.name)
    assert (named["name"], named["warnings"]) == (ahead.name, [])
    good.unlink()
    told = drill(place)
    assert told["name"] == ahead.name and "is yet to come" in told["warnings"][0], "better than none"


def test_a_backup_may_be_called_by_its_path_as_backup_says_it_or_latest(place: Place) -> None:
    older, newest = make(place, label="a"), make(place, label="b")
    rewrite = manifest.read(str(older))  # both may be of the same second
    manifest.write(str(older), replace(rewrite, started="2026-02-06T02:00:00Z"))
    assert drill(place, str(older))["name"] == older.name
    assert drill(place, "latest")["name"] == newest.name


def test_a_subscription_does_not_keep_the_scratch_database(place: Place) -> None:
    """PostgreSQL drops no database that has one; the publisher's slot is the real one's, and nobody asks for it."""
    place.server.sql(
        "CREATE SUBSCRIPTION \"The mirror\" CONNECTION 'host=127.0.0.1 port=1 dbname=away' PUBLICATION p"
        " WITH (connect = false, slot_name = 'ours')",
        database="titan_brain",
    )
    try:
        make(place)
        assert drill(place)["warnings"] == []
        assert place.server.sql("SELECT subname, subslotname FROM pg_subscription") == "The mirror|ours"
    finally:
        place.server.sql(
            'ALTER SUBSCRIPTION "The mirror" SET (slot_name = NONE)',
            'DROP SUBSCRIPTION "The mirror"',
            database="titan_brain",
        )


def test_a_request_to_end_is_heard_while_the_rows_are_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    make(place)
    busy = threading.Event()

    def slowly(counting: Any) -> dict[str, int]:
        busy.set()
        counting.run(["SELECT pg_sleep(600)"])
        return {}

    monkeypatch.setattr(compare, "counts", slowly)
    place.effects.cancelled = busy.is_set
    with pytest.raises(OpsError, match="The run was asked to end") as caught:
        drill(place)
    assert "itself was not touched, and the scratch one was dropped" in str(caught.value.state)


def test_what_an_earlier_drill_has_left_and_cannot_be_dropped_is_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place)
    left, drop = scratch.scratch_name("titan_brain"), scratch.drop_database
    place.server.sql(f"CREATE DATABASE {left}")

    def refusing(way: Any, name: str) -> None:
        if name == left:
            raise OpsError("it is in use")
        drop(way, name)

    with monkeypatch.context() as patched:
        patched.setattr(scratch, "drop_database", refusing)
        told = drill(place)
    assert left not in told["tidied"] and told["verified"]
    assert told["warnings"] == [f"The scratch database {left} of an earlier drill could not be dropped: it is in use"]
    assert left in drill(place)["tidied"]


def test_a_dump_without_a_manifest_is_refused_in_plain_words(place: Place) -> None:
    place.backups.mkdir(parents=True, exist_ok=True)
    (place.backups / "hand.sql").write_text("x")
    with pytest.raises(Mistaken, match=r"hand\.sql cannot be verified: it has no manifest") as caught:
        drill(place, "hand.sql")
    assert caught.value.msg.count(":") == 1


def test_a_row_too_few_is_found(place: Place) -> None:
    path = make(place)
    rewritten(path, path.read_bytes().replace(b"500\tnote 500\n", b""))
    error = fails(place, path, r"499 rows of public\.orders, not 500")
    assert "itself was not touched" in str(error)


def test_a_constraint_too_few_is_found(place: Place) -> None:
    path = make(place)
    text = path.read_bytes()
    start = text.index(b"ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT orders_pkey")
    end = text.index(b";", start) + 1
    cut = text[:start] + text[end:]
    start = cut.index(b"ALTER TABLE public.fills\n    ADD CONSTRAINT")
    end = cut.index(b";", start) + 1
    rewritten(path, cut[:start] + cut[end:])
    fails(place, path, r"constraints, not \d+.*indexes, not")


def test_one_flipped_bit_is_found_by_the_checksum(place: Place) -> None:
    for options in ({}, {"format": "custom"}):
        path = make(place, label=options.get("format", "plain"), **options)
        data = path.read_bytes()
        spot = data.index(b"note 250")
        path.write_bytes(data[:spot] + b"nofe" + data[spot + 4 :])
        fails(place, path, "its sha256 is not the one of its manifest")


def test_an_error_in_the_middle_stops_it_and_is_told(place: Place) -> None:
    path = make(place, compression="gzip")
    broken = gzip.decompress(path.read_bytes()).replace(b"COPY public.orders", b"COPY public.nowhere")
    rewritten(path, gzip.compress(broken))
    fails(place, path, 'psql failed with exit code 3: .*relation "public.nowhere" does not exist')


@pytest.mark.parametrize("seen", [True, False], ids=["by the scanner", "by psql"])
def test_nothing_smuggled_into_a_backup_reaches_production(
    place: Place, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, marker = make(place), tmp_path / "marker"
    data = re.sub(rb"\\(un)?restrict .*\n", b"", path.read_bytes())
    away = f"\\! touch {marker}\n\\connect titan_brain\nDELETE FROM public.fills;\n".encode()
    rewritten(path, data.replace(b"COPY public.orders", away + b"COPY public.orders", 1))
    if not seen:
        monkeypatch.setattr(Scanner, "passed", lambda _self, chunks: chunks)
    fails(place, path, r"holds a command to psql .*\\!" if seen else "backslash commands are restricted")
    assert place.server.sql("SELECT count(*) FROM fills", database="titan_brain") == "20"
    assert not marker.exists()


def test_a_dump_reaches_psql_through_no_directory_but_one_of_its_own(place: Place) -> None:
    """Not through that of the backups: a sidecar that runs a dump's own words could write there."""
    make(place)
    stale = Path(place.effects.run_dir) / "restore"
    stale.mkdir(parents=True)
    os.mkfifo(stale / "dump")  # a killed drill's
    place.engine.bodies.clear()
    drill(place)
    mounted = [bind for body in place.engine.bodies for bind in body["HostConfig"]["Binds"]]
    assert mounted and not [bind for bind in mounted if bind.startswith(str(place.backups))]
    assert place.left() == []


def test_what_a_killed_drill_left_is_dropped_and_nobody_elses_database(place: Place) -> None:
    make(place)
    server = place.server
    for name in ("titan_brain__verify_0123abcd", "titan_brain__verify_beef0000", "titan_brain__verify_00000000"):
        server.sql(f"CREATE DATABASE {name}")
    server.sql("CREATE TABLE somebodys (id int)", database="titan_brain__verify_beef0000")
    server.sql(f"COMMENT ON DATABASE titan_brain__verify_0123abcd IS '{scratch._COMMENT}'")
    try:
        # one without the mark only when it is empty: killed before that was set
        assert drill(place)["tidied"] == ["titan_brain__verify_00000000", "titan_brain__verify_0123abcd"]
        assert "titan_brain__verify_beef0000" in databases(server)
    finally:
        server.sql("DROP DATABASE titan_brain__verify_beef0000")


def test_without_room_for_a_second_copy_it_is_refused(place: Place) -> None:
    make(place)
    # the server's container is this process here, and its root is ours
    with pytest.raises(Refused, match="a second copy of it may take"):
        drill(place, space_margin=1e12)


def test_what_a_killed_drill_left_is_no_reason_to_refuse_the_one_that_drops_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place)
    server, name = place.server, "titan_brain__verify_0123abcd"
    size = int(server.sql("SELECT pg_database_size('titan_brain')"))
    free = SimpleNamespace(f_bavail=size - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _path: free)
    with pytest.raises(Refused, match="a second copy of it may take"):
        drill(place, space_margin=1)
    server.sql(f"CREATE DATABASE {name}", f"COMMENT ON DATABASE {name} IS '{scratch._COMMENT}'")
    assert drill(place, space_margin=1)["tidied"] == [name]
    # as much as it takes, and no more
    server.sql(f"CREATE DATABASE {name}", f"COMMENT ON DATABASE {name} IS '{scratch._COMMENT}'")
    with pytest.raises(Refused, match=f"MB more without what a killed drill has left .{name}.*DROP DATABASE"):
        drill(place, space_margin=3)
    free.f_bavail = 10 * size
    assert drill(place)["tidied"] == [name]


def test_a_copy_that_cannot_be_dropped_after_a_good_drill_is_told(place: Place) -> None:
    path, server = make(place), place.server
    like = "FROM pg_database WHERE datname LIKE 'titan_brain\\_\\_verify\\_%'"
    # a template database cannot be dropped
    place.engine.on_start = lambda argv: server.sql(
        f"UPDATE pg_database SET datistemplate = true WHERE datname IN (SELECT datname {like})"
    )
    told = drill(place)
    left = server.sql(f"SELECT datname {like}")
    server.sql(f"ALTER DATABASE {left} IS_TEMPLATE false")
    [warning] = told["warnings"]
    assert left in warning and "until the next drill drops it" in warning
    assert "cannot drop a template database" in warning
    assert manifest.read(str(path)).verified == told["verified"]
    place.engine.on_start = lambda argv: None
    again = drill(place)
    assert again["tidied"] == [left] and again["warnings"] == []


def changed(path: Path, old: bytes, new: bytes) -> None:
    """Rot: as many bytes as before."""
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def damaged_data(path: Path) -> None:
    """Not even what its manifest tells of can be unpacked."""
    flipped(path)
    rewritten(path, path.read_bytes())


ROTTEN = "is damaged: its sha256 is not the one of its manifest"
DAMAGE: dict[str, tuple[dict[str, Any], Callable[[Path], object], str]] = {
    "a value": ({}, lambda path: changed(path, b"note 250", b"nofe 250"), ROTTEN),
    "a word of SQL": ({}, lambda path: changed(path, b"COPY public.orders", b"COPY public.ordirs"), ROTTEN + ".*psql"),
    "a command to psql": ({}, lambda path: changed(path, b"\nCOPY pu", b"\n\\! ls;\n"), ROTTEN + ".*holds a command"),
    "gzip": ({"compression": "gzip"}, flipped, ROTTEN),
    "zstd": ({"compression": "zstd"}, flipped, ROTTEN),
    "custom": ({"format": "custom"}, flipped, ROTTEN),
    "directory": ({"format": "directory"}, lambda path: flipped(path / "toc.dat"), ROTTEN),
    "a row too few": ({}, lambda path: rewritten(path, path.read_bytes().replace(b"500\tnote 500\n", b"")), "499 rows"),
    "a command all along": (
        {},
        lambda path: rewritten(path, b"\\! ls\n" + path.read_bytes()),
        "holds a command to psql",
    ),
    "cut gzip": ({"compression": "gzip"}, lambda path: rewritten(path, path.read_bytes()[:-20]), "gzip: the data end"),
    "cut zstd": ({"compression": "zstd"}, lambda path: rewritten(path, path.read_bytes()[:-20]), "zstd: the data end"),
    "bad gzip": ({"compression": "gzip"}, damaged_data, "gzip: "),
    "bad zstd": ({"compression": "zstd"}, damaged_data, "zstd: "),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_backup_that_is_proved_bad_does_not_count_as_verified_any_more(place: Place, how: str) -> None:
    options, damage, match = DAMAGE[how]
    path = make(place, **options)
    drill(place)
    assert manifest.read(str(path)).verified
    damage(path)
    error = fails(place, path, match)
    assert error.msg.count("damaged") <= 1
    assert "itself was not touched, and the scratch one was dropped" in str(error)
    assert "does not count as verified any more" in str(error.state)
    assert "Do not rely on this backup" in str(error.hint)
    # said once: there is nothing to take back the second time
    assert "any more" not in str(fails(place, path, match).state)


def test_one_that_is_proved_bad_is_no_good_backup_any_more_until_a_drill_of_it_ends_well(place: Place) -> None:
    older, path = make(place, label="a"), make(place, label="b")
    manifest.write(str(older), replace(manifest.read(str(older)), started="2026-02-06T02:00:00Z"))
    changed(path, b"note 250", b"nofe 250")
    with pytest.raises(Damaged, match=ROTTEN) as caught:
        drill(place)  # never verified before
    assert str(caught.value.state).endswith("It counts as damaged until a drill restores it.")
    assert f"verify the next older one, {older.name}." in str(caught.value.hint)
    first = manifest.read(str(path)).damaged
    bad = catalog.find(str(place.backups), path.name)
    assert bad and (bad.state, bad.trouble) == (catalog.DAMAGED, f"a drill proved it bad at {first}")
    with pytest.raises(Refused, match="the only good backup"):
        remove_backup(str(place.backups), older.name, check_mode=False)
    assert drill(place)["name"] == older.name, "the next one takes another"
    planned = verify.plan(
        place.stack, place.options().target, str(place.backups), path.name, place.effects, space_margin=0
    )
    verify.refuse_damaged(planned)
    fails(place, path, ROTTEN)
    assert manifest.read(str(path)).damaged == first
    changed(path, b"nofe 250", b"note 250")
    verified = drill(place, path.name)["verified"]
    told = manifest.read(str(path))
    assert (told.verified, told.damaged) == (verified, None)
    assert drill(place)["name"] == path.name


def test_the_oldest_one_that_is_proved_bad_names_no_older_one(place: Place) -> None:
    path, newer = make(place, label="a"), make(place, label="b")
    manifest.write(str(path), replace(manifest.read(str(path)), started="2026-02-06T02:00:00Z"))
    changed(path, b"note 250", b"nofe 250")
    hint = str(fails(place, path, ROTTEN).hint)
    assert hint == "Do not rely on this backup: make a new one; there is no older good one." and newer.name not in hint


def test_one_that_is_cut_off_does_not_count_as_verified_any_more_and_check_mode_only_refuses_it(place: Place) -> None:
    path = make(place)
    drill(place)
    path.write_bytes(path.read_bytes()[:-9])
    planned = verify.plan(
        place.stack, place.options().target, str(place.backups), path.name, place.effects, space_margin=0
    )
    with pytest.raises(Damaged, match="is damaged: it has") as caught:
        verify.refuse_damaged(planned)
    assert manifest.read(str(path)).verified and "Nothing was changed" in str(caught.value)
    state = str(fails(place, path, "is damaged: it has").state)
    assert state == "Nothing was restored. The backup does not count as verified any more."


def test_a_mark_that_cannot_be_written_is_told_with_what_was_proved(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(place)

    def refused(_path: str, _made: object) -> None:
        raise OpsError("it could not be written: No space left on device", state="The old file is untouched.")

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", refused)
        error = fails(place, path, "restores, as its manifest says, but that cannot be noted there: it could not be")
    assert "titan_brain itself was not touched, and the scratch one was dropped" in str(error.state) and error.hint


def test_a_sha256_that_could_not_be_computed_is_no_damage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(place, format="directory")
    drill(place)

    def exhausted(*_args: object, **_more: object) -> str:
        raise MemoryError

    monkeypatch.setattr(load, "digest", exhausted)
    with pytest.raises(OpsError, match="could not be computed: MemoryError") as caught:
        drill(place)
    assert "damaged" not in str(caught.value) and "scratch one was dropped" in str(caught.value)
    assert manifest.read(str(path)).verified


@pytest.mark.parametrize("verified", [True, False])
def test_a_mark_that_cannot_be_changed_is_told(place: Place, monkeypatch: pytest.MonkeyPatch, verified: bool) -> None:
    path = make(place)
    if verified:
        drill(place)
    changed(path, b"note 250", b"nofe 250")

    def refused(_path: str, _made: object) -> None:
        raise OpsError("it could not be written: Read-only file system")

    monkeypatch.setattr(manifest, "write", refused)
    with pytest.raises(OpsError, match=ROTTEN) as caught:
        drill(place)
    calls = "still calls it verified" if verified else "does not call it damaged"
    assert f"The manifest of the backup {calls}: it could not be written: Read-only file" in str(caught.value.state)


NO_PROOF: dict[str, tuple[dict[str, Any], str, str]] = {
    "a full disk": ({}, "echo 'could not extend file: No space left on device' >&2; exit 3", "No space left"),
    "a server that has gone": ({}, "echo 'server closed the connection unexpectedly' >&2; exit 2", "closed the conn"),
    "a program that is killed": ({"compression": "gzip"}, "kill -9 $$", "psql failed"),
    "an end too early": ({"compression": "zstd"}, "exit 0", "psql ended before it had read all"),
    "too late": ({}, "exec sleep 600", "did not end within"),
    "custom": ({"format": "custom"}, "exit 1", "pg_restore failed with exit code 1"),
}


@pytest.mark.parametrize("how", NO_PROOF)
def test_a_failure_that_proves_nothing_leaves_the_mark(place: Place, how: str, tmp_path: Path) -> None:
    options, does, match = NO_PROOF[how]
    path = make(place, **options)
    told = drill(place)
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n[ "$1" != --version ] || exec {place.server.binaries}/psql --version\n{does}\n')
    program.chmod(0o755)
    place.engine.instead = {"psql": str(program), "pg_restore": str(program)}
    with pytest.raises(OpsError, match=match) as caught:
        drill(place, timeout=0.5 if how == "too late" else 60)
    assert manifest.read(str(path)).verified == told["verified"]
    assert "verified" not in str(caught.value) and "Do not rely" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"format": "custom"}], ids=["plain", "custom"])
def test_where_a_backup_can_only_be_made_by_exec_it_is_told_why_it_cannot_be_loaded(
    place: Place, options: dict[str, Any]
) -> None:
    path, server = make(place, **options), place.server
    planned = verify.plan(place.stack, place.options().target, str(place.backups), None, place.effects, space_margin=0)
    endpoint = replace(planned.way.endpoint, host=str(server.home))
    unknown = replace(planned, way=Way(endpoint, None, "The env file does not set TITAN_DB_PASSWORD"))
    with pytest.raises(OpsError, match=r"nobody is let in without a password, .*does not set TITAN_DB_PASS") as caught:
        verify.apply(unknown, place.effects, jobs=1, timeout=60)
    assert "rotate_db_password.yml" in str(caught.value.hint) and path.name in caught.value.msg
    place.engine.lacks = ("psql", "pg_restore")
    with pytest.raises(OpsError, match=r"cannot be loaded: the image of the database has no program p") as caught:
        verify.apply(planned, place.effects, jobs=1, timeout=60)
    assert "has psql and pg_restore" in str(caught.value.hint)
    assert place.left() == []


def test_a_request_to_end_or_a_comparison_that_cannot_be_made_leaves_the_mark(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(place)
    told = drill(place)

    def gone(*_args: object) -> None:
        raise OpsError("The database titan-postgres refused: server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(compare, "contents", gone)
        with pytest.raises(OpsError, match="titan-postgres refused"):
            drill(place)
    assert manifest.read(str(path)).verified == told["verified"]
    changed(path, b"note 250", b"nofe 250")  # asked to end, it does not look for more
    place.effects.cancelled = lambda: True
    with pytest.raises(OpsError, match="asked to end"):
        drill(place)
    assert manifest.read(str(path)).verified == told["verified"]


def test_a_request_to_end_drops_the_scratch_database(place: Place) -> None:
    path = make(place)
    place.effects.cancelled = lambda: True
    fails(place, path, "asked to end")


def test_the_encoding_and_locale_are_the_manifests(place: Place, server: postgres.Postgres) -> None:
    path = make(place)
    told = manifest.read(str(path))
    seen: list[str] = []
    place.engine.on_start = lambda argv: seen.append(
        server.sql(
            "SELECT row_to_json(d) FROM (SELECT pg_encoding_to_char(encoding), datcollate, pg_get_userbyid(datdba)"
            " FROM pg_database WHERE datname LIKE '%\\_\\_verify\\_%') d"
        )
    )
    drill(place)
    found = json.loads(seen[0])
    assert list(found.values()) == [told.properties["encoding"], told.properties["collate"], "titan"]


# What is left, and what is said of it


def failing(place: Place, tmp_path: Path, does: str) -> None:
    """psql does this and no more."""
    program = tmp_path / "psql"
    program.write_text(f'#!/bin/sh\n[ "$1" != --version ] || exec {place.server.binaries}/psql --version\n{does}\n')
    program.chmod(0o755)
    place.engine.instead = {"psql": str(program)}


def test_a_drill_removes_what_killed_runs_have_left_beside_the_databases(place: Place) -> None:
    make(place)
    beside = place.engine.server_container.id
    place.engine.create("stray", {"Labels": {"titan.ops.sidecar": beside}})
    (place.backups / ".titan_brain_2026-02-06.sql.partial").write_text("half")
    passfile = Path(place.effects.run_dir) / f"pgpass-{beside[:12]}"
    passfile.write_text("*:*:*:*:secret\n")
    seen: list[bool] = []
    place.engine.on_start = lambda argv: seen.append("secret" in passfile.read_text())
    assert drill(place)["tidied"] == ["stray", ".titan_brain_2026-02-06.sql.partial"]
    assert place.left() == [] and not [name for name in place.names() if name.startswith(".")]
    assert seen and not any(seen)


def test_the_password_is_in_nothing_that_a_failed_drill_says(place: Place, tmp_path: Path) -> None:
    path = make(place)
    failing(place, tmp_path, f"printf '%s\\n' 'could not use {PASSWORD}' >&2; exit 2")
    error = fails(place, path, "could not use")
    assert PASSWORD not in str(error) and "of titan" not in str(error)


def test_a_full_disk_of_ours_is_told_in_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(place)

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verify, "load", full)
    error = fails(place, path, f"{path.name} could not be restored: No space left on device")
    assert "and the scratch one was dropped" in str(error.state) and error.hint


def test_of_a_server_that_is_gone_nobody_says_that_the_scratch_database_was_dropped(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place)
    target, directory = place.options().target, str(place.backups)
    planned = verify.plan(place.stack, target, directory, None, place.effects, space_margin=0)
    failing(place, tmp_path, "exit 2")

    def gone(_way: object) -> list[str]:
        raise OpsError("The server is gone")

    monkeypatch.setattr(verify, "leftovers", gone)
    with pytest.raises(OpsError, match="psql failed") as caught:
        verify.apply(planned, place.effects, jobs=1, timeout=60)
    assert f"the next drill drops the scratch database {planned.name}" in str(caught.value.state)


def test_a_copy_that_cannot_be_dropped_after_a_failed_drill_is_told_with_the_failure(
    place: Place, tmp_path: Path
) -> None:
    make(place)
    server = place.server
    like = "FROM pg_database WHERE datname LIKE 'titan_brain\\_\\_verify\\_%'"
    place.engine.on_start = lambda argv: server.sql(
        f"UPDATE pg_database SET datistemplate = true WHERE datname IN (SELECT datname {like})"
    )
    failing(place, tmp_path, "exit 2")
    with pytest.raises(OpsError, match="psql failed") as caught:
        drill(place)
    left = server.sql(f"SELECT datname {like}")
    server.sql(f"ALTER DATABASE {left} IS_TEMPLATE false")
    [warning] = caught.value.facts["warnings"]
    assert left in warning and "until the next drill drops it" in warning
    assert f"the next drill drops the scratch database {left}" in str(caught.value.state)
    place.engine.on_start, place.engine.instead = lambda argv: None, {}
    assert drill(place)["tidied"] == [left]
