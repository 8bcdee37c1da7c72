# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups in a restic repository somewhere else: copying what is missing there, forgetting by the policy, checking.

Every backup is a snapshot of two files, itself and its manifest, which bears its name and sha256 as tags. Snapshots
without our tag, of other hosts and of other databases are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.clock import parse_timestamp
from ..core.errors import Damaged, OpsError, Refused
from ..core.metrics import OFFSITE_CHECKED, OFFSITE_SUCCESS, Sample
from ..core.progress import Tally
from . import catalog, manifest
from .catalog import Backup
from .offsite_options import OffsiteOptions
from .report import stamp
from .restic import Cancelled, Restic, ResticFailed, Snapshot
from .retention import Item, decide

__all__ = ["Unfit", "check", "copy", "forget", "listed", "of_database", "told"]

_NEXT = "The next run copies what is missing; to do it now: backup_offsite.yml, or backup_db.sh --offsite"


class Unfit(OpsError):
    """Backups on the host that could not be copied, for they are damaged, say; all others were."""


@dataclass(frozen=True)
class _Look:
    """What is here and there.

    Attributes:
        there: whether there is a repository.
        mine: this host's snapshots of the database, newest first.
        missing: good backups that are not in it and that the policy would keep there, newest first.
        warnings: what the operator should know.
    """

    there: bool
    mine: tuple[Snapshot, ...]
    missing: tuple[Backup, ...]
    warnings: tuple[str, ...]


def copy(options: OffsiteOptions, restic: Restic, *, init: bool, check_mode: bool) -> dict[str, Any]:
    """Copy every good backup that is not in the repository; gives what a result says of it.

    Args:
        options: what goes where.
        restic: restic on the repository.
        init: make the repository where there is none.
        check_mode: only look.

    Raises:
        Unfit: that is for the backups on the host themselves; all others are there now.
        OpsError: not all of them are there now; the backups themselves are as they were.
    """
    try:
        seen = _look(options, restic)
    except OpsError as exc:
        exc.state = f"Nothing was copied. The backups in {options.directory} are as they were"
        exc.hint = " ".join(part for part in (_dotted(exc.hint), _NEXT) if part)
        raise
    names = [item.name for item in seen.missing]
    if not seen.there and not init:
        raise Refused(
            f"There is no repository at {options.repository.address}",
            state=_state(options, names),
            hint="Is the address right? To make a new one there: backup_offsite.yml -e init=true.",
            facts={"cause": "absent"},
        )
    copied: list[str] = []
    warnings = list(seen.warnings)
    added = 0
    stopped = False
    if not check_mode:
        if not seen.there:
            restic.init()
        troubles: list[tuple[str, OpsError]] = []
        for number, item in enumerate(seen.missing, 1):
            which = f" ({number} of {len(seen.missing)})" if len(seen.missing) > 1 else ""
            try:
                size = _copy_one(options, restic, item, which)
            except OpsError as exc:
                if restic.cancelled() or isinstance(exc, (Cancelled, ResticFailed)):
                    troubles.insert(0, (item.name, exc))
                    stopped = True
                    break  # it would be no better with the next
                troubles.append((item.name, exc))
                continue
            if size is None:
                warnings.append(f"{item.name} was removed by the retention before it was copied")
                names.remove(item.name)
                continue
            added += size
            copied.append(item.name)
        if troubles:
            failed = _failed(troubles, stopped)
            left = [name for name in names if name not in copied]
            failed.state = _state(options, left, copied)
            failed.facts.update(copied=copied, missing=left, warnings=warnings)
            if copied or not seen.there:
                failed.facts["changed"] = True
            raise failed
    present = len(seen.mine) + len(names if check_mode else copied)
    return {
        "changed": bool(names) or not seen.there,
        "copied": names if check_mode else copied,
        "created": not seen.there,
        "added_bytes": added,
        "present": present,
        "warnings": warnings,
        "about": {"copied": len(copied), "added_bytes": added},
        # An empty repository is no success yet.
        "samples": [Sample(OFFSITE_SUCCESS, {"database": options.database}, restic.now())] * bool(present),
    }


