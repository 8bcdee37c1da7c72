# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stack in production's layout as these tests see it: with plain tools, by the addresses of its containers."""

from __future__ import annotations

import hashlib
import hmac
import re
import shlex
import time
from typing import Any

from droplet import ENV_FILE, Droplet

INVENTORY = "molecule/production_layout/inventory"
RELEASE = "/opt/titan/releases/2026-02-06"
CURRENT = "/opt/titan/current"
# The directory in which the stack was first started gave it its name.
PROJECT = "2026-01-30"
COMPOSE_FILE, OVERRIDE = f"{RELEASE}/docker-compose.prod.yml", f"{RELEASE}/compose.override.digest.yml"
# What a deployer types in /opt/titan/current.
COMPOSE = (
    f"cd {CURRENT} && docker compose --env-file .env.prod -f docker-compose.prod.yml -f compose.override.digest.yml"
)
SERVICES = {"titan-postgres": "postgres", "titan-nats": "nats"} | {
    f"titan-{name}": f"titan-{name}" for name in ("brain", "execution", "ai-quant", "opsd", "prometheus", "gpu")
}
KEY, HMAC_KEY = "TITAN_DB_PASSWORD", "HMAC_SECRET"
PASSWORD_IN = {"titan-brain": KEY, "titan-execution": KEY, "titan-ai-quant": "DB_PASSWORD"}
HMAC_IN = {
    "titan-brain": HMAC_KEY,
    "titan-execution": HMAC_KEY,
    "titan-ai-quant": "TITAN_HMAC_SECRET",
    "titan-opsd": "OPS_SECRET",
}
# Exit code 3: the password is refused. Everything else that goes wrong fails the test.
_LOGIN = """
import psycopg2, sys
host, password = sys.stdin.read().splitlines()
try:
    psycopg2.connect(host=host, user="titan", dbname="titan_brain", password=password, connect_timeout=5).close()
except psycopg2.OperationalError as error:
    if "password authentication failed" not in str(error):
        raise
    sys.exit(3)
"""
_URL_LOGIN = """
import os, psycopg2
cursor = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=5).cursor()
cursor.execute("SELECT host(inet_server_addr())")
print(cursor.fetchone()[0])
"""


class Production(Droplet):
    """The Droplet with two releases on it."""

    def __init__(self) -> None:
        super().__init__(INVENTORY)

    def rotation(self, name: str, *args: str, **options: Any) -> dict[str, Any]:
        """The module itself, which knows no inventory variables; here the env file is named by the release's link."""
        return self.module(name, *args, project_src=CURRENT, env_file=".env.prod", **options)

    def secret(self, key: str = HMAC_KEY, path: str = ENV_FILE) -> str:
        """A value of the env file, which is in single quotes where it was written so."""
        return super().secret(key, path).strip("'")

    def env_file(self, path: str = ENV_FILE) -> bytes:
        """Its bytes."""
        return bytes.fromhex(self.sh(f"od -An -v -tx1 {path}"))

    def lets_in(self, password: str) -> bool:
        """Whether the database takes a password from this host, which it knows by its address on the network."""
        address = self.address("titan-postgres")
        assert not address.startswith("127.")
        done = self.host.run("bash -c %s", f"python3 -c {shlex.quote(_LOGIN)} <<'END'\n{address}\n{password}\nEND")
        assert done.rc in (0, 3), done.stderr
        return done.rc == 0

    def url_works(self, container: str) -> bool:
        """Whether a container opens the database with the DATABASE_URL that it holds, over the network."""
        done = self.host.run("docker exec %s python3 -c %s", container, _URL_LOGIN)
        assert done.rc == 0 or "password authentication failed" in done.stderr, done.stderr
        return done.rc == 0 and done.stdout.strip() == self.address("titan-postgres")

    def sql(self, statement: str) -> str:
        """Run a statement as the superuser on the container's socket; what it printed."""
        psql = "docker exec -i titan-postgres psql -X -q -At -v ON_ERROR_STOP=1 -U titan -d titan_brain"
        return self.sh(f"{psql} <<'END'\n{statement}\nEND").strip()

    def health(self, container: str, port: int) -> str:
        """The status code of its /health, asked at its own address."""
        return self.sh(f"curl -s -o /dev/null -w '%{{http_code}}' http://{self.address(container)}:{port}/health")

    def signed_status(self, secret: str) -> str:
        """The status code of brain's signed read-only request."""
        now = str(int(time.time()))
        signature = hmac.new(secret.encode(), f"{now}.".encode(), hashlib.sha256).hexdigest()
        return self.sh(
            f"curl -s -o /dev/null -w '%{{http_code}}' -H 'x-timestamp: {now}' -H 'x-signature: {signature}'"
            f" http://{self.address('titan-brain')}:3100/services"
        )

    def labels(self) -> dict[str, tuple[str, str]]:
        """Compose project and service of every container, by the container's name."""
        template = '{{.Names}} {{.Label "com.docker.compose.project"}} {{.Label "com.docker.compose.service"}}'
        lines = self.sh(f"docker ps --all --format {shlex.quote(template)}").splitlines()
        return {name: (project, service) for name, project, service in (line.split() for line in lines)}

    def env_stat(self) -> str:
        """Owner and mode of the env file, and the releases' links to it."""
        return self.sh(f"stat -c '%F %U %G %a' {ENV_FILE}; readlink /opt/titan/current /opt/titan/releases/*/.env.prod")


LABELS = {container: (PROJECT, service) for container, service in SERVICES.items()}
ENV_STAT = f"regular file root root 600\nreleases/2026-02-06\n{ENV_FILE}\n{ENV_FILE}"


def assert_agree(droplet: Production, *, old_password: str, old_hmac: str) -> None:
    """Env file, role and every holder have one password and one HMAC secret; the old ones open nothing.

    And what no rotation may touch is as the deployments left it.
    """
    password, secret = droplet.secret(KEY), droplet.secret(HMAC_KEY)
    droplet.wait_healthy()
    assert {name: droplet.environment(name)[held] for name, held in PASSWORD_IN.items()} == dict.fromkeys(
        PASSWORD_IN, password
    )
    assert {name: droplet.environment(name)[held] for name, held in HMAC_IN.items()} == dict.fromkeys(HMAC_IN, secret)
    [url] = re.findall(r"(?m)^DATABASE_URL=(.*)$", droplet.env_file().decode())
    for name in ("titan-brain", "titan-execution"):
        assert droplet.environment(name)["DATABASE_URL"] == url
        assert droplet.url_works(name)
    assert droplet.lets_in(password)
    assert droplet.signed_status(secret) == "200"
    if old_password != password:
        assert not droplet.lets_in(old_password)
    if old_hmac != secret:
        assert droplet.signed_status(old_hmac) == "401"
    assert (droplet.health("titan-brain", 3100), droplet.health("titan-execution", 3002)) == ("200", "200")
    assert droplet.labels() == LABELS
    assert droplet.env_stat() == ENV_STAT
    assert droplet.sh("ls -A /opt/titan/state").split() == ["deploy.lock"]
