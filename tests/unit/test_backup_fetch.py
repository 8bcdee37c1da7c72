# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes back from off-site: on the disk before it has its name, root's alone, and never something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import manifest
from ansible_collections.titan.ops.plugins.module_utils.backup.fetch import fetch
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.tests.unit import test_offsite as room
from ansible_collections.titan.ops.tests.unit.disk import Disk
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup
from ansible_collections.titan.ops.tests.unit.test_offsite import Host, listed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: backups are root's")

host = room.host

NAMES = ["titan_brain_2026-02-06.sql", "titan_brain_2026-02-06.dir"]


class Away:
    """A repository that has one backup; the host has none."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.place = host.home / "away"
        self.place.mkdir()
        self.sha256 = manifest.read(str(backup(self.place, name))).sha256
        for path in [self.place, *self.place.rglob("*")]:
            path.chmod(0o777)
        self.lists(listed(name, self.sha256))
        self.restores()

    def lists(self, *found: dict[str, Any]) -> None:
        self.host.says("snapshots", f"print(json.dumps({list(found)!r}))")

    def restores(self, and_then: str = "") -> None:
        """``and_then`` is Python, where ``to`` is the directory that restic has restored into."""
        self.host.says(
            "restore",
            "import shutil; to = pathlib.Path(words[words.index('--target') + 1])\n"
            f"shutil.copytree({str(self.place)!r}, to, dirs_exist_ok=True, symlinks=True)\n{and_then}",
        )

    def fetched(self) -> dict[str, Any]:
        return fetch(self.host.options(), self.host.restic())

    def fails(self, match: str) -> OpsError:
        """Nothing is there that was not there before."""
        before = here(self.host)
        with pytest.raises(OpsError, match=match) as caught:
            self.fetched()
        assert here(self.host) == before
        return caught.value


def here(host: Host) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(host.backups)): path.read_bytes() if path.is_file() else None
        for path in host.backups.rglob("*")
    }


@pytest.fixture
def away(host: Host) -> Callable[[str], Away]:
    return lambda name: Away(host, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_on_the_disk_before_the_name_and_nobody_else_may_read_it(
    away: Callable[[str], Away], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, disk = away(name), Disk(monkeypatch)
    made.restores("for path in to.rglob('*'): os.chown(path, 65534, 65534)")
    path = made.host.backups / name
    made.fetched()
    staging, record = made.host.backups / ".offsite", f"{name}.manifest.json"
    files = [staging / name / "toc.dat", staging / name] if path.is_dir() else [staging / name]
    named = disk.when("rename", path)
    for file in [*files, staging / record]:
        assert disk.when("fsync", file) < disk.when("rename", made.host.backups / record) < named, file
    assert disk.last("fsync", made.host.backups) > named
    for item in [path, *path.rglob("*"), made.host.backups / record]:
        status = item.stat()
        assert (status.st_uid, oct(status.st_mode & 0o777)) == (0, "0o700" if item.is_dir() else "0o600"), item


def test_nobody_else_may_read_it_while_it_comes(away: Callable[[str], Away]) -> None:
    """restic gives the files the modes that they had."""
    made = away(NAMES[0])
    script = made.host.fake / "restore.py"
    looks = "(here / 'mode').write_text(oct(os.stat(words[words.index('--target') + 1]).st_mode & 0o777))"
    script.write_text(f"{looks}\n{script.read_text()}")
    made.host.backups.chmod(0o755)
    umask = os.umask(0o022)
    try:
        made.fetched()
    finally:
        os.umask(umask)
    assert (made.host.fake / "mode").read_text() == "0o700"


def test_what_a_killed_run_has_left_is_in_nobodys_way(away: Callable[[str], Away]) -> None:
    made = away(NAMES[1])
    left = made.host.backups / ".offsite" / NAMES[1]
    left.mkdir(parents=True)
    (left / "3001.dat").write_bytes(b"half")
    assert made.fetched()["changed"]
    assert set(here(made.host)) == {NAMES[1], f"{NAMES[1]}/toc.dat", f"{NAMES[1]}.manifest.json"}


@pytest.mark.parametrize(
    ("name", "spoils", "said"),
    [
        (NAMES[0], "(to / name).unlink(); (to / name).symlink_to(secret)", "as a plain file"),
        (NAMES[0], "(to / name).unlink()", "as a plain file"),
        (NAMES[0], "record.unlink(); record.symlink_to(secret)", r"manifest\.json is not in the snapshot as a plain"),
        (NAMES[1], "(to / name / 'toc.dat').unlink(); (to / name / 'toc.dat').symlink_to(secret)", "is no plain file"),
        (NAMES[1], "(to / name / 'more').mkdir()", "is no plain file"),
        (NAMES[1], "os.mkfifo(to / name / 'more')", "is no plain file"),
        (NAMES[1], "(to / name / 'more').write_text('x')", "its sha256 differs"),
        (NAMES[0], "record.write_text('{}')", "manifest"),
    ],
)
def test_a_snapshot_of_anything_but_plain_files_adds_nothing_and_touches_nothing(
    away: Callable[[str], Away], name: str, spoils: str, said: str
) -> None:
    made = away(name)
    secret = made.host.home / "secret"
    secret.write_text("not a dump")
    secret.chmod(0o644)
    made.restores(f"name, secret = {name!r}, {str(secret)!r}; record = to / (name + '.manifest.json')\n{spoils}")
    error = made.fails(said)
    assert error.state == "Nothing was added to the backups, which are as they were."
    assert secret.stat().st_mode & 0o777 == 0o644


def test_another_whole_backup_under_the_name_is_not_the_one_that_was_listed(away: Callable[[str], Away]) -> None:
    made = away(NAMES[0])
    made.lists(listed(NAMES[0], "0" * 64))
    made.fails("is not the backup .*: its sha256 differs from its manifest's")


def test_what_appears_under_the_name_meanwhile_stays(away: Callable[[str], Away]) -> None:
    made = away(NAMES[0])
    path = made.host.backups / NAMES[0]
    made.restores(f"open({str(path)!r}, 'w').write('of somebody else')")
    with pytest.raises(OpsError, match="has appeared meanwhile"):
        made.fetched()
    assert here(made.host) == {NAMES[0]: b"of somebody else"}


@pytest.mark.parametrize(
    ("spoils", "said"),
    [
        (lambda path: path.write_bytes(b"dumq"), "There is a damaged copy of it at"),
        (lambda path: path.write_bytes(b"dum"), "There is a damaged copy of it at"),
        (lambda path: Path(f"{path}.manifest.json").unlink(), "There is another backup at"),
    ],
    ids=["a bit", "a byte", "no manifest"],
)
def test_what_is_there_under_its_name_is_not_taken_for_it_unless_it_is_whole(
    away: Callable[[str], Away], spoils: Callable[[Path], object], said: str
) -> None:
    made = away(NAMES[0])
    path = backup(made.host.backups, NAMES[0])
    assert not made.fetched()["changed"]
    spoils(path)
    assert "state: absent" in str(made.fails(said).hint)
    assert not made.host.asked("restore")


def test_without_room_nothing_is_brought(away: Callable[[str], Away], monkeypatch: pytest.MonkeyPatch) -> None:
    made = away(NAMES[0])
    found = listed(NAMES[0], made.sha256)
    made.lists({**found, "tags": [*found["tags"], "size=4"]})
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=3, f_frsize=1))
    assert "Nothing was added" in str(made.fails("0.0 MB free, and the backup takes").state)
    assert not made.host.asked("restore")
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=4, f_frsize=1))
    assert made.fetched()["changed"]


def test_a_disk_that_fails_at_the_name_is_an_error_in_words(
    away: Callable[[str], Away], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = away(NAMES[0])

    def fails(_old: str, _new: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", fails)
    error = made.fails("could not be written: Input/output error")
    assert error.state == "Nothing was added to the backups, which are as they were."


def test_looking_brings_nothing(away: Callable[[str], Away]) -> None:
    made = away(NAMES[0])
    told = fetch(made.host.options(), made.host.restic(), check_mode=True)
    assert (told["changed"], told["name"], here(made.host)) == (True, NAMES[0], {})
    assert not made.host.asked("restore")
    assert json.loads(json.dumps(told)) == told
