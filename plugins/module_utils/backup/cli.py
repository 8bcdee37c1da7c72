# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""backup_db.sh: the backup without Ansible, as the host's cron runs it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, TextIO

from ..compose.engine import Engine, connect
from ..compose.project import base_of
from ..core.clock import Clock
from ..core.errors import InvalidInput, LockHeld, OpsError
from ..core.history import History, conclude
from ..core.lock import host_lock
from ..core.metrics import default_directory
from ..core.progress import Progress, shown
from ..core.redact import Redactor
from ..core.say import say
from . import create, verify
from .offsite import Unfit
from .offsite_run import HISTORY, perform_locked
from .settings import Settings
from .tools import Effects

__all__ = ["main"]

# The drill's name in the history and the metrics, as of db_verify.
DRILL = "verify_backup"
OK, FAILED, USAGE, NOT_OFFSITE, BUSY = 0, 1, 2, 3, 75
_HOOK_TIMEOUT = 60
_EPILOG = """
Without a label it makes the night's backup: titan_brain_<date>.sql, and old ones go as the settings say. With one it
makes a backup that stays: titan_brain_<date>T<time>Z_<label>.sql. Names are in UTC.

Where an off-site repository is configured, every good backup that it lacks is copied into it afterwards.

With --verify it is the drill: the database itself is not touched; its disk must have room for a second copy. A backup
that restores, with the rows that its manifest says, is marked as verified.

Exit codes: 0 the backup is there, complete and checked (and off-site), or with --verify: it restores; 1 there is none,
or it was not proved, and standard error says why; 2 wrong usage; 3 the backup is there, but it, or another one, is not
off-site; 75 another operation holds the host's lock.
"""


