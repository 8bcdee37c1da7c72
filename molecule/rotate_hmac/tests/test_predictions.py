# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode tells the truth: holders, restarts, steps and diff are what the run then does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from droplet import Droplet
from predicted import assert_comes_true

KEY = "HMAC_SECRET"
STEPS = [
    "stop the producers",
    "drain",
    "stop the rest",
    "save files",
    "replace the env file",
    "create the new containers",
    "start",
]
BRAIN, EXECUTION, QUANT, OPSD = "titan-brain", "titan-execution", "titan-ai-quant", "titan-opsd"


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
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "recreated", OPSD: "recreated"},
            [*STEPS, "recreate the other holders", "prove"],
        ),
        (
            {"stale": "warn"},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "left", OPSD: "left"},
            [*STEPS, "prove"],
        ),
        (
            {"services": [BRAIN, EXECUTION, OPSD]},
            {BRAIN: "switched", EXECUTION: "switched", QUANT: "recreated", OPSD: "switched"},
            [*STEPS, "recreate the other holders", "prove"],
        ),
    ],
    ids=["default", "other holders are left", "named services"],
)
def test_what_check_mode_predicts_comes_true(
    droplet: Droplet, as_the_files_say: None, options: dict[str, object], actions: dict[str, str], steps: list[str]
) -> None:
    result = assert_comes_true(droplet, "hmac_rotate", KEY, **options)
    assert {item["service"]: item["action"] for item in result["holders"]} == actions
    assert result["steps"] == steps
    assert set(result["interruption"]) == {name for name, action in actions.items() if action == "switched"}
    assert result["drained"]["left"] == 0


def test_a_holder_that_was_stopped_gets_the_secret_and_stays_stopped(droplet: Droplet, as_the_files_say: None) -> None:
    droplet.sh(f"docker stop {OPSD}")
    result = assert_comes_true(droplet, "hmac_rotate", KEY)
    assert {item["service"]: item["action"] for item in result["holders"]}[OPSD] == "recreated"
    assert droplet.containers()[OPSD].status == "created"
