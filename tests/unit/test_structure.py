# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of the house that no other tool checks: sizes, and lists that are kept in two places."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
ROLES = sorted(path for path in (ROOT / "roles").glob("*") if path.is_dir())
# Design 2: a file beyond these is asking to be two. One that is not says so in a line `# Longer than N lines: why`.
LIMITS = {"plugins/modules": 250, "plugins/action": 250, "plugins/module_utils": 400}
REASON = re.compile(r"^# Longer than (\d+) lines: \S.{20,}$", re.MULTILINE)


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_lists_below_are_not_empty() -> None:
    assert PLAYBOOKS
    assert ROLES


@pytest.mark.parametrize("folder", sorted(LIMITS))
def test_no_file_grows_past_its_size_without_a_reason(folder: str) -> None:
    too_long = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        reason = REASON.search(text)
        limit = int(reason[1]) * 1.2 if reason else LIMITS[folder]
        if text.count("\n") > limit:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert not too_long


def test_the_readme_and_the_playbooks_agree() -> None:
    """A table names a playbook that is there, or says "not yet" after one that is not (up to the next semicolon)."""
    there = {path.name for path in PLAYBOOKS}
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    named: set[str] = set()
    promised: set[str] = set()
    for part in re.split(r"[|;]", "|".join(rows)):
        (promised if "not yet" in part.lower() else named).update(re.findall(r"\b[a-z_]+\.yml\b", part))
    assert there - named == set(), "playbooks that no table of README.md names"
    assert named - there == set(), "README.md's tables name playbooks that are not there"
    assert promised & there == set(), 'README.md says "not yet" of playbooks that are there'


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_playbooks_head_says_what_the_operator_must_know(path: Path) -> None:
    """Design 3: runbook section, what it interrupts and for how long, how it is undone."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if line.startswith("- "))])
    missing = [word for word in ("runbook", "interrupt", "und") if word not in head.lower()]
    assert not missing, f"the head comment of {path.name} says nothing of: {missing}"


def test_a_play_that_may_carry_a_secret_pipelines_whatever_ansible_cfg_is_in_force() -> None:
    """Without pipelining Ansible writes the module with its arguments into a temporary file on the host."""
    secret = set()
    for role in ROLES:
        for entry, spec in _load(role / "meta" / "argument_specs.yml")["argument_specs"].items():
            if any(option.get("no_log") for option in (spec.get("options") or {}).values()):
                secret.add((f"titan.ops.{role.name}", entry))
    assert ("titan.ops.secrets", "rotate_db_password") in secret
    carried = set()
    for path in PLAYBOOKS:
        for play in _load(path):
            for task in play.get("tasks", []):
                role = task.get("ansible.builtin.import_role", {})
                if (role.get("name"), role.get("tasks_from")) in secret:
                    carried.add((role["name"], role["tasks_from"]))
                    assert play.get("vars", {}).get("ansible_pipelining") is True, path.name
    assert carried == secret, "entry points that take a secret, and that no play was found of"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_entry_points_all_have_argument_specs(role: Path) -> None:
    """A task file is an entry point, described by an argument spec, or is included by one of its siblings."""
    specs = set(_load(role / "meta" / "argument_specs.yml")["argument_specs"])
    texts = {path.name: path.read_text(encoding="utf-8") for path in (role / "tasks").glob("*.yml")}
    included = {Path(name).stem for text in texts.values() for name in re.findall(r"\b[\w/]+\.yml\b", text)}
    files = {Path(name).stem for name in texts}
    assert specs - files == set(), "argument specs of entry points that are not there"
    assert files - specs - included == set(), "entry points without an argument spec"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_defaults_and_argument_specs_agree(role: Path) -> None:
    """Every default is described; a plain one has the same value in both places.

    One that is computed (a template) or long (a list or mapping of its own) stands in the defaults alone, and a
    variable without a default (the module's own holds then) in the argument spec alone.
    """
    file = role / "defaults" / "main.yml"
    defaults: dict[str, Any] = (_load(file) or {}) if file.exists() else {}
    options: dict[str, dict[str, Any]] = {}
    for spec in _load(role / "meta" / "argument_specs.yml")["argument_specs"].values():
        options.update(spec.get("options") or {})

    assert set(defaults) - set(options) == set(), "defaults that no argument spec describes"
    for name, option in options.items():
        assert name.startswith(f"{role.name}_"), f"{name}: a role's public variable begins with its name"
        assert not (name in defaults and option.get("required")), f"{name} is required and has a default"
        value = defaults.get(name)
        computed = isinstance(value, str) and "{{" in value
        long = isinstance(value, (list, dict)) and value
        if not computed and ("default" in option or not long):
            assert option.get("default") == value, f"{name}: its default and its argument spec differ"


def test_no_playbook_overrides_what_an_inventory_may_say() -> None:
    """Variables of an import win over group_vars: a play that gives one with a default of its own makes that useless.

    Not so which services a verb is for: that is said for each run, never in an inventory.
    """
    defaults = {role.name: set(_load(role / "defaults" / "main.yml") or {}) for role in ROLES}
    ignored = []
    for path in PLAYBOOKS:
        for task in (task for play in _load(path) for task in play.get("tasks", [])):
            name = task.get("ansible.builtin.import_role", {}).get("name", "").rpartition(".")[2]
            for variable, value in (task.get("vars") or {}).items():
                if variable in defaults.get(name, ()) and variable not in str(value) and variable != "stack_services":
                    ignored.append(f"{path.name}: {variable}")
    assert not ignored


def test_a_role_hands_on_every_option_of_a_rotation() -> None:
    """What an option of a module is good for must be reachable from an inventory."""
    for module in ("hmac_rotate", "pg_password"):
        entry = {"hmac_rotate": "rotate_hmac", "pg_password": "rotate_db_password"}[module]
        task = _load(ROOT / "roles" / "secrets" / "tasks" / f"{entry}.yml")[0]
        text = (ROOT / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8")
        options = set(
            yaml.safe_load(re.findall(r'^DOCUMENTATION = r"""(.*?)"""', text, re.DOTALL | re.MULTILINE)[0])["options"]
        )
        fragment = (ROOT / "plugins" / "doc_fragments" / "rotation.py").read_text(encoding="utf-8")
        options |= set(yaml.safe_load(re.findall(r'DOCUMENTATION = r"""(.*?)"""', fragment, re.DOTALL)[0])["options"])
        assert options - set(task[f"titan.ops.{module}"]) == set(), module


def test_every_module_is_in_the_action_group() -> None:
    group = _load(ROOT / "meta" / "runtime.yml")["action_groups"]["stack"]
    assert group == sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


def test_every_module_that_documents_its_progress_has_what_shows_it() -> None:
    modules = (ROOT / "plugins" / "modules").glob("*.py")
    told = {path.stem for path in modules if "- titan.ops.progress\n" in path.read_text(encoding="utf-8")}
    shown = (ROOT / "plugins" / "action").glob("*.py")
    assert told == {path.stem for path in shown if "WatchedAction" in path.read_text(encoding="utf-8")} != set()


def test_both_ansible_cfg_say_the_same() -> None:
    """Paths are read from where each file lies; all else must be equal."""

    def settings(folder: Path) -> dict[tuple[str, str], Any]:
        config = configparser.RawConfigParser()
        config.read(folder / "ansible.cfg", encoding="utf-8")
        values: dict[tuple[str, str], Any] = {}
        for section in config.sections():
            for key, value in config.items(section):
                paths = key in ("inventory", "collections_path")
                values[section, key] = (
                    [str((folder / Path(part).expanduser()).resolve()) for part in value.split(":")] if paths else value
                )
        return values

    assert settings(ROOT) == settings(ROOT / "playbooks")
