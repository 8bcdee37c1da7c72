# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A playbook run from an installed collection, from the checkout and inside playbooks/ does the same on the Droplet."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = ROOT / "inventories" / "sandbox"


def _run(command: list[str], *, cwd: Path, **settings: str) -> str:
    # Molecule's own settings for Ansible must not help.
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(command, cwd=cwd, env={**env, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with this collection, built and installed as a user does."""
    path = tmp_path_factory.mktemp("installed")
    _run(["ansible-galaxy", "collection", "build", "--output-path", str(path)], cwd=ROOT)
    (artifact,) = path.glob("titan-ops-*.tar.gz")
    _run(["ansible-galaxy", "collection", "install", "--offline", "-p", str(path), str(artifact)], cwd=path)
    return path


@pytest.mark.parametrize("arguments", [["status"], ["rotate_hmac", "--check"]], ids=" ".join)
def test_a_playbook_does_the_same_three_ways(installed: Path, arguments: list[str]) -> None:
    name, *options = arguments
    play = ["ansible-playbook", "--inventory", str(INVENTORY), *options]
    outputs = {
        "installed": _run([*play, f"titan.ops.{name}"], cwd=installed, ANSIBLE_COLLECTIONS_PATH=str(installed)),
        "checkout": _run([*play, f"playbooks/{name}.yml"], cwd=ROOT),
        "playbooks": _run([*play, f"{name}.yml"], cwd=ROOT / "playbooks"),
    }
    recaps = {way: re.findall(r"^titan-droplet +: (.*?) *$", text, re.MULTILINE) for way, text in outputs.items()}
    assert len(recaps["installed"]) == 1
    assert recaps["installed"] == recaps["checkout"] == recaps["playbooks"]