def forget(options: OffsiteOptions, restic: Restic, *, check_mode: bool) -> dict[str, Any]:
    """Forget by the policy, which is the one of the host's own retention; the newest and the newest verified one stay.

    Raises:
        OpsError: the repository refused.
    """
    seen = _look(options, restic)
    if not seen.there:
        raise Refused(f"There is no repository at {options.repository.address}", facts={"cause": "absent"})
    reasons = decide(_items(options, seen.mine), options.keep, now=restic.now())
    going = [item for item in seen.mine if not reasons[item.id]]
    if not check_mode:
        if going:
            restic.forget([item.id for item in going], options.timeout)
        if options.prune:
            restic.prune(options.timeout)
    names = sorted(item.tags["backup"] for item in going)
    return {
        "changed": bool(going),
        "forgotten": names,
        "present": len(seen.mine) - len(going),
        "warnings": [],
        "about": {"forgotten": len(names)},
    }


def check(options: OffsiteOptions, restic: Restic, *, check_mode: bool) -> dict[str, Any]:
    """Check the repository's structure, and read a part of its data back.

    Raises:
        OpsError: it is damaged, or could not be checked.
    """
    if not restic.exists():
        raise Refused(f"There is no repository at {options.repository.address}", facts={"cause": "absent"})
    if not check_mode:
        try:
            restic.check(options.read_data_subset, options.timeout)
        except OpsError as exc:
            exc.state = f"The backups in {options.directory} are as they were"
            raise
    return {
        "changed": False,
        "warnings": [],
        "samples": [Sample(OFFSITE_CHECKED, {"database": options.database}, restic.now())],
    }


def of_database(found: Sequence[Snapshot], database: str, hostname: str | None = None) -> list[Snapshot]:
    """The snapshots of a database, of one host or of all, newest first."""
    mine = [
        item
        for item in found
        if item.tags.get("database") == database
        and {"backup", "sha256"} <= set(item.tags)
        and hostname in (None, item.host)
    ]
    return sorted(mine, key=lambda item: (_moment(item), item.tags["backup"]), reverse=True)


def told(item: Snapshot) -> dict[str, Any]:
    """A snapshot as plain data."""
    return {
        "name": item.tags["backup"],
        "hostname": item.host,
        "snapshot": item.id,
        "time": stamp(_moment(item)),
        "sha256": item.tags["sha256"],
        "size_bytes": int(item.tags.get("size") or 0),
        "label": item.tags.get("label"),
    }


def listed(found: Sequence[Snapshot], now: float) -> list[dict[str, Any]]:
    """Snapshots as plain data, with how old they are.

    Args:
        found: the snapshots.
        now: seconds since the epoch.
    """
    return [{**told(item), "age_seconds": max(0, round(now - _moment(item)))} for item in found]


def _look(options: OffsiteOptions, restic: Restic) -> _Look:
    here = [
        item
        for item in catalog.listed(options.directory)
        if item.manifest is not None and item.manifest.database == options.database
    ]
    there = restic.exists()
    found = restic.snapshots(options.timeout) if there else []
    mine = of_database(found, options.database, options.hostname)
    have = {(item.tags["backup"], item.tags["sha256"]) for item in mine}
    good = [item for item in here if item.state == catalog.GOOD and item.manifest]
    candidates = [item for item in good if item.manifest and (item.name, item.manifest.sha256) not in have]
    # What the policy would forget at once is not worth the way.
    every = [*_items(options, mine), *(item.as_item() for item in candidates)]
    reasons = decide(every, options.keep, now=restic.now())
    return _Look(
        there,
        tuple(mine),
        tuple(item for item in candidates if reasons[item.name]),
        tuple(
            _damaged(item, item.manifest is not None and (item.name, item.manifest.sha256) in have)
            for item in here
            if item.state == catalog.DAMAGED
        ),
    )


def _damaged(item: Backup, is_there: bool) -> str:
    """A warning: a damaged backup never goes there, but a good copy may have gone before."""
    if not is_there:
        return f"The backup {item.name} is damaged and stays out of the repository: {item.trouble}"
    if item.proved_bad:
        # Nobody knows here whether it was so from the beginning, or since it was copied.
        return f"The backup {item.name} is damaged: {item.trouble}. The copy in the repository may be so, too"
    return (
        f"The backup {item.name} is damaged: {item.trouble}. The repository has a good copy of it. To get that back, "
        f"remove this one (titan.ops.db_backup with state=absent name={item.name}), then: "
        f"fetch_backup.yml -e backup={item.name}"
    )


