# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backups in a directory: which there are, whether they are whole, and taking one away."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from ..core.clock import parse_timestamp
from ..core.errors import InvalidInput, OpsError
from ..core.files import drop_staging, fsync_dir, remove
from . import manifest as manifests
from .manifest import Manifest
from .naming import hidden, is_backup, owner_of
from .retention import Item

__all__ = [
    "DAMAGED",
    "GOOD",
    "UNKNOWN",
    "Backup",
    "called",
    "clean",
    "digest",
    "files_of",
    "find",
    "leftovers",
    "listed",
    "look",
    "size_of",
    "take_away",
]

GOOD, DAMAGED, UNKNOWN = "good", "damaged", "unknown"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Backup:
    """One backup.

    Attributes:
        name: its file or directory name.
        path: where it is.
        size_bytes: its size.
        state: good (as its manifest says), damaged (not so, or a drill proved it bad), or unknown (without a manifest:
            made by hand).
        trouble: why it is not good; "" when it is.
        moment: when its snapshot was taken (without a manifest: when the file was last written).
        manifest: what it must be.
    """

    name: str
    path: str
    size_bytes: int
    state: str
    trouble: str
    moment: float
    manifest: Manifest | None = None

    @property
    def proved_bad(self) -> bool:
        """Whether it is only a drill that says that it is damaged; another one may find that it is not."""
        made = self.manifest
        return made is not None and made.damaged is not None and made.size_bytes == self.size_bytes

    def as_item(self) -> Item:
        """The backup as retention sees it; only for one with a manifest."""
        labelled = self.manifest is not None and self.manifest.label is not None
        verified = self.manifest is not None and self.manifest.verified is not None
        return Item(self.name, self.moment, verified=verified, labelled=labelled)


def listed(directory: str) -> list[Backup]:
    """Every backup of a directory, newest first; none where there is no such directory.

    Raises:
        OpsError: the directory cannot be read.
    """
    try:
        names = [name for name in os.listdir(directory) if is_backup(name)]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise OpsError(f"The directory {directory} cannot be read: {exc.strerror or exc}") from exc
    found = [backup for backup in (look(os.path.join(directory, name)) for name in names) if backup is not None]
    return sorted(found, key=lambda item: (item.moment, item.name), reverse=True)


def called(directory: str, asked: str) -> str:
    """The name of a backup of the directory, which may be asked for by its absolute path; anything else stays."""
    place, name = os.path.split(asked.rstrip("/"))
    there = name and os.path.isabs(asked) and "\0" not in asked
    return name if there and os.path.realpath(place) == os.path.realpath(directory) else asked


def find(directory: str, name: str) -> Backup | None:
    """One backup by its name; None when it is not there."""
    return next((item for item in listed(directory) if item.name == name), None)


def look(path: str) -> Backup | None:
    """One backup wherever it is, with the manifest beside it; None when it is not there."""
    name = os.path.basename(path)
    try:
        size, written = size_of(path), os.stat(path).st_mtime
    except OSError:
        return None  # removed between the two
    if not os.path.lexists(manifests.path_of(path)):
        return Backup(name, path, size, UNKNOWN, "it has no manifest, so it was not made here", written)
    try:
        found = manifests.read(path)
    except InvalidInput as exc:
        return Backup(name, path, size, DAMAGED, exc.msg, written)
    moment = parse_timestamp(found.started)
    if moment is None:
        return Backup(name, path, size, DAMAGED, "its manifest was altered: started", written)
    trouble = "" if size == found.size_bytes else f"it has {size} bytes, its manifest says {found.size_bytes}"
    if not trouble and found.damaged is not None:
        trouble = f"a drill proved it bad at {found.damaged}"
    return Backup(name, path, size, DAMAGED if trouble else GOOD, trouble, moment, found)


def size_of(path: str) -> int:
    """The size of a file, or of all files in a directory, in bytes.

    Raises:
        OSError: it is not there.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        return sum(os.stat(os.path.join(path, name)).st_size for name in os.listdir(path))
    return os.stat(path).st_size


def digest(path: str, *, cancelled: Callable[[], bool] = lambda: False, seen: Callable[[bytes], object] = len) -> str:
    """The sha256 of a backup, as its manifest has it (see Manifest.sha256).

    Args:
        path: where it is.
        cancelled: whether the run was asked to end.
        seen: called with all that is read.

    Raises:
        OpsError: it cannot be read.
    """
    try:
        if not os.path.isdir(path):
            return _digest_file(path, cancelled, seen)
        lines = [
            f"{_digest_file(os.path.join(path, name), cancelled, seen)}  {name}\n" for name in sorted(os.listdir(path))
        ]
    except OSError as exc:
        raise OpsError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_file(path: str, cancelled: Callable[[], bool], seen: Callable[[bytes], object]) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            sha.update(chunk)
            seen(chunk)
            if cancelled():
                raise OpsError("The run was asked to end")
    return sha.hexdigest()


def take_away(path: str) -> None:
    """Remove a backup and its manifest. Killed in between, the next run's ``clean`` ends it.

    Raises:
        OpsError: the file system refused.
    """
    directory, name = os.path.split(path)
    gone = os.path.join(directory, hidden(name, "removed"))
    try:
        # Out of sight at once: a directory takes its time to go.
        os.rename(path, gone)
        fsync_dir(directory)
        remove(manifests.path_of(path))
        _remove_any(gone)
        fsync_dir(directory)
    except OSError as exc:
        raise OpsError(f"{path} could not be removed: {exc.strerror or exc}") from exc


def leftovers(directory: str) -> list[str]:
    """What killed runs have left in the directory: names of hidden files, none of them a finished backup."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(name for name in os.listdir(directory) if owner_of(name) is not None)
    return []


def clean(directory: str) -> list[str]:
    """Remove what killed runs have left; gives its names. Nobody else may be at work in the directory.

    Raises:
        OpsError: the file system refused.
    """
    found = leftovers(directory)
    try:
        for entry in found:
            owner = os.path.join(directory, str(owner_of(entry)))
            drop_staging(manifests.path_of(owner))
            # A manifest is written before its backup gets its name, and removed after it has lost it.
            if not os.path.lexists(owner):
                remove(manifests.path_of(owner))
            _remove_any(os.path.join(directory, entry))
        if found:
            fsync_dir(directory)
    except OSError as exc:
        raise OpsError(
            f"What an interrupted backup left in {directory} cannot be removed: {exc.strerror or exc}"
        ) from exc
    return found


def files_of(path: str) -> Iterator[str]:
    """The file, or the files of the directory."""
    if os.path.isdir(path):
        yield from (os.path.join(path, name) for name in sorted(os.listdir(path)))
    else:
        yield path


def _remove_any(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        remove(path)
