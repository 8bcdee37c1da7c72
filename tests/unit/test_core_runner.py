# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running commands, with real processes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.errors import CommandFailed
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Runner

run = Runner().run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: object, seconds: float = 10) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_arguments_reach_the_program_as_they_are() -> None:
    words = ["$HOME", "a b", "*", "; echo no", "`id`", "it's", 'a"b', ""]
    done = run(python("import sys; print(sys.argv[1:])") + words)
    assert done.out.strip() == repr(words)
    assert done.rc == 0


def test_data_goes_to_standard_input_and_nowhere_else() -> None:
    code = (
        "import sys\n"
        "data = sys.stdin.buffer.read()\n"
        "seen = [open(f'/proc/self/{name}', 'rb').read() for name in ('cmdline', 'environ')]\n"
        "print(len(data), any(data[:7] in text for text in seen))\n"
    )
    data = b"hunter2" + b"x" * 1_000_000
    assert run(python(code), data=data).out.split() == [str(len(data)), "False"]


def test_data_that_nobody_reads_is_no_error() -> None:
    assert run(["true"], data=b"x" * 1_000_000).rc == 0


def test_without_data_standard_input_is_empty_whatever_our_own_has() -> None:
    """A module's own standard input carries its arguments; no command may read them."""
    reader, writer = os.pipe()
    os.write(writer, b"arguments of the module")
    os.close(writer)
    kept = os.dup(0)
    try:
        os.dup2(reader, 0)
        assert run(["cat"]).stdout == b""
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reader)


def test_both_outputs_are_kept_apart_whatever_their_bytes() -> None:
    done = run(python("import os; os.write(1, b'out\\xff\\n'); os.write(2, b'  err\\n')"))
    assert (done.stdout, done.stderr) == (b"out\xff\n", b"  err\n")
    assert (done.out, done.err) == ("out\ufffd\n", "err")


def test_the_environment_is_handed_down_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMAC_SECRET", "of-the-session")
    code = "import os; print(sorted(os.environ.items()))"
    assert "of-the-session" in run(python(code)).out
    scrubbed = dict(ast.literal_eval(run(python(code), env={"DOCKER_HOST": "unix:///x"}, inherit=False).out))
    scrubbed.pop("LC_CTYPE", None)  # some Pythons set it themselves
    assert set(scrubbed) - {"HOME"} == {"PATH", "LC_ALL", "DOCKER_HOST"}
    assert scrubbed["PATH"] == os.environ["PATH"]
    assert scrubbed["LC_ALL"] == "C.UTF-8"


def test_a_failure_carries_the_exit_code_and_the_programs_words() -> None:
    with pytest.raises(CommandFailed, match="failed with exit code 3: no such thing") as caught:
        run(python("import sys; sys.stderr.write('no such thing\\n'); sys.exit(3)"))
    assert caught.value.facts == {"rc": 3}
    with pytest.raises(CommandFailed, match="failed with exit code 1: no output"):
        run(["false"])
    with pytest.raises(CommandFailed, match="exit code 1: only this"):
        run(python("print('only this'); raise SystemExit(1)"))
    assert run(["false"], check=False).rc == 1


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailed, match="titan-no-such-program cannot be started: No such file") as caught:
        run(["titan-no-such-program"])
    assert caught.value.facts == {"rc": 127}


def test_the_working_directory_is_the_one_named(tmp_path: Path) -> None:
    assert run(["pwd"], cwd=str(tmp_path)).out.strip() == str(tmp_path.resolve())


def test_a_timeout_kills_the_command_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CommandFailed, match="did not end within 1 seconds and was killed") as caught:
        run(["sh", "-c", f"sleep 300 & echo $$ $! > {pids}; wait"], timeout=1)
    assert caught.value.facts == {"rc": -9}
    both = [int(word) for word in pids.read_text().split()]
    assert len(both) == 2
    assert wait_until(lambda: not any(alive(pid) for pid in both))


def test_a_child_that_left_the_group_cannot_hold_us_up(tmp_path: Path) -> None:
    """It keeps our pipe open; waiting for its end would hang for as long as it lives."""
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    try:
        with pytest.raises(CommandFailed, match="was killed"):
            run(["sh", "-c", f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 300' & wait"], timeout=1)
        assert time.monotonic() - began < 30
    finally:
        os.kill(int(pid_file.read_text()), 9)


def test_whatever_interrupts_us_ends_the_command_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt(BaseException):
        pass

    started: list[int] = []
    real = subprocess.Popen.communicate

    def interrupted(self: subprocess.Popen[bytes], *args: object, **kwargs: object) -> object:
        if not started:
            started.append(self.pid)
            raise Interrupt
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(Interrupt):
        run(["sleep", "300"])
    assert not alive(started[0])
