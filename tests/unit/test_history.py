# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The history of operations and its metrics."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core import history as history_module
from ansible_collections.titan.ops.plugins.module_utils.core import metrics
from ansible_collections.titan.ops.plugins.module_utils.core.errors import (
    InvalidInput,
    LockHeld,
    Mistaken,
    OpsError,
    Refused,
)
from ansible_collections.titan.ops.plugins.module_utils.core.history import (
    Ended,
    History,
    Recovered,
    conclude,
    generation,
    read_entries,
)
from ansible_collections.titan.ops.tests.unit.fakes import NOW, FakeClock

HERE = Path(__file__).parent
ROTATED = Ended(
    "rotate_hmac",
    "ok",
    started=NOW,
    seconds=8.4123,
    who={"user": "deploy", "operator": "alice", "job": "17", "job_template": "Rotate HMAC"},
    interruption={"titan-brain": 3.81, "titan-execution": 2.2},
    secret="HMAC_SECRET",
    keys=("HMAC_SECRET",),
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    return tmp_path


def write(place: Path, ended: Ended) -> list[str]:
    path = str(place / "logs" / "ops.jsonl")
    return History(path, metrics_dir=str(place / "metrics"), clock=FakeClock()).write(ended)


def lines(place: Path) -> list[dict[str, Any]]:
    return read_entries(str(place / "logs" / "ops.jsonl"))


def samples(place: Path, operation: str = "rotate_hmac") -> dict[str, float]:
    text = (place / "metrics" / f"titan_{operation}.prom").read_text(encoding="utf-8")
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


# The line


def test_a_line_says_who_did_what_when_for_how_long_and_how_it_ended(place: Path) -> None:
    assert write(place, ROTATED) == []
    assert lines(place) == [
        {
            "started": "2026-02-06T14:03:12Z",
            "operation": "rotate_hmac",
            "result": "ok",
            "seconds": 8.412,
            "who": {"user": "deploy", "operator": "alice", "job": "17", "job_template": "Rotate HMAC"},
            "interruption_seconds": {"titan-brain": 3.81, "titan-execution": 2.2},
            "keys": ["HMAC_SECRET"],
            "secret": {"name": "HMAC_SECRET", "generation": 1, "rotated": "2026-02-06T14:03:20Z"},
        }
    ]
    assert (place / "logs" / "ops.jsonl").read_bytes().count(b"\n") == 1


def test_generations_are_counted_for_each_secret_from_what_the_file_says(place: Path) -> None:
    for secret in ("HMAC_SECRET", "TITAN_DB_PASSWORD", "HMAC_SECRET", "HMAC_SECRET"):
        write(place, replace(ROTATED, secret=secret))
    write(place, replace(ROTATED, result="undone", error="It failed"))
    write(place, ROTATED)
    found = [line["secret"]["generation"] for line in lines(place) if "secret" in line]
    assert found == [1, 1, 2, 3, 4]
    assert generation(lines(place), "HMAC_SECRET") == 4
    assert generation(lines(place), "OTHER") == 0


def test_a_failure_is_a_line_with_its_reason_and_without_a_new_generation(place: Path) -> None:
    write(place, replace(ROTATED, result="undone", interruption={}, keys=(), error="The rotation failed"))
    (line,) = lines(place)
    assert line["result"] == "undone"
    assert line["error"] == "The rotation failed"
    assert {"secret", "interruption_seconds", "keys"}.isdisjoint(line)


@pytest.mark.parametrize(("how", "generations"), [("finished", [1, 2]), ("undone", [1]), ("superseded", [1])])
def test_a_run_that_was_interrupted_gets_its_line_from_the_run_that_recovers_it(
    place: Path, how: str, generations: list[int]
) -> None:
    write(place, replace(ROTATED, recovered=(Recovered("rotate_hmac", "HMAC_SECRET", how),)))
    first, second = lines(place)
    assert (first["operation"], first["result"], first["recovered"]) == ("rotate_hmac", "recovered", how)
    assert second["result"] == "ok" and "recovered" not in second
    assert [line["secret"]["generation"] for line in (first, second) if "secret" in line] == generations


def test_a_recovery_is_told_although_the_run_itself_was_refused(place: Path) -> None:
    """And the secret's date is in the file of the operation that rotates it: in two files it would be an error."""
    finished = Recovered("rotate_hmac", "HMAC_SECRET", "finished")
    undone = Recovered("rotate_db_password", "TITAN_DB_PASSWORD", "undone")
    refused = Ended("recover", "failed", started=NOW, seconds=1, recovered=(finished, undone), error="It is full")
    write(place, refused)
    first, second, third = lines(place)
    assert first["secret"]["generation"] == 1
    assert (second["operation"], second["recovered"]) == ("rotate_db_password", "undone") and "secret" not in second
    assert third["result"] == "failed" and "secret" not in third
    assert samples(place) == {
        'titan_operation_last_success{operation="rotate_hmac"}': 1,
        'titan_secret_rotated_timestamp_seconds{secret="HMAC_SECRET"}': NOW + 1,
    }
    assert samples(place, "rotate_db_password") == {'titan_operation_last_success{operation="rotate_db_password"}': 0}
    assert set(samples(place, "recover")) == {
        'titan_operation_last_run_timestamp_seconds{operation="recover"}',
        'titan_operation_last_success{operation="recover"}',
    }


def test_a_run_that_found_nothing_to_do_is_in_the_metrics_only(place: Path) -> None:
    write(place, Ended("env_file", "ok", started=NOW, seconds=1, changed=False))
    assert lines(place) == []
    assert samples(place, "env_file")['titan_operation_last_success{operation="env_file"}'] == 1


def test_the_file_is_closed_to_others_and_keeps_the_mode_that_it_has(place: Path) -> None:
    path = place / "logs" / "ops.jsonl"
    write(place, ROTATED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_gid == path.parent.stat().st_gid
    path.chmod(0o600)
    write(place, ROTATED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_has_its_mode_whatever_the_umask_is(place: Path) -> None:
    before = os.umask(0o077)
    try:
        write(place, ROTATED)
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "logs" / "ops.jsonl").stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "metrics" / "titan_rotate_hmac.prom").stat().st_mode) == 0o644


