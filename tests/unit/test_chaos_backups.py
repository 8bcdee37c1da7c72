# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups, drills and restores is whole, and its judge of words hears a wrong one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import catalog
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup

sys.path.append(str(Path(__file__).resolve().parents[1] / "chaos"))  # a program's folder, not a package

import backup_matrix as matrix
from backups import refusal
from link import parse_script
from truth import untrue, untrue_mark

STEPS = ["create the new database", "load", "compare", "stop the writers", "swap the names", "prove"]
SHA = "0" * 64
FACTS: dict[str, Any] = {
    "files": {"a.sql": SHA},
    "hidden": [],
    "marks": {"a.sql": "2020-01-01T00:00:00Z"},
    "databases": {"titan_brain": [5, ""]},
    "writer": ["2026-02-06T00:00:00Z", True],
    "journals": [],
}


def test_every_fault_meets_every_boundary_once() -> None:
    cases = [case for case in matrix.full(STEPS) if case.operation not in matrix.PARTS]
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
    others = ("backup-refused", "backup-waits", "restore-refused", "restore-waits")
    wanted += [("restore", "plain", "load", overlap) for overlap in others]
    assert met == Counter(wanted)
    assert (len(matrix.FAULTS), len(matrix.HARMS), len(matrix.OVERLAPS), len(matrix.FORMS)) == (4, 8, 8, 4)


@pytest.mark.parametrize(
    ("operation", "faults"),
    [
        ("script", set(matrix.FAULTS)),
        ("drill", {*matrix.FAULTS, *matrix.HARMS}),
        ("script-drill", {"kill", "database", "daemon", "bit"}),
    ],
)
def test_backup_db_sh_and_drills_meet_every_kind_of_fault_and_company(operation: str, faults: set[str]) -> None:
    cases = [case for case in matrix.full(STEPS) if case.operation == operation]
    assert len(set(cases)) == len(cases)
    assert faults <= {case.fault for case in cases} and any(case.fault in matrix.OVERLAPS for case in cases)
    known = {*matrix.FAULTS, *matrix.HARMS, *matrix.OVERLAPS}
    assert {case.fault for case in cases} <= known
    assert all((case.step == matrix.BEFORE) == (case.fault in matrix.HARMS) for case in cases)
    killed = {case.step for case in cases if case.fault == "kill"}
    assert {"mid-load", "comparing"} <= killed or killed == set(matrix.BOUNDARIES["plain"]) - {"history"}
    # the journal of a restore has steps of the same kind, which nobody must take for these
    assert killed.isdisjoint(matrix.LOADING)


def test_what_lasts_is_met_both_mended_and_not_and_a_restore_is_followed_by_both_kinds_of_next_run() -> None:
    cases = matrix.full(STEPS)
    for operation, fault in (("backup", "database"), ("backup", "full"), ("restore", "database")):
        found = [case for case in cases if (case.operation, case.fault) == (operation, fault)]
        assert {case.standing for case in found} == {True, False}, (operation, fault)
    for fault in ("kill", "database", "daemon"):
        found = [case for case in cases if (case.operation, case.fault) == ("restore", fault)]
        assert {case.recover for case in found} == {True, False}, fault
    assert not [case for case in cases if case.standing and case.fault not in matrix.LASTING]


def test_the_representative_part_has_every_operation_and_a_step_of_another_name_fails_it() -> None:
    cases = matrix.representative(STEPS)
    assert {case.operation for case in cases} == {"backup", "restore", "script", "drill", "script-drill"}
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
        ("the new database is kept as titan_brain__failed_1 until then", {}, "no titan_brain__failed_1"),
        ("The journal x has what is needed", {}, "no journal"),
        (
            "titan_brain itself was not touched, and the scratch one was dropped",
            {"databases": {"titan_brain": [5, ""], "titan_brain__verify_1": [6, ""]}},
            "__verify_1",
        ),
        ("The backup does not count as verified any more.", {}, "verified no more: []"),
        ("titan_brain itself was not touched", {"marks": {"a.sql": None}}, "verified no more: ['a.sql']"),
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
    lost = {**FACTS, "marks": {"a.sql": None}}
    assert untrue({"state": "The backup does not count as verified any more."}, FACTS, lost, stirred=False) == []


