# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine works where there is no Ansible (design 2): a host's cron runs it under the system's Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = ROOT / "plugins" / "module_utils"
# The one file that owns AnsibleModule.
BRIDGE = MODULE_UTILS / "bridge.py"
ENGINE = sorted(path for path in MODULE_UTILS.rglob("*.py") if path != BRIDGE)

# Run in a process of its own: imports every name that it is given, with every import of `ansible` failing. The package
# is called something else there: the engine may not lean on the name under which Ansible knows it, either.
IMPORTER = """
import importlib, json, sys, types

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ansible", "ansible_collections"):
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Block())
root, names = json.loads(sys.argv[1])
engine = types.ModuleType("engine")
engine.__path__ = [root]
sys.modules["engine"] = engine
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def _name(path: Path) -> str:
    parts = path.relative_to(MODULE_UTILS).with_suffix("").parts
    return ".".join(("engine", *(part for part in parts if part != "__init__")))


def test_there_is_an_engine_to_look_at() -> None:
    assert len([path for path in ENGINE if path.name != "__init__.py"]) >= 10


def test_every_file_imports_with_ansible_blocked() -> None:
    names = sorted({_name(path) for path in ENGINE} - {"engine"})
    argument = json.dumps([str(MODULE_UTILS), names])
    done = subprocess.run([sys.executable, "-c", IMPORTER, argument], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(names))]


def test_no_file_imports_ansible_later_either() -> None:
    found = []
    for path in ENGINE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names if name.startswith("ansible")]
    assert not found


def test_no_file_imports_the_bridge() -> None:
    found = []
    for path in ENGINE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                named = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
                if "bridge" in named:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