# What may be in the file already, and what may go wrong


@pytest.mark.parametrize("torn", [b'{"operation": "rotate_h', b'{"a": 1}', b"\0\0\0\0", b"\xff\xfe"])
def test_a_torn_last_line_spoils_neither_the_next_line_nor_the_count(place: Path, torn: bytes) -> None:
    write(place, ROTATED)
    path = place / "logs" / "ops.jsonl"
    with path.open("ab") as stream:
        stream.write(torn)
    before = path.read_bytes()
    assert write(place, ROTATED) == []
    assert path.read_bytes().startswith(before + b"\n")
    assert lines(place)[-1]["secret"]["generation"] == 2
    write(place, ROTATED)
    assert lines(place)[-1]["secret"]["generation"] == 3


@pytest.mark.parametrize("odd", ["[1]", "null", '{"secret": "x"}', '{"secret": {"name": "HMAC_SECRET"}}', "7"])
def test_lines_of_others_are_left_alone_and_count_for_nothing(place: Path, odd: str) -> None:
    (place / "logs").mkdir()
    (place / "logs" / "ops.jsonl").write_text(f"{odd}\n", encoding="utf-8")
    assert write(place, ROTATED) == []
    assert (place / "logs" / "ops.jsonl").read_text(encoding="utf-8").startswith(f"{odd}\n")
    assert lines(place)[-1]["secret"]["generation"] == 1


def test_a_line_is_one_write_and_on_disk_before_the_call_returns(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_write, real_fsync = os.write, os.fsync

    def noted_write(fd: int, data: bytes) -> int:
        done.append(f"write {data.count(10)} lines")
        return real_write(fd, data)

    def noted_fsync(fd: int) -> None:
        done.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
        real_fsync(fd)

    monkeypatch.setattr(history_module.os, "write", noted_write)
    monkeypatch.setattr(history_module.os, "fsync", noted_fsync)
    history = History(str(place / "logs" / "ops.jsonl"), metrics_dir=None, clock=FakeClock())
    history.write(replace(ROTATED, recovered=(Recovered("rotate_hmac", "HMAC_SECRET", "finished"),)))
    assert done == ["fsync logs", "write 2 lines", "fsync ops.jsonl"]


def test_many_writers_at_once_lose_nothing_and_share_no_generation(place: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import conftest\n"
        "from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock\n"
        "from ansible_collections.titan.ops.plugins.module_utils.core.history import Ended, History\n"
        "ended = Ended('rotate_hmac', 'ok', started=0.0, seconds=1.0, secret='S', who={'user': 'x' * 5000})\n"
        f"place = {str(place)!r}\n"
        "history = History(place + '/logs/ops.jsonl', metrics_dir=place + '/metrics', clock=Clock())\n"
        "sys.stdin.read(1)\n"
        "for _ in range(10):\n"
        "    assert history.write(ended) == []\n"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _process in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b""] * 4
    assert sorted(line["secret"]["generation"] for line in lines(place)) == list(range(1, 41))


def test_somebody_who_sits_on_the_lock_costs_a_few_seconds_and_no_line(place: Path) -> None:
    write(place, ROTATED)
    path = place / "logs" / "ops.jsonl"
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        clock = FakeClock()
        assert History(str(path), metrics_dir=None, clock=clock).write(ROTATED) == []
    assert sum(clock.sleeps) == pytest.approx(5)
    assert len(lines(place)) == 2


def test_on_a_full_disk_there_is_a_warning_and_no_half_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, ROTATED)
    path = place / "logs" / "ops.jsonl"
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(history_module.os, "write", lambda fd, data: real(fd, data[:20]))
    (warning,) = write(place, ROTATED)
    monkeypatch.undo()
    assert f"The history {path} could not be written (No space left on device)" in warning
    assert "The operation itself is not affected." in warning
    assert path.read_bytes() == before


