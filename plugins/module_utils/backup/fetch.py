# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing a backup back from the off-site repository, with its manifest, proved by its sha256."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from ..core.errors import InvalidInput, Mistaken, OpsError, Refused
from ..core.files import ensure_private_dir, fsync_dir
from ..core.progress import Tally
from . import catalog, manifest
from .naming import is_backup
from .offsite import of_database, told
from .offsite_options import OffsiteOptions
from .restic import Restic, Snapshot

__all__ = ["LATEST", "drop_staging", "fetch"]

LATEST = "latest"
# Beside the backups, so that it takes its final name by a rename; no backup's run cleans it away, for it is no dump's.
_STAGING = ".offsite"
_AS_BEFORE = "Nothing was added to the backups, which are as they were."
_MAKE_ONE = "Make one with backup.yml, or see whether the database and the repository's address are right."


def fetch(options: OffsiteOptions, restic: Restic, *, name: str = LATEST, check_mode: bool = False) -> dict[str, Any]:
    """Bring a backup into the directory of the backups, where it then counts as any other.

    It needs nothing but the options: neither the host that it came from nor a database.

    Args:
        options: where from and where to.
        restic: restic on the repository.
        name: the backup's name, the beginning of its snapshot's id, or ``latest`` for the newest of the database.
        check_mode: only look.

    Returns:
        What a result says of it: ``changed``, ``backup`` (its path) and what ``told`` gives.

    Raises:
        Mistaken: there is no such backup.
        InvalidInput: there is none at all, or another one of its name is in the directory.
        OpsError: it could not be brought, or is not what its manifest says; nothing was added.
    """
    found = _find(options, restic, name)
    path = os.path.join(options.directory, found.tags["backup"])
    facts = {**told(found), "backup": path, "warnings": [], "about": {"backup": found.tags["backup"]}}
    if _is_there(path, found):
        return {**facts, "changed": False}
    if check_mode:
        return {**facts, "changed": True}
    try:
        ensure_private_dir(options.directory)
        _refuse_without_space(options.directory, int(found.tags.get("size") or 0))
        _bring(options, restic, found, path)
    except (OpsError, OSError) as exc:
        msg = exc.msg if isinstance(exc, OpsError) else f"{path} could not be written: {exc.strerror or exc}"
        hint, more = (exc.hint, exc.facts) if isinstance(exc, OpsError) else (None, {})
        raise OpsError(msg, state=_AS_BEFORE, hint=hint, facts=more) from exc
    finally:
        drop_staging(options)
    return {**facts, "changed": True}


def drop_staging(options: OffsiteOptions) -> None:
    """Remove what a killed run has left; only for whoever holds the lock."""
    shutil.rmtree(os.path.join(options.directory, _STAGING), ignore_errors=True)


def _find(options: OffsiteOptions, restic: Restic, name: str) -> Snapshot:
    if not name.strip():
        # The newest is taken for whoever asks for it, not for a variable that is empty.
        raise Mistaken("No backup was named", hint=f"Say its name, or {LATEST} for the newest.")
    if not restic.exists():
        raise InvalidInput(f"There is no repository at {options.repository.address}", facts={"cause": "absent"})
    every = of_database(restic.snapshots(options.timeout), options.database)
    matching = every if name == LATEST else [item for item in every if item.tags["backup"] == name]
    if not matching and len(name) >= 8:
        # An id says whose it is, whatever hostname says.
        chosen = _only([item for item in every if item.id.startswith(name)], name)
    else:
        chosen = _of_host(options, matching, name)
    if chosen is None:
        raise _unknown(options, every, name)
    entry = chosen.tags["backup"]
    if not is_backup(entry) or os.path.basename(entry) != entry:
        raise InvalidInput(f"The snapshot {chosen.id[:8]} has a backup of an impossible name")
    return chosen


def _of_host(options: OffsiteOptions, matching: Sequence[Snapshot], name: str) -> Snapshot | None:
    """This host's own goes first; after a disaster the host may be a new one of another name.

    Raises:
        InvalidInput: it cannot be told which one is meant.
    """
    own = [item for item in matching if item.host == options.hostname]
    hosts = ", ".join(sorted({item.host for item in matching}))
    if not own and options.hostname_given:
        return None
    if not own and len({item.host for item in matching}) > 1:
        raise InvalidInput(f"Several hosts have it in the repository: {hosts}", hint="Say whose with hostname.")
    return _only(own or matching, name)


