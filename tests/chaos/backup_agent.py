# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet as root: the agent of the fault matrix of backups, drills and restores."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from typing import Any

import backup_state
import final_state
from agent import DATABASE, SCRATCH, Agent, serve, sh
from backup_matrix import BOUNDARIES, COMPARE, MADE, MID_LOAD
from final_state import BACKUPS
from freezer import STATE, wait
from watcher import Watcher

_WATCHED = {step for steps in BOUNDARIES.values() for step in steps} | {MID_LOAD, MADE, COMPARE}
# What schedule_backups.yml installs.
_SETTINGS = "opt/titan/scripts/ops/backup_db.json"
_SCHEDULE = (
    "opt/titan/lib",
    "opt/titan/scripts",
    "etc/cron.d/titan-backup",
    "etc/cron.d/titan-backup-verify",
    "etc/cron.d/titan-backup-offsite",
    "etc/logrotate.d/titan-backup",
)


class BackupAgent(Agent):
    """What the harness of backups and restores asks for."""

    disk, disk_size = BACKUPS, "64m"
    begun: tuple[int, dict[str, int], dict[str, tuple[int, dict[str, int]]]] = (0, {}, {})

    def op_baseline(self) -> dict[str, Any]:
        """Remember the healthy stack. There may be backups already, which nothing here touches."""
        final_state.wait_healthy(120)
        os.makedirs(BACKUPS, mode=0o700, exist_ok=True)
        self.baseline = final_state.baseline()
        return {"files": sorted(backup_state.files())}

    def op_clear(self, files: list[str]) -> None:
        """Remove what only these tests have made: every backup but those of before."""
        for name in backup_state.files():
            if name not in files:
                self.remove(f"{BACKUPS}/{name}")
        self.op_drop_kept()

    @staticmethod
    def remove(path: str) -> None:
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def op_drop_kept(self) -> None:
        """The databases from before restores, and those that failed ones have left."""
        for name in backup_state.databases():
            if name.startswith((backup_state.KEPT, backup_state.FAILED)):
                backup_state.asked("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')

    # --- backup_db.sh -------------------------------------------------------------------------------------------

    def op_keep_schedule(self) -> None:
        """Before it is installed for these tests: what there is of it comes back afterwards."""
        if os.path.exists(f"{SCRATCH}/schedule.tar"):
            return  # from before the first time
        there = [path for path in _SCHEDULE if os.path.lexists(f"/{path}")]
        sh("tar", "-C", "/", "-cf", f"{SCRATCH}/schedule.new", "-T", "-", stdin="\n".join(there).encode())
        os.rename(f"{SCRATCH}/schedule.new", f"{SCRATCH}/schedule.tar")

    def op_own_schedule(self) -> None:
        """As it was before these tests."""
        if not os.path.exists(f"{SCRATCH}/schedule.tar"):
            return
        for path in _SCHEDULE:
            sh("rm", "-rf", f"/{path}")
        sh("tar", "-C", "/", "-xpf", f"{SCRATCH}/schedule.tar")
        os.unlink(f"{SCRATCH}/schedule.tar")

    def op_patience(self, seconds: float) -> None:
        """How long backup_db.sh waits for the lock from its next run on."""
        with open(f"/{_SETTINGS}", "r+", encoding="utf-8") as stream:
            settings = json.load(stream)
            stream.seek(0)
            stream.truncate()
            json.dump({**settings, "lock_timeout": seconds}, stream)

    def op_heal(self) -> None:
        """After a failed case, whatever it was: nothing of ours may be in the way of a reset."""
        self.let_go()
        wait("the lock is free", final_state.lock_is_free, 120)
        self.op_own_disk()

    def let_go(self) -> None:
        super().let_go()
        if isinstance(self.freezer, Watcher):
            self.freezer.let_go()

    def op_arm(self, journal: str, step: str) -> None:
        if step in _WATCHED:
            self.freezer = Watcher(step)
            self.freezer.start()
        else:
            super().op_arm(journal, step)

    def op_inject(self, fault: str) -> str:
        try:
            return super().op_inject(fault)
        finally:
            if isinstance(self.freezer, Watcher):
                self.freezer.let_go()

    def fault_nothing(self, pid: int) -> str:
        return f"process {pid} went on"

    def fault_database(self, _pid: int) -> str:
        sh("docker", "kill", DATABASE)
        return f"{DATABASE} killed"

    def op_mend(self, fault: str) -> None:
        """Take the harm away, as an operator would; not what the run itself has left."""
        if fault == "database" and not self.running(DATABASE):
            sh("docker", "start", DATABASE)
            wait(f"{DATABASE} is healthy", lambda: self.health(DATABASE) == "healthy", 90)
        if fault == "full":
            self.unfill()

    # --- what is done to a backup -------------------------------------------------------------------------------

    def op_harm(self, name: str, harm: str) -> None:
        """Damage a backup; ``op_mend_file`` takes that back."""
        path, kept = f"{BACKUPS}/{name}", f"{SCRATCH}/kept"
        sh("rm", "-rf", kept)
        os.mkdir(kept)
        sh("cp", "-a", path, path + backup_state.SUFFIX, kept)
        getattr(self, "harm_" + harm.replace("-", "_"))(path)

    def op_mark(self, name: str, moment: str) -> None:
        """The backup counts as verified, by a drill of long ago."""
        self.alter(f"{BACKUPS}/{name}", lambda made: made.update(verified=moment))

    def op_mend_file(self, name: str) -> None:
        kept = f"{SCRATCH}/kept"
        for entry in (name, name + backup_state.SUFFIX):
            if os.path.exists(f"{BACKUPS}/{entry}"):
                self.remove(f"{BACKUPS}/{entry}")
            sh("cp", "-a", f"{kept}/{entry}", BACKUPS)
        sh("rm", "-rf", kept)

    @staticmethod
    def data_of(path: str) -> str:
        """The file itself; of a directory the largest in it."""
        if not os.path.isdir(path):
            return path
        return max((os.path.join(path, name) for name in os.listdir(path)), key=os.path.getsize)

    def harm_truncated(self, path: str) -> None:
        file = self.data_of(path)
        os.truncate(file, os.path.getsize(file) // 2)

    def harm_bit(self, path: str) -> None:
        file = self.data_of(path)
        with open(file, "r+b") as stream:
            stream.seek(os.path.getsize(file) // 2)
            [byte] = stream.read(1)
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 1]))

    def harm_missing(self, path: str) -> None:
        os.unlink(path + backup_state.SUFFIX)

    @staticmethod
    def one_more(made: dict[str, Any]) -> None:
        made["rows"]["public.orders"] += 1

    def harm_altered(self, path: str) -> None:
        self.alter(path, self.one_more, seal=False)

    def harm_other_rows(self, path: str) -> None:
        """Nothing but a restore finds that out."""
        self.alter(path, self.one_more)

    def harm_newer_manifest(self, path: str) -> None:
        self.alter(path, lambda made: made.update(schema=made["schema"] + 1))

    def harm_newer_server(self, path: str) -> None:
        self.alter(path, lambda made: made.update(server_version="99.1"))

    def harm_newer_dump(self, path: str) -> None:
        """A plain dump sets what only the newer server knows; an archive has a version that only it can read."""
        if os.path.isdir(path) or path.endswith(".dump"):
            file = os.path.join(path, "toc.dat") if os.path.isdir(path) else path
            with open(file, "r+b") as stream:
                if stream.read(5) != b"PGDMP":
                    raise RuntimeError(f"{file} is no archive")
                stream.write(bytes([1, 99]))
        else:
            packed = path.endswith(".gz")
            with open(path, "rb") as plain:
                data = plain.read()
            text = gzip.decompress(data) if packed else data
            changed = text.replace(b"SET statement_timeout = 0;", b"SET timeout_of_version_99 = 0;", 1)
            if changed == text:
                raise RuntimeError(f"{path} does not set statement_timeout")
            with open(path, "wb") as harmed:
                harmed.write(gzip.compress(changed) if packed else changed)

        def whole(made: dict[str, Any]) -> None:
            made["sha256"], made["size_bytes"] = backup_state.digest(path)

        self.alter(path, whole)

    @staticmethod
    def alter(path: str, change: Any, seal: bool = True) -> None:
        """Change the manifest, and unless told not to, its own checksum with it."""
        with open(path + backup_state.SUFFIX, encoding="utf-8") as stream:
            made = json.load(stream)
        change(made)
        with open(path + backup_state.SUFFIX, "w", encoding="utf-8") as stream:
            json.dump(backup_state.sealed(made) if seal else made, stream)

    # --- what is true -------------------------------------------------------------------------------------------

    def op_look(self) -> dict[str, Any]:
        return backup_state.look()

    def op_begin(self) -> None:
        """Remember the database's number and rows, with a row that no backup has, and those that are kept."""
        backup_state.asked(
            backup_state.NAME, "INSERT INTO alerts (severity, message) VALUES ('info', 'by the chaos tests')"
        )
        number, _comment = backup_state.databases()[backup_state.NAME]
        self.begun = (number, backup_state.counts(), backup_state.kept())

    def op_check(self, **arguments: Any) -> list[str]:
        """What is not as it must be since then; an empty list when all is."""
        return backup_state.verify(self.baseline, *self.begun, **arguments)

    def op_waiting(self, seconds: float) -> None:
        """Until another process than the frozen one has opened the lock: it waits."""
        holder = self.armed().pid
        lock = f"{STATE}/deploy.lock"

        def others() -> list[int]:
            found = []
            for name in os.listdir("/proc"):
                if not name.isdigit() or int(name) == holder:
                    continue
                try:
                    if any(os.readlink(item.path) == lock for item in os.scandir(f"/proc/{name}/fd")):
                        found.append(int(name))
                except OSError:
                    continue  # gone meanwhile
            return found

        wait("another one waits for the lock", others, seconds)


if __name__ == "__main__":
    serve(BackupAgent())
