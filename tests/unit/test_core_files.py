# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Atomic replacement of files, on a real file system."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import files
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.files import (
    NEW,
    OLD,
    drop_staging,
    ensure_private_dir,
    put_staged,
    read_regular,
    restage,
    stage,
    write_atomic,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(directory: Path) -> list[str]:
    return sorted(item.name for item in directory.iterdir())


def test_a_new_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "new"
    write_atomic(str(path), b"data")
    assert path.read_bytes() == b"data"
    assert mode(path) == 0o600
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o400])
def test_the_mode_is_exactly_the_one_given_whatever_the_umask(tmp_path: Path, bits: int) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(str(tmp_path / "file"), b"", mode=bits)
    finally:
        os.umask(old)
    assert mode(tmp_path / "file") == bits


@AS_ROOT
def test_owner_and_group_of_the_replaced_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    write_atomic(str(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (1234, 2345, b"new")
    write_atomic(str(path), b"newer", uid=0, gid=0)
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)


@AS_ROOT
def test_a_directory_that_gives_its_own_group_does_not_change_the_files(tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 1000)
    tmp_path.chmod(0o2775)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 0, 0)
    write_atomic(str(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)


@pytest.mark.parametrize("target", ["compose/.env.prod", "../outside"])
def test_a_symlink_stays_one_and_its_target_is_replaced(tmp_path: Path, target: str) -> None:
    home = tmp_path / "titan"
    (home / "compose").mkdir(parents=True)
    link = home / ".env"
    link.symlink_to(target)
    (home / target).write_bytes(b"old")
    write_atomic(str(link), b"new")
    assert os.readlink(link) == target
    assert (home / target).read_bytes() == b"new"
    assert not (home / target).is_symlink()
    assert not list(tmp_path.rglob("*.titan-new"))


def test_a_reader_that_has_the_old_file_open_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    with path.open("rb") as reader:
        write_atomic(str(path), b"new")
        assert reader.read() == b"old content"
    assert path.read_bytes() == b"new"


def test_file_and_directory_are_durable_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def fsync(fd: int) -> None:
        events.append("fsync " + ("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"))

    def replace(source: str, target: str) -> None:
        events.append("rename")
        os.rename(source, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_atomic(str(tmp_path / "file"), b"data")
    assert events == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
def test_after_a_failure_the_old_file_stands_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OpsError, match=r"could not be written: Input/output error\. The old file is untouched."):
        write_atomic(str(path), b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few kilobytes."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_the_old_file_is_untouched_and_the_hint_says_what_to_do(tiny: Path) -> None:
    path = tiny / "file"
    path.write_bytes(b"old")
    with pytest.raises(OpsError, match="No space left on device") as caught:
        write_atomic(str(path), b"x" * 100_000)
    assert caught.value.hint == "Free some space on that file system."
    assert path.read_bytes() == b"old"
    assert names(tiny) == ["file"]


def test_what_a_killed_run_left_is_overwritten_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import os, signal\n"
        "from ansible_collections.titan.ops.plugins.module_utils.core import files\n"
        "files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.write_atomic({str(path)!r}, b'secret')\n"
    )
    killed = run_python(code)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".file.titan-new", "file"]
    assert mode(tmp_path / ".file.titan-new") == 0o600
    assert path.read_bytes() == b"old"
    assert drop_staging(str(path)) is True
    assert drop_staging(str(path)) is False
    assert names(tmp_path) == ["file"]
    run_python(code)
    write_atomic(str(path), b"new")
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"new"


