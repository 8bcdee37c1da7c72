# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Atomic replacement of files: a reader sees the whole old content or the whole new one, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidInput, OpsError

__all__ = [
    "NEW",
    "OLD",
    "FileState",
    "drop_staging",
    "ensure_private_dir",
    "fsync_dir",
    "put_staged",
    "read_regular",
    "remove",
    "restage",
    "stage",
    "write_atomic",
]

# What a staged file is for: what the file is to say, and what it is to say again when that is taken back.
NEW, OLD = "new", "old"
_ACL = "system.posix_acl_access"
# Hashes and signatures of the old content (kernel's Integrity Measurement Architecture): wrong for any other.
_OF_CONTENT = frozenset(("security.ima", "security.evm"))


@dataclass(frozen=True)
class FileState:
    """A regular file as it was read: its real path (symlinks followed), content, owner and mode."""

    path: str
    real_path: str
    data: bytes
    uid: int
    gid: int
    mode: int


def read_regular(path: str, *, what: str = "file") -> FileState:
    """Read a regular file, following symlinks.

    Args:
        path: where it is.
        what: what the operator calls it, for messages.

    Raises:
        InvalidInput: it is missing, a dangling symlink, not a regular file, or cannot be read.
    """
    real = os.path.realpath(path)
    try:
        # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError) and os.path.islink(path):
            raise InvalidInput(
                f"The {what} {path} is a dangling symlink: its target {real} does not exist",
                hint="Create the target or mend the link.",
            ) from exc
        raise _unreadable(path, what, exc) from exc
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise InvalidInput(f"The {what} {path} is not a regular file", hint="Name the file itself.")
    try:
        with os.fdopen(fd, "rb") as stream:
            data = stream.read()
    except OSError as exc:
        raise _unreadable(path, what, exc) from exc
    return FileState(path, real, data, info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))


def write_atomic(path: str, data: bytes, *, mode: int = 0o600, uid: int | None = None, gid: int | None = None) -> None:
    """Put ``data`` at ``path``: staging file beside it, fsync, rename, fsync of the directory.

    A symlink at ``path`` stays one; its target is replaced. Owner and group default to those of the file that is
    replaced; its access control list and other extended attributes are kept. A staging file left by an interrupted run
    is overwritten.

    Args:
        path: the file.
        data: its whole new content.
        mode: its permission bits.
        uid: its owner's id.
        gid: its group's id.

    Raises:
        OpsError: the file system refused; the old file is untouched.
    """
    stage(path, data, mode=mode, uid=uid, gid=gid)
    real = os.path.realpath(path)
    with _told(path):
        try:
            os.replace(_staging(real, NEW), real)
        except BaseException:
            remove(_staging(real, NEW))
            raise
        fsync_dir(os.path.dirname(real))


def stage(
    path: str, data: bytes, *, mode: int = 0o600, uid: int | None = None, gid: int | None = None, name: str = NEW
) -> None:
    """Write a file's content beside it, durably, so that to put it in place needs no more space (``put_staged``).

    Args:
        path: the file.
        data: its whole new content.
        mode: its permission bits.
        uid: its owner's id; by default that of the file.
        gid: its group's id; by default that of the file.
        name: what it is for, NEW or OLD.

    Raises:
        OpsError: the file system refused; nothing is left behind.
    """
    real = os.path.realpath(path)
    staging = _staging(real, name)
    with _told(path):
        try:
            old: os.stat_result | None = os.stat(real)
        except FileNotFoundError:
            old = None
        remove(staging)
        fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(data)
                stream.flush()
                made = os.fstat(stream.fileno())  # its group is not always ours: a setgid directory gives its own
                owner = uid if uid is not None else (old or made).st_uid
                group = gid if gid is not None else (old or made).st_gid
                if (owner, group) != (made.st_uid, made.st_gid):
                    os.fchown(stream.fileno(), owner, group)
                if old is not None:
                    _copy_attributes(real, stream.fileno())
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
        except BaseException:
            remove(staging)
            raise


