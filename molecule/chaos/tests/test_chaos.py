# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The representative parts of the fault matrices: rotations, backups and restores, at the most dangerous boundaries."""

from __future__ import annotations

import subprocess
import sys

import pytest
from droplet import ROOT


@pytest.mark.parametrize("matrix", ["chaos", "backups"])
def test_every_case_of_the_representative_part_converges(capfd: pytest.CaptureFixture[str], matrix: str) -> None:
    with capfd.disabled():  # the table is what one wants to read while it runs
        print(flush=True)
        done = subprocess.run([sys.executable, f"tests/chaos/{matrix}.py", "--representative"], cwd=ROOT, check=False)
    assert done.returncode == 0, "not every case converged: see the table, and .cache/chaos"
