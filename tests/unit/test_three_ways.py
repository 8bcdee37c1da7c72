# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A playbook runs three ways with the same result (design 3): installed, from the checkout, inside playbooks/.

Here every playbook is read the three ways, down to its roles' tasks and modules; molecule's scenario `three_ways` runs
them against the Droplet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ROLES = sorted(path.name for path in (ROOT / "roles").glob("*") if path.is_dir())
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
BIN = Path(sys.prefix) / "bin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A bare one with a home of its own: nothing that is set or installed elsewhere helps."""
    home = tmp_path_factory.mktemp("home")
    return {"HOME": str(home), "LC_ALL": "C.UTF-8", "PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The collection as `ansible-galaxy collection build` packs it."""
    out = tmp_path_factory.mktemp("artifact")
    _run(["ansible-galaxy", "collection", "build", "--output-path", str(out)], cwd=ROOT, env=environment)
    (file,) = out.glob("titan-ops-*.tar.gz")
    return file


@pytest.fixture(scope="module")
def installed(artifact: Path, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A collections path with the collection installed from its artifact."""
    path = tmp_path_factory.mktemp("installed")
    command = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(path), str(artifact)]
    _run(command, cwd=path, env=environment)
    return path


def _run(command: list[str], *, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_artifact_holds_the_collection_and_nothing_else(artifact: Path) -> None:
    with tarfile.open(artifact) as tar:
        names = tar.getnames()
    top = {name.split("/")[0] for name in names}
    assert top <= {
        *("MANIFEST.json", "FILES.json", "README.md", "COPYING", "CHANGELOG.md", "CONTRIBUTING.md", "requirements.txt"),
        *("changelogs", "docs", "inventories", "meta", "playbooks", "plugins", "roles"),
    }
    assert {f"playbooks/{name}.yml" for name in PLAYBOOKS} <= set(names)
    assert not [name for name in names if name.startswith("playbooks/collections")]


def test_every_playbook_reads_the_same_three_ways(installed: Path, environment: dict[str, str]) -> None:
    """--list-tasks reads the playbook and every statically named role; it connects nowhere."""
    inventory = ["--inventory", str(ROOT / "inventories" / "sandbox"), "--list-tasks"]
    files = [f"{name}.yml" for name in PLAYBOOKS]
    ways = {
        "installed": (installed, {"ANSIBLE_COLLECTIONS_PATH": str(installed)}, [f"titan.ops.{n}" for n in PLAYBOOKS]),
        "checkout": (ROOT, {}, [f"playbooks/{file}" for file in files]),
        "playbooks": (ROOT / "playbooks", {}, files),
        "from elsewhere": (installed.parent, {}, [str(ROOT / "playbooks" / file) for file in files]),
    }
    told = {}
    for way, (cwd, extra, names) in ways.items():
        output = _run(["ansible-playbook", *inventory, *names], cwd=cwd, env={**environment, **extra})
        lines = output.splitlines()
        assert len([line for line in lines if line.startswith("playbook: ")]) == len(PLAYBOOKS)
        told[way] = [line for line in lines if not line.startswith("playbook: ")]
    assert told["installed"] == told["checkout"] == told["playbooks"] == told["from elsewhere"]


def test_every_role_and_module_is_found_three_ways(installed: Path, environment: dict[str, str]) -> None:
    home = installed / "ansible_collections" / "titan" / "ops"
    link = ROOT / "playbooks" / "collections" / "ansible_collections" / "titan" / "ops"
    ways = [
        (installed, {"ANSIBLE_COLLECTIONS_PATH": str(installed)}, home),
        (ROOT, {}, link),
        (ROOT / "playbooks", {}, link),
    ]
    for cwd, extra, where in ways:
        env = {**environment, **extra}
        listed = _run(["ansible-doc", "-t", "module", "--list_files", "titan.ops"], cwd=cwd, env=env)
        modules = dict(line.split(None, 1) for line in listed.splitlines())
        assert sorted(modules) == [f"titan.ops.{name}" for name in MODULES]
        assert {str(Path(file).parent) for file in modules.values()} == {str(where / "plugins" / "modules")}
        roles = json.loads(_run(["ansible-doc", "-t", "role", "--list", "--json", "titan.ops"], cwd=cwd, env=env))
        assert sorted(roles) == [f"titan.ops.{name}" for name in ROLES]
