# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an operation under way."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import files
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.journal import Journal, drop_endings, endings


def test_a_record_is_found_by_the_next_run(tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = Journal(str(state), "hmac_rotate")
    assert journal.load() is None
    journal.begin({"key": "HMAC_SECRET"})
    journal.note(step="drain")
    assert journal.path == str(state / "hmac_rotate.journal")
    found = Journal(str(state), "hmac_rotate")
    assert found.load() == {"version": 1, "key": "HMAC_SECRET", "step": "drain"}
    found.note(step="undo")
    assert Journal(str(state), "hmac_rotate").load() == {"version": 1, "key": "HMAC_SECRET", "step": "undo"}
    found.end()
    assert Journal(str(state), "hmac_rotate").load() is None
    assert list(state.iterdir()) == []
    found.end()


def test_the_record_is_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = Journal(str(state), "x")
    journal.begin({})
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    state.chmod(0o755)  # of deployments that run as another user: theirs to open
    journal.note(step="a")
    journal.begin({})
    assert stat.S_IMODE(state.stat().st_mode) == 0o755
    assert stat.S_IMODE(Path(journal.path).stat().st_mode) == 0o600


def test_every_change_is_on_disk_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")

    monkeypatch.setattr(files.os, "fsync", fsync)
    journal = Journal(str(tmp_path), "x")
    for call in (lambda: journal.begin({}), lambda: journal.note(step="a")):
        synced.clear()
        call()
        assert synced == ["file", "directory"]
    synced.clear()
    journal.end()
    assert synced == ["directory"]


def test_a_note_that_cannot_be_written_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path), "x")
    journal.begin({"step": "a"})

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OpsError, match="No space left"):
        journal.note(step="b")
    monkeypatch.undo()
    assert Journal(str(tmp_path), "x").load() == {"version": 1, "step": "a"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b'{"version": 1', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "was written by another version"),
        (json.dumps({"version": 2}).encode(), "was written by another version"),
        (b"{}", "was written by another version"),
    ],
)
def test_a_journal_that_cannot_be_understood_stays_and_stops_the_run(tmp_path: Path, content: bytes, said: str) -> None:
    journal = Journal(str(tmp_path), "x")
    Path(journal.path).write_bytes(content)
    with pytest.raises(OpsError, match=said) as caught:
        journal.load()
    assert "what the interrupted one left is as it was" in str(caught.value)
    assert "by hand" in str(caught.value)
    assert Path(journal.path).read_bytes() == content


def test_a_dangling_journal_is_not_taken_for_none(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "x")
    Path(journal.path).symlink_to("nowhere")
    with pytest.raises(OpsError, match="dangling"):
        journal.load()


def test_the_end_takes_away_what_a_killed_write_left(tmp_path: Path) -> None:
    staging = tmp_path / ".x.journal.titan-new"
    staging.write_bytes(b"secret")
    Journal(str(tmp_path), "x").end()
    assert not staging.exists()


def test_the_end_is_fine_where_no_state_directory_is(tmp_path: Path) -> None:
    Journal(str(tmp_path / "nowhere"), "x").end()


def test_an_operation_that_has_ended_leaves_a_note_until_somebody_has_written_that_down(tmp_path: Path) -> None:
    for kind, began in (("b", 2.0), ("a", 1.0)):
        journal = Journal(str(tmp_path), kind, f"do_{kind}")
        journal.begin({"began": began, "old": "geheim"})
        journal.conclude("finished", ended=began + 10, secret="KEY")
        assert not Path(journal.path).exists()
    common = {"version": 1, "how": "finished", "secret": "KEY"}
    assert endings(str(tmp_path)) == [
        {**common, "operation": "do_a", "began": 1.0, "ended": 11.0},
        {**common, "operation": "do_b", "began": 2.0, "ended": 12.0},
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    (tmp_path / ".do_a-3000.ended.titan-new").write_text("{", encoding="utf-8")  # killed while it wrote
    (tmp_path / "do_a-4000.ended").write_text("{", encoding="utf-8")
    assert len(endings(str(tmp_path))) == 2
    drop_endings(str(tmp_path))
    assert list(tmp_path.iterdir()) == [] and endings(str(tmp_path)) == []
    drop_endings(str(tmp_path / "nowhere"))


def test_the_note_is_on_disk_before_the_record_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path), "x")
    journal.begin({"began": 1.0})
    seen: list[list[str]] = []
    real = journal.end

    def end() -> None:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        real()

    monkeypatch.setattr(journal, "end", end)
    journal.conclude("undone", ended=2.0)
    assert seen == [["x-1000.ended", "x.journal"]]


def test_a_full_disk_does_not_keep_an_operation_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path), "x")
    journal.begin({"began": 1.0})
    real = os.fsync

    def full(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(files.os, "fsync", full)
    journal.conclude("finished", ended=2.0)
    assert list(tmp_path.iterdir()) == []
