# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bridge to Ansible: a real AnsibleModule in a process of its own, as on a host."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.bridge import stack_spec

HERE = Path(__file__).parent
SECRET = "f2c9" * 16

# The module under test: `operation`, `mutates` and `looks` are the test's own.
MODULE = """\
import contextlib, json, os, signal, sys
sys.path.insert(0, {here!r})
import conftest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.titan.ops.plugins.module_utils import bridge
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError, Refused
from ansible_collections.titan.ops.tests.unit import fakes

SECRET = {secret!r}
mutates = looks = None

def open_stack(context):
    context.stack = fakes.stack({{"titan-brain": {{"environment": {{"HMAC_SECRET": SECRET}}}}}})

{body}
with patch_module_args(json.load(sys.stdin)):
    bridge.run_module({{"extra": {{"type": "str"}}}}, operation, mutates=mutates, looks=looks)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an operation that changes something must run as root")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    made = tmp_path / "titan"
    made.mkdir()
    return made


class Ran:
    """How a module ended, and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stdout.strip(), done.stderr
        self.text = done.stdout
        self.rc = done.returncode
        self.result: dict[str, Any] = json.loads(done.stdout)

    @property
    def warnings(self) -> list[str]:
        return [item["event"]["msg"] for item in self.result.get("warnings", [])]


def code(body: str) -> list[str]:
    return [sys.executable, "-c", MODULE.format(here=str(HERE), secret=SECRET, body=textwrap.dedent(body))]


def arguments(src: Path, *, check: bool = False, diff: bool = False, **given: Any) -> str:
    internal = {"_ansible_check_mode": check, "_ansible_diff": diff}
    return json.dumps({"project_src": str(src), "lock_timeout": 0, **given, **internal})


