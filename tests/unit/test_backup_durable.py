# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whenever the power is cut: what has its name is whole and has its manifest, and what was removed stays removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import catalog
from ansible_collections.titan.ops.tests.unit import test_backup_create as room
from ansible_collections.titan.ops.tests.unit.disk import Disk
from ansible_collections.titan.ops.tests.unit.sidecars import Place
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup

server, place = room.server, room.place


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"format": "custom"}, {"format": "directory"}],
    ids=["plain", "gzip", "custom", "directory"],
)
def test_the_dump_is_on_the_disk_before_its_manifest_and_both_before_the_name(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    disk = Disk(monkeypatch)
    path = Path(room.make(place, **options)["path"])
    partial, record = path.parent / f".{path.name}.partial", path.parent / f"{path.name}.manifest.json"
    files = [partial, *(partial / item.name for item in path.iterdir())] if path.is_dir() else [partial]
    told, named = disk.when("rename", record), disk.when("rename", path)
    for file in files:
        assert disk.when("fsync", file) < told, file
    assert told < named < disk.last("fsync", path.parent)
    # as durable as the file: its own content, and then its name
    assert disk.when("fsync", path.parent / f".{record.name}.titan-new") < told
    assert "fsync" in [what for what, where in disk.events[told:named] if where == str(path.parent)]


@pytest.mark.parametrize("name", ["a.sql", "a.dir"])
def test_a_backup_loses_its_name_for_good_before_it_loses_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else one without a manifest could be left: made by hand, as far as anybody knows, and nobody's to remove."""
    path, disk = backup(tmp_path, name), Disk(monkeypatch)
    catalog.take_away(str(path))
    hidden = disk.when("rename", tmp_path / f".{name}.removed")
    told = disk.when("unlink", tmp_path / f"{name}.manifest.json")
    assert ("fsync", str(tmp_path)) in disk.events[hidden:told]
    assert disk.last("fsync", tmp_path) == len(disk.events) - 1


def test_what_is_cleaned_is_gone_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".x.sql.partial").write_text("half")
    disk = Disk(monkeypatch)
    assert catalog.clean(str(tmp_path)) == [".x.sql.partial"]
    assert disk.last("fsync", tmp_path) > disk.when("unlink", tmp_path / ".x.sql.partial")
    disk.events.clear()
    assert catalog.clean(str(tmp_path)) == [] and disk.events == []