def main(
    argv: Sequence[str],
    *,
    connector: Callable[[str], Engine] = connect,
    clock: Clock | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Make a backup, or do what else is asked for; gives the exit code.

    Args:
        argv: ``--config FILE [LABEL | --offsite | --verify [NAME]]``.
        connector: opens the Docker Engine.
        clock: time.
        out: for what was done.
        err: for what went wrong, and where it is a terminal, for the progress.
    """
    out, err = out or sys.stdout, err or sys.stderr
    parser = argparse.ArgumentParser(
        prog="backup_db.sh",
        description="Back the database up (runbook 4.1 and 4.2).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("label", nargs="?", help="a word for the name, e.g. verification_snapshot")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--offsite",
        action="store_true",
        help="make no backup: copy what is missing off-site, forget by the policy, check the repository",
    )
    instead.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="NAME",
        help="make no backup: restore this one, by default the newest good one, into a scratch database and compare",
    )
    parser.add_argument("--config", required=True, help=argparse.SUPPRESS)
    asked = parser.parse_args(list(argv))
    drill = asked.verify is not None
    if asked.label and (asked.offsite or drill):
        parser.error(f"{'--verify' if drill else '--offsite'} makes no backup: it takes no label")
    if asked.label in ("help", "offsite", "verify"):
        # Whoever types that wants no backup which is kept for ever, and would believe that a drill was held.
        parser.error(f"{asked.label} would be a label: is --{asked.label} meant?")
    job = _Job(clock or Clock(), connector)
    operation = HISTORY["copy"] if asked.offsite else DRILL if drill else "backup"
    try:
        job.configure(asked.config)
        if asked.offsite:
            return job.go_offsite(("copy", "forget", "check"), out, err)
        with shown(job.progress, err):
            told = job.drill(asked.verify or None) if drill else job.back_up(asked.label)
    except Exception as exc:  # pylint: disable=broad-exception-caught
        # Whatever it is, somebody must hear of it.
        job.fail(exc, operation, err, "FAILED")
        return BUSY if isinstance(exc, LockHeld) else FAILED
    _warn(err, [*told.get("warnings", ()), *job.record(told, operation)], job.redact)
    if drill:
        _say_drill(out, told)
        return OK
    _say_backup(out, err, told)
    return job.go_offsite(("copy",), out, err) if job.has_offsite else OK


def _say_backup(out: TextIO, err: TextIO, told: Mapping[str, Any]) -> None:
    if told["via_reason"]:
        _say(err, f"backup_db.sh: warning: Made by docker exec, not in a sidecar: {told['via_reason']}")
    size, seconds = told["size_bytes"] / 1e6, told["seconds"]
    _say(out, f"{told['backup']}: {size:.1f} MB in {seconds:.1f} s, {told['rows']} rows, sha256 {told['sha256']}")
    for name in told["removed"]:
        _say(out, f"removed by the retention: {name}")
    for name in told["dropped"]:
        _say(out, f"dropped, from before a restore: {name}")


def _say_drill(out: TextIO, told: Mapping[str, Any]) -> None:
    rows, seconds = f"{told['rows']} rows of {told['tables']} tables", told["restore_seconds"]
    _say(out, f"{told['name']} restores: {rows}, as its manifest says, in {seconds:.1f} s")
    for name in told["tidied"]:
        _say(out, f"left by an interrupted run, removed: {name}")


def _say(stream: TextIO, text: str) -> None:
    say(stream, f"{text}\n")


def _warn(stream: TextIO, warnings: Sequence[str], redact: Redactor) -> None:
    for warning in warnings:
        _say(stream, f"backup_db.sh: warning: {redact.known(warning)}")


def _explained(error: Exception) -> OpsError:
    """The error in words; one that is none of ours is a defect, and its type and text are all that is known of it."""
    if isinstance(error, OpsError):
        return error
    return OpsError(
        f"Nobody has foreseen this error ({type(error).__name__}: {error})",
        state="No backup is damaged by it, and what it has left is removed by the next run.",
        hint="Report it with what standard error says; the next run tries again.",
    )


class _Job:
    """One run."""

    def __init__(self, clock: Clock, connector: Callable[[str], Engine]) -> None:
        self._clock = clock
        self._connector = connector
        self._settings = Settings()
        self._began = (clock.now(), clock.monotonic())
        self._cancelled = False
        self.progress = Progress(clock)
        self.redact = Redactor()

    def configure(self, path: str) -> None:
        """Read the settings that schedule_backups.yml has written.

        Raises:
            InvalidInput: they cannot be read.
        """
        self._settings = Settings.read(path)

    def back_up(self, label: str | None) -> dict[str, Any]:
        """Lock, look, and make a backup.

        Raises:
            OpsError: there is none.
        """
        options = self._settings.backup(label)
        with self._locked("back the database up") as effects:
            planned = create.plan(self._settings.stack, options, effects)
            return {"changed": True, "backup": planned.path, **create.apply(planned, effects)}

    def drill(self, name: str | None) -> dict[str, Any]:
        """Lock, look, and prove a backup by restoring it; None for the newest good one.

        Raises:
            OpsError: it is not proved.
        """
        asked = self._settings.drill()
        with self._locked("verify a backup") as effects:
            planned = verify.plan(
                self._settings.stack, asked.target, asked.directory, name, effects, space_margin=asked.space_margin
            )
            told = verify.apply(planned, effects, jobs=asked.jobs, timeout=asked.timeout)
            return {"changed": True, "name": planned.backup.name, **told}

    @contextlib.contextmanager
    def _locked(self, reason: str) -> Iterator[Effects]:
        if os.geteuid() != 0:
            raise InvalidInput("Backups are root's", hint="Run it with sudo.")
        stack = self._settings.stack
        self.progress.phase("waiting for the host's lock")
        with host_lock(
            stack.lock_file,
            reason=reason,
            holder=f"backup_db.sh as {_user()}",
            timeout=stack.lock_timeout,
            clock=self._clock,
            waiting=lambda held: self.progress.phase(f"waiting for the host's lock, held by {held}"),
        ):
            self._begin()
            yield Effects(
                self._connector(stack.docker_host),
                stack.docker_host,
                self._clock,
                cancelled=lambda: self._cancelled,
                redact=self.redact,
                progress=self.progress,
            )

    @property
    def has_offsite(self) -> bool:
        """Whether there is somewhere to copy backups to."""
        return bool(self._settings.offsite)

    def go_offsite(self, actions: Sequence[str], out: TextIO, err: TextIO) -> int:
        """Do this with the repository, and say so; gives the exit code. What is on the host stays as it is.

        A backup on the host that cannot be copied is a failure, and hinders nothing else.

        Raises:
            InvalidInput: there is none, or the user may not.
        """
        if not self.has_offsite:
            raise InvalidInput("No off-site repository is configured", hint="Set it, run schedule_backups.yml again.")
        if os.geteuid() != 0:
            raise InvalidInput("Backups are root's", hint="Run it with sudo.")
        ended = OK
        for action in actions:
            self._begin()
            try:
                with shown(self.progress, err):
                    told = perform_locked(
                        self._settings.offsite,
                        action,
                        self._settings.stack,
                        holder=f"backup_db.sh as {_user()}",
                        clock=self._clock,
                        cancelled=lambda: self._cancelled,
                        redact=self.redact,
                        progress=self.progress,
                    )
            except Exception as exc:  # pylint: disable=broad-exception-caught
                self.fail(exc, HISTORY[action], err, f"FAILED OFF-SITE ({action})")
                ended = NOT_OFFSITE
                if not isinstance(exc, Unfit):
                    return ended
                told = exc.facts
            else:
                _warn(err, [*told["warnings"], *self.record(told, HISTORY[action])], self.redact)
            for word in ("copied", "forgotten"):
                for name in told.get(word, ()):
                    _say(out, f"{word} off-site: {name}")
            if action == "check":
                _say(out, "checked off-site: the repository is whole")
        return ended

    def fail(self, error: Exception, operation: str, err: TextIO, what: str) -> None:
        """Tell of a failure: the history, the metrics and the hook first, for the log may be what cannot be written."""
        explained = _explained(error)
        warnings = [*self.record(error, operation), *self.call_hook(explained), *explained.facts.get("warnings", ())]
        _say(err, f"backup_db.sh: {what}: {self.redact.known(str(explained))}")
        if explained is not error:
            _say(err, self.redact.known("".join(traceback.format_exception(None, error, error.__traceback__)).rstrip()))
        _warn(err, warnings, self.redact)

    def record(self, outcome: Mapping[str, Any] | Exception, operation: str) -> list[str]:
        """Write the history and the metrics; gives warnings. Never fails: the operation has ended as it has."""
        if not os.path.isdir(self._settings.stack.project_src) or os.geteuid() != 0:
            return []
        started, ticks = self._began
        directory = self._settings.given.get("metrics_dir", "auto")
        try:
            ended = conclude(
                operation,
                outcome,
                started=started,
                seconds=self._clock.monotonic() - ticks,
                who={"user": _user(), "by": "backup_db.sh"},
                redact=self.redact.known,
            )
            history = History(
                os.path.join(base_of(self._settings.stack.project_src), "logs", "ops.jsonl"),
                metrics_dir=default_directory() if directory == "auto" else directory,
                clock=self._clock,
            )
            return history.write(ended)
        except Exception as exc:  # pylint: disable=broad-exception-caught
            return [f"The history was not written ({type(exc).__name__}: {exc}). The operation itself is not affected."]

    def call_hook(self, error: OpsError) -> list[str]:
        """Tell somebody that there is no backup: the command of the settings gets the message on standard input."""
        command = self._settings.given.get("on_failure") or []
        if not command:
            return []
        try:
            # AnsibleModule.run_command is out of reach here: the engine runs without Ansible.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command,
                input=self.redact.known(str(error)) + "\n",
                text=True,
                errors="backslashreplace",  # of a server that does not speak UTF-8
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_HOOK_TIMEOUT,
                check=False,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            return [f"the command {command[0]}, which is to tell of failures, could not be run: {exc}"]
        return [f"the command {command[0]}, which is to tell of failures, ended with {done.returncode}"] * bool(
            done.returncode
        )

    def _begin(self) -> None:
        """It begins now; a request to end is noted, for what is under way to be undone."""
        self._began = (self._clock.now(), self._clock.monotonic())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._cancel)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _cancel(self, _number: int, _frame: object) -> None:
        self._cancelled = True


def _user() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or os.environ.get("USER") or "root"
