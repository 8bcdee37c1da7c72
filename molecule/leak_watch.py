# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet as root beside an operation (leaks.py): keeps all that others could have seen of it, in memory.

Prints READY, watches until one line of JSON comes on standard input (what to look for, and who may have it), searches
what it has seen and what is on disk by then, and prints one JSON object. Standard library only.

Processes are found by listing /proc every few milliseconds. One that is new is read at every turn while it is young,
for it may still become another program; the others are read in turn, each a few times a second. So a look costs as many
reads as there are young processes, a small part of one processor. What lives shorter than a turn may be missed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from typing import Any, BinaryIO

PAUSE = 0.003
YOUNG = 0.5  # seconds
SLICES = 60  # of the older processes, one is read at each turn
FILES_EVERY = 20  # turns
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/root/.ansible", "/home/deploy/.ansible")
# Searched when all is over, beside the temporary ones. Docker's volumes among them: no server got the secret's text.
AFTERWARDS = (
    *("/opt", "/etc", "/home", "/root", "/run", "/srv", "/var/backups", "/var/cache", "/var/crash", "/var/log"),
    *("/var/mail", "/var/spool", "/var/lib/prometheus", "/var/lib/systemd", "/var/lib/sudo"),
    *("/var/lib/docker/volumes", "/var/lib/docker/containers"),
)
# Docker's own hand-over of a container's environment to a command that it runs there, for milliseconds, root's alone.
DOCKERS_OWN = re.compile(r"/runc-process\d+$")
CONTAINER = re.compile(rb"[0-9a-f]{64}")


