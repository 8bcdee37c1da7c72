# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs commands: argument lists only, secrets on standard input only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import CommandFailed
from .redact import Redactor

__all__ = ["Completed", "Runner"]

# Seconds to collect a killed command's last output.
_REAP = 2.0


@dataclass(frozen=True)
class Completed:
    """How a command ended: its arguments, exit code and both outputs."""

    argv: tuple[str, ...]
    rc: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """Standard error as text, without surrounding white space."""
        return self.stderr.decode("utf-8", "replace").strip()


class Runner:
    """Runs programs without a shell, in a fixed environment, with a bounded life."""

    def __init__(self) -> None:
        self._kept: tuple[int, ...] = ()

    def keep_open(self, fd: int) -> None:
        """Hand this file descriptor down to every command from now on."""
        self._kept = (*self._kept, fd)

    @property
    def kept(self) -> tuple[int, ...]:
        """The file descriptors that every command gets."""
        return self._kept

    def run(
        self,
        argv: Sequence[str],
        *,
        data: bytes | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        inherit: bool = True,
        timeout: float = 300,
        check: bool = True,
    ) -> Completed:
        """Run a command to its end.

        Args:
            argv: program and arguments; never a secret, for every process on the host can read them.
            data: bytes for standard input (the place for a secret); without it standard input is empty.
            cwd: working directory.
            env: variables set on top of the inherited environment.
            inherit: hand down our own environment; without it only PATH, HOME and what ``env`` says.
            timeout: seconds after which the command and its children are killed.
            check: raise on a non-zero exit code.

        Raises:
            CommandFailed: not started, timed out, or (with ``check``) a non-zero exit code.
        """
        base = os.environ if inherit else {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        full_env = {**base, "LC_ALL": "C.UTF-8", **(env or {})}
        try:
            # AnsibleModule.run_command is out of reach here: the engine runs without Ansible.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(argv),
                stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=full_env,
                start_new_session=True,
                pass_fds=self._kept,
            )
        except OSError as exc:
            raise CommandFailed(f"{argv[0]} cannot be started: {exc.strerror or exc}", facts={"rc": 127}) from exc
        try:
            stdout, stderr = process.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired as exc:
            _kill_group(process)
            raise CommandFailed(
                f"`{' '.join(argv)}` did not end within {timeout:g} seconds and was killed", facts={"rc": -9}
            ) from exc
        except BaseException:
            _kill_group(process)
            raise
        done = Completed(tuple(argv), process.returncode, stdout, stderr)
        if check and done.rc != 0:
            words = Redactor()(done.err or done.out.strip() or "no output")
            raise CommandFailed(
                f"`{' '.join(argv)}` failed with exit code {done.rc}: {words}",
                facts={"rc": done.rc},
            )
        return done


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A child that left the group may hold our pipes open for ever: do not wait for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_REAP)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_REAP)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
