# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the bridge writes into the history about a module's run, and that the module's result does not suffer."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common import warnings as ansible_warnings
from ansible.module_utils.common.parameters import PASS_VARS

from ansible_collections.titan.ops.plugins.module_utils import bridge
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.operations import Action, Plan
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.history import read_entries
from ansible_collections.titan.ops.plugins.module_utils.core.journal import Journal
from ansible_collections.titan.ops.plugins.modules import compose_service, env_file
from ansible_collections.titan.ops.tests.unit import fakes

Main = Callable[[], object]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A project directory, and a directory for metrics."""
    if os.geteuid() != 0:
        pytest.skip("modules that change something want to be root")
    (tmp_path / "src").mkdir()
    (tmp_path / "metrics").mkdir()
    return tmp_path / "src"


@pytest.fixture(autouse=True)
def kept_signals() -> Iterator[None]:
    """A module lets signals wait; the tests do not."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def arguments(values: Mapping[str, Any]) -> Iterator[None]:
    """Ansible hands these options to the module."""
    try:
        from ansible.module_utils.testing import patch_module_args
    except ImportError:  # ansible-core before 2.19
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": values}).encode()
        try:
            yield
        finally:
            basic._ANSIBLE_ARGS = None
        return
    with patch_module_args(dict(values)):
        yield


def run(capsys: pytest.CaptureFixture[str], main: Main, src: Path, **options: Any) -> dict[str, Any]:
    """The result of a module, as Ansible gets it."""
    given = {"project_src": str(src), "metrics_dir": str(src.parent / "metrics"), "lock_timeout": 0, **options}
    ansible_warnings._global_warnings.clear()  # a process has one module to run, elsewhere
    with arguments(given), pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    result: dict[str, Any] = json.loads(printed)
    result["warnings"] = [
        item if isinstance(item, str) else item["event"]["msg"] for item in result.get("warnings", [])
    ]
    return result


def module(answer: Callable[[Context], dict[str, Any]], **more: Any) -> Main:
    spec = {"key": {"type": "str", "default": "HMAC_SECRET", "no_log": False}}
    wired: dict[str, Any] = {"mutates": "try it", "history": "rotate_hmac", "secret": "key", **more}
    return lambda: run_module(spec, answer, **wired)


def failing(error: Exception) -> Callable[[Context], dict[str, Any]]:
    def operation(_context: Context) -> dict[str, Any]:
        raise error

    return operation


def history(src: Path) -> list[dict[str, Any]]:
    path = src / "logs" / "ops.jsonl"
    return read_entries(str(path)) if path.exists() else []


def test_a_run_leaves_a_line_with_who_asked_for_it(
    src: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "deploy")
    done = module(lambda _context: {"changed": True, "variables": ["HMAC_SECRET"]})
    result = run(capsys, done, src, operator={"user": "alice", "job": 17, "job_template": "Rotate HMAC"})
    assert result["changed"] is True and result["warnings"] == []
    (line,) = history(src)
    assert line["who"] == {"user": "deploy", "operator": "alice", "job": "17", "job_template": "Rotate HMAC"}
    assert line["secret"]["generation"] == 1 and line["result"] == "ok"
    assert (src.parent / "metrics" / "titan_rotate_hmac.prom").exists()
    run(capsys, done, src, operator={"user": "", "job": None})
    assert history(src)[1]["who"] == {"user": "deploy"}


