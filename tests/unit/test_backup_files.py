# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names, manifests, and the directory of the backups: what is whole, what is not, and what a killed run leaves."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import catalog, manifest
from ansible_collections.titan.ops.plugins.module_utils.backup.absent import remove_backup
from ansible_collections.titan.ops.plugins.module_utils.backup.manifest import Manifest
from ansible_collections.titan.ops.plugins.module_utils.backup.naming import (
    check_database,
    check_label,
    is_backup,
    named,
    nightly,
    owner_of,
)
from ansible_collections.titan.ops.plugins.module_utils.backup.report import told
from ansible_collections.titan.ops.plugins.module_utils.backup.source import find_source
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Mistaken, OpsError, Refused

# 2026-02-06T14:03:12Z
NOW = 1770386592.0


def backup(directory: Path, name: str, *, data: bytes = b"dump", **changes: Any) -> Path:
    """A backup with its manifest."""
    path = directory / name
    if name.endswith(".dir"):
        path.mkdir()
        (path / "toc.dat").write_bytes(data)
        sha256 = hashlib.sha256(f"{hashlib.sha256(data).hexdigest()}  toc.dat\n".encode()).hexdigest()
    else:
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
    fields: dict[str, Any] = {
        "name": name,
        "database": "titan_brain",
        "format": "plain",
        "compression": "none",
        "started": "2026-02-06T02:00:00Z",
        "ended": "2026-02-06T02:00:09Z",
        "seconds": 9.0,
        "size_bytes": len(data),
        "sha256": sha256,
        "rows": {"public.orders": 3},
    }
    manifest.write(str(path), Manifest(**{**fields, **changes}))
    return path


# Names


def test_the_nightly_name_is_the_runbooks() -> None:
    assert nightly("titan_brain", NOW, ".sql") == "titan_brain_2026-02-06.sql"
    assert named("titan_brain", NOW, "before_release", ".sql") == "titan_brain_2026-02-06T140312Z_before_release.sql"
    assert named("titan_brain", NOW, None, ".dump") == "titan_brain_2026-02-06T140312Z.dump"


@pytest.mark.parametrize("label", ["", "../x", "a/b", "a b", "a.sql", "-rf", "ü", "a\n", "x" * 65])
def test_a_label_that_is_no_plain_word_is_refused(label: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be part of a file name"):
        check_label(label)


@pytest.mark.parametrize("label", ["verification_snapshot", "a", "2026-02", "x" * 64])
def test_a_plain_word_is_a_label(label: str) -> None:
    check_label(label)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".hidden"])
def test_a_database_whose_name_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="database"):
        check_database(name)


@pytest.mark.parametrize(
    ("entry", "owner"),
    [
        (".titan_brain_2026-02-06.sql.partial", "titan_brain_2026-02-06.sql"),
        (".x.sql.zst.pipe", "x.sql.zst"),
        (".x.dir.removed", "x.dir"),
        (".x.sql.gz.manifest.json.titan-new", "x.sql.gz"),
        ("x.sql.partial", None),
        (".x.txt.partial", None),
        ("x.sql", None),
    ],
)
def test_what_is_hidden_names_its_backup(entry: str, owner: str | None) -> None:
    assert owner_of(entry) == owner
    assert not (owner and is_backup(entry))


# Manifests


def test_a_manifest_is_for_root_alone_and_reads_as_it_was_written(tmp_path: Path) -> None:
    path = backup(tmp_path, "a.sql", label="x", properties={"owner": "titan"})
    assert os.stat(manifest.path_of(str(path))).st_mode & 0o777 == 0o600
    found = manifest.read(str(path))
    assert (found.name, found.label, found.rows, found.properties) == (
        "a.sql",
        "x",
        {"public.orders": 3},
        {"owner": "titan"},
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": {"public.orders": "3"}}, "counts are not numbers"),
        ({"rows": None}, "was altered: rows"),
        ({"size_bytes": True}, "was altered: size_bytes"),
        ({"extra": 1}, "was altered: extra"),
        ({"name": "b.sql"}, "belongs to b.sql"),
        ({"format": "tar"}, "format or compression"),
        ({"schema": 2}, "this version of the collection"),
        ({"rows": {"public.orders": 4}}, "its own sha256 differs"),
        ({"properties": {"owner": "somebody"}}, "its own sha256 differs"),
        ({"properties": {"owner": "titan", "settings": {"": ["work_mem=1GB"]}}}, "its own sha256 differs"),
        ({"verified": "2026-02-06T05:00:00Z"}, "its own sha256 differs"),
        ({"manifest_sha256": "0" * 64}, "its own sha256 differs"),
        ({"manifest_sha256": 0}, "its own sha256 differs"),
    ],
)
def test_an_altered_manifest_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = backup(tmp_path, "a.sql", properties={"owner": "titan"})
    place = Path(manifest.path_of(str(path)))
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    with pytest.raises(InvalidInput, match=said):
        manifest.read(str(path))
    (found,) = catalog.listed(str(tmp_path))
    assert found.state == catalog.DAMAGED and said in found.trouble
    with pytest.raises(Refused, match=said):
        find_source(str(tmp_path), "a.sql", cancelled=lambda: False)


