# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode tells the truth: holders, restarts, steps and diff are what the run then does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from database import KEY, assert_brain_writes, lets_in
from droplet import Droplet
from predicted import assert_comes_true

STEPS = [
    "stop the services",
    "save files",
    "wait for their sessions to end",
    "set the role's password",
    "replace the env file",
    "create the new containers",
    "start",
]
BRAIN, EXECUTION, QUANT, DATABASE = "titan-brain", "titan-execution", "titan-ai-quant", "titan-postgres"


@pytest.fixture
def as_the_files_say(droplet: Droplet) -> Iterator[None]:
    """Afterwards every container runs, with what the env file says."""
    yield
    result = droplet.module("compose_service", state="started")
    assert not result["failed"], result["msg"]
    droplet.wait_healthy()


@pytest.mark.parametrize(
    ("options", "actions", "steps"),
    [
        (
            {},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "recreated", DATABASE: "kept"},
            [*STEPS, "recreate the other holders", "prove"],
        ),
        (
            {"stale": "warn"},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "left", DATABASE: "kept"},
            [*STEPS, "prove"],
        ),
        (
            {"recreate_database": True},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "recreated", DATABASE: "recreated"},
            [*STEPS[:-1], "recreate the database", "start", "recreate the other holders", "prove"],
        ),
        (
            {"services": [BRAIN]},
            {BRAIN: "switched", EXECUTION: "recreated", QUANT: "recreated", DATABASE: "kept"},
            [*STEPS, "recreate the other holders", "prove"],
        ),
        (
            {"services": []},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "switched", DATABASE: "kept"},
            [*STEPS, "prove"],
        ),
    ],
    ids=["default", "other holders are left", "with the database", "brain alone", "every holder"],
)
def test_what_check_mode_predicts_comes_true(
    droplet: Droplet, as_the_files_say: None, options: dict[str, object], actions: dict[str, str], steps: list[str]
) -> None:
    result = assert_comes_true(droplet, "pg_password", KEY, **options)
    assert {item["service"]: item["action"] for item in result["holders"]} == actions
    assert result["steps"] == steps
    assert set(result["interruption"]) == {name for name, action in actions.items() if action == "switched"}
    assert result["sessions"]["left"] == []
    assert lets_in(droplet, droplet.secret(KEY))
    assert_brain_writes(droplet)


def test_a_holder_that_was_stopped_gets_the_password_and_stays_stopped(
    droplet: Droplet, as_the_files_say: None
) -> None:
    droplet.sh(f"docker stop {QUANT}")
    result = assert_comes_true(droplet, "pg_password", KEY)
    assert {item["service"]: item["action"] for item in result["holders"]}[QUANT] == "recreated"
    assert droplet.containers()[QUANT].status == "created"
