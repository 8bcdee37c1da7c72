# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation predicts with --check, held against what it then does to every container there is."""

from __future__ import annotations

from typing import Any

from droplet import Droplet

# What becomes of a holder's container, by the action that the rotation names.
REPLACED = {"switched": True, "recreated": True, "kept": False, "left": False, "none": False}
PREDICTED = ("key", "variables", "env_file", "holders", "steps", "diff", "changed")


def assert_comes_true(droplet: Droplet, module: str, key: str, **options: Any) -> dict[str, Any]:
    """Run a rotation with --check and for real; gives the latter's result."""
    before, seen = droplet.fingerprint(), droplet.containers()
    predicted = droplet.module(module, "--check", "--diff", "-vvv", **options)
    assert not predicted["failed"], predicted["msg"]
    assert droplet.fingerprint() == before, "--check has changed the host"
    old = droplet.secret(key)

    result = droplet.module(module, "--diff", "-vvv", **options)
    assert not result["failed"], result["msg"]
    assert {name: predicted[name] for name in PREDICTED} == {name: result[name] for name in PREDICTED}
    assert droplet.secret(key) != old

    # Every container, holder or not: replaced or untouched as predicted, and running if it ran.
    action = {item["service"]: item["action"] for item in predicted["holders"]}
    after = droplet.containers()
    assert set(after) == set(seen)
    for name, was in seen.items():
        now, replaced = after[name], REPLACED[action.get(name, "none")]
        assert (now.id != was.id) is replaced, (name, action)
        assert (now.started != was.started) is replaced, (name, action)
        expected = "created" if replaced and was.status != "running" else was.status
        assert now.status == expected, (name, now, action)
    # Every holder's variables have changed, or not, as predicted; so has every place that the diff shows.
    for item in predicted["holders"]:
        environment = droplet.environment(item["service"])
        new = {name: droplet.secret(key) in environment[name] for name in item["variables"]}
        assert new == dict.fromkeys(item["variables"], REPLACED[item["action"]]), item["service"]
        for name in item["variables"]:
            generation = "new" if new[name] else "old"
            line = f"{item['service']}: {name} ({generation} secret)\n"
            assert (line in predicted["diff"]["after"]) is (item["action"] != "none"), line
    return result