def _items(options: OffsiteOptions, mine: Sequence[Snapshot]) -> list[Item]:
    """Snapshots as retention sees them, by id: two may bear one name after a host was made anew."""
    verified = {
        (item.name, item.manifest.sha256)
        for item in catalog.listed(options.directory)
        if item.manifest is not None and item.manifest.verified is not None
    }
    return [
        Item(
            item.id,
            _moment(item),
            verified="verified" in item.tags or (item.tags["backup"], item.tags["sha256"]) in verified,
            labelled="label" in item.tags,
        )
        for item in mine
    ]


def _copy_one(options: OffsiteOptions, restic: Restic, item: Backup, which: str) -> int | None:
    """Copy one; gives the bytes that the repository grew by, None when the backup has gone meanwhile."""
    made = item.manifest
    if made is None:
        raise OpsError(f"{item.name} has no manifest")
    try:
        tally = Tally()
        restic.progress.phase(f"computing the sha256 of {item.name}{which}", item.size_bytes, done=lambda: tally.bytes)
        if catalog.digest(item.path, cancelled=restic.cancelled, seen=tally) != made.sha256:
            raise Damaged(
                "its sha256 is not the one of its manifest: the file is damaged",
                hint=f"Remove it (titan.ops.db_backup with state=absent name={item.name})",
            )
        tags = {"database": made.database, "backup": made.name, "sha256": made.sha256, "size": str(made.size_bytes)}
        tags.update({"label": made.label} if made.label else {})
        tags.update({"verified": ""} if made.verified else {})
        names = [made.name, os.path.basename(manifest.path_of(item.path))]
        wanted = _size_with_manifest(item.path, made.size_bytes)
        moment = made.started.replace("T", " ").rstrip("Z")
        said = restic.backup(
            options.directory,
            names,
            host=options.hostname,
            time=moment,
            tags=tags,
            timeout=options.timeout,
            shown=(f"copying {item.name} off-site{which}", wanted),
        )
    except (OpsError, OSError) as exc:
        if isinstance(exc, ResticFailed) and exc.left:
            # It keeps what it could read, and calls that a snapshot: nobody shall take it for the backup.
            restic.forget([exc.left], options.timeout)
        if not os.path.lexists(item.path):
            return None
        if isinstance(exc, ResticFailed) and exc.cause == "incomplete":
            raise OpsError(exc.msg, hint=exc.hint) from exc  # the others may well be read
        if isinstance(exc, OpsError):
            raise
        raise OpsError(f"it cannot be read: {exc.strerror or exc}") from exc
    # restic leaves out what it does not find, and calls that a success.
    # A drill may have marked the manifest as verified meanwhile.
    if said.get("total_bytes_processed") not in (wanted, _size_with_manifest(item.path, made.size_bytes)):
        if said.get("snapshot_id"):
            restic.forget([said["snapshot_id"]], options.timeout)
        if not os.path.lexists(item.path):
            return None
        raise OpsError(f"restic has read {said.get('total_bytes_processed')} bytes of it instead of {wanted}")
    return int(said.get("data_added") or 0)


def _size_with_manifest(path: str, size: int) -> int | None:
    """None when it has gone."""
    try:
        return size + os.stat(manifest.path_of(path)).st_size
    except FileNotFoundError:
        return None


def _failed(troubles: Sequence[tuple[str, OpsError]], stopped: bool) -> OpsError:
    """All of it as one error; where it was stopped, by the first."""
    (name, first), more = troubles[0], troubles[1:]
    msg = f"{name} was not copied off-site: {first.msg}"
    if more:
        each = ", ".join(f"{name} ({exc.msg})" for name, exc in troubles)
        msg = f"{len(troubles)} backups were not copied off-site: {each}"
    hints = [_dotted(exc.hint) for _name, exc in troubles]
    if stopped or any(not isinstance(exc, Damaged) for _name, exc in troubles):
        hints.append(_NEXT)
    hint = " ".join(dict.fromkeys(filter(None, hints)))
    if stopped:
        return OpsError(msg, hint=hint, facts=first.facts)
    return Unfit(msg, hint=hint, facts={"cause": "backup"})


def _moment(item: Snapshot) -> float:
    return parse_timestamp(item.time) or 0.0


def _state(options: OffsiteOptions, missing: Sequence[str], copied: Sequence[str] = ()) -> str:
    """How things are after a copy that failed."""
    done = f"{len(copied)} were copied. " if copied else ""
    lacks = f"the repository lacks {len(missing)} of them" if missing else "the repository lacks none of them"
    return f"{done}The backups in {options.directory} are as they were; {lacks}"


def _dotted(text: str | None) -> str:
    return text or "" if not text or text.endswith(".") else f"{text}."