def run_python(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process of its own that can import the collection as this one does."""
    here = Path(__file__).parent
    prologue = f"import sys; sys.path.insert(0, {str(here)!r}); import conftest\n"
    return subprocess.run([sys.executable, "-c", prologue + code], check=False, capture_output=True)


def test_a_staging_name_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".file.titan-new").symlink_to(victim)
    write_atomic(str(tmp_path / "file"), b"new")
    assert victim.read_bytes() == b"precious"


def test_a_regular_file_is_read_with_all_that_is_needed_to_replace_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    state = read_regular(str(tmp_path / "link"))
    assert (state.path, state.real_path) == (str(tmp_path / "link"), str((tmp_path / "file").resolve()))
    assert (state.data, state.mode, state.uid) == (b"a\r\nb", 0o640, os.geteuid())


def test_what_is_no_regular_file_is_refused_with_one_sentence_about_it(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    said = {
        "missing": "The env file {} does not exist",
        "dangling": "The env file {} is a dangling symlink: its target {}nowhere does not exist",
        "loop": "The env file {} ",
        "directory": "The env file {} is not a regular file",
        "fifo": "The env file {} is not a regular file",
        "file/below": "The env file {} cannot be read: Not a directory",
    }
    for name, sentence in said.items():
        path = tmp_path / name
        with pytest.raises(InvalidInput) as caught:
            read_regular(str(path), what="env file")
        assert caught.value.msg.startswith(sentence.format(path, str(tmp_path.resolve()) + "/")), name
        assert "Nothing was changed." in str(caught.value)


def open_to_others(directory: Path) -> None:
    for place in [directory, *directory.parents][:3]:  # pytest's directories are closed to others
        place.chmod(place.stat().st_mode | 0o055)


@pytest.mark.parametrize("name", ["file", "closed/file", "link"])
def test_a_file_that_this_user_may_not_read_is_refused(tmp_path: Path, name: str) -> None:
    """A link into a closed directory as well: that it dangles cannot be told from outside."""
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("closed/file")
    path = tmp_path / name
    path.write_bytes(b"secret")
    path.chmod(0)
    code = (
        "import os\n"
        "from ansible_collections.titan.ops.plugins.module_utils.core import errors, files\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "else:\n"
        f"    os.chmod({str(tmp_path / 'closed')!r}, 0)\n"
        "try:\n"
        f"    files.read_regular({str(path)!r}, what='env file')\n"
        "except errors.InvalidInput as exc:\n"
        "    print(exc)\n"
    )
    open_to_others(tmp_path)
    said = run_python(code).stdout.decode()
    assert said.strip() == (
        f"The env file {path} cannot be read by this user. Nothing was changed. Run as root (become: true)."
    )


def test_a_private_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    ensure_private_dir(str(path))
    assert mode(path) == 0o700
    (tmp_path / "file").write_bytes(b"")
    for place in ("file", "file/below"):
        with pytest.raises(InvalidInput, match=r"cannot be used: (File exists|Not a directory)"):
            ensure_private_dir(str(tmp_path / place))


@AS_ROOT
def test_a_new_directory_belongs_to_whom_the_directory_around_it_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 2345)
    ensure_private_dir(str(tmp_path / "a" / "state"))
    for path in (tmp_path / "a", tmp_path / "a" / "state"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert mode(tmp_path / "a" / "state") == 0o700


@pytest.mark.parametrize(
    ("before", "after"), [(0o755, 0o755), (0o700, 0o700), (0o775, 0o775), (0o777, 0o755), (0o2777, 0o2755)]
)
def test_a_directory_that_is_there_keeps_its_mode_and_owner_unless_everybody_may_write(
    tmp_path: Path, before: int, after: int
) -> None:
    path = tmp_path / "state"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    path.chmod(before)
    owner = (path.stat().st_uid, path.stat().st_gid)
    ensure_private_dir(str(path))
    assert (mode(path), (path.stat().st_uid, path.stat().st_gid)) == (after, owner)


def test_a_place_that_everybody_shares_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(InvalidInput, match="everybody may put files into it"):
        ensure_private_dir(str(tmp_path))
    assert mode(tmp_path) == 0o1777


def access_list(user: int, permission: int, mask: int = 6) -> bytes:
    """An access control list that adds one user to mode 0600 (acl(5); linux/posix_acl_xattr.h)."""
    none = 0xFFFFFFFF
    entries = [(0x01, 6, none), (0x02, permission, user), (0x04, 0, none), (0x10, mask, none), (0x20, 0, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as exc:
        pytest.skip(f"this file system has no {name}: {exc.strerror}")


def test_the_access_list_and_other_attributes_of_the_replaced_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o600)
    acl = access_list(1234, 4)
    set_attribute(path, "system.posix_acl_access", acl)
    set_attribute(path, "user.note", b"by the operator")
    state = read_regular(str(path))
    write_atomic(str(path), b"new", mode=state.mode)
    assert path.read_bytes() == b"new"
    assert mode(path) == state.mode
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert os.getxattr(path, "user.note") == b"by the operator"


def test_a_directorys_default_access_list_gives_nobody_rights_that_the_old_file_did_not_give(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    set_attribute(tmp_path, "system.posix_acl_default", access_list(1234, 6))
    write_atomic(str(path), b"new", mode=0o640)
    assert "system.posix_acl_access" not in os.listxattr(path)
    assert mode(path) == 0o640


@pytest.mark.parametrize(
    ("name", "code", "kept"),
    [
        ("system.posix_acl_access", errno.EPERM, True),
        ("security.selinux", errno.EACCES, True),
        ("system.posix_acl_access", errno.ENOTSUP, False),
        ("user.note", errno.EPERM, False),
    ],
)
def test_what_decides_who_may_read_is_kept_or_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, kept: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refused(*_args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "listxattr", lambda file: [] if isinstance(file, int) else [name])
    monkeypatch.setattr(files.os, "getxattr", lambda *_args: b"value")
    monkeypatch.setattr(files.os, "setxattr", refused)
    if kept:
        with pytest.raises(
            OpsError, match=rf"its attribute {name} cannot be kept \(.*\)\. The old file is untouched\."
        ):
            write_atomic(str(path), b"new")
    else:
        write_atomic(str(path), b"new")
    assert path.read_bytes() == (b"old" if kept else b"new")
    assert names(tmp_path) == ["file"]


def test_a_hash_of_the_old_content_is_not_given_to_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    given: list[str] = []
    attributes = ["security.ima", "security.evm", "security.selinux"]
    monkeypatch.setattr(files.os, "listxattr", lambda file: [] if isinstance(file, int) else attributes)
    monkeypatch.setattr(files.os, "getxattr", lambda *_args: b"value")
    monkeypatch.setattr(files.os, "setxattr", lambda _fd, name, _value: given.append(name))
    write_atomic(str(path), b"new")
    assert given == ["security.selinux"]


# Staged


def test_what_is_staged_replaces_the_file_by_a_rename_with_the_mode_of_now(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    stage(str(path), b"new", mode=0o600)
    stage(str(path), b"old", mode=0o600, name=OLD)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [".file.titan-new", ".file.titan-old", "file"]
    inode = (tmp_path / ".file.titan-new").stat().st_ino
    owner = {"uid": os.getuid(), "gid": os.getgid()}
    assert put_staged(str(path), b"another", mode=0o600, **owner, name=NEW) is False
    assert put_staged(str(path), b"new", mode=0o640, **owner, name=NEW) is True
    assert put_staged(str(path), b"new", mode=0o640, **owner, name=NEW) is False
    assert (path.read_bytes(), mode(path), path.stat().st_ino) == (b"new", 0o640, inode)
    assert drop_staging(str(path)) is True
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("data", [b"longer than it was", b"x"])
def test_what_is_staged_may_say_something_else_in_its_own_space(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert restage(str(path), data, name=OLD) is False
    stage(str(path), b"old", mode=0o600, name=OLD)
    inode = (tmp_path / ".file.titan-old").stat().st_ino
    assert restage(str(path), data, name=OLD) is True
    assert (tmp_path / ".file.titan-old").read_bytes() == data
    assert (tmp_path / ".file.titan-old").stat().st_ino == inode


def test_a_link_in_the_place_of_what_was_staged_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "file", tmp_path / "victim"
    path.write_bytes(b"old")
    victim.write_bytes(b"new")
    (tmp_path / ".file.titan-new").symlink_to(victim)
    assert restage(str(path), b"x", name=NEW) is False
    assert put_staged(str(path), b"new", mode=0o600, uid=0, gid=0, name=NEW) is False
    assert (path.read_bytes(), victim.read_bytes()) == (b"old", b"new")


def test_on_a_read_only_file_system_what_is_not_there_is_nothing_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux says EROFS of a name there before it looks whether there is such a file."""

    def refuse(path: str, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "unlink", refuse)
    assert files.remove(str(tmp_path / "nothing")) is False
    assert files.drop_staging(str(tmp_path / "file")) is False
    (tmp_path / ".file.titan-old").write_text("x", encoding="utf-8")
    with pytest.raises(OpsError, match="could not be removed: Read-only file system"):
        files.drop_staging(str(tmp_path / "file"))
