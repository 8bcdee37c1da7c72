# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restic command: run to its end or ended by us, and its words for what went wrong made ours.

Only what restic 0.14 (Debian 12) has is used. It keeps no cache: the repositories of a few dozen backups are read in a
second, and nothing grows on the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..core.clock import Clock
from ..core.errors import InvalidInput, OpsError
from ..core.progress import Progress
from ..core.redact import Redactor, secret_values
from .restic_words import CAUSES, CODES, HOPELESS, Shown, excerpt, sentences

__all__ = ["Cancelled", "Repository", "Restic", "ResticEffects", "ResticFailed", "Snapshot"]

# What says that a snapshot is ours; everything else in a repository is somebody's and left alone.
TAG = "titan.ops"
_LOOK_EVERY = 0.05
# Seconds in which restic removes its lock when it is asked to end.
_GRACE = 10.0


class Cancelled(OpsError):
    """The run was asked to end."""


class ResticFailed(OpsError):
    """restic could not do it.

    Attributes:
        cause: one word for why, "" when nobody knows.
        left: the id of a snapshot that lacks what could not be read; "" without one.
    """

    def __init__(self, msg: str, *, cause: str, hint: str | None = None) -> None:
        super().__init__(msg, hint=hint, facts={"cause": cause})
        self.cause = cause
        self.left = ""


@dataclass(frozen=True)
class Repository:
    """Where the repository is and how to get in.

    Attributes:
        address: as restic has it.
        password_file: the file with its password.
        environment: the store's credentials, by variable.
        options: restic's extended options.
        limit_upload: KiB per second; 0 for no limit.
        connect_timeout: seconds in which it must have answered.
    """

    address: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: tuple[str, ...] = ()
    limit_upload: int = 0
    connect_timeout: float = 60


@dataclass
class ResticEffects:
    """What restic is run through.

    Attributes:
        clock: time.
        cancelled: whether the run was asked to end.
        redact: takes secrets out of restic's words.
        kept: file descriptors that it inherits: a restic that outlives us still holds our lock.
        progress: is told how far it is.
    """

    clock: Clock
    cancelled: Callable[[], bool] = lambda: False
    redact: Redactor = field(default_factory=Redactor)
    kept: tuple[int, ...] = ()
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Snapshot:
    """One backup in the repository.

    Attributes:
        id: restic's id.
        host: the host that it came from.
        time: when the backup was made, RFC 3339.
        tags: what we wrote about it.
    """

    id: str
    host: str
    time: str
    tags: Mapping[str, str]


