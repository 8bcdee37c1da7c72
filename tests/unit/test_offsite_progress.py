# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the copies off-site say of their progress, from restic's own words as 0.14 to 0.18 write them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import offsite
from ansible_collections.titan.ops.plugins.module_utils.backup.fetch import fetch
from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_run import perform_locked
from ansible_collections.titan.ops.plugins.module_utils.backup.restic import Restic, ResticEffects
from ansible_collections.titan.ops.plugins.module_utils.compose.project import StackOptions
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import LockHeld
from ansible_collections.titan.ops.plugins.module_utils.core.progress import Progress
from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup
from ansible_collections.titan.ops.tests.unit.test_offsite import SUMMARY, Host, listed, whole

NAME = "titan_brain_2026-02-06.sql"
OLDER = "titan_brain_2026-02-05.sql"
# What it writes once a second, the first line before it has done anything.
BACKUP = """
print('{{"message_type":"status","percent_done":0}}', flush=True)
print('{{"message_type":"status","percent_done":0.5,"total_files":2,"total_bytes":{total},"bytes_done":{done},'
      '"current_files":["/{name}"]}}', flush=True)
"""
RESTORE = """
print('{{"message_type":"status","percent_done":0.5,"total_files":2,"total_bytes":{total},"bytes_restored":{done}}}',
      flush=True)
"""
# It goes on when it was seen, or after ten seconds all the same.
UNTIL_SEEN = """
import time
(here / "said").touch()
for _turn in range(200):
    if (here / "seen").exists(): break
    time.sleep(0.05)
"""
LOOKING = "looking into the off-site repository"


class Recorder(Progress):
    """Keeps the words of every phase, and those of which bytes were told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.counted: set[str] = set()

    def phase(
        self, what: str, total: int | None = None, *, about: bool = False, done: Callable[[], int] | None = None
    ) -> None:
        # It is told again as soon as there are bytes.
        if self.seen[-1:] != [what]:
            self.seen.append(what)
        self.counted |= {what} if done else set()
        super().phase(what, total, about=about, done=done)


class Watched:
    """restic, and what its progress said when it said this and restic's words had been looked at."""

    def __init__(self, host: Host, wanted: str) -> None:
        self.line = ""
        self.progress = Recorder()
        self._wanted, self._said, self._seen = wanted, host.fake / "said", host.fake / "seen"
        self._looked = 0
        self.restic = Restic(host.options().repository, ResticEffects(Clock(), self._look, progress=self.progress))

    def _look(self) -> bool:
        line = self.progress.line()
        self._looked += self._wanted in line and self._said.exists()
        # Its words are looked at after each time that it is asked whether it is to end.
        if self._looked == 2 and not self._seen.exists():
            self.line = line
            self._seen.touch()
        return False


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_copy_says_how_much_of_it_is_done(host: Host) -> None:
    backup(host.backups, NAME, data=b"x" * 9_000_000)
    total = whole(host, NAME)
    said = BACKUP.format(total=total, done=4_500_000, name=NAME)
    host.says("backup", said + UNTIL_SEEN + SUMMARY.format(total))
    watched = Watched(host, "4.5 MB")
    told = offsite.copy(host.options(), watched.restic, init=False, check_mode=False)
    assert told["copied"] == [NAME]
    assert watched.line.startswith(f"copying {NAME} off-site: 4.5 MB of 9.0 MB, 49 %"), watched.line
    (asked,) = host.asked("backup")
    assert asked["env"]["RESTIC_PROGRESS_FPS"] == "1" and "--json" in asked["words"]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: backups are root's")
@pytest.mark.parametrize("version", ["0.16", "0.14"])
def test_a_fetch_says_how_much_of_it_has_come_where_restic_does(host: Host, version: str) -> None:
    """0.14 says nothing, and gives its files their full size at once: nothing is made up then."""
    path = backup(host.backups, NAME, data=b"x" * 9_000_000)
    sha = json.loads(path.with_name(f"{NAME}.manifest.json").read_text())["sha256"]
    total = whole(host, NAME)
    away = host.home / "away"
    away.mkdir()
    for entry in (NAME, f"{NAME}.manifest.json"):
        (host.backups / entry).rename(away / entry)
    found = listed(NAME, sha)
    found["tags"].append("size=9000000")
    host.says("snapshots", f"print(json.dumps([{found!r}]))")
    bring = f"import shutil; shutil.copytree({str(away)!r}, words[words.index('--target') + 1], dirs_exist_ok=True)\n"
    said = RESTORE.format(total=total, done=4_500_000) if version == "0.16" else ""
    other = "" if said else "print('restoring <Snapshot ab12cd34>', flush=True)\n"
    host.says("restore", bring + other + said + UNTIL_SEEN)
    watched = Watched(host, "4.5 MB" if said else "fetching")
    assert fetch(host.options(), watched.restic)["changed"]
    begins = f"fetching {NAME} from off-site"
    assert watched.line.startswith(f"{begins}: 4.5 MB of 9.0 MB, 50 %" if said else begins), watched.line
    assert bool(said) == (begins in watched.progress.counted)
    assert watched.progress.seen == [LOOKING, begins, f"computing the sha256 of {NAME}"]
    (asked,) = host.asked("restore")
    assert "--json" in asked["words"]


def test_every_phase_of_a_copy_is_told_and_which_of_how_many(host: Host) -> None:
    backup(host.backups, NAME)
    backup(host.backups, OLDER, started="2026-02-05T02:00:00Z")
    host.says("cat", "print('Fatal: unable to open config file: Lstat: file does not exist'); sys.exit(1)")
    host.says("backup", SUMMARY.format(whole(host, NAME)))
    watched = Watched(host, "never")
    offsite.copy(host.options(), watched.restic, init=True, check_mode=False)
    assert watched.progress.seen == [
        LOOKING,
        "making the off-site repository",
        f"computing the sha256 of {NAME} (1 of 2)",
        f"copying {NAME} off-site (1 of 2)",
        f"computing the sha256 of {OLDER} (2 of 2)",
        f"copying {OLDER} off-site (2 of 2)",
    ]


def test_every_phase_of_the_care_for_the_repository_is_told(host: Host) -> None:
    found = [listed(NAME, "0"), listed(OLDER, "1", ident="33334444bb", day=5)]
    host.says("snapshots", f"print(json.dumps({found!r}))")
    watched = Watched(host, "never")
    options = host.options(keep_daily=1, keep_weekly=0, keep_monthly=0, prune=True)
    assert offsite.forget(options, watched.restic, check_mode=False)["forgotten"] == [OLDER]
    offsite.check(options, watched.restic, check_mode=False)
    assert watched.progress.seen == [
        LOOKING,
        "forgetting off-site: 1 backup",
        "freeing space in the off-site repository",
        LOOKING,
        "checking the off-site repository",
    ]


def test_whoever_waits_is_told_for_whom(host: Host) -> None:
    lock = host.home / "state" / "offsite.lock"
    lock.parent.mkdir()
    progress = Recorder()
    settings: dict[str, Any] = {name: value for name, value in host.params.items() if value is not None}
    with open(lock, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(LockHeld):
            perform_locked(
                settings,
                "copy",
                StackOptions(project_src=str(host.home), lock_timeout=0.1),
                holder="us",
                clock=Clock(),
                cancelled=lambda: False,
                redact=Redactor(),
                progress=progress,
            )
    assert progress.seen[0] == "waiting for the lock of the copies off-site"
    assert progress.seen[1].startswith("waiting for the lock of the copies off-site, held by ")
