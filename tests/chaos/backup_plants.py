# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is planted to show that the final look of the matrix of backups sees it."""

from __future__ import annotations

import json


def plants(seed: str) -> dict[str, tuple[str, str]]:
    """By what the final look must say: a script that plants it, and one that takes it away again.

    Args:
        seed: a plain backup.
    """
    place = "/opt/titan/backups/db"
    psql = "docker exec titan-postgres psql -q -U titan -d titan_brain -c"
    side = "titan_brain__restore_20200101000000"
    scratch = "titan_brain__verify_00000000"
    made = json.dumps(f'"name": "{seed}"')[1:-1]
    return {
        "planted.sql is not what its manifest says": (
            f"head -c 100000 {place}/{seed} >{place}/planted.sql;"
            f' sed \'s/{made}/\\"name\\": \\"planted.sql\\"/\' {place}/{seed}.manifest.json'
            f" >{place}/planted.sql.manifest.json",
            f"rm {place}/planted.sql*",
        ),
        "nothing.sql has no manifest": (f"touch {place}/nothing.sql", f"rm {place}/nothing.sql"),
        "hidden files: ['.x.sql.partial']": (f"touch {place}/.x.sql.partial", f"rm {place}/.x.sql.partial"),
        f"databases left: ['{side}']": (f"{psql} 'CREATE DATABASE {side}'", f"{psql} 'DROP DATABASE {side}'"),
        f"databases left: ['{scratch}']": (f"{psql} 'CREATE DATABASE {scratch}'", f"{psql} 'DROP DATABASE {scratch}'"),
        "sidecar containers": (
            "docker create --name odd --label titan.ops.sidecar=x titan/nats:2 >/dev/null",
            "docker rm -v odd >/dev/null",
        ),
        "volumes: ['odd'] too many": ("docker volume create odd >/dev/null", "docker volume rm odd >/dev/null"),
        "left in memory: ['/run/titan-ops/pgpass-x']": (
            "mkdir -p -m 700 /run/titan-ops; touch /run/titan-ops/pgpass-x",
            "rm /run/titan-ops/pgpass-x",
        ),
        "public.alerts has": (
            f"{psql} \"INSERT INTO alerts (severity, message) VALUES ('info', 'planted')\"",
            f"{psql} \"DELETE FROM alerts WHERE message = 'planted'\"",
        ),
        "titan-opsd is exited": ("docker stop -t 1 titan-opsd >/dev/null", "docker start titan-opsd >/dev/null"),
    }