class Restic:
    """restic on one repository."""

    def __init__(self, repository: Repository, effects: ResticEffects) -> None:
        self._repository = repository
        self._effects = effects
        for value in secret_values(repository.environment):
            effects.redact.add(value)

    @property
    def cancelled(self) -> Callable[[], bool]:
        """Whether the run was asked to end."""
        return self._effects.cancelled

    @property
    def progress(self) -> Progress:
        """Is told how far it is."""
        return self._effects.progress

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._effects.clock.now()

    def exists(self) -> bool:
        """Whether there is a repository at the address, and the password is its.

        Raises:
            ResticFailed: that cannot be told: it does not answer, or lets us not in.
        """
        self.progress.phase("looking into the off-site repository")
        try:
            self._run(["cat", "config", "--no-lock"], "looking for it", self._repository.connect_timeout)
        except ResticFailed as exc:
            if exc.cause == "absent":
                return False
            raise
        return True

    def init(self) -> None:
        """Make the repository (restic refuses where there is one)."""
        self.progress.phase("making the off-site repository")
        self._run(["init"], "making it", self._repository.connect_timeout)

    def snapshots(self, timeout: float) -> list[Snapshot]:
        """Every snapshot of ours, of any host."""
        text = self._run(["snapshots", "--json", "--no-lock", "--tag", TAG], "listing it", timeout)
        try:
            found = json.loads(text or "null") or []
            return [
                Snapshot(
                    item["id"],
                    item["hostname"],
                    item["time"],
                    dict(tag.partition("=")[::2] for tag in item.get("tags") or ()),
                )
                for item in found
            ]
        except (ValueError, TypeError, KeyError) as exc:
            raise OpsError("restic's list of snapshots cannot be understood", hint="Look: restic snapshots.") from exc

    def backup(
        self,
        directory: str,
        names: Sequence[str],
        *,
        host: str,
        time: str,
        tags: Mapping[str, str],
        timeout: float,
        shown: tuple[str, int | None] = ("copying off-site", None),
    ) -> dict[str, Any]:
        """Copy entries of a directory; gives restic's summary. ``shown``: as what, and of how many bytes."""
        arguments = ["backup", "--json", "--force", "--host", host, "--time", time, "--tag", TAG]
        arguments += [word for name, value in tags.items() for word in ("--tag", f"{name}={value}" if value else name)]
        if self._repository.limit_upload:
            arguments.append(f"--limit-upload={self._repository.limit_upload}")
        text = self._unlocking([*arguments, "--", *names], "copying", timeout, cwd=directory, shown=shown)
        return _summary(text)

    def restore(
        self, snapshot: str, target: str, timeout: float, *, shown: tuple[str, int | None] = ("fetching", None)
    ) -> None:
        """Write a snapshot's files below a directory. ``shown``: as what, and of how many bytes."""
        arguments = ["restore", "--json", snapshot, "--target", target, "--no-lock"]
        self._run(arguments, "reading", timeout, shown=shown)

    def forget(self, ids: Sequence[str], timeout: float) -> None:
        """Forget these snapshots and no other."""
        self.progress.phase(f"forgetting off-site: {len(ids)} {'backup' if len(ids) == 1 else 'backups'}")
        self._unlocking(["forget", "--", *ids], "forgetting", timeout)

    def prune(self, timeout: float) -> None:
        """Free what no snapshot needs any more."""
        self.progress.phase("freeing space in the off-site repository")
        self._unlocking(["prune"], "pruning", timeout)

    def check(self, subset: str, timeout: float) -> None:
        """Check the repository's structure, and read a part of its data."""
        self.progress.phase("checking the off-site repository")
        self._unlocking(["check", *([f"--read-data-subset={subset}"] if subset else [])], "checking", timeout)

    def _unlocking(
        self,
        arguments: Sequence[str],
        what: str,
        timeout: float,
        *,
        cwd: str = "/",
        shown: tuple[str, int | None] | None = None,
    ) -> str:
        """Run what a lock in the repository can hinder. restic's unlock removes only locks whose process is gone."""
        try:
            return self._run(arguments, what, timeout, cwd=cwd, shown=shown)
        except ResticFailed as exc:
            if exc.cause != "locked":
                raise
        self._run(["unlock"], "removing stale locks", self._repository.connect_timeout)
        return self._run(arguments, what, timeout, cwd=cwd, shown=shown)

    def _run(
        self,
        arguments: Sequence[str],
        what: str,
        timeout: float,
        *,
        cwd: str = "/",
        shown: tuple[str, int | None] | None = None,
    ) -> str:
        options = [word for option in self._repository.options for word in ("-o", option)]
        effects, clock = self._effects, self._effects.clock
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            bytes_done = Shown(effects.progress, *shown, out.fileno()) if shown else None
            with self._started(["restic", "--no-cache", *options, *arguments], cwd, out.fileno(), err.fileno()) as run:
                deadline = clock.monotonic() + timeout
                late = False
                while run.poll() is None and not late:
                    if effects.cancelled():
                        raise Cancelled("The run was asked to end")
                    if bytes_done:
                        bytes_done.look()
                    late = clock.monotonic() > deadline or HOPELESS.search(_text(err.fileno())) is not None
                    clock.sleep(_LOOK_EVERY)
                timed_out = clock.monotonic() > deadline
            if run.returncode == 0 and not late:
                return _text(out.fileno())
            said = _text(out.fileno())
            words = _text(err.fileno()) + said
        if "unable to start the sftp session" in words:
            words = self._ask_ssh() + words
        failed = self._failed(run.returncode, words, what, timeout if timed_out else None)
        failed.left = str(_summary(said).get("snapshot_id") or "")
        raise failed

    def _ask_ssh(self) -> str:
        """What ssh has to say: on a busy host restic ends before it has handed that on, or all of it."""
        command = next((item.partition("=")[2] for item in self._repository.options if item.startswith("sftp.c")), "")
        if not command:
            return ""
        try:
            # AnsibleModule.run_command is out of reach here: the engine runs without Ansible.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self._repository.connect_timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stderr.decode("utf-8", "replace") if done.returncode else ""

    def _failed(self, code: int, words: str, what: str, timeout: float | None) -> ResticFailed:
        where = f"The off-site repository {self._repository.address}"
        last = excerpt(self._effects.redact(words))
        said = "\n".join(sentences(words))  # not the names of files, which its progress has
        for cause, pattern, sentence, hint in CAUSES:
            if (code == 3 and cause == "unreachable") or not re.search(pattern, said):
                continue
            return ResticFailed(f"{where}: {sentence} ({what}; restic said: {last})", cause=cause, hint=hint)
        if timeout is not None:
            return ResticFailed(
                f"{where}: {what} did not end within {timeout:g} seconds (restic said: {last or 'nothing'})",
                cause="timeout",
                hint="Is the server slow or gone? Give it longer with timeout or connect_timeout.",
            )
        cause = "incomplete" if code == 3 else CODES.get(code, "")
        return ResticFailed(f"{where}: {what} failed with exit code {code}: {last or 'no word of why'}", cause=cause)

    @contextlib.contextmanager
    def _started(self, command: Sequence[str], cwd: str, out: int, err: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start restic; afterwards it has ended. Should we be killed, it is asked to end, and removes its lock."""
        if shutil.which("restic") is None:
            raise InvalidInput(
                "restic is not installed on this host",
                hint="backup_offsite.yml installs it; by hand: apt-get install restic.",
            )
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment.update(self._repository.environment)
        environment["RESTIC_REPOSITORY"] = self._repository.address
        environment["RESTIC_PASSWORD_FILE"] = self._repository.password_file
        # Days are UTC's, as in the names of the backups; a line of progress every second is what is shown.
        environment.update({"TZ": "UTC", "LC_ALL": "C.UTF-8", "RESTIC_PROGRESS_FPS": "1"})
        try:
            # AnsibleModule.run_command is out of reach here: the engine runs without Ansible.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                ["setpriv", "--pdeathsig=INT", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=environment,
                start_new_session=True,
                pass_fds=self._effects.kept,
            )
        except OSError as exc:
            raise OpsError(f"setpriv, which runs restic, cannot be started: {exc.strerror or exc}") from exc
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _summary(text: str) -> dict[str, Any]:
    """What a copy says in the end."""
    summary: dict[str, Any] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.get("message_type") == "summary":
                summary = found
    return summary


def _text(fd: int) -> str:
    """What was written so far, at most the last 16 MB (half a day of progress; what counts comes last)."""
    most = 1 << 24
    return os.pread(fd, most, max(0, os.fstat(fd).st_size - most)).decode("utf-8", "replace")