@pytest.fixture(params=["link", "fifo", "directory", "no parent", "a file for a directory"])
def spoiled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A place where no history can be written, and a file that must not be touched for it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    home = tmp_path / "home"
    if request.param != "no parent":
        home.mkdir()
    logs = home / "logs"
    if request.param == "a file for a directory":
        logs.symlink_to(victim)
    elif request.param != "no parent":
        logs.mkdir()
    path = logs / "ops.jsonl"
    if request.param == "link":
        path.symlink_to(victim)
    elif request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "directory":
        path.mkdir()
    yield path, victim
    assert victim.read_bytes() == b"precious"
    assert home.exists() is (request.param != "no parent")


def test_where_no_history_can_be_written_there_is_a_warning_and_the_metrics(
    spoiled: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "metrics").mkdir()
    history = History(str(spoiled[0]), metrics_dir=str(tmp_path / "metrics"), clock=FakeClock())
    (warning,) = history.write(ROTATED)
    assert warning.startswith(f"The history {spoiled[0]} could not be written (")
    assert samples(tmp_path)['titan_operation_last_success{operation="rotate_hmac"}'] == 1


def test_metrics_that_cannot_be_written_are_a_warning_and_cost_no_line(place: Path) -> None:
    (place / "metrics").rmdir()
    (warning,) = write(place, ROTATED)
    assert warning.startswith("The metrics were not brought up to date: ")
    assert len(lines(place)) == 1


# From a result or an error


def concluded(outcome: dict[str, Any] | Exception, **more: Any) -> Ended:
    return conclude("rotate_hmac", outcome, started=NOW, seconds=1.0, who={}, secret="HMAC_SECRET", **more)


def test_a_result_tells_what_the_line_needs() -> None:
    ended = concluded(
        {
            "changed": True,
            "variables": ["HMAC_SECRET", "COPY"],
            "interruption": {"titan-brain": {"until_started_seconds": 1.0, "until_healthy_seconds": 2.5}},
            "env_file": "/opt/titan/compose/.env.prod",
        }
    )
    assert (ended.result, ended.changed, ended.error) == ("ok", True, None)
    assert ended.keys == ("HMAC_SECRET", "COPY")
    assert ended.interruption == {"titan-brain": 2.5}
    assert concluded({"changed": False}).changed is False


def test_an_error_is_undone_when_all_is_as_before_and_else_failed() -> None:
    assert concluded(OpsError("It failed", facts={"rolled_back": True})).result == "undone"
    assert concluded(OpsError("It failed", facts={"rolled_back": False})).result == "failed"
    recovered = Recovered("rotate_hmac", "HMAC_SECRET", "finished")
    assert concluded(OpsError("It failed"), recovered=[recovered]).recovered == (recovered,)
    assert concluded(OpsError("It failed")).result == "failed"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("The engine is armed. Disarm it first", "The engine is armed"),
        (
            "titan-execution exited with code 1; its last log lines: panic | at the disco",
            "titan-execution exited with code 1",
        ),
        ("One line\nand another", "One line"),
        ("/opt/titan/.env.prod is a file", "/opt/titan/.env.prod is a file"),
        ("Ended.", "Ended"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)
def test_only_the_first_sentence_of_an_error_is_kept(message: str, told: str) -> None:
    assert concluded(OpsError(message, state="Nothing was changed", hint="Do this")).error == told


def test_an_error_is_redacted_before_it_is_cut() -> None:
    ended = concluded(OpsError("The value a. b; c is refused"), redact=lambda text: text.replace("a. b; c", "***"))
    assert ended.error == "The value *** is refused"


def test_of_an_unexpected_error_only_the_kind_is_told() -> None:
    ended = concluded(ValueError("geheim"))
    assert (ended.result, ended.error) == ("failed", "Unexpected error ValueError")


# The metrics


