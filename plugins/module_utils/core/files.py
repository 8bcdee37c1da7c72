# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Atomic replacement of files: a reader sees the whole old content or the whole new one, also after a power cut."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from .errors import InvalidInput, OpsError

__all__ = ["FileState", "drop_staging", "ensure_private_dir", "fsync_dir", "read_regular", "remove", "write_atomic"]

_STAGING = ".titan-new"


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
    try:
        real = os.path.realpath(path)
        if os.path.islink(path) and not os.path.exists(real):
            raise InvalidInput(
                f"The {what} {path} is a dangling symlink: its target {real} does not exist",
                hint="Create the target or mend the link.",
            )
        # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
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
    replaced. A staging file left by an interrupted run is overwritten.

    Args:
        path: the file.
        data: its whole new content.
        mode: its permission bits.
        uid: its owner's id.
        gid: its group's id.

    Raises:
        OpsError: the file system refused; the old file is untouched.
    """
    real = os.path.realpath(path)
    staging = _staging(real)
    try:
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
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(staging, real)
        except BaseException:
            remove(staging)
            raise
        fsync_dir(os.path.dirname(real))
    except OSError as exc:
        hint = "Free some space on that file system." if exc.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise OpsError(
            f"{path} could not be written: {exc.strerror or exc}",
            state="The old file is untouched.",
            hint=hint,
        ) from exc


def drop_staging(path: str) -> bool:
    """Remove what a write of this file left behind when it was killed; tells whether there was anything."""
    return remove(_staging(os.path.realpath(path)))


def remove(path: str) -> bool:
    """Remove a file if it is there; tells whether it was."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def fsync_dir(path: str) -> None:
    """Make the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def ensure_private_dir(path: str) -> None:
    """Create a directory of mode 0700 with its parents' modes left to the umask; tighten one that is wider.

    Raises:
        OpsError: it cannot be created, or something else is in its place.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            os.chmod(path, 0o700)
    except OSError as exc:
        raise InvalidInput(f"The directory {path} cannot be used: {exc.strerror or exc}") from exc


def _staging(real: str) -> str:
    return os.path.join(os.path.dirname(real), "." + os.path.basename(real) + _STAGING)


def _unreadable(path: str, what: str, exc: OSError) -> InvalidInput:
    if isinstance(exc, FileNotFoundError):
        return InvalidInput(f"The {what} {path} does not exist", hint="Check the path, or create it.")
    if isinstance(exc, PermissionError):
        return InvalidInput(f"The {what} {path} cannot be read by this user", hint="Run as root (become: true).")
    return InvalidInput(f"The {what} {path} cannot be read: {exc.strerror or exc}")
