# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HMAC rotation by playbook against the runbook's own commands, side by side on the sandbox.

Measured by a prober on the Droplet that asks both health endpoints every few milliseconds, and by JetStream's own
counts of published, accepted and rejected intents. Exits 1 when the playbook loses an intent or has one rejected, or
interrupts longer than 1.3 times the runbook's command (medians).
"""

from __future__ import annotations

import sys

from compare import SERVICES, by_hand, by_playbook, compare, none_lost, runs, within

LIMIT = 1.3
# Runbook 3.2, word for word, with the editor replaced by sed.
BY_HAND = r"""
set -e
cd /opt/titan
new=$(openssl rand -hex 32)
sed -i "s/^HMAC_SECRET=.*/HMAC_SECRET=$new/" compose/.env.prod
docker compose -f docker-compose.prod.yml up -d --force-recreate titan-brain titan-execution
"""


def main() -> int:
    results = compare({"runbook": by_hand(BY_HAND), "playbook": by_playbook("rotate_hmac")}, runs(__doc__))
    met = [within(results, service, LIMIT) for service in SERVICES]
    return int(not (none_lost(results) and all(met)))


if __name__ == "__main__":
    sys.exit(main())
