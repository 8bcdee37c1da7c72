# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Droplet as the tests see it: over SSH, independent of the modules that they test."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = pathlib.Path(__file__).resolve().parents[3]
ENV_FILE = "/opt/titan/compose/.env.prod"


class Droplet:
    """Commands on the Droplet as root, its secrets and containers, and our own playbooks and modules run on it."""

    def __init__(self) -> None:
        port = os.environ.get("SANDBOX_SSH_PORT") or "2222"
        # SSH with one shared connection: a command takes milliseconds.
        self.host: Host = testinfra.get_host(
            f"ssh://deploy@127.0.0.1:{port}",
            sudo=True,
            controlpersist=60,
            ssh_identity_file=str(ROOT / ".sandbox/id_ed25519"),
            ssh_extra_args=f"-o UserKnownHostsFile={ROOT}/.sandbox/known_hosts -o IdentitiesOnly=yes",
        )

    def sh(self, script: str) -> str:
        """Run a shell script as root; its standard output."""
        return self.host.check_output("bash -euo pipefail -c %s", script)

    @contextlib.contextmanager
    def background(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Run a shell script as root beside the test; afterwards its input is closed and its end awaited."""
        argv = [str(ROOT / "molecule/sandbox/sandbox"), "ssh", "--", "sudo", "bash", "-c", shlex.quote(script)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield process

    def secret(self, key: str = "HMAC_SECRET", path: str = ENV_FILE) -> str:
        """A value of the env file, read with plain tools."""
        return self.sh(f"sed -n 's/^{key}=//p' {path}").strip()

    def inspect(self, container: str) -> dict[str, Any]:
        """What ``docker inspect`` says."""
        return json.loads(self.sh(f"docker inspect {container}"))[0]

    def environment(self, container: str) -> dict[str, str]:
        """A container's environment."""
        return dict(entry.split("=", 1) for entry in self.inspect(container)["Config"]["Env"])

    def fingerprint(self) -> str:
        """See files/fingerprint.sh."""
        return self.sh((ROOT / "molecule/rotate_hmac/files/fingerprint.sh").read_text().split("set -eu\n")[1])

    def flow(self) -> dict[str, int]:
        """Intents published, accepted and rejected since the stream exists, by JetStream's own count."""
        streams = {
            stream["name"]: stream["state"]["last_seq"]
            for account in json.loads(self.sh("curl -sS 'http://127.0.0.1:8222/jsz?accounts=true&streams=true'"))[
                "account_details"
            ]
            for stream in account["stream_detail"]
        }
        return {
            "published": streams["TITAN_CMD"],
            "accepted": streams["TITAN_EXECUTION"],
            "rejected": streams["TITAN_EVT"],
        }

    def wait_healthy(self) -> None:
        """Until every container of the stack passes its health check, at most two minutes."""
        self.sh(
            "for i in $(seq 240); do"
            " [ $(docker ps -q --filter health=healthy | wc -l) = $(docker ps -aq | wc -l) ] && exit 0; sleep 0.5;"
            " done; docker ps -a >&2; exit 1"
        )

    def playbook(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook as the README says."""
        return self._ansible("ansible-playbook", "-i", "inventories/sandbox", f"playbooks/{name}.yml", *args)

    def module(self, name: str, *args: str, **options: Any) -> dict[str, Any]:
        """Run a module of ours; its result, with ``failed`` set when it failed."""
        arguments = ["-a", json.dumps(options)] if options else []
        target = ["ansible", "-i", "inventories/sandbox", "titan", "-m", f"titan.ops.{name}"]
        done = self._ansible(*target, *arguments, *args)
        match = re.search(r"^titan-droplet \| (\w+)!? => (?=\{)", done.stdout, flags=re.MULTILINE)
        assert match, done.stdout + done.stderr
        result, _end = json.JSONDecoder().raw_decode(done.stdout, match.end())
        return {"failed": match[1] == "FAILED", **result}

    @staticmethod
    def _ansible(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))
        }
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "playbooks/collections")
        environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json" if argv[0] == "ansible" else "yaml"
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def droplet() -> Droplet:
    return Droplet()


@pytest.fixture
def unchanged(droplet: Droplet) -> Iterator[None]:
    """The test must leave the host as it found it."""
    before = droplet.fingerprint()
    yield
    assert droplet.fingerprint() == before, "the host was changed"