def test_a_manifest_is_the_same_however_its_json_is_laid_out_and_tells_its_own_sha256_in_words_of_the_documentation(
    tmp_path: Path,
) -> None:
    path = backup(tmp_path, "ä.sql", properties={"owner": "tïtan"})
    place = Path(manifest.path_of(str(path)))
    record = json.loads(place.read_text())
    place.write_text(json.dumps(dict(reversed(record.items())), ensure_ascii=False))
    assert manifest.read(str(path)).properties == {"owner": "tïtan"}
    said = record.pop("manifest_sha256")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert said == hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_of_an_earlier_version_is_as_good_and_gets_what_it_lacks_when_it_is_written(tmp_path: Path) -> None:
    path = backup(tmp_path, "a.sql")
    place = Path(manifest.path_of(str(path)))
    record = json.loads(place.read_text())
    del record["damaged"], record["manifest_sha256"]
    place.write_text(json.dumps(record))
    (found,) = catalog.listed(str(tmp_path))
    assert found.state == catalog.GOOD and found.manifest and found.manifest.damaged is None
    manifest.write(str(path), replace(found.manifest, verified="2026-02-06T05:00:00Z"))
    assert {"damaged", "manifest_sha256"} < set(json.loads(place.read_text()))
    assert manifest.read(str(path)).verified


# The directory


