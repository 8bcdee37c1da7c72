# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout importable under its own name, ansible_collections.titan.ops, with and without Ansible."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_HAS_ANSIBLE = importlib.util.find_spec("ansible") is not None
# A test file that cannot work without Ansible: it imports it, or what stands on it, or is about its commands.
_NEEDS_ANSIBLE = re.compile(
    r"^\s*(from|import) ansible\b|plugins\.(modules|action)\b|module_utils(\.| import )bridge\b|ansible-playbook\b",
    re.MULTILINE,
)
_left_out: list[str] = []


def _packages(root: Path) -> None:
    """Enough of packages for Python's own import; `ansible-test units` brings its own and is left alone."""
    if "ansible_collections" in sys.modules:
        return
    places = {"ansible_collections": [], "ansible_collections.titan": [], "ansible_collections.titan.ops": [str(root)]}
    for name, path in places.items():
        package = types.ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
        parent, _dot, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


_packages(ROOT)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without Ansible (the oldest Python of a host), leave out what needs it; the report's head says what."""
    if _HAS_ANSIBLE or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    if not _NEEDS_ANSIBLE.search(collection_path.read_text(encoding="utf-8")):
        return None
    _left_out.append(collection_path.name)
    return True


def pytest_report_collectionfinish() -> list[str]:
    if _HAS_ANSIBLE:
        return []
    return [f"No Ansible here, so without the tests that need it: {', '.join(_left_out) or 'none'}"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
