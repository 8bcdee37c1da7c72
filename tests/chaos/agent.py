# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet as root: freezes the module's process at a step boundary, and does real harm to the host.

One JSON object a line on standard input, ``{"op": ..., ...}``; one a line in answer, ``{"ok": ...}`` or
``{"error": ...}``. Standard library and psycopg2 only; uses nothing of the collection.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

import final_state
from freezer import STATE, Freezer, Stopper, command_of, parent_of, state_of, wait

PROJECT = "/opt/titan"
ENV_DIR = f"{PROJECT}/compose"
COMPOSE_FILE = f"{PROJECT}/docker-compose.prod.yml"
DATABASE = "titan-postgres"
# What is doctored for "unhealthy" and for "exits": each a holder of both secrets, with a health check.
VICTIMS = {"unhealthy": "titan-execution", "exits": "titan-brain"}
SICK_FILES = {
    "unhealthy": ("/usr/local/bin/healthcheck", "#!/bin/bash\necho 'sick, by order of the chaos tests'\nexit 1\n"),
    "exits": ("/app/titan/brain.py", "raise SystemExit('cannot run, by order of the chaos tests')\n"),
}
SCRATCH = "/run/titan-chaos"


def sh(*argv: str, seconds: float = 120, stdin: bytes | None = None) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).decode(errors='replace').strip()[-400:]}")
    return done.stdout.decode(errors="replace")


def journals() -> list[str]:
    """Of operations that are under way or were interrupted."""
    return sorted(name for name in os.listdir(STATE) if name.endswith(".journal"))