OLD, NEW = "2020-01-01T00:00:00Z", "2026-02-06T00:00:00Z"


@pytest.mark.parametrize(
    ("step", "fault", "code", "right", "wrong"),
    [
        ("comparing", "kill", 137, OLD, NEW),
        ("manifest there", "kill", 137, NEW, OLD),
        ("mid-load", "database", 2, OLD, None),
        ("(before)", "bit", 2, None, OLD),
        ("(before)", "newer-dump", 2, OLD, None),
        ("(before)", "newer-server", 0, NEW, OLD),
        ("mid-load", "backup-waits", 0, NEW, None),
    ],
)
def test_a_mark_is_right_or_wrong_by_what_was_proved(
    step: str, fault: str, code: int, right: str | None, wrong: str | None
) -> None:
    case = matrix.Case("drill", "plain", step, fault)
    assert untrue_mark(case, code, OLD, right) == []
    assert len(untrue_mark(case, code, OLD, wrong)) == 1


HELD = (
    "backup_db.sh: FAILED: The host lock /opt/titan/state/deploy.lock is held by x; waited 0.5 seconds for it."
    " Nothing was changed. Run again when that operation has ended, or wait longer with lock_timeout.\n"
    "backup_db.sh: warning: the command y could not be run\n"
)


def test_the_words_of_backup_db_sh_are_read_in_three_parts() -> None:
    said = parse_script(75, HELD)
    assert said.clear() and refusal("script", said) == []
    assert said.failure["reason"].endswith("for it.") and said.failure["state"].startswith("Nothing was changed. Run")
    assert said.failure["hint"].startswith("Run again") and "warning" not in said.words()
    assert len(refusal("script", parse_script(1, HELD))) == 1
    assert len(refusal("script", parse_script(75, HELD.replace("Nothing was changed. ", "")))) == 1
    assert len(refusal("script", parse_script(0, ""))) == 1
    unforeseen = (
        "backup_db.sh: FAILED: Nobody has foreseen this error (KeyError: 1). No backup is damaged by it. Report it."
    )
    assert not parse_script(1, unforeseen).clear()
    failed = "backup_db.sh: FAILED: psql failed with exit code 2: server closed the connection\n\tunexpectedly."
    state = " The database titan_brain itself was not touched, and the scratch one was dropped. Mend the cause."
    assert parse_script(1, failed + state).clear() and not parse_script(1, failed).clear()
    made = f"/opt/titan/backups/db/titan_brain_2026-02-06.sql: 1.2 MB in 0.5 s, 10 rows, sha256 {SHA}\n"
    assert parse_script(0, made).results == [{"name": "titan_brain_2026-02-06.sql", "sha256": SHA}]
    [proved] = parse_script(0, "a.sql restores: 10 rows of 2 tables, as its manifest says, in 0.5 s\n").results
    assert (proved["name"], proved["restore_seconds"]) == ("a.sql", 0.5)


@pytest.mark.parametrize(
    ("harm", "state"),
    [("altered", "damaged"), ("newer_manifest", "damaged"), ("other_rows", "good"), ("newer_server", "good")],
)
def test_what_is_done_to_a_manifest_is_seen_by_its_own_checksum_or_only_by_a_restore(
    tmp_path: Path, harm: str, state: str
) -> None:
    pytest.importorskip("psycopg2")
    from backup_agent import BackupAgent

    path = backup(tmp_path, "a.sql", rows={"public.orders": 3})
    getattr(BackupAgent, f"harm_{harm}")(BackupAgent, str(path))
    (found,) = catalog.listed(str(tmp_path))
    assert found.state == state, found.trouble
    if harm == "other_rows":
        assert found.manifest and found.manifest.rows == {"public.orders": 4}
