# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of all scenarios share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from droplet import Droplet


@pytest.fixture(scope="session")
def droplet() -> Droplet:
    return Droplet()


@pytest.fixture
def unchanged(droplet: Droplet) -> Iterator[None]:
    """The test must leave the host as it found it."""
    before = droplet.fingerprint()
    yield
    assert droplet.fingerprint() == before, "the host was changed"
