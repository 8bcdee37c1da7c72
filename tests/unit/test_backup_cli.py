# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""backup_db.sh: the same backup under the system's Python, honest exit codes, and failures that are loud."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import marshal
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import bundle, cli, create, manifest, offsite, verify
from ansible_collections.titan.ops.plugins.module_utils.core.clock import parse_timestamp
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.history import read_entries
from ansible_collections.titan.ops.plugins.module_utils.core.progress import Progress
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD, Place

pytest.importorskip("psycopg2")

ROOT = cli.__name__.rpartition(".")[0].rpartition(".")[0]


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
        made.sql("CREATE TABLE orders AS SELECT generate_series(1, 9) id", database="titan_brain")
        yield made


@pytest.fixture(autouse=True)
def kept_signals() -> Iterator[None]:
    """A run lets signals wait; the tests do not."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


class Host:
    """A project directory with settings as schedule_backups.yml writes them."""

    def __init__(self, server: postgres.Postgres, home: Path) -> None:
        self.place = Place(server, home / "titan")
        self.metrics = home / "metrics"
        self.metrics.mkdir()
        self.config = home / "backup_db.json"
        self.configure()

    def configure(self, **changes: Any) -> None:
        settings = {
            "project_src": str(self.place.src),
            "project_name": "",
            "lock_timeout": "0.1",
            "metrics_dir": str(self.metrics),
            # as text, which older Ansible versions give
            "port": str(self.place.server.port),
            "level": "",
            "keep_daily": 2,
        }
        self.config.write_text(json.dumps({**settings, **changes}))

    def run(self, *argv: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        return self.run_into(out, err, *argv), out.getvalue(), err.getvalue()

    def run_into(self, out: TextIO, err: TextIO, *argv: str) -> int:
        engine: Any = self.place.engine
        return cli.main(["--config", str(self.config), *argv], connector=lambda _host: engine, out=out, err=err)

    def last(self) -> dict[str, Any]:
        return read_entries(str(self.place.src / "logs/ops.jsonl"))[-1]

    def metric(self, name: str, operation: str = "backup") -> float:
        text = (self.metrics / f"titan_{operation}.prom").read_text()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture
def host(server: postgres.Postgres, tmp_path: Path) -> Host:
    return Host(server, tmp_path)


def test_a_night_leaves_a_backup_a_line_and_metrics(host: Host) -> None:
    code, out, err = host.run()
    assert (code, err) == (0, "")
    [name] = [item for item in host.place.names() if item.endswith(".sql")]
    assert f"{name}: " in out and "9 rows, sha256 " in out
    told = manifest.read(str(host.place.backups / name))
    assert told.rows == {"public.orders": 9} and told.label is None
    line = host.last()
    assert (line["operation"], line["result"], line["backup"]) == ("backup", "ok", name)
    assert line["who"]["by"] == "backup_db.sh"
    assert host.metric("titan_backup_size_bytes") == told.size_bytes
    assert host.metric('titan_operation_last_success{operation="backup"}') == 1


def test_the_log_says_why_a_backup_went(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create.apply
    monkeypatch.setattr(create, "apply", lambda *args: {**made(*args), "removed": ["old.sql"]})
    code, out, _err = host.run()
    assert code == 0 and out.splitlines()[-1] == "removed by the retention: old.sql"


def test_a_label_makes_one_by_hand(host: Host) -> None:
    assert host.run("verification_snapshot")[0] == 0
    assert [name for name in host.place.names() if name.endswith("Z_verification_snapshot.sql")]


def test_a_failure_is_loud_everywhere_and_keeps_the_date_of_the_last_success(host: Host, tmp_path: Path) -> None:
    assert host.run()[0] == 0
    success = host.metric("titan_backup_last_success_timestamp_seconds")
    host.configure(database="nowhere", on_failure=["/bin/sh", "-c", f"cat > {tmp_path}/told"])
    code, out, err = host.run()
    assert (code, out) == (1, "")
    assert err.startswith("backup_db.sh: FAILED: ") and 'database "nowhere" does not exist' in err
    assert 'database "nowhere" does not exist' in (tmp_path / "told").read_text()
    assert host.last()["result"] == "failed" and "nowhere" in host.last()["error"]
    assert host.metric('titan_operation_last_success{operation="backup"}') == 0
    assert host.metric("titan_backup_last_success_timestamp_seconds") == success


@pytest.mark.parametrize(
    ("hook", "said"), [(["/nowhere/x"], "could not be run"), (["/bin/false"], "ended with 1")], ids=["missing", "fails"]
)
def test_a_hook_that_does_not_work_is_said_too(host: Host, hook: list[str], said: str) -> None:
    host.configure(database="nowhere", on_failure=hook)
    code, _out, err = host.run()
    assert code == 1 and said in err


def test_a_failure_that_cannot_be_written_into_the_log_is_told_elsewhere(host: Host, tmp_path: Path) -> None:
    """A full disk: every write into the log fails, and so would the flush when Python ends."""
    host.configure(database="nowhere", on_failure=["/bin/sh", "-c", f"cat > {tmp_path}/told"])
    with open("/dev/full", "w", encoding="utf-8") as out, open("/dev/full", "w", encoding="utf-8") as err:
        assert host.run_into(out, err) == 1
    assert 'database "nowhere" does not exist' in (tmp_path / "told").read_text()
    assert host.last()["result"] == "failed"
    assert host.metric('titan_operation_last_success{operation="backup"}') == 0


def test_a_backup_whose_words_are_lost_is_recorded_and_goes_off_site(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is lost in the middle (EIO), and with it everything that is said later."""
    master, slave = pty.openpty()
    made, gone = create.apply, []

    def lost(*args: Any) -> dict[str, Any]:
        os.close(master)
        return made(*args)

    monkeypatch.setattr(create, "apply", lost)
    monkeypatch.setattr(cli, "perform_locked", lambda *args, **more: gone.append(args[1]) or {"warnings": []})
    host.configure(offsite={"repository": "/srv/titan"})
    with os.fdopen(os.dup(slave), "w") as out, os.fdopen(slave, "w") as err:
        assert host.run_into(out, err, "label") == 0
    assert gone == ["copy"]
    lines = read_entries(str(host.place.src / "logs/ops.jsonl"))
    assert [(line["operation"], line["result"]) for line in lines] == [("backup", "ok"), ("backup_offsite", "ok")]
    assert host.metric('titan_operation_last_success{operation="backup"}') == 1


