# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What backups and drills say of their progress, on a real PostgreSQL server: phases whose bytes add up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import create, manifest, verify
from ansible_collections.titan.ops.plugins.module_utils.compose.sidecar import Sidecar
from ansible_collections.titan.ops.plugins.module_utils.core.progress import Progress
from ansible_collections.titan.ops.tests.unit import postgres
from ansible_collections.titan.ops.tests.unit.fakes import FakeEngine, container
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD, Place


class Recorder(Progress):
    """Keeps every phase, with the bytes that were done when the next one began."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[int | None, bool, int | None]] = {}
        self._last: tuple[str, int | None, bool, Callable[[], int] | None] | None = None

    def phase(
        self, what: str, total: int | None = None, *, about: bool = False, done: Callable[[], int] | None = None
    ) -> None:
        self.close()
        self._last = (what, total, about, done)
        super().phase(what, total, about=about, done=done)

    def close(self) -> None:
        if self._last is not None:
            what, total, about, done = self._last
            try:
                self.seen[what] = (total, about, done() if done else None)
            except OSError:  # of a program that has ended
                self.seen[what] = (total, about, None)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: backups are root's")
    pytest.importorskip("psycopg2")
    with postgres.running() as made:
        quoted = PASSWORD.replace("'", "''")
        made.sql(f"CREATE ROLE titan LOGIN SUPERUSER PASSWORD '{quoted}'")
        made.sql("CREATE DATABASE titan_brain OWNER titan")
        made.sql(
            "CREATE TABLE orders AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i", database="titan_brain"
        )
        yield made


def _watched(place: Place) -> Recorder:
    recorder = Recorder()
    place.effects = replace(place.effects, progress=recorder)
    return recorder


def _make(place: Place, **options: Any) -> Path:
    planned = create.plan(place.stack, place.options(**options), place.effects)
    create.apply(planned, place.effects)
    return Path(planned.path)


LOOKING, COUNTING = "looking at the database and its backups", "counting the rows"
DISK, AGAIN, SHA = "waiting until the disk has it", "reading the dump again", "computing the sha256"


@pytest.mark.parametrize(
    ("options", "phases"),
    [
        ({}, [LOOKING, "dumping titan_brain", DISK]),
        ({"compression": "gzip"}, [LOOKING, "dumping titan_brain", AGAIN, DISK]),
        ({"format": "custom"}, [LOOKING, "dumping titan_brain", AGAIN, DISK, SHA]),
        ({"format": "directory"}, [LOOKING, "dumping titan_brain", AGAIN, DISK, SHA]),
    ],
    ids=["plain", "gzip", "custom", "directory"],
)
def test_every_phase_of_a_backup_is_told_and_ends_where_it_should(
    server: postgres.Postgres, tmp_path: Path, options: dict[str, Any], phases: list[str]
) -> None:
    place = Place(server, tmp_path / "titan")
    recorder = _watched(place)
    path = _make(place, **options)
    told = manifest.read(str(path))
    recorder.close()
    assert list(recorder.seen) == [*phases, COUNTING]
    _expected, about, dumped = recorder.seen["dumping titan_brain"]
    assert about
    assert dumped == (told.raw_bytes or dumped) and dumped
    if told.raw_bytes and told.compression != "none":
        assert recorder.seen[AGAIN] == (told.raw_bytes, False, told.raw_bytes)
    if SHA in phases:
        assert recorder.seen[SHA] == (told.size_bytes, False, told.size_bytes)
        assert recorder.seen[AGAIN][:2] == (told.size_bytes, False)


def test_the_estimate_is_the_databases_size_and_then_what_the_last_dump_was(
    server: postgres.Postgres, tmp_path: Path
) -> None:
    place = Place(server, tmp_path / "titan")
    size = int(server.sql("SELECT pg_database_size('titan_brain')"))
    planned = create.plan(place.stack, place.options(label="a"), place.effects)
    assert abs(planned.expected_bytes - size) < size / 2
    path = _make(place, label="a", compression="gzip")
    raw = manifest.read(str(path)).raw_bytes
    assert create.plan(place.stack, place.options(label="b"), place.effects).expected_bytes == raw, "plain as well"
    custom = create.plan(place.stack, place.options(label="b", format="custom"), place.effects)
    assert custom.expected_bytes == planned.expected_bytes, "another format says nothing about this one"


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"format": "custom"}], ids=["plain", "gzip", "custom"]
)
def test_a_drill_tells_what_psql_was_given(server: postgres.Postgres, tmp_path: Path, options: dict[str, Any]) -> None:
    place = Place(server, tmp_path / "titan")
    path = _make(place, label="a", **options)
    told = manifest.read(str(path))
    recorder = _watched(place)
    planned = verify.plan(place.stack, place.options().target, str(place.backups), None, place.effects, space_margin=0)
    verify.apply(planned, place.effects, jobs=1, timeout=60)
    recorder.close()
    total, about, done = recorder.seen[f"restoring {path.name}"]
    assert not about and total == (told.raw_bytes or told.size_bytes)
    assert done == total or "format" in options
    assert list(recorder.seen)[-1] == "comparing the rows of every table"


def test_what_a_program_and_its_children_have_read_is_counted(tmp_path: Path) -> None:
    """pg_restore reads the archive itself, or has its jobs read it."""
    size = 20_000_000
    (tmp_path / "archive").write_bytes(bytes(size))
    script = (
        "import os, sys\n"
        "def read():\n    open(sys.argv[1], 'rb').read()\n"
        "child = os.fork()\n"
        "if child == 0:\n    read(); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "if os.fork() == 0:\n    read(); os.write(1, b'read\\n'); sys.stdin.read(); os._exit(0)\n"
        "read(); os.write(1, b'read\\n'); sys.stdin.read()\n"
    )
    beside, made = container("titan-postgres"), container("sidecar")

    class Images(FakeEngine):
        def image_labels(self, image: str) -> dict[str, str]:
            return {}

        def create(self, name: str, body: dict[str, Any]) -> str:
            return made.id

    engine: Any = Images([beside])
    sidecar = Sidecar(engine, beside, ["pg_restore"], environment={}, mounts={})
    with pytest.raises(ProcessLookupError):
        sidecar.taken()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "archive")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert [process.stdout.readline(), process.stdout.readline()] == ["read\n", "read\n"]
        engine.containers = [beside, replace(made, status="running", pid=process.pid)]
        assert sidecar.ended() is None
        assert 3 * size <= sidecar.taken() < 4 * size
