# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of a real PostgreSQL server by its own programs: whole, or not there at all."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import catalog, create, manifest, patience, session
from ansible_collections.titan.ops.plugins.module_utils.backup.dump import check_tail
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.fakes import NOW
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD, Place

pytest.importorskip("psycopg2")

SCHEMA = (
    "CREATE TABLE orders (id int PRIMARY KEY, note text)",
    'CREATE TABLE "odd ""name" (id int) PARTITION BY RANGE (id)',
    'CREATE TABLE "odd part" PARTITION OF "odd ""name" DEFAULT',
    "INSERT INTO orders SELECT i, 'note ' || i FROM generate_series(1, 500) i",
    'INSERT INTO "odd ""name" SELECT generate_series(1, 7)',
    "CREATE VIEW v AS SELECT * FROM orders",
    "CREATE MATERIALIZED VIEW m AS SELECT * FROM orders",
)


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
        made.sql("ALTER DATABASE titan_brain SET idle_in_transaction_session_timeout = '10ms'")
        made.sql("SET ROLE titan", *SCHEMA, database="titan_brain")
        yield made


@pytest.fixture
def place(server: postgres.Postgres, tmp_path: Path) -> Place:
    return Place(server, tmp_path / "titan")


def make(place: Place, **options: Any) -> dict[str, Any]:
    planned = create.plan(place.stack, place.options(**options), place.effects)
    return {**create.apply(planned, place.effects), "name": planned.name, "path": planned.path}


def fails(place: Place, match: str, **options: Any) -> OpsError:
    """The backup fails, nothing of it is left, and what was there is there."""
    before = place.names()
    with pytest.raises(OpsError, match=match) as caught:
        make(place, **options)
    assert place.names() == before
    assert place.left() == []
    return caught.value