def run(src: Path, body: str, **options: Any) -> Ran:
    """Run a module; what it prints to standard error is shown with a failure."""
    done = subprocess.run(
        code(body),
        input=arguments(src, **options),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    return Ran(done)


# What comes back


def test_a_result_is_handed_back_with_known_secrets_masked(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            open_stack(context)
            return {
                "changed": True,
                "text": f"the secret is {SECRET}.",
                "deep": [{"url": f"http://x:{SECRET}@h/"}, (SECRET, 7, None, True)],
                "number": 1.5,
                "extra": context.params["extra"],
            }
        """,
        extra="x",
    )
    assert ran.rc == 0
    assert SECRET not in ran.text
    assert ran.result["changed"] is True
    assert ran.result["text"] == "the secret is ********."
    assert ran.result["deep"] == [{"url": "http://x:********@h/"}, ["********", 7, None, True]]
    assert (ran.result["number"], ran.result["extra"]) == (1.5, "x")


def test_the_common_options_have_their_defaults_and_are_understood(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            options = context.options()
            return {"src": options.project_src, "state": options.state_path, "lock": options.lock_file,
                    "files": options.files, "timeout": options.lock_timeout, "check": context.check_mode}
        """,
        project_src=f"{src}/",
        files=["/a.yml", "/b.yml"],
        lock_timeout=7,
        check=True,
    )
    assert ran.result["src"] == str(src)
    assert ran.result["state"] == f"{src}/state"
    assert ran.result["lock"] == f"{src}/state/deploy.lock"
    assert ran.result["files"] == ["/a.yml", "/b.yml"]
    assert (ran.result["timeout"], ran.result["check"]) == (7.0, True)
    assert stack_spec()["project_src"]["default"] == "/opt/titan"


def test_warnings_of_a_success_are_ansibles_and_masked(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            open_stack(context)
            return {"changed": False, "warnings": ["first", f"second {SECRET}"]}
        """,
    )
    assert ran.warnings == ["first", "second ********"]
    assert SECRET not in ran.text


def test_a_failure_tells_what_happened_the_state_and_what_to_do_with_secrets_masked(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            open_stack(context)
            facts = {"warnings": ["first", "second"], "log": [f"key {SECRET}"], "rolled_back": True}
            raise OpsError(f"it broke: {SECRET}", state="All is as before", hint="Mend it", facts=facts)
        """,
    )
    assert ran.rc == 1
    assert ran.result["failed"] is True
    assert ran.result["msg"] == "it broke: ********. All is as before. Mend it."
    assert (ran.result["state"], ran.result["hint"]) == ("All is as before", "Mend it")
    assert ran.result["reason"] == "it broke: ********"
    assert ran.result["log"] == ["key ********"]
    assert ran.result["rolled_back"] is True
    assert ran.warnings == ["first", "second"]
    assert SECRET not in ran.text


def test_warnings_of_a_failure_are_masked(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            open_stack(context)
            raise OpsError("no", facts={"warnings": [f"Forced although: {SECRET}"]})
        """,
    )
    assert ran.warnings == ["Forced although: ********"]


def test_a_failure_before_the_stack_is_open_is_told_as_well(src: Path) -> None:
    ran = run(
        src,
        """
        def operation(context):
            raise Refused("not now", hint="Wait")
        """,
    )
    assert ran.result["msg"] == "not now. Nothing was changed. Wait."


@pytest.mark.parametrize("diff", [True, False])
def test_a_diff_is_shown_only_when_asked_for(src: Path, diff: bool) -> None:
    ran = run(
        src,
        """
        def operation(context):
            return {"changed": True, "diff": {"before": "old", "after": "new"}}
        """,
        diff=diff,
    )
    assert ran.result.get("diff") == ({"before": "old", "after": "new"} if diff else None)


# Changing something

LOCKED = """
mutates = "rotate the HMAC secret"
def operation(context):
    [kept] = context.runner._kept
    record = json.load(open(context.options().lock_file))
    return {"record": record, "same": os.path.samestat(os.fstat(kept), os.stat(context.options().lock_file))}
"""


@needs_root
def test_an_operation_that_changes_something_holds_the_lock_and_hands_it_to_its_commands(src: Path) -> None:
    ran = run(src, LOCKED)
    assert ran.result["same"] is True
    assert ran.result["record"]["reason"] == "rotate the HMAC secret"
    assert ran.result["record"]["holder"].startswith("Ansible as ")
    assert (src / "state" / "deploy.lock").read_bytes() == b""


@needs_root
def test_it_says_who_holds_the_lock_and_changes_nothing(src: Path) -> None:
    path = src / "state" / "deploy.lock"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        record = {"holder": "cron", "reason": "back up the database", "since": "now", "pid": os.getpid()}
        stream.write(json.dumps(record))
        stream.flush()
        ran = run(src, LOCKED)
    assert ran.rc == 1
    assert ran.result["msg"] == (
        f"The host lock {path} is held by cron (process {os.getpid()}) since now for: back up the database; "
        "waited 0 seconds for it. Nothing was changed. "
        "Run again when that operation has ended, or wait longer with lock_timeout."
    )


@needs_root
@pytest.mark.parametrize("how", ["check mode", "a module that only reads"])
def test_what_changes_nothing_takes_no_lock_and_needs_no_root(tmp_path: Path, how: str) -> None:
    src = tmp_path / "titan"
    (src / "state").mkdir(parents=True)
    reads = """
def operation(context):
    return {"kept": len(context.runner._kept)}
"""
    with open(src / "state" / "deploy.lock", "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        ran = run(src, reads if how != "check mode" else "mutates = 'x'\n" + reads, check=how == "check mode")
    assert ran.result["kept"] == 0


@needs_root
def test_a_run_that_only_looks_by_its_options_waits_for_nobody_and_can_be_ended(src: Path) -> None:
    looks = """
mutates = "x"
looks = lambda params: params["extra"] is None
def operation(context):
    os.kill(os.getpid(), signal.SIGTERM)
    return {"kept": len(context.runner._kept), "cancelled": context.cancelled}
"""
    path = src / "state" / "deploy.lock"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert run(src, looks).result["kept"] == 0
        assert "is held by" in run(src, looks, extra="confirmed").result["msg"]
    assert run(src, looks).result["cancelled"] is True
    assert run(src, looks, extra="confirmed").result["kept"] == 1
    assert "must run as root" in run(src, "os.setuid(65534)\n" + looks).result["msg"]


@needs_root
def test_another_user_than_root_is_refused_before_anything_is_made(src: Path) -> None:
    # The process becomes another user by itself: that one may not be able to read the interpreter's place.
    ran = run(src, "os.setuid(65534)\n" + LOCKED)
    assert ran.rc == 1
    assert ran.result["msg"] == (
        "This must run as root on the managed host to rotate the HMAC secret, not as user id 65534. "
        "Nothing was changed. Set become: true (the playbooks do), and let the user use sudo."
    )
    assert list(src.iterdir()) == []


@needs_root
def test_a_project_that_is_not_there_gets_no_lock_file(tmp_path: Path) -> None:
    ran = run(tmp_path / "nowhere", LOCKED, docker_host=f"unix://{tmp_path}/no.sock")
    assert ran.rc == 1
    assert not (tmp_path / "nowhere").exists()


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_end_is_noted_for_the_operation_and_breaks_nothing(src: Path, number: signal.Signals) -> None:
    ran = run(
        src,
        f"""
        mutates = "x"
        def operation(context):
            before = context.cancelled
            os.kill(os.getpid(), {int(number)})
            os.kill(os.getpid(), signal.SIGHUP)
            return {{"before": before, "after": context.cancelled}}
        """,
    )
    assert ran.rc == 0
    assert (ran.result["before"], ran.result["after"]) == (False, True)


@needs_root
def test_a_lost_connection_stops_nothing_and_is_no_request_to_end(src: Path) -> None:
    ran = run(
        src,
        """
        mutates = "x"
        def operation(context):
            os.kill(os.getpid(), signal.SIGHUP)
            return {"after": context.cancelled}
        """,
    )
    assert ran.result["after"] is False


def has_open(pid: int, path: Path) -> bool:
    for link in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"/proc/{pid}/fd/{link}") == str(path):
                return True
    return False


@needs_root
def test_while_it_waits_for_the_lock_a_request_to_end_ends_it(src: Path) -> None:
    """Nothing has begun, so there is nothing to undo."""
    path = src / "state" / "deploy.lock"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with subprocess.Popen(
            code(f"os.open({str(src / 'ready')!r}, os.O_CREAT)\n" + LOCKED),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(arguments(src, lock_timeout=60))
            process.stdin.close()
            while not has_open(process.pid, path):
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == -signal.SIGTERM
