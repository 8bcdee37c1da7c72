# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Droplet with the production layout on it."""

from __future__ import annotations

import pytest
from production import Production


@pytest.fixture(scope="session")
def droplet() -> Production:
    return Production()
