# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of the backups: a table that an operator reads, of all that lies there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from backups import DIRECTORY, clear, manifest
from droplet import Droplet, changes, words


@pytest.fixture(autouse=True)
def nothing_before_and_after(droplet: Droplet) -> Iterator[None]:
    clear(droplet)
    yield
    clear(droplet)


def listed(droplet: Droplet, *args: str) -> dict[str, list[str]]:
    """The table's columns, by the backup's name, as the playbook prints it; it changes nothing."""
    before = droplet.fingerprint()
    done = droplet.playbook("list_backups", *args)
    assert changes(done) == 0 and droplet.fingerprint() == before
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"Backups in {DIRECTORY}" in lines, done.stdout
    rows = [re.split(r" {2,}", line) for line in lines if re.match(r"\S+\.(sql|dir)\b", line)]
    return {row[0]: row[1:] for row in rows}


def test_the_list_has_each_with_its_age_size_label_drill_and_state(droplet: Droplet) -> None:
    assert f"Backups in {DIRECTORY} none" in words(droplet.playbook("list_backups"))
    old = droplet.module("db_backup", label="old", format="directory", compression="gzip")
    cut, good = (droplet.module("db_backup", label=label) for label in ("cut", "good"))
    assert changes(droplet.playbook("verify_backup", "-e", f"backup={good['name']}")) == 1
    droplet.sh(f"truncate -s -1 {cut['backup']}; echo 'SELECT 1;' > {DIRECTORY}/hand.sql")
    droplet.sh(f"touch -d '2 days ago' {DIRECTORY}/hand.sql")
    for args in ((), ("--check",)):
        rows = listed(droplet, *args)
        assert rows.keys() == {old["name"], cut["name"], good["name"], "hand.sql"}
        verified = manifest(droplet, good["backup"])["verified"][:16].replace("T", " ")
        assert rows[good["name"]][3:] == ["plain", "good", verified, "good"]
        assert rows[old["name"]][3:] == ["directory gzip", "old", "never", "good"]
        assert (
            rows[cut["name"]][-1] == "DAMAGED"
            and rows["hand.sql"][1] == "2 d 0 h"
            and rows["hand.sql"][-1] == "unknown"
        )
        assert re.fullmatch(r"0 h \d min", rows[good["name"]][1])
    assert "its manifest says" in words(droplet.playbook("list_backups"))


def test_a_flipped_bit_is_shown_where_all_are_read(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="flipped")
    droplet.sh(f"printf x | dd of={made['backup']} bs=1 seek=1000 conv=notrunc status=none")
    assert listed(droplet)[made["name"]][-1] == "good"
    assert listed(droplet, "-e", "checksums=true")[made["name"]][-1] == "DAMAGED"
