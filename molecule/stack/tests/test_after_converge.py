# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What converge has brought about; nothing may come before this."""

from __future__ import annotations

from droplet import Droplet


def test_after_converge_the_stack_is_up(droplet: Droplet) -> None:
    services = droplet.sh("cd /opt/titan && docker compose -f docker-compose.prod.yml config --services").split()
    assert sorted(droplet.containers()) == sorted(services)
    assert {droplet.inspect(name)["State"]["Health"]["Status"] for name in services} == {"healthy"}
