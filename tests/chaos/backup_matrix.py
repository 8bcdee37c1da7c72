# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups, drills and restores: what is done to them, and when."""

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
# A restore is frozen at the steps of its journal, and here, while psql reads; so is a drill, which has no journal.
MID_LOAD = "mid-load"
# And where its scratch database has just been made, or begins to be compared. It ends with marking the manifest.
MADE, COMPARE = "scratch made", "comparing"
BEFORE = "(before)"
# What a restore does and its undo does not.
LOADING = ("create the new database", "load", "compare", "analyse")
FORMS = ("plain", "gzip", "custom", "directory")
# backup_db.sh runs the very code of backup.yml, and with --verify that of verify_backup.yml.
BACKUPS = ("backup", "script")
DRILLS = ("drill", "script-drill")
FAULTS = {
    "kill": "SIGKILL of its process",
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
    "altered": "its manifest altered: one row more, and the manifest's own checksum as it was",
    "other-rows": "its manifest tells of one row more than it has, under a checksum that is right",
    "newer-manifest": "its manifest of another version than any that is known",
    "newer-dump": "the dump of a newer server, which this one does not understand",
    "missing": "its manifest gone",
    "newer-server": "its manifest tells of a newer server",
}
HARMLESS = ("missing", "newer-server")
# Of these a drill proves that it is bad, so that it counts as verified no more.
PROVED_BAD = ("truncated", "bit", "other-rows")
_COMPANY = {
    "backup": "a backup meanwhile",
    "restore": "a restore meanwhile",
    "script": "backup_db.sh meanwhile",
    "drill": "a drill meanwhile",
}
OVERLAPS = {
    f"{operation}-{how}": f"{text}, which {does}"
    for operation, text in _COMPANY.items()
    for how, does in (("refused", "does not wait"), ("waits", "waits"))
}
# What is done to backup_db.sh and to drills: not everything everywhere, for backup.yml and restore.yml, whose code they
# share, get the full product.
PARTS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "script": {
        "plain": {
            # Its line in the history comes when it has let go of the lock, by which one would be found.
            "kill": tuple(step for step in BOUNDARIES["plain"] if step != HISTORY),
            "database": (BYTES, STAGED),
            "daemon": (BYTES, MANIFEST),
            # In memory the manifest is named as soon as it is staged: too fast to be frozen there.
            "full": (BYTES, CLOSED),
            **dict.fromkeys(("backup-refused", "backup-waits", "script-waits", "drill-refused"), (BYTES,)),
        }
    },
    "drill": {
        "plain": {
            "kill": (LOCK, MADE, MID_LOAD, COMPARE, STAGED, MANIFEST, HISTORY),
            "database": (MADE, MID_LOAD, COMPARE),
            "daemon": (MID_LOAD, COMPARE),
            "full": (COMPARE,),
            **dict.fromkeys(HARMS, (BEFORE,)),
            **dict.fromkeys(("backup-refused", "backup-waits", "script-waits", "restore-waits"), (MID_LOAD,)),
        },
        "gzip": {"kill": (MID_LOAD,), **dict.fromkeys(("truncated", "bit"), (BEFORE,))},
        "custom": {"kill": (COMPARE,), **dict.fromkeys(("truncated", "bit"), (BEFORE,))},
        "directory": {"kill": (MADE,), **dict.fromkeys(("truncated", "bit"), (BEFORE,))},
    },
    "script-drill": {
        "plain": {
            "kill": (MID_LOAD, COMPARE),
            **dict.fromkeys(("database", "daemon"), (MID_LOAD,)),
            "bit": (BEFORE,),
            "script-refused": (MID_LOAD,),
        }
    },
}
# For `make test`: every operation, a killed process, a full disk, the database gone, a damaged file, two at once.
REPRESENTATIVE = (
    ("backup", "plain", BYTES, "full"),
    ("backup", "plain", MANIFEST, "kill"),
    ("backup", "plain", BYTES, "restore-refused"),
    ("restore", "plain", "load", "database"),
    ("restore", "plain", "swap the names", "kill"),
    ("restore", "custom", BEFORE, "bit"),
    ("script", "plain", NAMED, "kill"),
    ("drill", "plain", COMPARE, "kill"),
    ("script-drill", "plain", BEFORE, "bit"),
)


@dataclass(frozen=True)
class Case:
    """One fault at one boundary.

    Attributes:
        operation: backup, restore, the undo of a restore, a drill; script, script-drill: the same by backup_db.sh.
        form: of the dump.
        step: it is frozen there; BEFORE: something is done to the file before the run.
        fault: of FAULTS, HARMS or OVERLAPS.
        standing: whether the next run begins with the fault still there.
        recover: whether the next run is recover.yml; else the same again, but where ``then`` is another operation.
    """

    operation: str
    form: str
    step: str
    fault: str
    standing: bool = False
    recover: bool = False
    then: str = ""

    def __str__(self) -> str:
        return f"{self.operation}, {self.form}, {self.step}, {self.fault}"

    @property
    def next_run(self) -> str:
        """As ``--list`` shows it."""
        return "recover.yml" if self.recover else self.then or "again"

    @property
    def harmless(self) -> bool:
        """Whether it must end well all the same."""
        if self.fault == "missing" and self.operation in DRILLS:
            return False  # there is nothing to compare with
        return self.fault in (*HARMLESS, *OVERLAPS)


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
    cases += [Case("restore", "plain", "load", overlap) for overlap in OVERLAPS if overlap.startswith(("ba", "re"))]
    return cases + _parts()


def _parts() -> list[Case]:
    """What backup_db.sh and drills meet."""
    cases = []
    for operation, forms in PARTS.items():
        for form, faults in forms.items():
            for fault, places in faults.items():
                for turn, step in enumerate(places):
                    standing = fault in LASTING and turn % 2 == 0
                    then = ""
                    if fault == "kill" and operation == "script" and turn % 3 == 1:
                        then = "backup"
                    # What a drill has left in the directory of the backups is a backup's to tidy up, too.
                    if fault == "kill" and operation == "drill" and step == STAGED:
                        then = "backup"
                    cases.append(Case(operation, form, step, fault, standing, then=then))
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