@pytest.fixture
def docker(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker command whose ``exec`` runs the server's own program here."""
    tools = tmp_path / "bin"
    tools.mkdir()
    script = tools / "docker"
    script.write_text(
        "#!/bin/sh\nshift 2\n"
        'while :; do case $1 in --env=*) export "${1#--env=}"; shift ;; *) break ;; esac; done\n'
        "shift; program=$1; shift\n"
        f"PGHOST=127.0.0.1 PGPASSWORD='{PASSWORD}' exec {place.server.binaries}/$program \"$@\"\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")


# What is made


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, ".sql"),
        ({"compression": "gzip", "threads": 2}, ".sql.gz"),
        ({"compression": "zstd", "level": 5}, ".sql.zst"),
        ({"format": "custom"}, ".dump"),
        ({"format": "custom", "compression": "gzip", "level": 9}, ".dump"),
        ({"format": "directory", "jobs": 2}, ".dir"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_backup_is_whole_private_and_described(place: Place, options: dict[str, Any], end: str) -> None:
    made = make(place, label="x", **options)
    assert re.fullmatch(rf"titan_brain_\d{{4}}-\d\d-\d\dT\d{{6}}Z_x{re.escape(end)}", made["name"])
    assert place.names() == [made["name"], made["name"] + ".manifest.json"]
    assert place.left() == []
    path = Path(made["path"])
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    told = manifest.read(str(path))
    assert told.size_bytes == sum(file.stat().st_size for file in files) == made["size_bytes"]
    if path.is_file():
        assert told.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told.sha256 == catalog.digest(str(path))
    # no view is data; of a partitioned table its partitions
    assert told.rows == {"public.orders": 500, 'public."odd part"': 7}
    assert told.objects["tables"] == 2 and told.objects["partitioned tables"] == 1 and told.objects["views"] == 1
    assert told.properties["owner"] == "titan"
    assert told.properties["settings"] == {"": ["idle_in_transaction_session_timeout=10ms"]}
    version = place.server.call("pg_dump", "--version").split()[2]
    assert told.pg_dump_version == version and told.server_version.startswith(version)
    assert (told.via, told.verified, told.label) == ("sidecar", None, "x")


def test_a_plain_one_restores_with_psql_and_has_the_counted_rows(place: Place) -> None:
    made = make(place, compression="gzip", threads=2)
    place.server.sql("CREATE DATABASE copy OWNER titan")
    try:
        options = [f"--host={place.server.home}", f"--port={place.server.port}", "--username=postgres", "--dbname=copy"]
        text = gzip.decompress(Path(made["path"]).read_bytes()).decode()
        said = place.server.call("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *options, data=text)
        assert "ERROR" not in said
        assert place.server.sql("SELECT count(*) FROM orders", database="copy") == "500"
    finally:
        place.server.sql("DROP DATABASE copy")


def test_the_counts_are_the_dumps_own_whatever_happens_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that arrive after the snapshot are in neither, even before anybody counts or dumps."""

    @contextlib.contextmanager
    def and_somebody_writes(way: Any) -> Iterator[Any]:
        with session.open_session(way) as opened:
            place.server.sql("INSERT INTO orders VALUES (1001, 'late')", database="titan_brain")
            yield opened

    monkeypatch.setattr(create, "open_session", and_somebody_writes)
    try:
        made = make(place)
        assert manifest.read(made["path"]).rows["public.orders"] == 500
        assert "late" not in Path(made["path"]).read_text()
    finally:
        place.server.sql("DELETE FROM orders WHERE id = 1001", database="titan_brain")


def test_the_days_first_has_the_runbooks_name_and_is_never_replaced(place: Place) -> None:
    first = make(place, keep_daily=0, keep_weekly=0, keep_monthly=0)
    assert re.fullmatch(r"titan_brain_\d{4}-\d\d-\d\d\.sql", first["name"])
    content = Path(first["path"]).read_bytes()
    second = make(place, label="x")
    third = make(place, keep_daily=0, keep_weekly=0, keep_monthly=0)
    assert re.fullmatch(r"titan_brain_.*T\d{6}Z\.sql", third["name"])
    assert (first["removed"], second["removed"], third["removed"]) == ([], [], [first["name"]])
    assert third["name"] in place.names() and second["name"] in place.names() and content


def test_check_mode_tells_what_goes(place: Place) -> None:
    first = make(place)
    planned = create.plan(place.stack, place.options(keep_daily=0, keep_weekly=0, keep_monthly=0), place.effects)
    assert planned.removed == (first["name"],)
    assert planned.diff()["before"] == f"{first['name']}\n"
    assert planned.diff()["after"] == f"{planned.name}\n"
    assert place.names() == [first["name"], first["name"] + ".manifest.json"]


def test_retention_leaves_what_is_not_good_or_not_ours_alone(place: Place) -> None:
    first = make(place)
    Path(first["path"]).write_bytes(b"cut")
    (place.backups / "by_hand.sql").write_text("SELECT 1;")
    second = make(place, keep_daily=0, keep_weekly=0, keep_monthly=0)
    assert second["removed"] == []
    assert any("is damaged" in text for text in second["warnings"])
    assert {"by_hand.sql", first["name"], second["name"]} <= set(place.names())


@pytest.mark.parametrize("keep", [(2, 0, 0), (0, 0, 0)], ids=str)
def test_backups_of_a_wrong_clock_stay_and_do_not_push_out_the_ones_that_are_made(
    place: Place, keep: tuple[int, int, int]
) -> None:
    ahead = []
    for day in (1, 2):
        path = make(place, label=f"of_2131_{day}")["path"]
        manifest.write(path, replace(manifest.read(path), label=None, started=f"2131-01-0{day}T02:00:00Z"))
        ahead.append(Path(path).name)
    policy = dict(zip(("keep_daily", "keep_weekly", "keep_monthly"), keep))
    planned = create.plan(place.stack, place.options(**policy), place.effects)
    told = create.apply(planned, place.effects)
    assert (planned.removed, told["removed"]) == ((), [])
    assert {planned.name, *ahead} <= set(place.names())
    assert [name for text in told["warnings"] for name in ahead if name in text and "is yet to come" in text] == [
        ahead[1],
        ahead[0],
    ]
    # even of clocks that differ by less than that: what was just made is not what goes
    made = manifest.read(planned.path)
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=20)
    manifest.write(planned.path, replace(made, started=soon.strftime("%Y-%m-%dT%H:%M:%SZ")))
    last = make(place, keep_daily=0, keep_weekly=0, keep_monthly=0)
    assert last["removed"] == [] and {planned.name, last["name"]} <= set(place.names())


# The password


def test_the_password_is_in_a_file_of_mode_0600_for_as_long_as_needed_and_nowhere_else(place: Place) -> None:
    seen = []

    def look(argv: list[str]) -> None:
        [name] = os.listdir(place.effects.run_dir)
        path = Path(place.effects.run_dir, name)
        seen.append((oct(path.stat().st_mode & 0o777), path.read_text()))

    place.engine.on_start = look
    make(place)
    assert seen == [("0o600", "*:*:*:*:a\\:pass\\\\word of titan\n")]
    assert os.listdir(place.effects.run_dir) == []
    assert PASSWORD not in json.dumps(place.engine.bodies)


def test_the_sidecar_is_nobodys_service_and_has_the_servers_network(place: Place) -> None:
    make(place)
    [body] = place.engine.bodies
    assert body["Labels"] == {"com.docker.compose.project": "", "titan.ops.sidecar": place.engine.server_container.id}
    assert body["HostConfig"]["NetworkMode"] == f"container:{place.engine.server_container.id}"
    assert body["Image"] == place.engine.server_container.image_id


def test_without_the_right_password_the_socket_serves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_SOCKETS", ("nowhere", str(place.server.home).lstrip("/")))
    place.set_password("not-this-one")
    planned = create.plan(place.stack, place.options(), place.effects)
    assert planned.way.password is None
    assert any("does not let titan in" in text for text in planned.warnings)


def test_without_any_way_in_both_reasons_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_SOCKETS", ("nowhere",))
    place.set_password("not-this-one")
    error = fails(place, "password authentication failed.*there is none")
    assert "TITAN_DB_PASSWORD" in str(error) and "not-this-one" not in str(error)


# Failures


@contextlib.contextmanager
def locked(place: Place) -> Iterator[None]:
    """Somebody holds a table for himself."""
    where = [f"--host={place.server.home}", f"--port={place.server.port}", "--username=postgres", "titan_brain"]
    command = [f"{place.server.binaries}/psql", "--no-psqlrc", "--quiet", *where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
        assert psql.stdin and psql.stdout
        psql.stdin.write("SET idle_in_transaction_session_timeout = 0; BEGIN;\n")
        psql.stdin.write("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "locked\n"
        yield
        psql.stdin.close()


def test_a_dump_that_fails_leaves_nothing_and_says_why(place: Place) -> None:
    """Nor does it wait for what is counted meanwhile."""
    make(place, label="earlier")
    with locked(place):
        error = fails(place, "pg_dump failed with exit code 1: .*LOCK TABLE", lock_wait_timeout=1)
    assert "the earlier ones are as they were" in str(error)
    assert error.hint == "Mend the cause and run again."


def test_a_request_to_end_ends_it_without_a_trace(place: Place) -> None:
    asked = threading.Event()
    place.effects.cancelled = asked.is_set
    place.engine.on_start = lambda argv: asked.set()
    with locked(place):
        fails(place, "asked to end")


def test_a_dump_that_takes_too_long_is_ended(place: Place) -> None:
    with locked(place):
        fails(place, "pg_dump did not end within 1 seconds", timeout=1, lock_wait_timeout=60)


def test_a_full_disk_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", _full(os.write))
    error = fails(place, "No space left on device", compression="gzip")
    assert error.hint == "Free some space on that file system."


def _full(write: Any) -> Any:
    def refuse(fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".partial"):
            raise OSError(28, "No space left on device")
        return int(write(fd, data))

    return refuse


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "The dump is not complete"),
        ({"compression": "gzip"}, "The dump is not complete"),
        ({"compression": "zstd"}, "The dump is not complete"),
        ({"format": "custom"}, "pg_restore, which reads the dump again, failed"),
    ],
    ids=["plain", "gzip", "zstd", "custom"],
)
def test_a_dump_that_ends_too_early_with_exit_code_0_is_no_backup(
    place: Place, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    script = tmp_path / "pg_dump"
    script.write_text(
        '#!/bin/sh\nfor arg; do shift; case $arg in --file=*) out=${arg#--file=};; *) set -- "$@" "$arg";; esac; done\n'
        f'{place.server.binaries}/pg_dump "$@" 2>/dev/null | head -c 6000 >"$out"\nexit 0\n'
    )
    script.chmod(0o755)
    place.engine.instead["pg_dump"] = str(script)
    fails(place, said, **options)


def test_too_little_space_is_known_before(place: Place) -> None:
    make(place, label="earlier")
    assert "the backup may take" in fails(place, "free, and the backup may take", space_margin=1e12).msg
    make(place, label="looks_not", space_margin=0)


def test_what_a_killed_run_left_is_removed_first(place: Place) -> None:
    place.backups.mkdir(parents=True)
    (place.backups / ".titan_brain_2026-02-06.sql.partial").write_text("half")
    (place.backups / "titan_brain_2026-02-06.sql.manifest.json").write_text("{}")
    stray = place.engine.create("stray", {"Labels": {"titan.ops.sidecar": place.engine.server_container.id}})
    other = place.engine.create("other", {"Labels": {"titan.ops.sidecar": stray}})
    orphan = place.engine.create("orphan", {"Labels": {"titan.ops.sidecar": "gone"}})
    made = make(place)
    assert made["tidied"] == [".titan_brain_2026-02-06.sql.partial", "orphan", "stray"]
    left = [item.id for item in place.engine.containers]
    assert stray not in left and orphan not in left and other in left
    assert place.names() == [made["name"], made["name"] + ".manifest.json"]


def test_without_pg_dump_in_the_image_the_reason_is_told(place: Place) -> None:
    place.engine.lacks = ("pg_dump",)
    fails(place, "the image of the database has no program pg_dump", via="sidecar")
    fails(place, "A directory cannot be dumped|no program pg_dump", format="directory")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep_daily": -1}, "keep_daily must be 0 or more"),
        ({"keep_monthly": -1}, "keep_monthly must be 0 or more"),
        ({"space_margin": float("nan")}, "space_margin must be 0 or more"),
        ({"threads": 0}, "threads must be from 1"),
        ({"threads": 2}, "threads compress a plain dump"),
        ({"jobs": 2}, "jobs dump beside one another into a directory"),
        ({"level": 3}, "compression is none"),
        ({"compression": "gzip", "level": 10}, "level must be from 1 to 9 for gzip"),
        ({"via": "exec", "format": "directory"}, "through docker exec"),
        ({"label": "a/b"}, "cannot be part of a file name"),
        ({"database": "a/b"}, "cannot be part of a file name"),
        ({"service": "nope"}, "no container of a service nope; it has: titan-postgres"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_with_one_sentence(place: Place, options: dict[str, Any], said: str) -> None:
    fails(place, said, **options)


def test_a_stopped_server_or_a_file_for_a_directory_is_refused(place: Place) -> None:
    place.engine.change("titan-postgres", status="exited")
    with pytest.raises(Refused, match="does not run: its container is exited"):
        make(place)
    place.engine.change("titan-postgres", status="running")
    place.backups.parent.mkdir()
    place.backups.write_text("x")
    with pytest.raises(InvalidInput, match="is not a directory"):
        make(place)


# What is said when it is not as it should be


def test_the_password_is_in_nothing_that_a_failed_backup_says(place: Place, tmp_path: Path) -> None:
    script = tmp_path / "pg_dump"
    script.write_text(f"#!/bin/sh\nprintf '%s\\n' 'could not use {PASSWORD}' >&2; exit 1\n")
    script.chmod(0o755)
    place.engine.instead["pg_dump"] = str(script)
    error = fails(place, "could not use")
    assert PASSWORD not in str(error) and "of titan" not in str(error)


def test_an_old_backup_that_cannot_be_removed_is_a_warning_and_the_new_one_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(place)

    def refused(path: str) -> None:
        raise OpsError(f"{path} could not be removed: Operation not permitted")

    monkeypatch.setattr(catalog, "take_away", refused)
    second = make(place, keep_daily=0, keep_weekly=0, keep_monthly=0)
    assert second["removed"] == [] and {first["name"], second["name"]} <= set(place.names())
    [warning] = second["warnings"]
    assert warning.startswith("The new backup is whole, but an old one stays: ") and first["path"] in warning


def test_a_read_only_file_system_is_called_that(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    make(place, label="earlier")
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real(path)[:8], os.ST_RDONLY, 255)))
    fails(place, "is on a read-only file system")


def test_a_directory_that_takes_no_file_is_refused_before_the_database_is_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place, label="earlier")
    before, real = place.names(), os.open
    place.engine.bodies.clear()
    tried: list[str] = []

    def immutable(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT and os.path.dirname(os.fspath(path)) == str(place.backups):
            tried.append(os.path.basename(path))
            raise PermissionError(1, "Operation not permitted", path)
        return real(path, flags, *args, **options)

    planned = create.plan(place.stack, place.options(), place.effects)
    monkeypatch.setattr(os, "open", immutable)
    monkeypatch.setattr(create, "open_session", lambda _way: pytest.fail("the database was asked"))
    with pytest.raises(Refused, match=r"Nothing can be written into the directory .*: Operation not perm") as caught:
        create.apply(planned, place.effects)
    assert caught.value.state == "Nothing was changed." and "lsattr -d" in str(caught.value.hint)
    assert (place.names(), place.engine.bodies, place.left()) == (before, [], [])
    # were it killed right then, the next run would remove the file
    assert [catalog.owner_of(name) for name in tried] == ["trial.sql"]


def test_two_of_one_label_in_one_second_are_told_apart_by_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(clock, "now", lambda: NOW)
    place.effects.clock = clock
    first = make(place, label="x")
    content = Path(first["path"]).read_bytes()
    assert "a second later" in str(fails(place, "There is a backup .*_x.sql already", label="x").hint)
    assert Path(first["path"]).read_bytes() == content


def test_what_appears_under_the_name_meanwhile_is_not_replaced(place: Place) -> None:
    planned = create.plan(place.stack, place.options(), place.effects)
    place.backups.mkdir(parents=True)
    Path(planned.path).write_text("of somebody else")
    with pytest.raises(OpsError, match="has appeared meanwhile"):
        create.apply(planned, place.effects)
    assert place.names() == [planned.name] and Path(planned.path).read_text() == "of somebody else"
    assert place.left() == []


def test_a_disk_that_fails_at_the_name_is_told_and_nothing_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_old: str, _new: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", broken)
    error = fails(place, "could not be finished: Input/output error")
    assert (
        error.state
        == "No backup was made; what had been written of it was removed, and the earlier ones are as they were."
    )


def test_of_what_cannot_be_removed_nobody_says_that_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.engine.instead["pg_dump"] = "/bin/false"
    planned = create.plan(place.stack, place.options(), place.effects)
    real, calls = catalog.clean, []

    def refused(directory: str) -> list[str]:
        calls.append(directory)
        if len(calls) == 1:
            return real(directory)
        raise OpsError(f"What an interrupted backup left in {directory} cannot be removed: Input/output error")

    monkeypatch.setattr(catalog, "clean", refused)
    with pytest.raises(OpsError, match="pg_dump failed") as caught:
        create.apply(planned, place.effects)
    assert "cannot be removed: Input/output error; the next run removes it." in str(caught.value.state)
    assert "was removed" not in str(caught.value.state)


def test_rows_that_cannot_be_counted_are_no_backup(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_session: object) -> dict[str, int]:
        raise OpsError("The database titan-postgres refused: permission denied for table orders")

    monkeypatch.setattr(create, "counts", refused)
    fails(place, "permission denied for table orders")


# The last line


@pytest.mark.parametrize(
    "end",
    [
        "--\n-- PostgreSQL database dump complete\n--\n\n",
        "-- PostgreSQL database dump complete\n--\n\n\\unrestrict aB3\n",
    ],
)
def test_a_complete_dump_is_known_by_its_end(end: str) -> None:
    check_tail(end.encode())


@pytest.mark.parametrize(
    "end",
    ["", "COPY public.orders FROM stdin;\n", "-- PostgreSQL database dump complete\n--\n\npg_dump: error: x y z\n"],
)
def test_any_other_end_is_not(end: str) -> None:
    with pytest.raises(OpsError, match="not complete"):
        check_tail(end.encode())


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "zstd"}, {"format": "custom"}], ids=str
)
def test_where_the_image_lacks_pg_dump_the_servers_own_container_makes_it(
    place: Place, options: dict[str, Any]
) -> None:
    place.engine.lacks = ("pg_dump",)
    made = make(place, **options)
    assert made["via"] == "exec" and "pg_dump" in made["via_reason"]
    told = manifest.read(made["path"])
    assert told.rows["public.orders"] == 500 and told.sha256 == catalog.digest(made["path"])
    assert place.left() == []


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zstd"}, {"format": "custom"}, {"format": "directory"}], ids=str
)
def test_nobody_else_can_read_a_dump_while_it_is_made(place: Place, options: dict[str, Any]) -> None:
    seen = set()

    def look() -> bool:
        for name in place.names():
            path = place.backups / name
            if name.endswith(".partial"):
                seen.add(oct(path.stat().st_mode & 0o077))
        return False

    place.backups.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.backups.chmod(0o755)
    umask = os.umask(0o022)
    try:
        place.effects.cancelled = look
        make(place, **options)
    finally:
        os.umask(umask)
    assert seen == {"0o0"}


def test_what_a_killed_run_has_left_is_no_reason_for_a_lack_of_space(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = make(place, label="a")["size_bytes"]
    left = place.backups / ".titan_brain_2020-01-01.sql.partial"
    left.write_bytes(bytes(size))
    real = os.statvfs

    def tight(path: str) -> Any:
        there = real(path)
        free = 2 * size - (left.stat().st_size if left.exists() else 0)
        return os.statvfs_result((1, 1, free, free, free, *there[5:]))

    monkeypatch.setattr(os, "statvfs", tight)
    assert make(place, label="b")["tidied"] and not left.exists()


def test_a_damaged_backup_does_not_tell_how_much_the_next_one_takes(place: Place) -> None:
    Path(make(place, label="a")["path"]).write_bytes(b"cut")
    planned = create.plan(place.stack, place.options(), place.effects)
    assert planned.needed_bytes > planned.facts.size_bytes == planned.expected_bytes


def test_counting_ends_when_the_run_is_asked_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def slowly(counting: Any) -> dict[str, int]:
        counting.run(["SELECT pg_sleep(600)"])
        return {}

    monkeypatch.setattr(create, "counts", slowly)
    place.effects.cancelled = asked.is_set
    made = create.dump

    def dumped(*args: Any, **options: Any) -> Any:
        found = made(*args, **options)
        asked.set()
        return found

    monkeypatch.setattr(create, "dump", dumped)
    fails(place, "asked to end")


def test_a_server_that_answers_no_more_while_rows_are_counted_does_not_hold_us(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def hung(counting: Any) -> dict[str, int]:
        pid = int(counting.run(["SELECT pg_backend_pid()"])[0][0])
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)
        counting.run(["SELECT 1"])
        return {}

    monkeypatch.setattr(create, "counts", hung)
    monkeypatch.setattr(patience, "_PATIENCE", 0.2)
    try:
        fails(place, "not counted within 1 seconds", timeout=1)
    finally:
        os.kill(pids[0], signal.SIGCONT)
