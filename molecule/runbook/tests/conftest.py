# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runbook's own commands, as root from /opt/titan."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest
from droplet import Droplet


class Runbook:
    """The commands by section, in order, and which of them a test has taken."""

    def __init__(self) -> None:
        text = (pathlib.Path(__file__).parent / "runbook_commands.txt").read_text()
        parts = re.split(r"^(\d+\.\d+)\n", text, flags=re.MULTILINE)
        self._sections = {number: body.split("\n")[:-1] for number, body in zip(parts[1::2], parts[2::2])}
        self._sections = {number: [line for line in body if line] for number, body in self._sections.items()}
        self._taken: set[str] = set()

    def __getitem__(self, number: str) -> list[str]:
        self._taken.add(number)
        return self._sections[number]

    def untaken(self) -> set[str]:
        """The sections that no test has asked for."""
        return set(self._sections) - self._taken


@pytest.fixture(scope="session")
def runbook() -> Runbook:
    return Runbook()


@pytest.fixture(autouse=True)
def healthy(droplet: Droplet) -> Iterator[None]:
    """Each test finds and leaves the stack healthy, and its files as they were."""
    files = "cd /opt/titan && find . -type f ! -path './state/*' -exec sha256sum {} + | sort"
    before = droplet.sh(files)
    droplet.wait_healthy()
    yield
    droplet.wait_healthy()
    assert droplet.sh(files) == before
    assert len(droplet.containers()) == 8


def by_hand(droplet: Droplet, command: str) -> str:
    """What a command prints."""
    return droplet.sh(f"cd /opt/titan && {command}")