@pytest.mark.parametrize(
    ("module", "place", "code", "argv", "operation"),
    [
        (create, "apply", 1, [], "backup"),
        (verify, "apply", 1, ["--verify"], "verify_backup"),
        (cli, "perform_locked", 3, [], "backup_offsite"),
    ],
    ids=["backup", "drill", "offsite"],
)
def test_a_defect_of_ours_is_as_loud_as_any_failure(
    host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    place: str,
    code: int,
    argv: list[str],
    operation: str,
) -> None:
    def broken(*_args: Any, **_more: Any) -> None:
        raise ValueError("unheard of")

    assert host.run()[0] == 0
    monkeypatch.setattr(module, place, broken)
    offsite = {"repository": "/srv/titan"} if place == "perform_locked" else None
    host.configure(offsite=offsite, on_failure=["/bin/sh", "-c", f"cat > {tmp_path}/told"])
    ended, _out, err = host.run(*argv)
    assert ended == code
    assert "FAILED" in err and "ValueError: unheard of" in err and "Traceback" in err
    assert "ValueError: unheard of" in (tmp_path / "told").read_text()
    assert (host.last()["operation"], host.last()["result"]) == (operation, "failed")
    assert "ValueError" in host.last()["error"]


@pytest.mark.parametrize(("cause", "done"), [("backup", ["copy", "forget", "check"]), ("unreachable", ["copy"])])
def test_only_a_backup_on_the_host_that_is_damaged_does_not_end_what_goes_off_site(
    host: Host, monkeypatch: pytest.MonkeyPatch, cause: str, done: list[str]
) -> None:
    begun: list[str] = []

    def perform(_settings: Any, action: str, *_args: Any, **_more: Any) -> dict[str, Any]:
        begun.append(action)
        if action == "copy":
            kind = offsite.Unfit if cause == "backup" else OpsError
            raise kind("old.sql was not copied off-site: damaged", facts={"copied": ["good.sql"], "cause": cause})
        return {"changed": action == "forget", "warnings": [], "forgotten": ["gone.sql"] * (action == "forget")}

    monkeypatch.setattr(cli, "perform_locked", perform)
    host.place.src.mkdir(exist_ok=True)
    host.configure(offsite={"repository": "/srv/titan"})
    code, out, err = host.run("--offsite")
    assert (code, begun) == (3, done)
    assert "FAILED OFF-SITE (copy): old.sql was not copied off-site: damaged" in err
    lines = read_entries(str(host.place.src / "logs/ops.jsonl"))
    assert (lines[0]["operation"], lines[0]["result"]) == ("backup_offsite", "failed")
    assert host.metric('titan_operation_last_success{operation="backup_offsite"}', "backup_offsite") == 0
    if cause == "backup":
        assert out.splitlines() == [
            "copied off-site: good.sql",
            "forgotten off-site: gone.sql",
            "checked off-site: the repository is whole",
        ]
        check = "backup_offsite_check"
        assert host.metric(f'titan_operation_last_success{{operation="{check}"}}', check) == 1


