# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alert rules that the role brings (what they do is tested by promtool, scenario backup)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.titan.ops.plugins.module_utils.core import metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "roles/backup/files/titan-ops.rules.yml"
TESTS = (ROOT / "molecule/backup/files/titan-ops.rules.test.yml").read_text(encoding="utf-8")
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]


def _names(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


@pytest.mark.parametrize("rule", ALERTS, ids=_names)
def test_an_alert_asks_for_metrics_that_are_there_and_says_what_to_do(rule: dict[str, Any]) -> None:
    ours = {value for value in vars(metrics).values() if isinstance(value, str) and value.startswith("titan_")}
    asked = set(re.findall(r"\b(?:titan|node)_\w+(?=[\s{\[),]|$)", rule["expr"]))
    assert asked and asked <= {*ours, "node_textfile_scrape_error"}, asked
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description"}
    for playbook in re.findall(r"\b[a-z_]+\.yml\b", rule["annotations"]["description"]):
        assert (ROOT / "playbooks" / playbook).exists(), playbook


@pytest.mark.parametrize("rule", ALERTS, ids=_names)
def test_every_alert_is_seen_firing_by_promtool_and_stands_in_the_docs(rule: dict[str, Any]) -> None:
    assert f'alertname="{rule["alert"]}", alertstate="firing"' in TESTS
    assert f"`{rule['alert']}`" in (ROOT / "docs/backups.md").read_text(encoding="utf-8")
