# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to the Droplet: the agent, over an SSH connection of its own, and the playbooks, as an operator runs them."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import select
import shlex
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
SANDBOX = str(ROOT / "molecule/sandbox/sandbox")
PLACE = "/run/titan-chaos/bin"
SCRIPT = "/opt/titan/scripts/ops/backup_db.sh"
# What a message says of the host begins with one of these. "Nobody has foreseen this error" does not go on so.
_STATES = re.compile(r"Nothing was (?:changed|restored)|No backup was made|The database \S+ itself was not touched")
ON_DROPLET = (
    "agent.py",
    "backup_agent.py",
    "backup_state.py",
    "backup_matrix.py",
    "final_state.py",
    "freezer.py",
    "matrix.py",
    "password_prober.py",
    "watcher.py",
)


class Trouble(Exception):
    """The harness itself cannot go on with this case; says why."""


class Agent:
    """The agent on the Droplet; every call of it has a time limit.

    Args:
        program: of ON_DROPLET.
    """

    def __init__(self, program: str = "agent.py") -> None:
        self._number = 0
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in ON_DROPLET:
                tar.add(HERE / name, arcname=name)
        unpack = f"sudo mkdir -p {PLACE} && sudo tar -x --no-same-owner -C {PLACE}"
        done = subprocess.run(
            [SANDBOX, "ssh", "--", unpack], input=archive.getvalue(), capture_output=True, check=False
        )
        if done.returncode != 0:
            raise Trouble(f"the Droplet cannot be reached (make sandbox): {done.stderr.decode().strip()}")
        self._process = subprocess.Popen(
            [SANDBOX, "ssh", "--", f"sudo PYTHONDONTWRITEBYTECODE=1 python3 -u {PLACE}/{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the harness, which then sets things right
        )

    def __call__(self, operation: str, *, limit: float = 180, **arguments: Any) -> Any:
        """Ask for something; its answer.

        Raises:
            Trouble: it failed, or did not answer within ``limit`` seconds.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        self._number += 1
        stdin.write(json.dumps({"op": operation, "number": self._number, **arguments}).encode() + b"\n")
        stdin.flush()
        answer: dict[str, Any] = {}
        while answer.get("number") != self._number:  # what came too late for an interrupted call is passed over
            if not select.select([stdout], [], [], limit)[0]:
                raise Trouble(f"the agent on the Droplet did not answer to {operation} within {limit:g} s")
            line = stdout.readline()
            if not line:
                raise Trouble(f"the agent on the Droplet ended at {operation}")
            answer = json.loads(line)
        if "error" in answer:
            raise Trouble(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Said:
    """What a playbook's run said.

    Attributes:
        code: its exit code.
        output: all that it printed.
        results: what its tasks returned.
        unreachable: whether the host was lost.
    """

    code: int
    output: str
    results: list[dict[str, Any]] = field(default_factory=list)
    unreachable: bool = False

    @property
    def failure(self) -> dict[str, Any]:
        """The result of the task that failed with words of its own; empty where there is none."""
        return next((item for item in self.results if item.get("reason") and self.code != 0), {})

    def clear(self) -> bool:
        """Whether it told in words of its own what happened, what state the host is in, and what to do."""
        return all(self.failure.get(name) for name in ("reason", "state", "hint"))

    def words(self) -> str:
        """Why it failed: its message, else the end of its output."""
        return str(self.failure.get("msg") or self.output[-600:])

    def short(self) -> str:
        """In a few words."""
        if self.code == 0:
            return self._good()
        if self.unreachable:
            return "unreachable"
        if not self.failure:
            return "ended without a word"
        step = re.search(r'failed at "([^"]*)"', self.failure["msg"])
        at = f" at {step[1]}" if step else ""
        undone = self.failure.get("rolled_back")
        if undone is not None:
            return f"undone{at}" if undone else f"failed{at}, not undone yet"
        reason = str(self.failure["reason"])
        return "not recovered yet" if "could not be undone" in reason else f"refused: {reason}"

    def _good(self) -> str:
        for item in self.results:
            if isinstance(item.get("recovered"), dict) and "holders" not in item:
                return ", ".join(item["recovered"].values()) or "nothing to do"
            if "holders" in item:
                return f"{item['recovered']}, rotated" if item.get("recovered") else "rotated"
        return "ended well"


class Running:
    """An operation under way.

    Args:
        name: for messages.
        command: what runs it, on this machine.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        # a file, for nobody reads a pipe meanwhile
        self._output = tempfile.TemporaryFile(prefix="titan-chaos-")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float) -> Said:
        """Its words, when it has ended.

        Raises:
            Trouble: it did not end within ``seconds``; it is ended then.
        """
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise Trouble(f"{self.name} did not end within {seconds:g} s:\n{self._text()[-2000:]}") from None
        return self.parsed(code, self._text())

    def parsed(self, code: int, text: str) -> Said:
        """What it has said."""
        raise NotImplementedError

    def end(self) -> None:
        """End it and what it has started on this machine."""
        if self.running():
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _text(self) -> str:
        self._output.seek(0)
        return self._output.read().decode(errors="replace")


