# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A full disk: refused before anything is stopped; from then on neither the switch nor its undo needs space."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import files
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation import envsecret
from ansible_collections.titan.ops.tests.unit.fake_host import ENV, OLD, Host, Killed
from ansible_collections.titan.ops.tests.unit.rotating import (
    BRAIN,
    EXECUTION,
    HALT,
    HOLDERS,
    NEW,
    OPSD,
    REDB,
    Process,
    assert_one_secret,
    direct,
    kill_before,
    let_live,
    new_host,
    options,
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return new_host(tmp_path / "titan", monkeypatch)


def fill(monkeypatch: pytest.MonkeyPatch, *endings: str, error: BaseException | None = None) -> Callable[[], None]:
    """No file whose name ends so can be made durable any more; gives a way to mend that."""
    full = [True]
    fsync = os.fsync

    def refuse(fd: int) -> None:
        if full and os.readlink(f"/proc/self/fd/{fd}").endswith(endings):
            raise error or OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    return full.clear


@pytest.mark.parametrize("ending", [".env.prod.titan-new", ".env.prod.titan-old", ".journal.titan-new"])
def test_a_disk_that_cannot_take_what_it_needs_is_refused_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    mend = fill(monkeypatch, ending)
    with pytest.raises(Refused) as caught:
        Process(host, options()).rotate()
    said = str(caught.value)
    assert said.startswith("The rotation of HMAC_SECRET was not begun: ")
    assert "could not be written: No space left on device. Nothing was changed. Free some space" in said
    assert not [item for item in host.operations if "journal" not in item and "titan-" not in item]
    assert host.one(BRAIN)["State"]["StartedAt"] < "2026-02-06T14:04"
    assert_one_secret(host, OLD)
    mend()
    assert Process(host, options()).recover() is None
    Process(host, options()).rotate()
    assert_one_secret(host, NEW)


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), ValueError("whatever")])
def test_a_directory_that_is_read_only_is_refused_and_no_journal_with_secrets_stays(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    opened, unlink, there = os.open, os.unlink, str(host.src / "compose")

    def refuse_new(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_CREAT and str(path).startswith(there):
            raise error
        return opened(path, flags, *args, **options)

    def refuse_removal(path: str, **options: int) -> None:
        if str(path).startswith(there):  # Linux says so before it looks whether there is such a file
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **options)

    monkeypatch.setattr(os, "open", refuse_new)
    monkeypatch.setattr(os, "unlink", refuse_removal)
    with pytest.raises(Refused, match=r"The rotation of HMAC_SECRET was not begun: .*(Read-only|whatever)"):
        Process(host, options()).rotate()
    assert_one_secret(host, OLD)


@pytest.mark.parametrize("ending", [".env.prod.titan-new", ".env.prod.titan-old"])
def test_killed_while_it_writes_them_nothing_stays_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    mend = fill(monkeypatch, ending, error=Killed())
    monkeypatch.setattr(files, "remove", lambda path: False)  # who is killed tidies nothing up
    with pytest.raises(Killed):
        Process(host, options()).rotate()
    mend()
    monkeypatch.undo()
    assert list((host.src / "compose").glob(".*.titan-*"))
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def test_both_contents_lie_beside_the_file_before_anything_is_stopped_for_us_alone(host: Host) -> None:
    host.env_file.chmod(0o640)
    kill_before(host, f"stop {BRAIN}")
    with pytest.raises(Killed):
        Process(host, options()).rotate()
    let_live(host)
    staged = {path.name: path for path in (host.src / "compose").glob(".*.titan-*")}
    assert staged["..env.prod.titan-new"].read_bytes() == ENV.replace(OLD, NEW).encode()
    assert staged["..env.prod.titan-old"].read_bytes() == ENV.encode()
    assert {path.stat().st_mode & 0o777 for path in staged.values()} == {0o600}
    assert {path.stat().st_uid for path in staged.values()} == {os.geteuid()}
    assert Process(host, options()).recover() == "undone"
    assert not list((host.src / "compose").glob(".*.titan-*"))


@pytest.mark.parametrize("undone", [False, True])
def test_what_is_put_in_place_has_the_owner_the_mode_and_the_list_of_the_env_file(host: Host, undone: bool) -> None:
    """Its list lets somebody read it (setfacl -m u:1234:r)."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: only root may give a file away")
    entry = struct.Struct("<HHI").pack
    nobody = 0xFFFFFFFF
    entries = (entry(1, 6, nobody), entry(2, 4, 1234), entry(4, 0, nobody), entry(16, 4, nobody), entry(32, 0, nobody))
    access = struct.pack("<I", 2) + b"".join(entries)
    os.chown(host.env_file, 1000, 1000)
    try:
        os.setxattr(host.env_file, "system.posix_acl_access", access)
    except OSError as exc:
        pytest.skip(f"NOT RUN: no access control lists here ({exc})")

    def masked(_number: int, name: str) -> None:
        for path in (host.src / "compose").glob(".*.titan-*"):
            if name.startswith("stop"):
                assert path.stat().st_mode & 0o777 == 0o600
                # the mask, the last but one, takes everything from those who are named
                assert os.getxattr(path, "system.posix_acl_access")[28:32] == struct.pack("<HH", 16, 0)

    host.at = masked
    if undone:
        with pytest.raises(OpsError, match="It was undone"):
            direct(host, prove=refuse_new).run()
    else:
        Process(host, options()).rotate()
    info = host.env_file.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (1000, 1000, 0o640)
    assert os.getxattr(host.env_file, "system.posix_acl_access") == access


def refuse_new(right: str, _wrong: str, _services: Sequence[str]) -> None:
    if right == NEW:
        raise OpsError("refused with status 401")


def test_an_undo_on_a_full_disk_needs_no_space(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        fill(monkeypatch, ".titan-new", ".titan-old")
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError) as caught:
        direct(host, prove=prove).run()
    assert caught.value.facts["rolled_back"] is True
    assert_one_secret(host, OLD)


def test_an_undo_on_a_full_disk_carries_the_files_of_a_container_that_ran(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was armed, so to say, with new positions by the new engine; they are kept in memory between the two."""

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        if right == NEW:
            fill(monkeypatch, ".titan-new")
            host.layer(EXECUTION)[REDB] = b"positions since"
            del host.layer(EXECUTION)[HALT]
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError, match="It was undone"):
        direct(host, prove=prove).run()
    assert host.layer(EXECUTION) == {REDB: b"positions since"}
    assert not list((host.src / "state").iterdir())