def test_the_metrics_say_when_with_what_result_and_for_how_long(place: Path) -> None:
    write(place, ROTATED)
    assert samples(place) == {
        'titan_operation_last_run_timestamp_seconds{operation="rotate_hmac"}': NOW + 8.412,
        'titan_operation_last_success{operation="rotate_hmac"}': 1,
        'titan_operation_interruption_seconds{operation="rotate_hmac",service="titan-brain"}': 3.81,
        'titan_operation_interruption_seconds{operation="rotate_hmac",service="titan-execution"}': 2.2,
        'titan_secret_rotated_timestamp_seconds{secret="HMAC_SECRET"}': NOW + 8.412,
    }
    text = (place / "metrics" / "titan_rotate_hmac.prom").read_text(encoding="utf-8")
    for name in ("titan_operation_last_success", "titan_secret_rotated_timestamp_seconds"):
        assert f"# HELP {name} " in text and f"# TYPE {name} gauge\n" in text
    assert os.listdir(place / "metrics") == ["titan_rotate_hmac.prom"]


def test_a_failed_run_keeps_what_it_does_not_know_better(place: Path) -> None:
    write(place, ROTATED)
    write(place, replace(ROTATED, secret="OTHER", interruption={"titan-brain": 1.0}))
    write(place, replace(ROTATED, started=NOW + 100, result="failed", error="No", interruption={}))
    assert samples(place) == {
        'titan_operation_last_run_timestamp_seconds{operation="rotate_hmac"}': NOW + 108.412,
        'titan_operation_last_success{operation="rotate_hmac"}': 0,
        # a service that the last run did not interrupt is not there any more
        'titan_operation_interruption_seconds{operation="rotate_hmac",service="titan-brain"}': 1.0,
        'titan_secret_rotated_timestamp_seconds{secret="HMAC_SECRET"}': NOW + 8.412,
        'titan_secret_rotated_timestamp_seconds{secret="OTHER"}': NOW + 8.412,
    }


def test_a_file_that_is_not_ours_is_replaced_by_one_that_can_be_read(place: Path) -> None:
    path = place / "metrics" / "titan_rotate_hmac.prom"
    path.write_bytes(b'garbage\nup 1\n\xfftitan_operation_last_success{operation="x"} many\n')
    assert write(place, ROTATED) == []
    assert len(samples(place)) == 5


def test_a_label_cannot_break_out_of_its_quotes(tmp_path: Path) -> None:
    sample = metrics.Sample(metrics.ROTATED, {"secret": 'a"b\\c\nd'}, 1.0)
    for _turn in range(2):
        metrics.export(str(tmp_path), "x", [sample])
    text = (tmp_path / "titan_x.prom").read_text(encoding="utf-8")
    assert text.splitlines()[-1] == 'titan_secret_rotated_timestamp_seconds{secret="a\\"b\\\\c\\nd"} 1.0'
    assert text.count("\n") == 3


def test_an_update_that_fails_leaves_the_old_metrics(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, ROTATED)
    before = samples(place)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        warnings = write(place, replace(ROTATED, started=NOW + 100))
    assert len(warnings) == 1 and "No space left on device" in warnings[0]
    assert samples(place) == before
    assert os.listdir(place / "metrics") == ["titan_rotate_hmac.prom"]


def test_without_node_exporter_there_is_no_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics, "_DIRECTORY", str(tmp_path / "nowhere"))
    assert metrics.default_directory() is None
    (tmp_path / "nowhere").mkdir()
    assert metrics.default_directory() == str(tmp_path / "nowhere")


def test_the_history_can_be_read_line_by_line_by_any_json_tool(place: Path) -> None:
    write(place, replace(ROTATED, who={"user": "zoë\n\u2028"}))
    text = (place / "logs" / "ops.jsonl").read_bytes().decode("ascii")
    assert json.loads(text.splitlines()[0])["who"] == {"user": "zoë\n\u2028"}


@pytest.mark.parametrize("kind", [Mistaken, InvalidInput, Refused, LockHeld, OpsError, ValueError])
def test_only_a_slip_of_who_asked_leaves_the_metrics_as_they_are(place: Path, kind: type[Exception]) -> None:
    write(place, ROTATED)
    before = samples(place)
    finished = Recovered("rotate_db_password", "TITAN_DB_PASSWORD", "finished")
    outcome = kind("No")
    write(place, conclude("rotate_hmac", outcome, started=NOW + 60, seconds=1, who={}, recovered=[finished]))
    assert lines(place)[-1]["result"] == "failed"
    # what was recovered first is told in any case
    assert samples(place, "rotate_db_password")['titan_operation_last_success{operation="rotate_db_password"}'] == 1
    assert (samples(place) == before) is (kind is Mistaken)
    assert samples(place)['titan_operation_last_success{operation="rotate_hmac"}'] == (kind is Mistaken)
