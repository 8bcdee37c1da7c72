# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database password's rotation by playbook against the runbook's own commands, side by side on the sandbox.

Measured as the HMAC rotation is (rotate_hmac.py). A third way does nothing but stop brain and start it again: no
rotation can be shorter than that. Exits 1 when the playbook interrupts brain for more than half as long as the
runbook's commands do (medians), or loses an intent or has one rejected.
"""

from __future__ import annotations

import sys

from compare import by_hand, by_playbook, compare, median, none_lost, runs, within

LIMIT = 0.5
# Runbook 3.1, command by command, as fast as a script can: the editor is sed, "access container" is an exec without a
# terminal, and the one wait that nobody can do without (the database, which step 2 has just replaced, must answer) asks
# ten times a second.
BY_HAND = r"""
set -euo pipefail
cd /opt/titan
new=$(openssl rand -hex 20)
docker compose -f docker-compose.prod.yml stop titan-brain titan-execution
sed -i "s/^TITAN_DB_PASSWORD=.*/TITAN_DB_PASSWORD=$new/" compose/.env.prod
docker compose -f docker-compose.prod.yml up -d titan-postgres
until docker exec titan-postgres pg_isready --quiet; do sleep 0.1; done
sql="ALTER USER titan WITH PASSWORD '$new';"
docker exec -i titan-postgres psql -v ON_ERROR_STOP=1 -U titan -d titan_brain <<<"$sql"
docker compose -f docker-compose.prod.yml up -d
"""


def main() -> int:
    ways = {
        "runbook": by_hand(BY_HAND),
        "playbook": by_playbook("rotate_db_password"),
        "restart": by_hand("docker restart titan-brain"),
    }
    results = compare(ways, runs(__doc__))
    met = within(results, "titan-brain", LIMIT)
    own = median(results["restart"], "titan-brain")
    added = {name: median(results[name], "titan-brain") - own for name in ("playbook", "runbook")}
    print(
        f"titan-brain's own stop and start take {own:.2f} s; beyond that: playbook {added['playbook']:.2f} s, "
        f"runbook {added['runbook']:.2f} s, ratio {added['playbook'] / added['runbook']:.2f}"
    )
    return int(not (none_lost(results) and met))


if __name__ == "__main__":
    sys.exit(main())
