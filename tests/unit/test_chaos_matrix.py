# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix is whole: what it leaves out by mistake would look like a success."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

STEPS = {"rotate_hmac": ["stop", "start", "prove"], "rotate_db_password": ["stop", "tell the database", "start"]}


def _load() -> ModuleType:
    """tests/chaos is a program's folder, not a package."""
    path = Path(__file__).resolve().parents[1] / "chaos" / "matrix.py"
    spec = importlib.util.spec_from_file_location("titan_chaos_matrix", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


matrix = _load()


def test_every_fault_meets_every_boundary_of_every_rotation_once() -> None:
    cases = matrix.full(STEPS)
    met = Counter((case.rotation, case.step, case.fault) for case in cases)
    boundaries = [(name, step) for name, steps in STEPS.items() for step in ["(begin)", *steps, "(end)"]]
    undone = [(name, "undo", fault) for name in STEPS for fault in matrix.FAULTS if fault not in matrix.SICK]
    assert met == Counter([*((*boundary, fault) for boundary in boundaries for fault in matrix.FAULTS), *undone])
    assert len(matrix.FAULTS) == 8


def test_every_fault_is_followed_by_both_kinds_of_next_run_and_those_that_last_by_both_mended_and_not() -> None:
    cases = matrix.full(STEPS)
    for fault in matrix.FAULTS:
        ways = {(case.standing, case.recover) for case in cases if case.fault == fault}
        standing = {True} if fault == "compose" else {True, False} if fault in matrix.LASTING else {False}
        assert ways == {(still, recover) for still in standing for recover in (True, False)}, fault


def test_the_representative_part_has_every_fault_and_both_rotations() -> None:
    steps = {name: sorted({item[1] for item in matrix.REPRESENTATIVE if item[0] == name}) for name in matrix.ROTATIONS}
    cases = matrix.representative(steps)
    assert {case.fault for case in cases} == set(matrix.FAULTS)
    assert {case.rotation for case in cases} == set(matrix.ROTATIONS)
    assert len(set(cases)) == len(cases) == 12


def test_a_step_that_is_called_otherwise_by_now_fails_the_representative_part() -> None:
    with pytest.raises(ValueError, match='has no step "replace the env file" any more'):
        matrix.representative(STEPS)


def test_only_takes_patterns_and_says_when_nothing_fits() -> None:
    cases = matrix.full(STEPS)
    found = matrix.only(cases, ["rotation=rotate_hmac,step=st*,fault=kill", "fault=ssh,step=?end?"])
    assert [str(case) for case in found] == [
        "rotate_hmac, stop, kill",
        "rotate_hmac, start, kill",
        "rotate_hmac, (end), ssh",
        "rotate_db_password, (end), ssh",
    ]
    assert matrix.only(cases, []) == cases
    for wrong in ("fault=flood", "where=here", "kill", "step="):
        with pytest.raises(ValueError):
            matrix.only(cases, [wrong])


def test_shards_are_the_whole_together() -> None:
    cases = matrix.full(STEPS)
    parts = [matrix.shard(cases, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(str(case) for part in parts for case in part) == sorted(map(str, cases))
    for wrong in ("0/3", "4/3", "1", "a/b", ""):
        with pytest.raises(ValueError):
            matrix.shard(cases, wrong)