def _only(matching: Sequence[Snapshot], name: str) -> Snapshot | None:
    """The newest of those that are the same backup.

    Raises:
        Mistaken: they are not the same one.
    """
    if name != LATEST and len({item.tags["sha256"] for item in matching}) > 1:
        known = "; ".join(f"{item.id[:8]} of {item.host}, made at {item.time}" for item in matching)
        raise Mistaken(
            f"{name} is the name of different backups in the repository: {known}",
            hint="Name one by its snapshot's id, which those are.",
        )
    return matching[0] if matching else None


def _unknown(options: OffsiteOptions, every: Sequence[Snapshot], name: str) -> InvalidInput:
    where, whose = options.repository.address, ""
    if options.hostname_given:
        hosts = ", ".join(sorted({item.host for item in every})) or "none"
        whose = f" of the host {options.hostname}"
        every = [item for item in every if item.host == options.hostname]
        if not every:
            return InvalidInput(
                f"There is no backup of {options.database}{whose} in {where}",
                hint=f"Say whose with hostname; these hosts have some: {hosts}.",
            )
    if name == LATEST:
        # That there is none to take says something of the repository, and not of who asked.
        return InvalidInput(f"There is no backup of {options.database} in {where}", hint=_MAKE_ONE)
    known = ", ".join(item.tags["backup"] for item in every[:5]) or "none"
    return Mistaken(
        f"There is no backup {name!r} of {options.database}{whose} in {where}", hint=f"The newest there: {known}."
    )


def _is_there(path: str, found: Snapshot) -> bool:
    """Whether this very backup is in the directory, whole.

    Raises:
        Refused: another one of this name is.
    """
    if not os.path.lexists(path):
        return False
    here = catalog.find(os.path.dirname(path), os.path.basename(path))
    same = here and here.manifest and here.manifest.sha256 == found.tags["sha256"]
    if same and here and here.state == catalog.GOOD and catalog.digest(path) == found.tags["sha256"]:
        return True
    raise Refused(
        f"There is {'a damaged copy of it' if same else 'another backup'} at {path}",
        hint="Remove that one first (titan.ops.db_backup with state: absent), or name another.",
    )


def _refuse_without_space(directory: str, needed: int) -> None:
    there = os.statvfs(directory)
    free = there.f_bavail * there.f_frsize
    if free < needed:
        raise Refused(
            f"{directory} has {free / 1e6:.1f} MB free, and the backup takes {needed / 1e6:.1f} MB",
            hint="Free some space on that file system.",
        )


def _bring(options: OffsiteOptions, restic: Restic, found: Snapshot, path: str) -> None:
    staging = os.path.join(options.directory, _STAGING)
    drop_staging(options)
    os.mkdir(staging, 0o700)
    name, size = os.path.basename(path), int(found.tags.get("size") or 0)
    restic.restore(found.id, staging, options.timeout, shown=(f"fetching {name} from off-site", size))
    entry = os.path.join(staging, name)
    _own(entry)
    _own(manifest.path_of(entry))
    record = manifest.read(entry)
    tally = Tally()
    restic.progress.phase(f"computing the sha256 of {name}", record.size_bytes, done=lambda: tally.bytes)
    sha256 = catalog.digest(entry, cancelled=restic.cancelled, seen=tally)
    if record.sha256 != found.tags["sha256"] or sha256 != record.sha256:
        raise OpsError(
            f"What came from the repository is not the backup {record.name}: its sha256 differs from its manifest's",
            hint="Check the repository (backup_offsite.yml), and name another backup.",
        )
    if os.path.lexists(path):
        raise OpsError(f"{path} has appeared meanwhile")
    # Manifest first, name last: whatever has its final name is whole, and says so.
    os.rename(manifest.path_of(entry), manifest.path_of(path))
    os.rename(entry, path)
    fsync_dir(options.directory)


def _own(entry: str) -> None:
    """Make it root's alone and durable; nothing but plain files may have come.

    Raises:
        OpsError: something else came, or it is missing.
    """
    if os.path.islink(entry) or not os.path.lexists(entry):
        raise OpsError(f"{os.path.basename(entry)} is not in the snapshot as a plain file")
    folder = os.path.isdir(entry)
    for file in catalog.files_of(entry):
        if os.path.islink(file) or not os.path.isfile(file):
            raise OpsError(f"{os.path.basename(file)} in the snapshot is no plain file")
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, os.geteuid(), os.getegid())
            os.fchmod(fd, 0o600)
            os.fsync(fd)
        finally:
            os.close(fd)
    if folder:
        os.chown(entry, os.geteuid(), os.getegid())
        os.chmod(entry, 0o700)
        fsync_dir(entry)
