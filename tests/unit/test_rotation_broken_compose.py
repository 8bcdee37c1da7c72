# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An interrupted rotation is ended although somebody's edit has broken the Compose file meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.project import StackOptions
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack, open_stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac, recovery
from ansible_collections.titan.ops.tests.unit import fake_host, test_rotation_pg
from ansible_collections.titan.ops.tests.unit.fake_host import OLD, Host, Killed
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, FakeEngine, FakeRunner, container
from ansible_collections.titan.ops.tests.unit.rotating import (
    BRAIN,
    EXECUTION,
    GROUPS,
    HOLDERS,
    NEW,
    OPSD,
    Process,
    assert_one_secret,
    kill_at,
    killed_before,
    let_live,
    new_host,
    options,
)

WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return new_host(tmp_path / "titan", monkeypatch)


@pytest.mark.parametrize("group", GROUPS)
def test_killed_at_any_operation_it_is_ended_without_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    ends = []
    for number in range(1, 100):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        kill_at(host, number)
        try:
            Process(host, options(group)).rotate()
            break
        except Killed:
            let_live(host)
        host.broken = True
        ends.append(Process(host, options(group)).recover())
        value = NEW if NEW in host.env_file.read_text() else OLD
        assert ends[-1] != "undone" or value == OLD
        assert_one_secret(host, value)
    assert {None, "undone", "finished"} == set(ends)
    assert len(ends) > 25


def test_the_password_is_recovered_without_compose_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = set()
    for number in range(2, 100):
        monkeypatch.undo()
        run = test_rotation_pg.made(tmp_path / str(number), monkeypatch)
        kill_at(run.host, number)
        try:
            run.rotate()
            break
        except Killed:
            let_live(run.host)
        run.host.broken = True
        ends.add(run.recover())
        run.assert_one_secret(run.database.password)
    assert {"undone", "finished"} <= ends


