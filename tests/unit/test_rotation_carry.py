# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a container's own layer, kept safe until the new container has them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.rotation.carry import CarryStore
from ansible_collections.titan.ops.tests.unit.fake_host import Host

EXECUTION = "titan-execution"
HALT, REDB = "/app/system.halt", "/app/titan_execution.redb"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "titan")


@pytest.fixture
def store(host: Host) -> CarryStore:
    return CarryStore.beside(str(host.src / "state" / "x.journal"), {EXECUTION: [HALT, REDB]})


def container(stack: Stack, service: str = EXECUTION) -> Container:
    return stack.containers_of([service])[service][0]


def kept(host: Host) -> list[Path]:
    return sorted((host.src / "state" / "x.journal.files").glob("*"))


def test_what_is_there_is_saved_closed_to_others_and_put_into_another_container(host: Host, store: CarryStore) -> None:
    stack = host.stack()
    host.layer(EXECUTION)[REDB] = bytes(range(256)) * 100
    assert store.save(stack.engine, EXECUTION, container(stack)) == [HALT, REDB]
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept(host)] == [0o600, 0o600]
    assert stat.S_IMODE(kept(host)[0].parent.stat().st_mode) == 0o700
    expected = dict(host.layer(EXECUTION))
    host.layer(EXECUTION).clear()
    assert store.load(stack.engine, EXECUTION, container(stack)) == [HALT, REDB]
    assert host.layer(EXECUTION) == expected


def test_what_is_gone_by_now_is_forgotten(host: Host, store: CarryStore) -> None:
    stack = host.stack()
    store.save(stack.engine, EXECUTION, container(stack))
    del host.layer(EXECUTION)[HALT]
    assert store.save(stack.engine, EXECUTION, container(stack)) == []
    assert store.load(stack.engine, EXECUTION, container(stack)) == []
    assert host.layer(EXECUTION) == {}


def test_another_service_gets_nothing(host: Host, store: CarryStore) -> None:
    stack = host.stack()
    store.save(stack.engine, EXECUTION, container(stack))
    assert store.save(stack.engine, "titan-brain", container(stack, "titan-brain")) == []
    assert store.load(stack.engine, "titan-brain", container(stack, "titan-brain")) == []


def test_nothing_is_made_where_there_is_nothing_to_save(host: Host, store: CarryStore) -> None:
    stack = host.stack()
    host.layer(EXECUTION).clear()
    store.save(stack.engine, EXECUTION, container(stack))
    assert not (host.src / "state").exists()


def test_the_next_process_finds_what_was_saved_and_in_the_end_all_is_removed(host: Host, store: CarryStore) -> None:
    stack = host.stack()
    store.save(stack.engine, EXECUTION, container(stack))
    again = CarryStore.beside(str(host.src / "state" / "x.journal"), {EXECUTION: [HALT]})
    assert again.load(stack.engine, EXECUTION, container(stack)) == [HALT]
    again.clear()
    again.clear()
    assert list((host.src / "state").iterdir()) == []


def test_only_what_is_missing_is_put_into_a_container_that_may_have_files_already(
    host: Host, store: CarryStore
) -> None:
    stack = host.stack()
    host.layer(EXECUTION)[REDB] = b"positions"
    store.save(stack.engine, EXECUTION, container(stack))
    host.layer(EXECUTION).clear()
    host.layer(EXECUTION)[REDB] = b"positions since"
    assert store.load(stack.engine, EXECUTION, container(stack), missing_only=True) == [HALT]
    assert host.layer(EXECUTION) == {HALT: b"halted by the operator", REDB: b"positions since"}
    assert store.load(stack.engine, EXECUTION, container(stack), missing_only=True) == []


def test_a_container_that_never_ran_is_saved_but_never_in_place_of_what_waits_for_it(
    host: Host, store: CarryStore
) -> None:
    """It may have got its files by an earlier rotation; or it waits for them, or has got half of them."""
    stack = host.stack()
    store.save(stack.engine, EXECUTION, container(stack))
    body = host.body(EXECUTION)
    host.remove(host.one(EXECUTION)["Id"])
    host.create(EXECUTION, body)
    host.layer(EXECUTION).update({HALT: b"hal", REDB: b"positions"})
    assert store.save(stack.engine, EXECUTION, container(stack)) == [REDB]
    host.layer(EXECUTION).clear()
    assert store.save(stack.engine, EXECUTION, container(stack)) == []
    assert store.load(stack.engine, EXECUTION, container(stack)) == [HALT, REDB]
    assert host.layer(EXECUTION) == {HALT: b"halted by the operator", REDB: b"positions"}


def test_a_file_in_the_root_directory_is_carried_as_well(host: Host) -> None:
    stack = host.stack()
    store = CarryStore.beside(str(host.src / "state" / "x.journal"), {EXECUTION: ["/halt"]})
    host.layer(EXECUTION)["/halt"] = b"1"
    store.save(stack.engine, EXECUTION, container(stack))
    host.layer(EXECUTION).clear()
    store.load(stack.engine, EXECUTION, container(stack))
    assert host.layer(EXECUTION) == {"/halt": b"1"}
