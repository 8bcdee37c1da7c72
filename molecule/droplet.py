# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Droplet as the tests of all scenarios see it: over SSH, independent of the modules that they test."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import testinfra
from testinfra.host import Host

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENV_FILE = "/opt/titan/compose/.env.prod"


class Seen(NamedTuple):
    """A container as ``docker inspect`` shows it."""

    id: str
    started: str
    status: str
    exit_code: int


class Droplet:
    """Commands on the Droplet as root, its secrets and containers, and our own playbooks and modules run on it.

    Args:
        inventories: more of them for our playbooks and modules, beside the sandbox's own.
    """

    def __init__(self, *inventories: str) -> None:
        self._inventories = [word for path in ("inventories/sandbox", *inventories) for word in ("-i", path)]
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

    def typing(self, command: str, keys: str) -> str:
        """Run a command as root at a terminal and type; what the terminal then shows."""
        terminal = ["sudo", "script", "--quiet", "--return", "--command", shlex.quote(command), "/dev/null"]
        argv = [str(ROOT / "molecule/sandbox/sandbox"), "ssh", "--", *terminal]
        return subprocess.run(argv, input=keys, capture_output=True, text=True, check=True, timeout=60).stdout

    @contextlib.contextmanager
    def background(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Run a shell script as root beside the test; afterwards its input is closed and its end awaited."""
        argv = [str(ROOT / "molecule/sandbox/sandbox"), "ssh", "--", "sudo", "bash", "-c", shlex.quote(script)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield process

    @contextlib.contextmanager
    def edited(self, script: str, path: str = ENV_FILE) -> Iterator[None]:
        """Let a sed script edit a file in place, as an operator's editor would; afterwards it is as it was."""
        self.sh(f"cp -p {path} /root/edited && sed -i --follow-symlinks {shlex.quote(script)} {path}")
        assert self.host.run("cmp -s /root/edited %s", path).rc == 1, f"{script} has changed nothing in {path}"
        try:
            yield
        finally:
            self.sh(f"mv /root/edited {path}")

    @contextlib.contextmanager
    def override(self, name: str, services: dict[str, Any]) -> Iterator[list[str]]:
        """A second Compose file beside the stack's own; gives the arguments that make a playbook read both."""
        self.sh(f"cat > /opt/titan/{name} <<'END'\n{json.dumps({'services': services}, indent=1)}\nEND")
        try:
            yield ["-e", json.dumps({"titan_stack": {"files": ["docker-compose.prod.yml", name]}})]
        finally:
            self.sh(f"rm /opt/titan/{name}")

    def secret(self, key: str = "HMAC_SECRET", path: str = ENV_FILE) -> str:
        """A value of the env file, read with plain tools."""
        return self.sh(f"sed -n 's/^{key}=//p' {path}").strip()

    def inspect(self, container: str) -> dict[str, Any]:
        """What ``docker inspect`` says."""
        found: list[dict[str, Any]] = json.loads(self.sh(f"docker inspect {container}"))
        return found[0]

    def environment(self, container: str) -> dict[str, str]:
        """A container's environment."""
        return dict(entry.split("=", 1) for entry in self.inspect(container)["Config"]["Env"])

    def containers(self) -> dict[str, Seen]:
        """Every container there is, by name."""
        text = self.sh("docker ps --all --quiet --no-trunc | xargs --no-run-if-empty docker inspect")
        return {
            item["Name"].lstrip("/"): Seen(
                item["Id"], item["State"]["StartedAt"], item["State"]["Status"], item["State"]["ExitCode"]
            )
            for item in json.loads(text or "[]")
        }

    def fingerprint(self) -> str:
        """See fingerprint.sh."""
        return self.sh((ROOT / "molecule/rotate_hmac/files/fingerprint.sh").read_text().split("set -eu\n")[1])

    def address(self, container: str) -> str:
        """A container's address on the stack's network."""
        [network] = self.inspect(container)["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def flow(self) -> dict[str, int]:
        """Intents published, accepted and rejected since the stream exists, and under way, by JetStream's own count."""
        address = "$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' titan-nats)"
        answer = self.sh(f'curl -sS "http://{address}:8222/jsz?accounts=true&streams=true"')
        streams = {
            stream["name"]: stream["state"]
            for account in json.loads(answer)["account_details"]
            for stream in account["stream_detail"]
        }
        return {
            "published": streams["TITAN_CMD"]["last_seq"],
            "under_way": streams["TITAN_CMD"]["messages"],
            "accepted": streams["TITAN_EXECUTION"]["last_seq"],
            "rejected": streams["TITAN_EVT"]["last_seq"],
        }

    def settled_flow(self, accepted: int = 0) -> dict[str, int]:
        """The same at a moment when nothing is under way, after at least so many were accepted; within a minute."""
        deadline = time.monotonic() + 60
        while True:
            flow = self.flow()
            if flow["under_way"] == 0 and flow["accepted"] >= accepted:
                return flow
            assert time.monotonic() < deadline, f"execution does not work off what is published: {flow}"
            time.sleep(0.02)

    def wait_healthy(self) -> None:
        """Until every container of the stack passes its health check, at most two minutes."""
        self.sh(
            "for i in $(seq 240); do"
            " [ $(docker ps -q --filter health=healthy | wc -l) = $(docker ps -aq | wc -l) ] && exit 0; sleep 0.5;"
            " done; docker ps -a >&2; exit 1"
        )

    def playbook(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook as the README says."""
        return self._ansible("ansible-playbook", *self._inventories, f"playbooks/{name}.yml", *args)

    def module(self, name: str, /, *args: str, **options: Any) -> dict[str, Any]:
        """Run a module of ours; its result, with ``failed`` set when it failed."""
        arguments = ["-a", json.dumps(options)] if options else []
        target = ["ansible", *self._inventories, "titan", "-m", f"titan.ops.{name}"]
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


def words(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command printed, in one line, so that a sentence is found wherever it was folded."""
    return " ".join((done.stdout + done.stderr).split())


def changes(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a playbook changed something, by its recap; the playbook must have ended well."""
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.search(r"^titan-droplet +: .*changed=(\d+) +unreachable=0 +failed=0 ", done.stdout, flags=re.MULTILINE)
    assert recap, done.stdout
    return int(recap[1])