def test_what_finishing_would_need_compose_for_is_undone(host: Host) -> None:
    killed_before(host, f"Compose creates {OPSD}", options())
    host.broken = True
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def test_the_plan_after_it_fails_on_the_broken_file_and_says_what_the_recovery_did(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    host.broken = True
    with pytest.raises(InvalidInput) as caught:
        hmac.rotate(host.stack(), options())
    said = str(caught.value)
    assert said.startswith(
        "Compose refuses the project: yaml: line 3. An interrupted rotation was undone by this run; "
    )
    assert "beyond that nothing was changed. Mend the Compose or env file." in said
    assert caught.value.facts["warnings"] == ["An interrupted rotation was found and undone first."]
    assert_one_secret(host, OLD)


def test_a_recovery_of_the_other_kind_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = test_rotation_pg.made(tmp_path / "titan", monkeypatch)
    kill_at(run.host, 12)
    with pytest.raises(Killed):
        run.rotate()
    let_live(run.host)
    run.host.broken = True
    stack = run.host.stack()
    recovery.recover_others(stack, "hmac_rotate", check_mode=False, connector=run.database.connect)
    with pytest.raises(InvalidInput, match="An interrupted rotation was undone by this run; beyond that nothing"):
        hmac.rotate(stack, options())


def test_in_check_mode_the_interrupted_rotation_is_told_and_nothing_is_done(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    host.broken = True
    done = len(host.operations)
    with pytest.raises(Refused, match="no plan can be made: Compose refuses the project"):
        hmac.rotate(host.stack(), options(), check_mode=True)
    assert recovery.recover_all(host.stack(), check_mode=True) == {"hmac_rotate": "interrupted"}
    assert len(host.operations) == done


def test_without_any_container_the_journal_tells_the_projects_name(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    for raw in list(host.containers.values()):
        host.remove(raw["Id"])
    host.broken = True
    stack = host.stack(name=None)
    assert recovery.recover_all(stack) == {"hmac_rotate": "undone"}
    assert stack.name == "titan-prod"
    for service, variable in HOLDERS.items():
        assert host.environment(service)[variable] == OLD
        assert host.one(service)["State"]["Status"] == "running"


def test_containers_get_the_time_to_stop_that_they_were_given(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.one(BRAIN)["Config"]["StopTimeout"] = 45
    graces: dict[str, int] = {}

    def stop(api: Any, made: str, *, timeout: int) -> None:
        graces.setdefault(api._find(made)["Name"], timeout)
        host.stop(api._do("stop", made)["Id"])

    monkeypatch.setattr(fake_host.Api, "stop", stop)
    Process(host, options(stop_timeout=7)).rotate()
    assert graces == {f"/{BRAIN}": 45, f"/{EXECUTION}": 7, f"/{OPSD}": 7}


def test_a_failure_during_the_recovery_shows_no_secret_of_an_environment(host: Host) -> None:
    host.one(BRAIN)["Config"]["Env"].append("NATS_TOKEN=t0ken-of-the-bus")
    killed_before(host, f"Compose creates {BRAIN}", options())
    host.broken = True
    stack = host.stack()
    hmac.recover(stack, options())
    assert stack.redact.known("t0ken-of-the-bus") == "********"


# Opening


def opened(src: Path, *containers: Any, **more: Any) -> Stack:
    return open_stack(
        StackOptions(project_src=str(src), **more),
        runner=FakeRunner(),
        clock=FakeClock(),
        connector=lambda _host: FakeEngine(containers),  # type: ignore[arg-type, return-value]
    )


def labelled(src: Path, service: str, *files: str) -> Any:
    labels = {WORKING_DIR: str(src), CONFIG_FILES: ",".join(str(src / name) for name in files)}
    return container(service, labels=labels)


def test_a_stack_is_opened_though_its_files_are_gone_and_says_so_to_who_asks_for_them(tmp_path: Path) -> None:
    stack = opened(tmp_path, labelled(tmp_path, BRAIN, "docker-compose.prod.yml"))
    assert stack.name == "titan-prod"
    assert [item.name for item in stack.containers()] == [BRAIN]
    assert stack.resolve(BRAIN) == BRAIN
    for ask in (lambda: stack.model, lambda: stack.cli, stack.load_model, lambda: stack.resolve("titan-x")):
        with pytest.raises(Refused, match=r"there is no .*docker-compose\.prod\.yml any more"):
            ask()


def test_a_stack_is_opened_though_its_containers_disagree_on_their_files(tmp_path: Path) -> None:
    """An interrupted rotation that was given more files leaves them so."""
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text("services: {}\n")
    stack = opened(tmp_path, labelled(tmp_path, BRAIN, "a.yml"), labelled(tmp_path, EXECUTION, "a.yml", "b.yml"))
    assert len(stack.containers_of([BRAIN, EXECUTION])) == 2
    with pytest.raises(Refused, match="2 different sets of Compose files"):
        stack.load_model()


def test_a_stack_of_which_nobody_knows_which_is_meant_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="There is no project directory"):
        opened(tmp_path / "nowhere")
    two = [
        labelled(tmp_path, BRAIN, "a.yml"),
        container("x", project="y", labels={WORKING_DIR: str(tmp_path)}),
    ]
    with pytest.raises(Refused, match="belong to 2 Compose projects"):
        opened(tmp_path, *two)
    assert opened(tmp_path, *two, project_name="titan-prod").name == "titan-prod"


def test_what_the_stack_shows_of_a_log_leaves_its_own_words_alone_without_its_files(tmp_path: Path) -> None:
    brain = container(
        BRAIN,
        labels={WORKING_DIR: str(tmp_path)},
        environment={"NAME": BRAIN, "TOKEN": "t0ken-of-the-bus"},
    )
    stack = opened(tmp_path, brain)
    engine: Any = stack.engine
    engine.log = {BRAIN: [f"{BRAIN} says t0ken-of-the-bus"]}
    assert stack.tail(brain) == [f"{BRAIN} says ********"]