def test_an_undo_keeps_somebodys_edit_on_a_full_disk_in_the_space_that_it_has(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = ENV.replace("PORT=3100", "PORT=3200")

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        if right == NEW:
            host.env_file.write_bytes(edited.replace(OLD, NEW).encode())
            fill(monkeypatch, ".titan-new")
            monkeypatch.setattr(envsecret, "write_atomic", None)
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError, match="It was undone"):
        direct(host, prove=prove).run()
    assert host.env_file.read_bytes() == edited.encode()
    assert not list((host.src / "compose").glob(".*"))[1:]
    assert all(host.environment(name)[variable] == OLD for name, variable in HOLDERS.items())


def test_an_undo_that_finds_no_space_for_somebodys_edit_says_so_and_the_next_run_ends_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    mends: list[Callable[[], None]] = []

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        if right == NEW:
            host.env_file.write_bytes(host.env_file.read_bytes() + b"\nADDED=1")
            mends.append(fill(monkeypatch, ".titan-new", ".titan-old"))
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError) as caught:
        direct(host, prove=prove).run()
    assert caught.value.facts["rolled_back"] is False
    assert "Undoing it failed, too: " in str(caught.value)
    assert ".env.prod could not be written: No space left on device" in str(caught.value)
    mends[0]()
    assert Process(host, options()).recover() in ("finished", "undone")
    assert not list((host.src / "compose").glob(".*.titan-*"))


@pytest.mark.parametrize("content", [b"half of", None])
def test_a_new_content_that_was_altered_is_not_put_in_place(host: Host, content: bytes | None) -> None:
    staged = host.src / "compose" / "..env.prod.titan-new"

    def alter() -> None:
        if content is None:
            staged.unlink()
        else:
            staged.write_bytes(content)

    with pytest.raises(OpsError, match="has gone or was altered") as caught:
        direct(host, drain=alter).run()
    assert caught.value.facts["rolled_back"] is True
    assert_one_secret(host, OLD)


def test_a_mode_that_somebody_gave_the_file_meanwhile_is_kept(host: Host) -> None:
    direct(host, drain=lambda: host.env_file.chmod(0o640)).run()
    assert host.env_file.stat().st_mode & 0o777 == 0o640
    assert host.env_file.read_bytes() == ENV.replace(OLD, NEW).encode()


def test_a_full_disk_from_any_operation_on_leaves_nothing_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a step nor a file of a container can be written; opsd, the last to be switched, cannot start."""

    def unable(service: str, environment: Mapping[str, str]) -> bool:
        return service == OPSD and NEW in environment.values()

    for number in range(2, 40):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        host.unable = unable

        def at(now: int, name: str, number: int = number) -> None:
            if now >= number and name.startswith("write"):
                raise OSError(errno.ENOSPC, "No space left on device")

        host.at = at
        with pytest.raises(OpsError) as caught:
            Process(host, options()).rotate()
        assert caught.value.facts["rolled_back"] is True
        assert_one_secret(host, OLD)


def test_docker_refusing_a_file_of_the_container_is_no_full_disk(host: Host) -> None:
    """What could not be read cannot be kept in memory either."""
    calls: list[Any] = []

    def at(_number: int, name: str) -> None:
        if name == f"put files into {EXECUTION}":
            calls.append(name)
            raise docker.errors.APIError("no")

    host.at = at
    with pytest.raises(OpsError) as caught:
        Process(host, options()).rotate()
    assert calls
    assert caught.value.facts["rolled_back"] is False
    let_live(host)
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)