class Playbook(Running):
    """A playbook under way.

    Args:
        name: without .yml.
        arguments: of ansible-playbook.
    """

    def __init__(self, name: str, *arguments: str) -> None:
        book = f"playbooks/{name}.yml"
        super().__init__(f"{name}.yml", ["ansible-playbook", "-v", "-i", "inventories/sandbox", book, *arguments])

    def parsed(self, code: int, text: str) -> Said:
        return parse(code, text)


class Script(Running):
    """backup_db.sh under way on the Droplet, without a terminal, as cron runs it.

    Args:
        arguments: its own.
    """

    def __init__(self, *arguments: str) -> None:
        # By a shell, as cron does: sudo itself would stop when what it has started is stopped, and never go on.
        line = f"{shlex.join([SCRIPT, *arguments])}; exit $?"
        super().__init__("backup_db.sh", [SANDBOX, "ssh", "--", f"sudo sh -c {shlex.quote(line)}"])

    def parsed(self, code: int, text: str) -> Said:
        return parse_script(code, text)


def _environment() -> dict[str, str]:
    """Ours, without what a surrounding Molecule has set; results as JSON, which can be read back."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    return {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }


def parse(code: int, text: str) -> Said:
    """The results in a playbook's output, printed with -v and as JSON."""
    said = Said(code, text, unreachable=re.search(r"^\S+ +: .*unreachable=[1-9]", text, flags=re.MULTILINE) is not None)
    decoder = json.JSONDecoder()
    for found in re.finditer(r"^(?:ok|changed|fatal): \[[^\]]+\](?:: \w+!)? => (?=\{)", text, flags=re.MULTILINE):
        try:
            said.results.append(decoder.raw_decode(text, found.end())[0])
        except ValueError:
            continue  # a message of Ansible's own, which is not a result
    return said


def parse_script(code: int, text: str) -> Said:
    """What backup_db.sh has said: its message in the three parts that a module's result has."""
    said = Said(code, text)
    if failed := re.search(r"^backup_db\.sh: FAILED: (.*?)(?=\nbackup_db\.sh: |\Z)", text, re.MULTILINE | re.DOTALL):
        message = failed[1].strip()
        found = _STATES.search(message)
        reason, state = (message[: found.start()], message[found.start() :]) if found else (message, "")
        hint = state.partition(". ")[2]
        said.results.append({"msg": message, "reason": reason.strip(), "state": state, "hint": hint})
    if made := re.search(r"^/\S*/(\S+): .* sha256 (\w{64})$", text, re.MULTILINE):
        said.results.append({"name": made[1], "sha256": made[2]})
    if proved := re.search(r"^(\S+) restores: (\d+) rows .* in (\S+) s$", text, re.MULTILINE):
        said.results.append({"name": proved[1], "rows": int(proved[2]), "restore_seconds": float(proved[3])})
    return said


def run(name: str, *arguments: str, seconds: float = 300) -> Said:
    """Run a playbook to its end."""
    return Playbook(name, *arguments).wait(seconds)


def module(name: str, *arguments: str) -> dict[str, Any]:
    """Run a module of ours; its result.

    Raises:
        Trouble: it failed.
    """
    argv = ["ansible", "-i", "inventories/sandbox", "titan", "-m", f"titan.ops.{name}", *arguments]
    done = subprocess.run(argv, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r"^titan-droplet \| \w+ => (?=\{)", done.stdout, flags=re.MULTILINE)
    if done.returncode != 0 or not found:
        raise Trouble(f"{name} {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout, found.end())[0]
    return result
