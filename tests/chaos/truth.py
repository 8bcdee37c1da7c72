# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what a backup or a restore has said of the host is so, by facts that were taken right after it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backup_matrix import HISTORY, MANIFEST, PROVED_BAD, Case

_NAME = "titan_brain"


def untrue(
    failure: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any], *, stirred: bool
) -> list[str]:
    """Each sentence about the host's state that the facts speak against.

    Args:
        failure: the failed task's result.
        before: the facts of before the run (``backup_state.look``).
        now: those of after it.
        stirred: something else has started every container anew meanwhile.
    """
    state = str(failure.get("state") or "")
    unchanged = "Nothing was changed" in state
    wrong = []
    new = sorted(set(now["files"]) - set(before["files"]))
    other = sorted(name for name, sha in before["files"].items() if now["files"].get(name) != sha)
    if (unchanged or "No backup was made" in state) and new:
        wrong.append(f"there is a new backup: {new}")
    if (unchanged or "the earlier ones are as they were" in state) and other:
        wrong.append(f"earlier backups are not as they were: {other}")
    if "was removed" in state and now["hidden"]:
        wrong.append(f"it was not removed: {now['hidden']}")
    if unchanged and sorted(now["hidden"]) != sorted(before["hidden"]):
        wrong.append(f"hidden files: {now['hidden']}, before {before['hidden']}")
    still = unchanged or "no service was stopped" in state
    if still and not stirred and now["writer"] != before["writer"]:
        wrong.append(f"titan-brain was stopped: {before['writer']}, now {now['writer']}")
    if "runs with it again" in state and not now["writer"][1]:
        wrong.append("titan-brain does not run")
    if "The journal" in state and not now["journals"]:
        wrong.append("there is no journal")
    if "The journal" not in state and now["journals"]:
        wrong.append(f"it does not tell of {now['journals']}")
    if now["databases"] is not None and before["databases"] is not None:
        same = now["databases"].get(_NAME) == before["databases"].get(_NAME)
        if (unchanged or "was not touched" in state or "is the one from before" in state) and not same:
            wrong.append("the database is another one")
        sides = sorted(name for name in now["databases"] if "__restore_" in name or "__verify_" in name)
        if (unchanged or "was dropped" in state) and sides:
            wrong.append(f"there is {sides}")
        told = re.findall(r"is kept as (\S+)", state)
        wrong += [f"there is no {name}" for name in told if name not in now["databases"]]
    lost = sorted(name for name, mark in before["marks"].items() if mark and now["marks"].get(name, "") is None)
    if ("does not count as verified any more" in state) != bool(lost):
        wrong.append(f"verified no more: {lost}")
    return [f'it says "{state}", but {text}' for text in wrong]


def untrue_mark(case: Case, code: int, old: str, mark: str | None) -> list[str]:
    """What is wrong with the mark of a backup after a drill.

    Args:
        case: what was done to it.
        code: how the drill ended.
        old: its mark before.
        mark: its mark now; None where it has none.
    """
    new = mark is not None and mark != old
    if code == 0:
        return [] if new else [f"the drill ended well, and the mark is {mark}"]
    if case.fault in PROVED_BAD:
        return [] if mark is None else [f"a damaged backup counts as verified: {mark}"]
    if case.fault == "kill" and case.step in (MANIFEST, HISTORY):
        return [] if new else [f"it had marked the manifest, and the mark is {mark}"]
    return [] if mark == old else [f"nothing was proved, and the mark is {mark}, before {old}"]
