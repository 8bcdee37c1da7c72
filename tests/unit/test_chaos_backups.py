# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups and restores is whole, and its judge of words hears a wrong one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "chaos"))  # a program's folder, not a package

import backup_matrix as matrix
from truth import untrue

STEPS = ["create the new database", "load", "compare", "stop the writers", "swap the names", "prove"]
SHA = "0" * 64
FACTS: dict[str, Any] = {
    "files": {"a.sql": SHA},
    "hidden": [],
    "databases": {"titan_brain": [5, ""]},
    "writer": ["2026-02-06T00:00:00Z", True],
    "journals": [],
}


def test_every_fault_meets_every_boundary_once() -> None:
    cases = matrix.full(STEPS)
    met = Counter((case.operation, case.form, case.step, case.fault) for case in cases)
    wanted = [
        ("backup", form, step, fault)
        for form, steps in matrix.BOUNDARIES.items()
        for step in steps
        for fault in matrix.FAULTS
    ]
    boundaries = ["(begin)", *STEPS[:2], "mid-load", *STEPS[2:], "(end)"]
    wanted += [("restore", "plain", step, fault) for step in boundaries for fault in ("kill", "database", "daemon")]
    wanted += [
        ("undo", "plain", step, fault)
        for step in ("(begin)", "stop the writers", "swap the names", "prove", "(end)")
        for fault in ("kill", "database", "daemon")
    ]
    wanted += [("restore", form, "(before)", harm) for form in matrix.FORMS for harm in matrix.HARMS]
    wanted += [("backup", "plain", "first bytes", overlap) for overlap in matrix.OVERLAPS]
    wanted += [("restore", "plain", "load", overlap) for overlap in matrix.OVERLAPS]
    assert met == Counter(wanted)
    assert (len(matrix.FAULTS), len(matrix.HARMS), len(matrix.OVERLAPS), len(matrix.FORMS)) == (4, 7, 4, 4)


def test_what_lasts_is_met_both_mended_and_not_and_a_restore_is_followed_by_both_kinds_of_next_run() -> None:
    cases = matrix.full(STEPS)
    for operation, fault in (("backup", "database"), ("backup", "full"), ("restore", "database")):
        found = [case for case in cases if (case.operation, case.fault) == (operation, fault)]
        assert {case.standing for case in found} == {True, False}, (operation, fault)
    for fault in ("kill", "database", "daemon"):
        found = [case for case in cases if (case.operation, case.fault) == ("restore", fault)]
        assert {case.recover for case in found} == {True, False}, fault
    assert not [case for case in cases if case.standing and case.fault not in matrix.LASTING]


def test_the_representative_part_has_both_operations_and_a_step_of_another_name_fails_it() -> None:
    cases = matrix.representative(STEPS)
    assert {case.operation for case in cases} == {"backup", "restore"}
    assert {"kill", "full", "database", "bit"} <= {case.fault for case in cases}
    assert len(set(cases)) == len(cases) == len(matrix.REPRESENTATIVE)
    with pytest.raises(ValueError, match="swap the names"):
        matrix.representative(["load", "exchange"])


@pytest.mark.parametrize(
    ("state", "now", "words"),
    [
        ("No backup was made; what had been written of it was removed", {"files": {"a.sql": SHA, "b": SHA}}, "new"),
        ("No backup was made; what had been written of it was removed", {"hidden": [".b.sql.partial"]}, "removed"),
        ("No backup was made, and the earlier ones are as they were.", {"files": {"a.sql": "1" * 64}}, "earlier"),
        ("Nothing was changed", {"databases": {"titan_brain": [6, ""]}}, "another one"),
        ("Nothing was changed", {"writer": ["2026-02-07T00:00:00Z", True]}, "stopped"),
        ("Nothing was changed", {"journals": ["db_restore.journal"]}, "does not tell"),
        ("was not touched, and no service was stopped", {"writer": ["2026-02-06T00:00:00Z", False]}, "stopped"),
        (
            "the new database was dropped",
            {"databases": {"titan_brain": [5, ""], "titan_brain__restore_1": [6, ""]}},
            "__restore_1",
        ),
        ("is the one from before, and runs with it again", {"writer": ["2026-02-07T00:00:00Z", False]}, "not run"),
        ("The journal x has what is needed", {}, "no journal"),
    ],
)
def test_a_sentence_that_the_facts_speak_against_is_untrue(state: str, now: dict[str, Any], words: str) -> None:
    [found] = untrue({"state": state}, FACTS, {**FACTS, **now}, stirred=False)
    assert words in found and state in found


def test_a_sentence_that_the_facts_bear_out_is_true() -> None:
    for state in (
        "Nothing was changed",
        "No backup was made; what had been written of it was removed, and the earlier ones are as they were.",
        "The database titan_brain was not touched, and no service was stopped; the new database was dropped",
    ):
        assert untrue({"state": state}, FACTS, FACTS, stirred=False) == []
    started = {**FACTS, "writer": ["2026-02-07T00:00:00Z", True]}
    assert untrue({"state": "no service was stopped"}, FACTS, started, stirred=True) == []
    assert untrue({"state": "No backup was made"}, FACTS, {**FACTS, "databases": None}, stirred=False) == []