def test_what_goes_off_site_is_shown_on_a_terminal(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, which is gone before the result is told."""
    master, slave = pty.openpty()

    def until(wanted: bytes) -> None:
        seen = b""
        while wanted not in seen:
            assert select.select([master], [], [], 20)[0], seen
            seen += os.read(master, 1000)

    def perform(*_args: Any, progress: Progress, **_more: Any) -> dict[str, Any]:
        progress.phase("copying a.sql off-site", 100, done=lambda: 40)
        until(b"copying a.sql off-site: 40 B of 100 B, 40 %")
        return {"changed": True, "warnings": [], "copied": ["a.sql"]}

    monkeypatch.setattr(cli, "perform_locked", perform)
    host.configure(offsite={"repository": "/srv/titan"})
    with os.fdopen(os.dup(slave), "w") as out, os.fdopen(slave, "w") as err:
        assert host.run_into(out, err, "label") == 0
        until(b"\r\x1b[Kcopied off-site: a.sql")
    os.close(master)


def test_a_backup_through_docker_exec_says_why(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create.apply
    monkeypatch.setattr(
        create, "apply", lambda *args: {**made(*args), "via_reason": "the image has no program pg_dump"}
    )
    code, _out, err = host.run()
    assert code == 0
    assert err == "backup_db.sh: warning: Made by docker exec, not in a sidecar: the image has no program pg_dump\n"


def test_another_operation_is_named_and_has_its_own_exit_code(host: Host) -> None:
    lock = host.place.src / "state/deploy.lock"
    lock.parent.mkdir()
    with open(lock, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        code, _out, err = host.run()
    assert code == 75 and "host lock" in err
    assert host.place.names() == []


def test_on_a_terminal_the_wait_for_the_lock_says_who_holds_it(host: Host) -> None:
    """And ends with it: the lock is given up as soon as the terminal has shown the holder's name."""
    lock = host.place.src / "state/deploy.lock"
    lock.parent.mkdir()
    host.configure(lock_timeout="30")
    master, slave = pty.openpty()
    with open(lock, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        record = {"holder": "deploy.sh", "reason": "release 42", "since": "2026-02-06T02:00:00Z", "pid": os.getpid()}
        stream.write(json.dumps(record))
        stream.flush()
        seen = bytearray()

        def watch() -> None:
            with contextlib.suppress(OSError):  # the run has ended, and with it the terminal
                while b"held by deploy.sh" not in seen:
                    seen.extend(os.read(master, 4096))
            fcntl.flock(stream, fcntl.LOCK_UN)

        watcher = threading.Thread(target=watch)
        watcher.start()
        out = io.StringIO()
        with os.fdopen(slave, "w") as err:
            code = host.run_into(out, err)
        watcher.join()
    os.close(master)
    assert f"waiting for the host's lock, held by deploy.sh (process {os.getpid()})" in seen.decode()
    assert code == 0 and len(host.place.names()) == 2


@pytest.mark.parametrize(
    ("label", "said"), [("../x", "cannot be part of a file name"), ("a b", "cannot be part of a file name")]
)
def test_a_bad_label_is_refused(host: Host, label: str, said: str) -> None:
    code, _out, err = host.run(label)
    assert code == 1 and said in err and host.place.names() == []


def test_a_slip_of_who_types_is_in_the_history_and_pages_nobody(host: Host) -> None:
    assert host.run()[0] == 0 and host.run("--verify")[0] == 0
    before = {path.name: path.read_text() for path in host.metrics.iterdir()}
    for argv, operation in ((("a b",), "backup"), (("--verify", "nope.sql"), "verify_backup")):
        assert host.run(*argv)[0] == 1
        assert (host.last()["operation"], host.last()["result"]) == (operation, "failed")
    assert {path.name: path.read_text() for path in host.metrics.iterdir()} == before
    # settings that are wrong, and a drill that finds nothing, are nobody's slip
    host.configure(keep_daily=-1)
    assert host.run()[0] == 1
    assert host.metric('titan_operation_last_success{operation="backup"}') == 0
    host.configure(directory="elsewhere")
    assert host.run("--verify")[0] == 1 and "There is no good backup" in host.last()["error"]
    assert host.metric('titan_operation_last_success{operation="verify_backup"}', "verify_backup") == 0


def test_settings_that_cannot_be_read_are_a_failure(host: Host) -> None:
    host.config.write_text("{")
    code, _out, err = host.run()
    assert code == 1 and "are not JSON" in err
    host.config.unlink()
    assert host.run()[0] == 1


def test_help_says_how_and_wrong_usage_ends_with_2(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        host.run("-h")
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "verification_snapshot" in said and "Exit codes" in said and "--config" not in said
    with pytest.raises(SystemExit) as ended:
        host.run("a", "b")
    assert ended.value.code == 2


# The drill


def test_the_drill_proves_the_newest_backup_and_leaves_what_the_module_leaves(host: Host) -> None:
    assert host.run("older")[0] == 0
    [older] = [name for name in host.place.names() if name.endswith("_older.sql")]
    made = manifest.read(str(host.place.backups / older))  # both may be of the same second
    manifest.write(str(host.place.backups / older), replace(made, started="2026-02-06T02:00:00Z"))
    assert host.run()[0] == 0
    [name] = [item for item in host.place.names() if item.endswith(".sql") and item != older]
    code, out, err = host.run("--verify")
    assert (code, err) == (0, "")
    assert out.startswith(f"{name} restores: 9 rows of 1 tables, as its manifest says, in ")
    verified = manifest.read(str(host.place.backups / name)).verified
    assert verified is not None and manifest.read(str(host.place.backups / older)).verified is None
    line = host.last()
    assert (line["operation"], line["result"], line["backup"]) == ("verify_backup", "ok", name)
    assert line["who"]["by"] == "backup_db.sh"
    assert host.metric('titan_operation_last_success{operation="verify_backup"}', "verify_backup") == 1
    stamp = host.metric("titan_backup_last_verified_timestamp_seconds", "verify_backup")
    assert stamp == parse_timestamp(verified)
    assert host.place.server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'titan_brain__%'") == "0"
    assert host.run("--verify", older)[0] == 0
    assert manifest.read(str(host.place.backups / older)).verified is not None


def test_a_drill_that_fails_is_as_loud_as_a_backup_that_fails(host: Host, tmp_path: Path) -> None:
    host.configure(on_failure=["/bin/sh", "-c", f"cat > {tmp_path}/told"])
    assert host.run()[0] == 0
    [name] = [item for item in host.place.names() if item.endswith(".sql")]
    path = host.place.backups / name
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    code, out, err = host.run("--verify", name)
    assert (code, out) == (1, "") and err.startswith("backup_db.sh: FAILED: ")
    assert name in (tmp_path / "told").read_text()
    assert (host.last()["operation"], host.last()["result"]) == ("verify_backup", "failed")
    assert host.metric('titan_operation_last_success{operation="verify_backup"}', "verify_backup") == 0
    assert host.metric('titan_operation_last_success{operation="backup"}') == 1


def test_a_drill_waits_its_turn(host: Host) -> None:
    lock = host.place.src / "state/deploy.lock"
    lock.parent.mkdir()
    with open(lock, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert host.run("--verify")[0] == 75
    assert host.last()["operation"] == "verify_backup"


@pytest.mark.parametrize(
    "argv",
    [("--verify", "x", "label"), ("label", "--verify"), ("--offsite", "--verify"), ("--offsite", "label"), ("verify",)],
)
def test_what_makes_no_backup_takes_no_label(host: Host, argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        host.run(*argv)
    assert ended.value.code == 2 and host.place.names() == []


# The one file


def test_the_bundle_runs_by_itself_and_is_the_same_every_time(tmp_path: Path) -> None:
    """In a process of its own, isolated: nothing of this checkout is to be found."""
    files = bundle.sources(ROOT)
    assert not [name for name in files if name.startswith("bridge")]
    assert {"backup/cli.py", "core/lock.py", "compose/__init__.py"} <= set(files)
    path = tmp_path / "ops.pyz"
    path.write_bytes(bundle.build(files))
    assert path.read_bytes() == bundle.build(bundle.sources(ROOT))
    run = [sys.executable, "-I", str(path)]
    done = subprocess.run([*run, "-h"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "backup_db.sh [-h] [--offsite | --verify [NAME]] [label]" in done.stdout
    done = subprocess.run([*run, "--config", "/nowhere"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "/nowhere does not exist" in done.stderr


def elsewhere(path: Path, script: str, *, seed: str = "0", given: str = "") -> str:
    """What another process prints, to which the archive's modules are known."""
    command = [sys.executable, "-c", f"import json, sys; sys.path.insert(0, {str(path)!r}); {script}"]
    settings = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(command, env=settings, input=given, capture_output=True, text=True, check=True).stdout.strip()


def test_the_bundle_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Else each run of schedule_backups.yml would write it anew."""
    path, files = tmp_path / "ops.pyz", bundle.sources(ROOT)
    path.write_bytes(bundle.build(files))
    script = "from titan_ops.backup.bundle import build; print(build(json.load(sys.stdin)).hex())"
    for seed in ("1", "2", "3"):
        assert elsewhere(path, script, seed=seed, given=json.dumps(files)) == path.read_bytes().hex()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there it is not compiled")
@pytest.mark.parametrize("same", [True, False])
def test_the_bundle_is_compiled_for_this_python_and_runs_under_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    if not same:
        monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", b"\x01\x02\r\n")
    path = tmp_path / "ops.pyz"
    path.write_bytes(bundle.build(bundle.sources(ROOT)))
    listing = "print(*(item.__file__ for name, item in sys.modules.items() if name.startswith('titan_ops.')))"
    loaded = elsewhere(path, f"import titan_ops.backup.cli; {listing}").split()
    assert len(loaded) > 20
    assert {Path(item).suffix for item in loaded} == {".pyc" if same else ".py"}


def test_the_bundle_is_whole_where_the_code_cannot_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.14 has constants (slices) that the old version of marshal cannot hold."""

    def refused(*_args: object) -> bytes:
        raise ValueError("unmarshallable object")

    monkeypatch.setattr(marshal, "dumps", refused)
    path = tmp_path / "ops.pyz"
    path.write_bytes(bundle.build(bundle.sources(ROOT)))
    assert (
        elsewhere(path, "import titan_ops.backup.cli as cli; print(cli.__file__)") == f"{path}/titan_ops/backup/cli.py"
    )


def test_the_exit_code_is_the_runs_own_where_nothing_can_be_said(tmp_path: Path) -> None:
    """Python gives 120 in its place where it cannot flush at exit."""
    path = tmp_path / "ops.pyz"
    path.write_bytes(bundle.build(bundle.sources(ROOT)))
    with open("/dev/full", "wb") as full:
        run = [sys.executable, "-I", str(path), "--config", "/nowhere"]
        done = subprocess.run(run, stdout=full, stderr=full, check=False, cwd=tmp_path)
    assert done.returncode == 1
