# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups and restores: what is done to them, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matrix import BEGIN, END

# Where a backup is frozen, by what is seen of it from outside.
LOCK, PIPE, PARTIAL, BYTES, CLOSED = "locked", "pipe made", "file made", "first bytes", "dump written"
STAGED, MANIFEST, NAMED, GOING, HISTORY = "manifest staged", "manifest there", "named", "an old one goes", "history"
BOUNDARIES = {
    "plain": (LOCK, PARTIAL, BYTES, CLOSED, STAGED, MANIFEST, NAMED, GOING, HISTORY),
    # What is compressed goes through a pipe and our own process: what differs is how the bytes come.
    "gzip": (PIPE, BYTES, CLOSED),
    # These pg_dump writes by itself, and pg_restore reads them again.
    "custom": (PARTIAL, BYTES, CLOSED),
    "directory": (PARTIAL,),
}
# A restore is frozen at the steps of its journal, and here, while psql reads.
MID_LOAD = "mid-load"
BEFORE = "(before)"
# What a restore does and its undo does not.
LOADING = ("create the new database", "load", "compare", "analyse")
FORMS = ("plain", "gzip", "custom", "directory")
FAULTS = {
    "kill": "SIGKILL of the module's process",
    "database": "container of the database killed",
    "daemon": "Docker daemon restarted",
    "full": "the file system of the backups full",
}
# What is still so when the next run begins, unless somebody mends it.
LASTING = ("database", "full")
# What is done to a backup before it is restored, and whether it can be restored nevertheless.
HARMS = {
    "truncated": "the file ends in its middle",
    "bit": "one bit of it flipped",
    "altered": "its manifest altered: one row more",
    "newer-manifest": "its manifest of another version than any that is known",
    "newer-dump": "the dump of a newer server, which this one does not understand",
    "missing": "its manifest gone",
    "newer-server": "its manifest tells of a newer server",
}
HARMLESS = ("missing", "newer-server")
OVERLAPS = {
    "backup-refused": "a backup meanwhile, which does not wait",
    "backup-waits": "a backup meanwhile, which waits",
    "restore-refused": "a restore meanwhile, which does not wait",
    "restore-waits": "a restore meanwhile, which waits",
}
# For `make test`: both operations, a killed process, a full disk, the database gone, a damaged file, two at once.
REPRESENTATIVE = (
    ("backup", "plain", BYTES, "full"),
    ("backup", "plain", MANIFEST, "kill"),
    ("backup", "plain", BYTES, "restore-refused"),
    ("restore", "plain", "load", "database"),
    ("restore", "plain", "swap the names", "kill"),
    ("restore", "custom", BEFORE, "bit"),
)


@dataclass(frozen=True)
class Case:
    """One fault at one boundary.

    Attributes:
        operation: backup, restore, or the undo of a restore.
        form: of the dump.
        step: it is frozen there; BEFORE: something is done to the file before the run.
        fault: of FAULTS, HARMS or OVERLAPS.
        standing: whether the next run begins with the fault still there.
        recover: whether the next run is recover.yml; else the same playbook again.
    """

    operation: str
    form: str
    step: str
    fault: str
    standing: bool = False
    recover: bool = False

    def __str__(self) -> str:
        return f"{self.operation}, {self.form}, {self.step}, {self.fault}"


def full(steps: Sequence[str]) -> list[Case]:
    """Every case there is.

    Args:
        steps: of a restore, as its own plan predicts them.
    """
    cases = []
    for form, boundaries in BOUNDARIES.items():
        for second, step in enumerate(boundaries):
            for third, fault in enumerate(FAULTS):
                cases.append(Case("backup", form, step, fault, fault in LASTING and (second + third) % 2 == 0))
    for second, step in enumerate(_boundaries(steps)):
        for third, fault in enumerate(name for name in FAULTS if name != "full"):  # a restore writes nothing there
            turn = second + third
            standing = fault in LASTING and turn % 4 < 2
            cases.append(Case("restore", "plain", step, fault, standing, recover=turn % 2 == 0))
    # An undo that has come to its end is not repeated, for that would be another one.
    for second, step in enumerate([BEGIN, *(step for step in steps if step not in LOADING), END]):
        for third, fault in enumerate(name for name in FAULTS if name != "full"):
            turn = second + third
            standing = fault in LASTING and turn % 4 < 2
            cases.append(Case("undo", "plain", step, fault, standing, recover=turn % 2 == 0 or step == END))
    cases += [Case("restore", form, BEFORE, harm) for form in FORMS for harm in HARMS]
    cases += [Case("backup", "plain", BYTES, overlap) for overlap in OVERLAPS]
    cases += [Case("restore", "plain", "load", overlap) for overlap in OVERLAPS]
    return cases


def representative(steps: Sequence[str]) -> list[Case]:
    """The part for `make test`.

    Raises:
        ValueError: a restore has no such step any more.
    """
    found = {(case.operation, case.form, case.step, case.fault): case for case in full(steps)}
    missing = [wanted for wanted in REPRESENTATIVE if wanted not in found]
    if missing:
        raise ValueError(f"there is no case {', '.join(missing[0])} any more: choose another in tests/chaos")
    return [found[wanted] for wanted in REPRESENTATIVE]


def _boundaries(steps: Sequence[str]) -> list[str]:
    """Of a restore, in the order in which it comes to them."""
    after = steps.index("load") + 1
    return [BEGIN, *steps[:after], MID_LOAD, *steps[after:], END]
