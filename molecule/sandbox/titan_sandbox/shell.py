# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands, saying what is being done, waiting for conditions, failing usefully."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Union

Input = Union[bytes, IO[bytes], None]

_started = time.monotonic()


class SandboxError(Exception):
    """A step failed: what happened, what state things are in now, what to do next, and the log that tells more."""

    def __init__(self, what: str, *, state: str, do: str, log: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.state = state
        self.do = do
        self.log = log

    def __str__(self) -> str:
        text = f"{self.what}\n  State now: {self.state}\n  What to do: {self.do}"
        if self.log.strip():
            tail = "\n".join(f"  | {line}" for line in self.log.strip().splitlines()[-25:])
            text += f"\n  The end of the log:\n{tail}"
        return text


def say(text: str) -> None:
    """One progress line on stderr, with the seconds since the start; stdout is kept for results."""
    print(f"[{time.monotonic() - _started:6.1f}s] {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    stdin: Input = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    what: str = "",
    state: str = "nothing else was changed by this step.",
    do: str = "correct the cause shown below and run the same command again.",
) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output (stdout and stderr apart).

    Raises SandboxError when it cannot be run, runs longer than ``timeout`` seconds, or (with ``check``) fails.
    """
    name = what or " ".join(argv[:4])
    try:
        done = subprocess.run(
            list(argv),
            input=stdin if isinstance(stdin, bytes) else None,
            stdin=None if isinstance(stdin, bytes) else (stdin or subprocess.DEVNULL),
            capture_output=True,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as exc:
        if not check:
            return subprocess.CompletedProcess(list(argv), 127, "", str(exc))
        raise SandboxError(f"{name}: the command {argv[0]} is not installed.", state=state, do=do) from exc
    except subprocess.TimeoutExpired as exc:
        if not check:
            return subprocess.CompletedProcess(list(argv), 124, "", f"no answer within {timeout} s")
        output = _text(exc.stdout) + _text(exc.stderr)
        raise SandboxError(f"{name}: not finished after {timeout} s.", state=state, do=do, log=output) from exc
    result = subprocess.CompletedProcess(list(argv), done.returncode, _text(done.stdout), _text(done.stderr))
    if check and result.returncode != 0:
        raise SandboxError(
            f"{name} failed (exit code {result.returncode}).", state=state, do=do, log=result.stdout + result.stderr
        )
    return result


def wait_for(
    condition: Callable[[], bool],
    *,
    seconds: float,
    what: str,
    state: str,
    do: str,
    log: Callable[[], str] = lambda: "",
    gone: Callable[[], bool] = lambda: False,
    every: float = 0.25,
) -> None:
    """Poll until ``condition`` is true; SandboxError after ``seconds``, or at once when ``gone`` says it never will."""
    deadline = time.monotonic() + seconds
    while not condition():
        hopeless = gone()
        if hopeless or time.monotonic() >= deadline:
            limit = "it ended instead" if hopeless else f"not within {seconds:.0f} s"
            raise SandboxError(f"{what}: {limit}.", state=state, do=do, log=log())
        time.sleep(every)


def _text(data: bytes | str | None) -> str:
    if data is None:
        return ""
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data