def test_the_list_tells_good_damaged_and_unknown_newest_first(tmp_path: Path) -> None:
    backup(tmp_path, "old.sql", started="2026-01-01T02:00:00Z")
    backup(tmp_path, "new.dir", started="2026-01-03T02:00:00Z")
    backup(tmp_path, "cut.sql.gz", started="2026-01-02T02:00:00Z").write_bytes(b"du")
    (tmp_path / "by_hand.sql").write_text("SELECT 1;")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".x.sql.partial").write_text("x")
    found = catalog.listed(str(tmp_path))
    assert [(item.name, item.state) for item in found] == [
        ("by_hand.sql", "unknown"),
        ("new.dir", "good"),
        ("cut.sql.gz", "damaged"),
        ("old.sql", "good"),
    ]
    assert found[2].trouble == "it has 2 bytes, its manifest says 4"
    assert catalog.listed(str(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("name", ["a.sql", "a.dir"])
def test_one_flipped_bit_is_found_by_the_checksum(tmp_path: Path, name: str) -> None:
    path = backup(tmp_path, name)
    (item,) = catalog.listed(str(tmp_path))
    assert told(item, now=NOW, checksums=True)["state"] == "good"
    (path / "toc.dat" if name.endswith(".dir") else path).write_bytes(b"dumq")
    (item,) = catalog.listed(str(tmp_path))
    assert told(item, now=NOW)["state"] == "good", "only the checksum tells"
    assert told(item, now=NOW, checksums=True)["trouble"] == "its sha256 is not the one of its manifest"


def test_a_list_tells_how_old_and_of_what_kind_each_is(tmp_path: Path) -> None:
    backup(tmp_path, "a.sql.zst", compression="zstd", label="x", verified="2026-02-06T05:00:00Z")
    (tmp_path / "hand.sql").write_text("x")
    os.utime(tmp_path / "hand.sql", (NOW + 60, NOW + 60))  # of a clock that is wrong
    shown = ("time", "age_seconds", "format", "compression", "label", "verified")
    hand, made = ({name: told(item, now=NOW)[name] for name in shown} for item in catalog.listed(str(tmp_path)))
    assert tuple(made.values()) == ("2026-02-06T02:00:00Z", 43392, "plain", "zstd", "x", "2026-02-06T05:00:00Z")
    assert tuple(hand.values()) == ("2026-02-06T14:04:12Z", 0, None, None, None, None)


def test_a_manifest_that_tells_no_moment_is_altered_and_the_others_are_listed_all_the_same(tmp_path: Path) -> None:
    backup(tmp_path, "a.sql", started="yesterday")
    backup(tmp_path, "b.sql")
    found = {item.name: (item.state, item.trouble) for item in catalog.listed(str(tmp_path))}
    assert found == {"a.sql": ("damaged", "its manifest was altered: started"), "b.sql": ("good", "")}


def test_what_a_killed_run_leaves_is_cleaned_and_nothing_else(tmp_path: Path) -> None:
    whole = backup(tmp_path, "whole.sql")
    # killed between the manifest and the name
    gone = backup(tmp_path, "gone.sql")
    os.rename(gone, tmp_path / ".gone.sql.partial")
    # killed while one was removed that is there again by now
    (tmp_path / ".whole.sql.removed").write_text("x")
    (tmp_path / ".d.dir.partial").mkdir()
    (tmp_path / ".d.dir.partial/1.dat").write_text("x")
    os.mkfifo(tmp_path / ".z.sql.gz.pipe")
    (tmp_path / ".mine").write_text("x")
    # a drill that was killed while it marked a manifest
    (tmp_path / ".whole.sql.manifest.json.titan-new").write_text("{")
    # a manifest whose backup somebody has moved elsewhere
    (tmp_path / "moved.sql.manifest.json").write_text("{}")
    found = catalog.leftovers(str(tmp_path))
    marked = ".whole.sql.manifest.json.titan-new"
    assert found == [".d.dir.partial", ".gone.sql.partial", marked, ".whole.sql.removed", ".z.sql.gz.pipe"]
    assert catalog.clean(str(tmp_path)) == found
    assert sorted(os.listdir(tmp_path)) == [
        ".mine",
        "moved.sql.manifest.json",
        whole.name,
        "whole.sql.manifest.json",
    ]


@pytest.mark.parametrize("name", ["a.sql", "a.dir"])
def test_taking_away_takes_the_manifest_too(tmp_path: Path, name: str) -> None:
    path = backup(tmp_path, name)
    catalog.take_away(str(path))
    assert os.listdir(tmp_path) == []
    with pytest.raises(OpsError, match="could not be removed"):
        catalog.take_away(str(path))


def test_a_backup_is_removed_by_name_but_not_the_last_good_one(tmp_path: Path) -> None:
    backup(tmp_path, "a.sql")
    backup(tmp_path, "b.sql")
    directory = str(tmp_path)
    assert remove_backup(directory, "a.sql", check_mode=True)["changed"] and (tmp_path / "a.sql").exists()
    assert remove_backup(directory, "a.sql", check_mode=False)["removed"] == ["a.sql"]
    assert not remove_backup(directory, "a.sql", check_mode=False)["changed"]
    with pytest.raises(Refused, match="the only good backup"):
        remove_backup(directory, "b.sql", check_mode=False)
    with pytest.raises(InvalidInput, match="without a path"):
        remove_backup(directory, "../b.sql", check_mode=False)
    assert (tmp_path / "b.sql").exists()


def test_a_backup_may_be_removed_by_its_path_and_the_history_says_which_it_was(tmp_path: Path) -> None:
    place, other = tmp_path / "db", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to("db")
    for name in ("a.sql", "b.sql", "c.sql"):
        backup(place, name)
    backup(other, "c.sql")
    told = remove_backup(str(place), str(place / "a.sql"), check_mode=False)
    assert (told["removed"], told["about"]) == (["a.sql"], {"backup": "a.sql"})
    assert remove_backup(str(place), str(tmp_path / "link/b.sql"), check_mode=False)["removed"] == ["b.sql"]
    for elsewhere in (str(other / "c.sql"), "/c.sql", f"{place}/", f"{place}/../other/c.sql", "latest/", "db/c.sql"):
        with pytest.raises(Mistaken, match="without a path"):
            remove_backup(str(place), elsewhere, check_mode=False)
    assert (place / "c.sql").exists() and (other / "c.sql").exists()
