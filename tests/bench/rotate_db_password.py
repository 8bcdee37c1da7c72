# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database password's rotation by playbook against the runbook's own commands, side by side on the sandbox.

Measured as the HMAC rotation is (rotate_hmac.py), beside a third way in the same run that does nothing but stop brain
and start it again. Either rotation contains that, whatever its engine: brain ends in its own time, its successor has to
have the new password from the beginning, and two cannot have one port. On the sandbox that alone is more than half of
what the runbook's commands take. So the limit is on what a rotation adds to it: exits 1 when the playbook adds half as
much as the runbook's commands or more (medians), or loses an intent or has one rejected. The whole interruption is told
as well.
"""

from __future__ import annotations

import sys

from compare import by_hand, by_playbook, compare, median, none_lost, runs

BRAIN = "titan-brain"
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
        "restart": by_hand(f"docker restart {BRAIN}"),
    }
    results = compare(ways, runs(__doc__))
    whole = {name: median(found, BRAIN) for name, found in results.items()}
    print(
        f"{BRAIN}: playbook {whole['playbook']:.2f} s, runbook {whole['runbook']:.2f} s (medians), "
        f"ratio {whole['playbook'] / whole['runbook']:.2f}; its own stop and start alone: {whole['restart']:.2f} s"
    )
    playbook, runbook = (whole[name] - whole["restart"] for name in ("playbook", "runbook"))
    met = playbook < LIMIT * runbook
    print(
        f"beyond its own stop and start: playbook {playbook:.2f} s, runbook {runbook:.2f} s, "
        f"limit {LIMIT} of that: {'ok' if met else 'TOO LONG'}"
    )
    return int(not (none_lost(results) and met))


if __name__ == "__main__":
    sys.exit(main())
