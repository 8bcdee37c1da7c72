# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes from the off-site repository, and what never does; what is said of a repository that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import manifest, offsite
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError, Refused
from ansible_collections.titan.ops.tests.unit import test_offsite as room
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup
from ansible_collections.titan.ops.tests.unit.test_offsite import SUMMARY, Host, whole

host = room.host

ABSENT = "print('Fatal: unable to open config file: Lstat: file does not exist'); sys.exit(1)"
KEEP = {"keep_daily": 2, "keep_weekly": 0, "keep_monthly": 0}


def night(day: int, *more: str, whose: str = "droplet", database: str = "titan_brain", sha: str = "") -> dict[str, Any]:
    """A snapshot of ours as restic lists it; its id tells whose and of which day."""
    tags = ["titan.ops", f"database={database}", f"backup={name(day)}", f"sha256={sha or day}", *more]
    ident = f"{day:02}-{whose}-{database}"
    return {"id": ident, "hostname": whose, "time": f"2026-02-{day:02}T02:00:00Z", "tags": tags}


def name(day: int) -> str:
    return f"titan_brain_2026-02-{day:02}.sql"


def has(host: Host, *found: dict[str, Any]) -> None:
    host.says("snapshots", f"print(json.dumps({list(found)!r}))")


def forget(host: Host, *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    asked = {**KEEP, **changes}
    return offsite.forget(host.options(**asked), host.restic(**asked), check_mode=check_mode)


def gone(host: Host) -> list[list[str]]:
    """The days of the snapshots that restic was told to forget, by call."""
    return [[word.partition("-")[0] for word in item["words"][2:]] for item in host.asked("forget")]


def test_what_the_policy_does_not_keep_goes_and_nothing_of_anybody_else(host: Host) -> None:
    others = [
        *(night(day, whose="another") for day in range(1, 9)),
        *(night(day, database="titan_other") for day in range(1, 9)),
        {**night(9), "id": "99-by-hand", "tags": ["titan.ops", "database=titan_brain"]},
    ]
    mine = [night(1, "label=release"), night(2, "verified"), night(3, "verified"), *(night(day) for day in range(4, 9))]
    has(host, *others, *mine)
    told = forget(host)
    assert sorted(told["forgotten"]) == [name(day) for day in (2, 4, 5, 6)]
    assert (told["changed"], told["present"]) == (True, 4)
    [words] = [item["words"] for item in host.asked("forget")]
    assert words[:2] == ["forget", "--"]
    assert sorted(words[2:]) == [night(day)["id"] for day in (2, 4, 5, 6)]
    assert not host.asked("prune")


def test_the_newest_one_that_a_drill_has_proved_here_stays_there(host: Host) -> None:
    """The snapshot is from before the drill, and its tags know nothing of it."""
    path = backup(host.backups, name(3), started="2026-02-03T02:00:00Z", verified="2026-02-04T00:00:00Z")
    sha = manifest.read(str(path)).sha256
    backup(host.backups, name(4), started="2026-02-04T02:00:00Z")  # which nobody has proved
    has(host, night(2, "verified"), night(3, sha=sha), night(4, sha=sha), *(night(day) for day in range(5, 9)))
    forget(host)
    assert [sorted(days) for days in gone(host)] == [["02", "04", "05", "06"]]


def test_another_backup_of_the_name_is_not_the_one_that_was_proved_here(host: Host) -> None:
    backup(host.backups, name(3), started="2026-02-03T02:00:00Z", verified="2026-02-04T00:00:00Z")
    has(host, night(2, "verified"), *(night(day) for day in range(3, 9)))
    forget(host)
    assert [sorted(days) for days in gone(host)] == [["03", "04", "05", "06"]]


def test_looking_forgets_nothing_and_says_what_would_go(host: Host) -> None:
    has(host, *(night(day) for day in range(1, 5)))
    told = forget(host, check_mode=True, prune=True)
    assert (told["changed"], told["forgotten"]) == (True, [name(1), name(2)])
    assert not host.asked("forget") and not host.asked("prune")


def test_without_anything_to_forget_restic_is_not_told_to_and_frees_only_when_asked(host: Host) -> None:
    has(host, night(1), night(2))
    assert not forget(host)["changed"]
    assert not host.asked("forget") and not host.asked("prune")
    assert not forget(host, prune=True)["changed"]
    assert not host.asked("forget") and len(host.asked("prune")) == 1


def test_a_repository_that_is_not_there_is_refused_and_not_made(host: Host) -> None:
    backup(host.backups, name(1))
    host.says("cat", ABSENT)
    for does in (
        lambda: forget(host),
        lambda: offsite.check(host.options(), host.restic(), check_mode=False),
        host.copy,
    ):
        with pytest.raises(Refused, match="There is no repository at") as refused:
            does()
        assert refused.value.facts["cause"] == "absent"
    assert "the repository lacks 1 of them" in str(refused.value.state)
    assert not [verb for verb in ("init", "check", "forget", "backup") if host.asked(verb)]


def test_a_damaged_repository_is_told_with_what_is_still_good(host: Host) -> None:
    host.says("check", "print('pack 9fc0: does not match id\\nFatal: repository contains errors'); sys.exit(1)")
    with pytest.raises(OpsError) as caught:
        offsite.check(host.options(), host.restic(), check_mode=False)
    assert caught.value.state == f"The backups in {host.backups} are as they were"
    asked = len(host.asked("check"))
    assert offsite.check(host.options(), host.restic(), check_mode=True)["changed"] is False
    assert len(host.asked("check")) == asked


# Copying


def test_what_the_retention_takes_meanwhile_is_not_counted_as_there(host: Host) -> None:
    path = backup(host.backups, name(6))
    host.says("backup", f"os.remove({str(path)!r})\n" + SUMMARY.format(10))
    told = host.copy()
    assert (told["changed"], told["copied"], told["present"], told["samples"]) == (False, [], 0, [])


def test_after_a_fault_of_the_repository_the_rest_is_not_tried_and_after_one_of_a_file_it_is(host: Host) -> None:
    for day in (5, 6, 7):
        backup(host.backups, name(day), started=f"2026-02-{day:02}T02:00:00Z")
    host.says("backup", "print('Fatal: wrong password or no key found', file=sys.stderr); sys.exit(1)")
    with pytest.raises(OpsError, match=name(7)) as caught:
        host.copy()
    assert len(host.asked("backup")) == 1
    assert caught.value.facts["missing"] == [name(7), name(6), name(5)]
    assert "the repository lacks 3 of them" in str(caught.value.state)
    (host.backups / name(7)).write_bytes(b"dumq")
    host.says("backup", SUMMARY.format(whole(host, name(6))))
    with pytest.raises(OpsError, match=f"{name(7)}.* damaged") as caught:
        host.copy()
    assert caught.value.facts["copied"] == [name(6), name(5)] and caught.value.facts["missing"] == [name(7)]
    assert "2 were copied. " in str(caught.value.state) and "lacks 1 of them" in str(caught.value.state)