def content(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(8 << 20)
    except OSError:
        return b""


def inspected() -> list[dict[str, Any]]:
    """Every container, as Docker shows it."""
    found: list[dict[str, Any]] = json.loads(
        subprocess.check_output("docker ps -aq --no-trunc | xargs -r docker inspect", shell=True) or b"[]"
    )
    return found


class Sampler(threading.Thread):
    """Every process's arguments and environment, and every temporary file; each text once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.turns = 0
        # (kind, container's id, text) -> the first that had it
        self.seen: dict[tuple[str, str, bytes], str] = {}
        self.born: dict[str, float] = {}
        self.files: dict[tuple[str, int, int, int], None] = {}

    def run(self) -> None:
        while not self.ended.is_set():
            now = time.monotonic()
            there = [name for name in os.listdir("/proc") if name.isdigit()]
            born = self.born
            self.born = {pid: born.get(pid, now) for pid in there}
            for pid in there:
                if now - self.born[pid] < YOUNG or int(pid) % SLICES == self.turns % SLICES:
                    self.look(pid)
            if self.turns % FILES_EVERY == 0:
                self.look_at_files()
            self.turns += 1
            time.sleep(PAUSE)

    def look(self, pid: str) -> None:
        found = CONTAINER.findall(content(f"/proc/{pid}/cgroup"))
        container = found[-1].decode() if found else ""
        for kind in ("cmdline", "environ"):
            text = content(f"/proc/{pid}/{kind}")
            if text and (kind, container, text) not in self.seen:
                name = content(f"/proc/{pid}/comm").decode(errors="replace").strip()
                self.seen[kind, container, text] = f"process {pid} ({name})"

    def look_at_files(self) -> None:
        for root in TEMPORARY:
            for folder, _folders, names in os.walk(root):
                for name in names:
                    path = os.path.join(folder, name)
                    try:
                        status = os.lstat(path)
                    except OSError:
                        continue
                    key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
                    if stat.S_ISREG(status.st_mode) and key not in self.files and not DOCKERS_OWN.search(path):
                        self.files[key] = None
                        self.seen.setdefault(("temporary file", "", content(path)), path)


class Containers(threading.Thread):
    """Docker's events as they come, and each container's log from now on, also of those that are gone at the end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.events: list[bytes] = []
        self.services: dict[str, str] = {}
        self.logs: dict[str, BinaryIO] = {}
        self.unread: list[str] = []
        watching = ["docker", "events", f"--since={time.time():.9f}", "--format={{json .}}"]
        self.stream = subprocess.Popen(watching, stdout=subprocess.PIPE)
        for item in inspected():
            self.known(item["Id"], item["Config"]["Labels"], item["Name"].lstrip("/"))
            self.follow(item["Id"], from_now=True)

    def known(self, identity: str, labels: dict[str, str], name: str) -> None:
        self.services[identity] = labels.get("com.docker.compose.service") or name

    def follow(self, identity: str, *, from_now: bool = False) -> None:
        if identity in self.logs:
            return
        try:
            # the open file outlives its name
            stream = open(f"/var/lib/docker/containers/{identity}/{identity}-json.log", "rb")  # noqa: SIM115
        except OSError:
            if not from_now:  # one that never ran has none yet
                self.unread.append(self.services.get(identity, identity))
            return
        stream.seek(0, os.SEEK_END if from_now else os.SEEK_SET)
        self.logs[identity] = stream

    def run(self) -> None:
        assert self.stream.stdout is not None
        for line in self.stream.stdout:
            self.events.append(line)
            event = json.loads(line)
            if event["Type"] == "container":
                actor = event["Actor"]
                self.known(actor["ID"], actor["Attributes"], actor["Attributes"].get("name", "?"))
                if event["Action"] == "start":
                    self.follow(actor["ID"])


class Search:
    """What was found where; never what was looked for."""

    def __init__(self, forms: dict[str, str], streams: dict[str, str]) -> None:
        self.forms = {name: text.encode() for name, text in forms.items()}
        self.streams = {**self.forms, **{name: text.encode() for name, text in streams.items()}}
        self.found: list[str] = []
        self.sizes: dict[str, int] = {}
        self.witnessed: list[str] = []

    def through(self, source: str, where: str, text: bytes, witnesses: dict[str, str]) -> None:
        self.sizes[source] = self.sizes.get(source, 0) + len(text)
        self.found += [f"{source}: {where}: {name}" for name, form in self.streams.items() if form in text]
        self.witnessed += [word for word, place in witnesses.items() if place == source and word.encode() in text]

    def files(self, roots: list[str]) -> list[str]:
        """Files that have one of the forms; the forms go over standard input."""
        roots = [root for root in roots if os.path.exists(root)]
        done = subprocess.run(
            # netns: network namespaces, which only look like files
            ["grep", "-rlaF", "--devices=skip", "--exclude-dir=netns", "-f", "-", *roots],
            input=b"\n".join(self.forms.values()) + b"\n",
            capture_output=True,
            check=False,
        )
        # 2 without a complaint beyond files that have gone meanwhile
        complaints = [line for line in done.stderr.splitlines() if b"No such file" not in line]
        if complaints:
            raise SystemExit(b"\n".join(complaints).decode())
        return done.stdout.decode(errors="surrogateescape").splitlines()


def main() -> None:
    os.nice(-15)  # to look every few milliseconds on a busy machine, too
    since = time.time()
    containers, sampler = Containers(), Sampler()
    syslog = {path: os.path.getsize(path) for path in ("/var/log/syslog", "/var/log/auth.log", "/var/log/user.log")}
    containers.start()
    sampler.start()
    print("READY", flush=True)
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    sampler.ended.set()
    sampler.join()
    time.sleep(1)  # the last lines of the logs and of the events
    containers.stream.kill()
    containers.join()

    search, holders, witnesses = Search(asked["forms"], asked["streams"]), set(asked["holders"]), asked["witnesses"]
    holding = {identity for identity, service in containers.services.items() if service in holders}
    for (kind, container, text), who in sampler.seen.items():
        if not (kind == "environ" and container in holding):
            where = containers.services.get(container, "host")
            search.through(kind, f"{who} of {where}", text, witnesses)
    search.through("docker events", "", b"".join(containers.events), witnesses)
    for identity, stream in containers.logs.items():
        name = containers.services[identity]
        search.through(f"log of {name}", identity[:12], stream.read(), witnesses)
    for path, size in syslog.items():
        with open(path, "rb") as stream:
            stream.seek(size)
            search.through("syslog", path, stream.read(), witnesses)
    journal = subprocess.check_output(["journalctl", "--quiet", "--output=export", f"--since=@{since:.0f}"])
    search.through("journald", "", journal, witnesses)
    for item in inspected():
        if item["Id"] in holding:
            item["Config"].pop("Env")
        search.through("docker inspect", item["Name"], json.dumps(item).encode(), witnesses)
    for path in search.files([*AFTERWARDS, *TEMPORARY]):
        real = os.path.realpath(path)
        # What was searched above, from where the watch began: before, tests may have written secrets there.
        above = real in syslog or real.startswith("/var/log/journal/") or real.endswith("-json.log")
        holders_own = any(identity in real for identity in holding)  # its configuration, as Docker keeps it
        if not (above or holders_own or real in asked["files"] or DOCKERS_OWN.search(real)):
            search.found.append(f"file: {path}")
    print(
        json.dumps(
            {
                "found": sorted(set(search.found)),
                "witnessed": sorted(set(search.witnessed)),
                "unread": containers.unread,
                "sizes": search.sizes,
                "turns": sampler.turns,
            }
        )
    )


if __name__ == "__main__":
    main()