def restage(path: str, data: bytes, *, name: str) -> bool:
    """Let a staged file say something else, in the space that it has already; tells whether that was possible."""
    try:
        fd = os.open(_staging(os.path.realpath(path), name), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        return False
    return True


def put_staged(path: str, data: bytes, *, mode: int, uid: int, gid: int, name: str) -> bool:
    """Put what was staged in place, if it is exactly this; a rename, which needs no space. Tells whether it was done.

    Raises:
        OpsError: the file system refused; the old file is untouched.
    """
    real = os.path.realpath(path)
    staging = _staging(real, name)
    try:
        fd = os.open(staging, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    with _told(path), os.fdopen(fd, "rb") as stream:
        if stream.read() != data:  # a kill may have left half of it
            return False
        made = os.fstat(stream.fileno())
        if (uid, gid) != (made.st_uid, made.st_gid):
            os.fchown(stream.fileno(), uid, gid)
        if mode != stat.S_IMODE(made.st_mode):
            os.fchmod(stream.fileno(), mode)
        os.rename(staging, real)
        fsync_dir(os.path.dirname(real))
    return True


def drop_staging(path: str) -> bool:
    """Remove what is staged, or what a write left behind when it was killed; tells whether there was anything.

    Raises:
        OpsError: the file system refused.
    """
    real = os.path.realpath(path)
    try:
        removed = [remove(_staging(real, name)) for name in (NEW, OLD)]
    except OSError as exc:
        raise OpsError(
            f"What was written beside {path} could not be removed: {exc.strerror or exc}",
            hint="It may hold secrets: remove the files beside it whose names end in .titan-new and .titan-old.",
        ) from exc
    return any(removed)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Says what the file system refused."""
    try:
        yield
    except OSError as exc:
        hint = "Free some space on that file system." if exc.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise OpsError(
            f"{path} could not be written: {exc.strerror or exc}",
            state="The old file is untouched.",
            hint=hint,
        ) from exc


def remove(path: str) -> bool:
    """Remove a file if it is there; tells whether it was."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as exc:
        if exc.errno == errno.EROFS and not os.path.lexists(
            path
        ):  # there this is said first, whether it is there or not
            return False
        raise
    return True


def fsync_dir(path: str) -> None:
    """Make the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def ensure_private_dir(path: str) -> None:
    """Create a directory of mode 0700, owned as the directory that it is in; its parents' modes are left to the umask.

    One that is there already stays as it is, for deployments that run as another user may keep their own files in it;
    only when everyone may write to it is that right taken from all but its owner. What is put into it has a mode of its
    own.

    Raises:
        InvalidInput: it cannot be created, something else is in its place, or it is a shared place like /tmp.
    """
    try:
        if not os.path.isdir(path):
            _make_dirs(path, 0o700)
        info = os.stat(path)
        if info.st_mode & stat.S_ISVTX and info.st_mode & stat.S_IWOTH:
            raise InvalidInput(
                f"The directory {path} cannot be used: everybody may put files into it",
                hint="Name one that belongs to root or to the deployment's user.",
            )
        if info.st_mode & stat.S_IWOTH:
            os.chmod(path, stat.S_IMODE(info.st_mode) & ~0o022)
    except OSError as exc:
        raise InvalidInput(f"The directory {path} cannot be used: {exc.strerror or exc}") from exc


def _make_dirs(path: str, mode: int) -> None:
    """Create a directory and what is missing above it, each owned as its parent as far as we may give it away."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        _make_dirs(parent, 0o777)
    with contextlib.suppress(FileExistsError):  # somebody else was faster
        os.mkdir(path, mode)
        owner = os.stat(parent)
        with contextlib.suppress(PermissionError):
            os.chown(path, owner.st_uid, owner.st_gid)
    if not os.path.isdir(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def _copy_attributes(path: str, fd: int) -> None:
    """Give a new file the extended attributes of the one that it replaces, its access control list among them.

    Raises:
        OSError: one that decides who may read the file cannot be kept; others are given up.
    """
    for name in _attributes(fd):
        # a directory's default list gives new files rights that the old file did not give
        if name == _ACL and name not in _attributes(path):
            os.removexattr(fd, name)
    for name in _attributes(path):
        if name in _OF_CONTENT:
            continue
        value = os.getxattr(path, name)
        try:
            if name not in _attributes(fd) or os.getxattr(fd, name) != value:
                os.setxattr(fd, name, value)
        except OSError as exc:
            if exc.errno != errno.ENOTSUP and name.startswith(("system.posix_acl", "security.")):
                raise OSError(exc.errno, f"its attribute {name} cannot be kept ({exc.strerror or exc})") from exc


def _attributes(file: str | int) -> list[str]:
    try:
        return os.listxattr(file)
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:  # a file system without them
            return []
        raise


def _staging(real: str, name: str) -> str:
    return os.path.join(os.path.dirname(real), f".{os.path.basename(real)}.titan-{name}")


def _unreadable(path: str, what: str, exc: OSError) -> InvalidInput:
    if isinstance(exc, FileNotFoundError):
        return InvalidInput(f"The {what} {path} does not exist", hint="Check the path, or create it.")
    if isinstance(exc, PermissionError):
        return InvalidInput(f"The {what} {path} cannot be read by this user", hint="Run as root (become: true).")
    return InvalidInput(f"The {what} {path} cannot be read: {exc.strerror or exc}")