def test_an_option_may_name_the_operation(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = module(
        lambda _context: {"changed": True}, secret=None, history=lambda params: f"set_{params['key'].lower()}"
    )
    run(capsys, done, src, key="PORT")
    assert history(src)[0]["operation"] == "set_port"


def test_check_mode_leaves_nothing(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (lambda _context: {"changed": True}, failing(OpsError("No"))):
        run(capsys, module(answer), src, _ansible_check_mode=True)
    assert list(src.iterdir()) == [] and list((src.parent / "metrics").iterdir()) == []


def test_a_module_that_does_not_ask_for_it_has_no_history(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, module(lambda _context: {"changed": True}, history=None, secret=None), src)
    assert history(src) == [] and list((src.parent / "metrics").iterdir()) == []


def test_a_failure_is_told_and_fails_as_before(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = OpsError("It broke. Badly", state="All is undone", facts={"rolled_back": True, "warnings": ["odd"]})
    result = run(capsys, module(failing(error)), src)
    assert result["failed"] and result["msg"] == "It broke. Badly. All is undone." and result["warnings"] == ["odd"]
    (line,) = history(src)
    assert (line["result"], line["error"]) == ("undone", "It broke")
    text = (src.parent / "metrics" / "titan_rotate_hmac.prom").read_text(encoding="utf-8")
    assert 'titan_operation_last_success{operation="rotate_hmac"} 0.0' in text


def test_a_stack_that_cannot_be_read_was_not_changed(
    src: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_args: object, **_more: object) -> None:
        raise OpsError("The Docker Engine does not answer", hint="Start it.")

    monkeypatch.setattr(bridge, "open_stack", gone)
    result = run(capsys, module(lambda context: {"changed": bool(context.open())}), src)
    assert result["msg"] == "The Docker Engine does not answer. Nothing was changed. Start it."


def test_a_defect_is_told_by_its_kind_and_still_shows_itself(src: Path) -> None:
    with arguments({"project_src": str(src), "metrics_dir": ""}), pytest.raises(ValueError, match="geheim"):
        module(failing(ValueError("geheim")))()
    (line,) = history(src)
    assert (line["result"], line["error"]) == ("failed", "Unexpected error ValueError")


def test_a_run_that_did_not_get_the_lock_is_told(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = src / "state" / "deploy.lock"
    lock.parent.mkdir()
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        result = run(capsys, module(lambda _context: {"changed": True}), src)
    assert result["failed"]
    (line,) = history(src)
    assert line["result"] == "failed" and line["error"].startswith(f"The host lock {lock} is held by")


def test_a_wait_for_the_lock_in_vain_does_not_count(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = src / "state" / "deploy.lock"
    lock.parent.mkdir()
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        run(capsys, module(lambda _context: {"changed": True}), src, lock_timeout=0.3)
    assert history(src)[0]["seconds"] < 0.3


def test_whoever_waits_for_the_lock_is_told_who_asked(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def look(_context: Context) -> dict[str, Any]:
        return {"changed": False, "record": (src / "state" / "deploy.lock").read_text(encoding="utf-8")}

    result = run(capsys, module(look), src, operator={"user": "alice", "job": "17"})
    assert json.loads(result["record"])["holder"].endswith(" for alice, job 17")


def test_the_wait_for_the_lock_does_not_count(
    src: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bridge.host_lock

    @contextlib.contextmanager
    def slow(path: str, **more: Any) -> Iterator[int]:
        with real(path, **more) as fd:
            more["clock"].sleep(0.3)
            yield fd

    monkeypatch.setattr(bridge, "host_lock", slow)
    run(capsys, module(lambda _context: {"changed": True}), src)
    assert history(src)[0]["seconds"] < 0.3


# An operation that was killed between its end and its line

BEGAN, ENDED = 1770390192.0, 1770390200.5


def ended_without_a_line(src: Path, how: str = "finished") -> Path:
    """The note of a rotation that was killed at its last instant."""
    journal = Journal(str(src / "state"), "hmac_rotate", "rotate_hmac")
    journal.begin({"began": BEGAN})
    journal.conclude(how, ended=ENDED, secret="HMAC_SECRET")
    (note,) = (src / "state").glob("*.ended")
    return note


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_operation_of_any_kind_writes_the_missing_line(
    src: Path, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    note = ended_without_a_line(src)
    answer = failing(OpsError("No")) if fails else (lambda _context: {"changed": False})
    run(capsys, module(answer, history="restart", secret=None), src)
    line, *others = history(src)
    assert [item["operation"] for item in others] == (["restart"] if fails else [])
    assert (line["operation"], line["result"], line["recovered"]) == ("rotate_hmac", "recovered", "finished")
    assert line["interrupted"] == "2026-02-06T15:03:12Z"
    assert line["secret"] == {"name": "HMAC_SECRET", "generation": 1, "rotated": "2026-02-06T15:03:20Z"}
    text = (src.parent / "metrics" / "titan_rotate_hmac.prom").read_text(encoding="utf-8")
    assert f'titan_secret_rotated_timestamp_seconds{{secret="HMAC_SECRET"}} {ENDED}' in text
    assert f'titan_operation_last_run_timestamp_seconds{{operation="rotate_hmac"}} {ENDED}' in text
    assert not note.exists()


def test_one_that_was_undone_is_no_new_generation(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended_without_a_line(src, "undone")
    run(capsys, module(lambda _context: {"changed": False}), src)
    (line,) = history(src)
    assert line["recovered"] == "undone" and "secret" not in line


@pytest.mark.parametrize("field", ["started", "interrupted"])
def test_it_is_not_told_twice(src: Path, capsys: pytest.CaptureFixture[str], field: str) -> None:
    """Killed again when the line stood already."""
    note = ended_without_a_line(src)
    (src / "logs").mkdir()
    line = {field: "2026-02-06T15:03:12Z", "operation": "rotate_hmac", "result": "ok"}
    (src / "logs" / "ops.jsonl").write_text(f"{json.dumps(line)}\n", encoding="utf-8")
    run(capsys, module(lambda _context: {"changed": False}), src)
    assert history(src) == [line] and not note.exists()


def test_ones_own_line_is_written_and_the_note_goes(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def rotated(context: Context) -> dict[str, Any]:
        journal = Journal(context.options().state_path, "hmac_rotate", "rotate_hmac")
        journal.begin({"began": context.began[0]})
        journal.conclude("finished", ended=context.clock.now(), secret="HMAC_SECRET")
        seen.extend((src / "state").glob("*.ended"))
        return {"changed": True}

    run(capsys, module(rotated), src)
    (line,) = history(src)
    assert line["result"] == "ok" and len(seen) == 1 and not seen[0].exists()


@pytest.mark.parametrize("why", ["no history can be written", "another holds the lock", "check mode"])
def test_the_note_stays_until_the_line_can_be_written(src: Path, capsys: pytest.CaptureFixture[str], why: str) -> None:
    note = ended_without_a_line(src)
    options = {"_ansible_check_mode": why == "check mode"}
    if why == "no history can be written":
        (src / "logs").write_text("a file", encoding="utf-8")
    with (src / "state" / "deploy.lock").open("w") as stream:
        if why == "another holds the lock":
            fcntl.flock(stream, fcntl.LOCK_EX)
        run(capsys, module(lambda _context: {"changed": True}), src, **options)
    assert note.exists()
    if why == "no history can be written":
        (src / "logs").unlink()
    run(capsys, module(lambda _context: {"changed": False}), src)
    assert history(src)[-1]["recovered"] == "finished" and not note.exists()


def test_a_missing_project_directory_gets_no_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, module(lambda _context: {"changed": True}), tmp_path / "nowhere")
    assert result["failed"] and result["warnings"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["no file can be made", "a defect"])
def test_a_history_that_cannot_be_written_is_a_warning_and_no_failure(
    src: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "a defect":
        monkeypatch.setattr(bridge, "conclude", failing(KeyError("x")))
    else:
        (src / "logs").write_text("a file", encoding="utf-8")
    result = run(capsys, module(lambda _context: {"changed": True}), src)
    assert result["changed"] is True and not result.get("failed")
    (warning,) = result["warnings"]
    assert "The operation itself is not affected." in warning


def test_with_releases_the_history_outlives_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "titan" / "releases" / "1").mkdir(parents=True)
    (tmp_path / "titan" / "current").symlink_to("releases/1")
    run(capsys, module(lambda _context: {"changed": True}), tmp_path / "titan" / "current", metrics_dir="")
    assert len(history(tmp_path / "titan")) == 1


# The module env_file


def test_env_file_sets_a_value_and_shows_none(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = src.parent / "some.env"
    path.write_text("A=1\nSECRET=old-old-old\n", encoding="utf-8")
    options = {
        "path": str(path),
        "values": {"SECRET": "env", "NEW": 7},
        "_ansible_diff": True,
        # newer versions show the options only when they are asked to, and older ones do not know the question
        **({"_ansible_inject_invocation": True} if "inject_invocation" in PASS_VARS else {}),
    }
    planned = run(capsys, env_file.main, src, _ansible_check_mode=True, **options)
    assert path.read_text(encoding="utf-8") == "A=1\nSECRET=old-old-old\n"
    result = run(capsys, env_file.main, src, **options)
    assert path.read_text(encoding="utf-8") == "A=1\nSECRET=env\nNEW=7\n"
    for key in ("changed", "variables", "added", "diff", "proved_by", "path", "services"):
        assert planned[key] == result[key], key
    # a value that is an ordinary word does not make the result unreadable, and is not in what was asked either
    assert result["path"] == str(path) and result["variables"] == ["SECRET", "NEW"] and result["added"] == ["NEW"]
    assert result["invocation"]["module_args"]["values"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    (line,) = history(src)
    assert (line["operation"], line["keys"]) == ("env_file", ["SECRET", "NEW"])
    again = run(capsys, env_file.main, src, **options)
    assert again["changed"] is False and again["variables"] == [] and len(history(src)) == 1


def test_env_file_changes_nothing_while_a_rotation_is_interrupted(
    src: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = src.parent / "some.env"
    path.write_text("A=1\n", encoding="utf-8")
    (src / "state").mkdir()
    (src / "state" / "hmac_rotate.journal").write_text("{}", encoding="utf-8")
    for check in (True, False):
        result = run(capsys, env_file.main, src, path=str(path), values={"A": "2"}, _ansible_check_mode=check)
        assert result["failed"] and "An interrupted operation was found (hmac_rotate)" in result["msg"]
    assert path.read_text(encoding="utf-8") == "A=1\n"


@pytest.mark.parametrize("what", ["env_file", "compose_service"])
def test_a_check_beside_an_operation_that_is_under_way_calls_it_so(
    src: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    (src / "state").mkdir()
    (src / "state" / "hmac_rotate.journal").write_text("{}", encoding="utf-8")
    given: dict[str, Any] = {"path": str(src / "x.env"), "values": {"A": "2"}} if what == "env_file" else {}
    main = env_file.main if what == "env_file" else compose_service.main
    with (src / "state" / "deploy.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        result = run(capsys, main, src, _ansible_check_mode=True, **given)
    assert result["msg"].startswith("An operation is under way (hmac_rotate): ")
    assert "interrupted" not in result["msg"]


def test_env_file_fails_without_a_value_in_its_words(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = src.parent / "some.env"
    path.write_text("A=1\nA=2\n", encoding="utf-8")
    result = run(capsys, env_file.main, src, path=str(path), values={"A": "geheim"})
    assert result["failed"] and "A stands more than once" in result["msg"]
    assert "geheim" not in json.dumps(result) + json.dumps(history(src))


# The module compose_service


@pytest.mark.parametrize(
    ("state", "called"),
    [("started", "start"), ("stopped", "stop"), ("restarted", "restart"), ("recreated", "recreate")],
)
def test_a_change_of_services_is_kept_under_its_playbooks_name_with_the_services_that_changed(
    src: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, state: str, called: str
) -> None:
    def opened(context: Context, *, read: bool = True) -> Any:
        context.stack = fakes.stack({"titan-brain": {}, "titan-nats": {}})
        return context.stack

    done = (Action("titan-brain", called, "asked for", "running"), Action("titan-nats", "none", "is", "running"))
    monkeypatch.setattr(Context, "open", opened)
    monkeypatch.setattr(compose_service, "plan", lambda *_args, **_more: Plan(state, (), False, False, done))
    monkeypatch.setattr(compose_service, "apply", lambda *_args, **_more: done)
    options = {"state": state, "operator": {"user": "alice"}}
    planned = run(capsys, compose_service.main, src, _ansible_check_mode=True, **options)
    assert planned["changed"] and not (src / "logs").exists()
    run(capsys, compose_service.main, src, **options)
    (line,) = history(src)
    assert (line["operation"], line["result"], line["services"]) == (called, "ok", ["titan-brain"])
    assert line["who"]["operator"] == "alice"
    done = done[1:]  # nothing to do any more
    result = run(capsys, compose_service.main, src, **options)
    assert result["changed"] is False and len(history(src)) == 1


@pytest.mark.parametrize("state", ["started", "restarted", "recreated"])
def test_services_are_not_started_while_a_rotation_is_interrupted_whatever_the_compose_file_says(
    src: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    (src / "docker-compose.prod.yml").write_text("  : [broken\n", encoding="utf-8")
    (src / "state").mkdir()
    (src / "state" / "pg_password.journal").write_text("{}", encoding="utf-8")
    result = run(capsys, compose_service.main, src, state=state, docker_host="unix:///nowhere")
    assert result["failed"] and "An interrupted operation was found (pg_password)" in result["msg"]
    (line,) = history(src)
    assert line["result"] == "failed" and "services" not in line