class Agent:
    """What the harness asks for.

    Attributes:
        disk: the directory that may get a small file system of its own.
        disk_size: of that file system.
    """

    disk, disk_size = ENV_DIR, "128k"

    def __init__(self) -> None:
        self.freezer: Stopper | None = None
        self.prober: subprocess.Popen[str] | None = None
        self.doctored: list[str] = []
        self.compose = b""
        self.baseline: dict[str, Any] = {}
        os.makedirs(SCRATCH, exist_ok=True)

    # --- before a case ------------------------------------------------------------------------------------------

    def op_baseline(self) -> dict[str, Any]:
        """Remember the healthy stack: what there is, and who holds which secret. It is halted meanwhile."""
        final_state.wait_healthy(120)
        final_state.halt()
        self.baseline = final_state.baseline()
        self.images()
        return {"holders": self.baseline["holders"]}

    def images(self) -> None:
        """For each victim an image that is like its own but for one file."""
        for fault, service in VICTIMS.items():
            image = sh("docker", "inspect", "-f", "{{.Config.Image}}", service).strip()
            path, text = SICK_FILES[fault]
            name = f"titan-chaos-{fault}"
            sh("docker", "create", "--name", name, image)
            try:
                self.put(name, path, text.encode())
                sh("docker", "commit", name, f"titan-chaos/{fault}:latest")
            finally:
                sh("docker", "rm", "--volumes", name)
            sh("docker", "tag", image, f"titan-chaos/good-{fault}:latest")

    def op_clean(self) -> None:
        """Remove what only these tests need."""
        for fault in VICTIMS:
            sh("docker", "rmi", f"titan-chaos/{fault}:latest", f"titan-chaos/good-{fault}:latest")
        final_state.unhalt()

    def op_halt(self) -> None:
        """Stop the trading engine by its own switch."""
        final_state.halt()

    def op_small_disk(self) -> None:
        """The directory moves to a small file system of its own."""
        under = f"{SCRATCH}/under"
        os.makedirs(under, exist_ok=True)
        info = os.stat(self.disk)
        sh("mount", "--bind", self.disk, under)
        mode = oct(info.st_mode & 0o7777)[2:]
        options = f"size={self.disk_size},mode={mode},uid={info.st_uid},gid={info.st_gid}"
        sh("mount", "-t", "tmpfs", "-o", options, "titan-chaos", self.disk)
        sh("cp", "-a", f"{under}/.", self.disk)

    def op_own_disk(self) -> None:
        """The directory moves back, with what it has become."""
        under = f"{SCRATCH}/under"
        if not os.path.ismount(self.disk):
            return
        self.unfill()
        sh("find", under, "-mindepth", "1", "-delete")
        sh("cp", "-a", f"{self.disk}/.", under)
        sh("umount", self.disk)
        sh("umount", under)

    def unfill(self) -> None:
        if os.path.exists(f"{self.disk}/.filler"):
            os.unlink(f"{self.disk}/.filler")

    def op_arm(self, journal: str, step: str) -> None:
        """From now on, freeze whoever comes to this step."""
        self.freezer = Freezer(journal, step)
        self.freezer.start()

    def op_arm_next(self, fault: str, journal: str, step: str) -> None:
        """Whoever is frozen goes on, with this fault, and is to be frozen again at another step."""
        pid = self.armed().pid
        self.op_arm(journal, step)
        self.sicken(fault)
        os.kill(pid, signal.SIGCONT)

    def op_frozen(self, seconds: float) -> dict[str, Any] | None:
        """Whether it is frozen by now, and where."""
        freezer = self.armed()
        if not freezer.frozen.wait(seconds):
            if freezer.error:
                raise RuntimeError(freezer.error)
            return None
        return {"pid": freezer.pid, "seen": freezer.seen}

    def op_disarm(self) -> dict[str, Any]:
        """Watch no longer; which steps there were."""
        freezer = self.armed()
        if not freezer.frozen.is_set():
            freezer.give_up()
        return {"seen": freezer.seen, "error": freezer.error}

    def armed(self) -> Stopper:
        if self.freezer is None:
            raise RuntimeError("nothing is armed")
        return self.freezer

    # --- the faults ---------------------------------------------------------------------------------------------

    def op_inject(self, fault: str) -> str:
        """Do the harm while the process is frozen, then let it go on, if it still lives."""
        pid = self.armed().pid
        if state_of(pid) != "T":
            raise RuntimeError(f"process {pid} is not frozen any more (state {state_of(pid) or 'gone'})")
        try:
            return str(getattr(self, f"fault_{fault}")(pid))
        finally:
            if fault != "kill" and state_of(pid):
                os.kill(pid, signal.SIGCONT)

    def fault_kill(self, pid: int) -> str:
        os.kill(pid, signal.SIGKILL)
        wait("the killed process is gone", lambda: state_of(pid) in ("", "Z"), 30)
        return f"process {pid} killed"

    def fault_database(self, _pid: int) -> str:
        sh("docker", "stop", DATABASE)
        return f"{DATABASE} stopped"

    def fault_daemon(self, _pid: int) -> str:
        sh("systemctl", "reset-failed", "docker.service", "docker.socket")  # it is restarted more often than usual
        sh("systemctl", "restart", "docker")
        return "docker.service restarted"

    def fault_full(self, _pid: int) -> str:
        size = 0
        with open(f"{self.disk}/.filler", "wb", buffering=0) as stream:
            try:
                while True:
                    size += stream.write(b"\0" * 4096)
            except OSError:
                pass
        left = os.statvfs(self.disk).f_bavail
        if left:
            raise RuntimeError(f"{self.disk} is not full: {left} blocks are left")
        return f"{self.disk} full"

    def fault_unhealthy(self, _pid: int) -> str:
        return self.sicken("unhealthy")

    def fault_exits(self, _pid: int) -> str:
        return self.sicken("exits")

    def sicken(self, fault: str) -> str:
        """What is made from the image from now on is sick, and so is the new container that was made from it before."""
        service = VICTIMS[fault]
        sh("docker", "tag", f"titan-chaos/{fault}:latest", self.baseline["images"][service])
        found = sh(
            "docker", "ps", "-aq", "--no-trunc", "--filter", f"label=com.docker.compose.service={service}"
        ).split()
        for container in found:
            detail = json.loads(sh("docker", "inspect", container))[0]
            carried = "\n".join(detail["Config"]["Env"])
            if not (self.armed().secrets and self.armed().secrets[1] in carried):
                continue  # one from before: it is not the new one that is sick
            path, text = SICK_FILES[fault]
            self.put(container, path, text.encode())
            self.doctored.append(container)
            if detail["State"]["Running"]:
                self.show(container, fault, int(detail["State"]["Pid"]))
        return f"{service} {fault}" + ("" if self.doctored else ", once it is made anew")

    def show(self, container: str, fault: str, pid: int) -> None:
        """A container that ran already becomes what it was made to be."""

        def status() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(sh("docker", "inspect", container))[0]["State"]
            return found

        if fault == "exits":
            os.kill(pid, signal.SIGKILL)  # the engine starts it again, and it exits
            wait("the sick container exits", lambda: status()["Status"] in ("restarting", "exited"), 30)
        else:
            wait("the sick container is unhealthy", lambda: status()["Health"]["Status"] == "unhealthy", 90, 0.3)

    def put(self, container: str, path: str, data: bytes) -> None:
        """Replace a file of a container, its mode kept."""
        place = f"{SCRATCH}/put"
        sh("docker", "cp", f"{container}:{path}", place)
        with open(place, "wb") as stream:
            stream.write(data)
        sh("docker", "cp", place, f"{container}:{path}")

    def fault_compose(self, _pid: int) -> str:
        with open(COMPOSE_FILE, "rb") as stream:
            self.compose = stream.read()
        with open(COMPOSE_FILE, "ab") as stream:
            stream.write(b"\n  half a line: [of somebody's edit\n")
        return "Compose file broken"

    def fault_ssh(self, pid: int) -> str:
        sessions = []
        above = pid
        while above > 1:
            above = parent_of(above)
            if command_of(above) == "sshd-session":
                sessions.append(above)
        if not sessions:
            raise RuntimeError(f"process {pid} does not come from an SSH connection")
        for session in sessions:
            os.kill(session, signal.SIGKILL)
        return f"sshd processes {sessions} killed"

    # --- the way back -------------------------------------------------------------------------------------------

    def op_mend(self, fault: str) -> None:
        """Take the harm away, as an operator would; not what the rotation itself has left."""
        if fault == "database" and not self.running(DATABASE):
            sh("docker", "start", DATABASE)
            wait(f"{DATABASE} is healthy", lambda: self.health(DATABASE) == "healthy", 90)
        if fault == "full":
            self.unfill()
        if fault == "compose":
            self.edit_taken_back()
        if fault in VICTIMS:
            self.cure(fault)
        if not journals():
            final_state.wait_healthy(120)  # nothing was interrupted, so it comes back by itself, or never

    def cure(self, fault: str) -> None:
        """The image is good again. While a rotation is half done, a sick container is the next run's business."""
        good = f"titan-chaos/good-{fault}:latest"
        path, _text = SICK_FILES[fault]
        sh("docker", "tag", good, self.baseline["images"][VICTIMS[fault]])
        if journals():
            return
        made = sh("docker", "ps", "-aq", "--no-trunc", "--filter", f"ancestor=titan-chaos/{fault}:latest").split()
        there = sh("docker", "ps", "-aq", "--no-trunc").split()
        self.doctored, doctored = [], self.doctored
        for container in dict.fromkeys([*doctored, *made]):
            if container in there:
                text = sh("docker", "run", "--rm", "--entrypoint", "cat", good, path)
                self.put(container, path, text.encode())

    def edit_taken_back(self) -> None:
        if self.compose:
            with open(COMPOSE_FILE, "wb") as stream:
                stream.write(self.compose)
            self.compose = b""

    def op_heal(self) -> None:
        """After a failed case, whatever it was: nothing of ours may be in the way of a reset."""
        self.let_go()
        wait("the lock is free", final_state.lock_is_free, 120)
        self.edit_taken_back()
        self.op_own_disk()
        for fault in VICTIMS:
            sh("docker", "tag", f"titan-chaos/good-{fault}:latest", self.baseline["images"][VICTIMS[fault]])
        self.doctored = []

    def let_go(self) -> None:
        """Nobody stays frozen, and no prober behind."""
        if self.freezer and self.freezer.pid and state_of(self.freezer.pid) == "T":
            os.kill(self.freezer.pid, signal.SIGCONT)
        self.op_prober_stop()

    def running(self, name: str) -> bool:
        return sh("docker", "inspect", "-f", "{{.State.Running}}", name).strip() == "true"

    def health(self, name: str) -> str:
        return sh("docker", "inspect", "-f", "{{.State.Health.Status}}", name).strip()

    # --- what is true -------------------------------------------------------------------------------------------

    def op_values(self) -> dict[str, str]:
        """The secrets as the env file has them."""
        return final_state.env_values()

    def op_history(self) -> list[str]:
        """What each of its lines says, in short."""
        return final_state.history()

    def op_secrets(self) -> list[str]:
        """Old and new, as the frozen run's journal had them."""
        return self.armed().secrets

    def op_journals(self) -> list[str]:
        return journals()

    def op_verify(self, rotation: str, others: list[str], seconds: float) -> list[str]:
        """What is not as it must be after the next run; an empty list when all is."""
        return final_state.verify(self.baseline, rotation, others, seconds)

    def op_sql(self, statement: str) -> None:
        """As the superuser on the container's socket, which needs no password."""
        argv = ["docker", "exec", "-i", DATABASE, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "titan"]
        sh(*argv, "-d", "titan_brain", stdin=statement.encode())

    def op_run(self, script: str) -> str:
        """A shell script of the self-check."""
        return sh("bash", "-euo", "pipefail", "-c", script)

    # --- the prober ---------------------------------------------------------------------------------------------

    def op_prober_start(self) -> None:
        argv = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "password_prober.py")]
        self.prober = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.prober.stdout is not None
        if self.prober.stdout.readline().strip() != "READY":
            raise RuntimeError("the password prober did not start")

    def op_prober_stop(self) -> dict[str, Any] | None:
        """What it has seen; None when none runs."""
        prober, self.prober = self.prober, None
        if prober is None:
            return None
        try:
            out, _err = prober.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            prober.kill()
            raise
        seen: dict[str, Any] = json.loads(out)
        return seen


def hurry() -> None:
    """Whoever is to freeze others in time must not wait for a processor; what it starts is as everybody else."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, -20)


def serve(agent: Agent) -> None:
    """Until standard input ends."""
    hurry()
    for line in sys.stdin:
        order = json.loads(line)
        operation, number = order.pop("op"), order.pop("number")
        answer: dict[str, Any]
        try:
            answer = {"ok": getattr(agent, f"op_{operation}")(**order)}
        except Exception as exc:  # pylint: disable=broad-exception-caught
            text = re.sub(r"\s+", " ", str(exc))
            answer = {"error": f"{operation}: {text}" if isinstance(exc, RuntimeError) else f"{operation}: {exc!r}"}
        print(json.dumps({"number": number, **answer}), flush=True)
    agent.let_go()
    shutil.rmtree(os.path.dirname(os.path.abspath(__file__)), ignore_errors=True)


if __name__ == "__main__":
    serve(Agent())
