# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix: every rotation, every boundary of its steps, every fault."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

AnyCase = TypeVar("AnyCase")
BEGIN, END, UNDO = "(begin)", "(end)", "undo"
# Playbook: module, which is the name of its journal, too.
ROTATIONS = {"rotate_hmac": "hmac_rotate", "rotate_db_password": "pg_password"}
FAULTS = {
    "kill": "SIGKILL of the module's process",
    "database": "container of the database stopped",
    "daemon": "Docker daemon restarted",
    "full": "the env file's file system full",
    "unhealthy": "new container unhealthy",
    "exits": "new container exits",
    "compose": "Compose file broken by a concurrent edit",
    "ssh": "SSH connection cut",
}
# What is still so when the next run begins, unless somebody mends it; what nobody has to mend is over by itself.
LASTING = ("database", "daemon", "full", "unhealthy", "exits", "compose")
SICK = ("unhealthy", "exits")
# For `make test`: every fault, both rotations, the boundaries at which most is at stake, either way of going on.
REPRESENTATIVE = (
    ("rotate_hmac", BEGIN, "ssh", True),
    ("rotate_hmac", "replace the env file", "full", True),
    ("rotate_hmac", "create the new containers", "compose", True),
    ("rotate_hmac", "start", "unhealthy", True),
    ("rotate_hmac", "recreate the other holders", "kill", False),
    ("rotate_hmac", "prove", "daemon", True),
    ("rotate_db_password", "set the role's password", "database", True),
    ("rotate_db_password", "set the role's password", "kill", False),
    ("rotate_db_password", "replace the env file", "kill", True),
    ("rotate_db_password", "create the new containers", "exits", True),
    ("rotate_db_password", "start", "daemon", False),
    ("rotate_db_password", "prove", "kill", True),
)


@dataclass(frozen=True)
class Case:
    """One fault at one boundary.

    Attributes:
        rotation: the playbook.
        step: it is frozen when this step has been written down and before it acts; BEGIN: when the journal begins;
            END: when the journal has just been removed; UNDO: when it begins to undo, for a new container exits.
        fault: of FAULTS.
        standing: whether the next run begins with the fault still there.
        recover: whether the next run is recover.yml; else the same playbook again.
    """

    rotation: str
    step: str
    fault: str
    standing: bool
    recover: bool

    def __str__(self) -> str:
        return f"{self.rotation}, {self.step}, {self.fault}"

    @property
    def next_run(self) -> str:
        """As ``--list`` shows it."""
        return "recover.yml" if self.recover else "again"


def full(steps: Mapping[str, Sequence[str]]) -> list[Case]:
    """Every case there is.

    Args:
        steps: of each rotation, as its own plan predicts them.
    """
    cases = []
    for first, (rotation, planned) in enumerate(steps.items()):
        for second, step in enumerate([BEGIN, *planned, END, UNDO]):
            for third, fault in enumerate(FAULTS):
                if step == UNDO and fault in SICK:
                    continue  # no new container is made any more
                # Each fault meets both ways of going on, at neighbouring boundaries, and each of them standing and not.
                turn = second + third + 2 * first
                standing = fault == "compose" or (fault in LASTING and turn % 4 < 2)
                cases.append(Case(rotation, step, fault, standing, recover=turn % 2 == 0))
    return cases


def representative(steps: Mapping[str, Sequence[str]]) -> list[Case]:
    """The part for `make test`.

    Raises:
        ValueError: a plan has no such step any more.
    """
    for rotation, step, _fault, _recover in REPRESENTATIVE:
        if step not in (BEGIN, END, UNDO, *steps[rotation]):
            raise ValueError(f'{rotation} has no step "{step}" any more: choose another one in tests/chaos/matrix.py')
    return [
        Case(rotation, step, fault, standing=fault in LASTING, recover=recover)
        for rotation, step, fault, recover in REPRESENTATIVE
    ]


def only(
    cases: Sequence[AnyCase], wanted: Sequence[str], names: Sequence[str] = ("rotation", "step", "fault")
) -> list[AnyCase]:
    """Those that any of the conditions fits, e.g. "rotation=rotate_hmac,step=re*,fault=kill".

    Args:
        cases: all.
        wanted: the conditions.
        names: what a condition may name.

    Raises:
        ValueError: a condition cannot be understood, or nothing fits any of them.
    """
    if not wanted:
        return list(cases)
    conditions = []
    for text in wanted:
        pairs = [item.partition("=")[::2] for item in text.split(",")]
        if any(name not in names or not pattern for name, pattern in pairs):
            wish = ", ".join(f"{name}=..." for name in names)
            raise ValueError(f"--only {text}: write {wish}, with a comma between them")
        conditions.append(pairs)
    found = [
        case
        for case in cases
        if any(
            all(fnmatch.fnmatchcase(getattr(case, name), pattern) for name, pattern in pairs) for pairs in conditions
        )
    ]
    if not found:
        raise ValueError(f"no case fits {' or '.join(wanted)} (--list shows all)")
    return found


def shard(cases: Sequence[AnyCase], part: str) -> list[AnyCase]:
    """The K-th of N parts, "K/N".

    Raises:
        ValueError: it is not that.
    """
    number, _slash, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--shard {part}: write K/N, e.g. 1/2")
    return list(cases[int(number) - 1 :: int(count)])
