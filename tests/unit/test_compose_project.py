# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which project is meant: files and name, taken from the labels of what really runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.project import Project, StackOptions, locate
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Refused
from ansible_collections.titan.ops.tests.unit.fakes import NOW, container

BASE = "docker-compose.prod.yml"
OVERRIDE = "compose.override.digest.yml"
WORKING_DIR = "com.docker.compose.project.working_dir"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    home = tmp_path / "titan"
    home.mkdir()
    (home / BASE).write_text("services: {}\n")
    return home


def made_from(src: Path, *files: str, project: str = "titan-prod", service: str = "brain", **changes: Any) -> Container:
    labels = {
        WORKING_DIR: str(src),
        "com.docker.compose.project.config_files": ",".join(str(src / name) for name in files or (BASE,)),
        **changes.pop("labels", {}),
    }
    return container(service, project=project, labels=labels, name=f"{project}-{service}", **changes)


def found(src: Path, containers: list[Container], **options: Any) -> Project:
    return locate(StackOptions(project_src=str(src), **options), containers)


def test_without_containers_the_runbooks_file_and_composes_own_name_rule_hold(src: Path) -> None:
    assert found(src, []) == Project(src=str(src), name=None, files=(str(src / BASE),), env_files=())


def test_the_name_comes_from_the_labels(src: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = made_from(other, project="other")
    by_hand = container(name="by-hand")
    assert found(src, [elsewhere, by_hand, made_from(src, project="titan")]).name == "titan"


def test_two_candidates_are_refused_and_both_are_named(src: Path) -> None:
    both = [made_from(src, project="titan-prod"), made_from(src, project="titan")]
    with pytest.raises(Refused) as caught:
        found(src, both)
    assert "belong to 2 Compose projects: titan, titan-prod" in str(caught.value)
    assert "Say which one is meant with project_name" in str(caught.value)
    assert found(src, both, project_name="titan").name == "titan"


def test_a_container_of_compose_run_is_no_candidate(src: Path) -> None:
    assert found(src, [made_from(src, project="odd", labels={"oneoff": "True"})]).name is None


def test_a_name_that_no_container_bears_is_refused(src: Path) -> None:
    with pytest.raises(Refused) as caught:
        found(src, [made_from(src, project="titan-prod")], project_name="titan")
    assert f"project_name is titan, but the containers of {src} belong to titan-prod" in str(caught.value)
    assert "empty volumes" in str(caught.value)


def test_a_name_for_a_stack_that_has_no_containers_is_taken(src: Path) -> None:
    assert found(src, [], project_name="titan").name == "titan"


def test_override_files_come_from_the_labels_of_the_newest_container(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    old = made_from(src, BASE, started_at=NOW - 100)
    new = made_from(src, BASE, OVERRIDE, service="execution", started_at=NOW - 50)
    never_started = made_from(src, BASE, service="opsd", started_at=None)
    assert found(src, [new, old, never_started]).files == (str(src / BASE), str(src / OVERRIDE))


def test_the_files_are_those_of_the_project_that_is_meant(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    other = made_from(src, OVERRIDE, project="titan-dev", started_at=NOW)
    ours = made_from(src, BASE, project="titan-prod", started_at=NOW - 50)
    assert found(src, [other, ours], project_name="titan-prod").files == (str(src / BASE),)


def test_labels_that_name_a_file_which_is_gone_do_not_count(src: Path) -> None:
    assert found(src, [made_from(src, BASE, OVERRIDE)]).files == (str(src / BASE),)


def test_what_the_operator_says_wins_over_the_labels(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    (src / "sub").mkdir()
    labelled = made_from(src, BASE)
    assert found(src, [labelled], files=("./compose.override.digest.yml",)).files == (str(src / OVERRIDE),)
    with pytest.raises(InvalidInput, match=f"There is no Compose file {src}/nowhere.yml"):
        found(src, [labelled], files=("nowhere.yml",))


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """/opt/titan with releases/1, releases/2 and current -> releases/1."""
    home = tmp_path / "titan"
    for number in "12":
        (home / "releases" / number).mkdir(parents=True)
        (home / "releases" / number / BASE).write_text("services: {}\n")
        (home / "releases" / number / OVERRIDE).write_text("services: {}\n")
    (home / "current").symlink_to("releases/1")
    return home


@pytest.mark.parametrize("labelled", ["current", "releases/1"])
@pytest.mark.parametrize("asked", ["current", "releases/1"])
def test_a_current_link_and_its_release_are_the_same_directory(releases: Path, labelled: str, asked: str) -> None:
    running = made_from(releases / labelled, BASE, OVERRIDE)
    project = found(releases / asked, [running])
    assert project.name == "titan-prod"
    assert project.src == str(releases / asked)
    assert project.files == (str(releases / asked / BASE), str(releases / asked / OVERRIDE))


def test_a_moved_current_link_leads_to_the_new_release(releases: Path) -> None:
    running = made_from(releases / "current", BASE, OVERRIDE)
    (releases / "current").unlink()
    (releases / "current").symlink_to("releases/2")
    project = found(releases / "current", [running])
    assert project.name == "titan-prod"
    assert [str(Path(path).resolve()) for path in project.files] == [
        str(releases.resolve() / "releases" / "2" / name) for name in (BASE, OVERRIDE)
    ]


def test_another_release_is_another_directory(releases: Path) -> None:
    assert found(releases / "releases/2", [made_from(releases / "releases/1")]).name is None


def test_a_stack_is_recognised_by_its_files_where_it_was_started_from_elsewhere(src: Path) -> None:
    running = made_from(src, labels={WORKING_DIR: "/home/deploy"})
    assert found(src, [running]).name == "titan-prod"


@pytest.mark.parametrize(
    ("files", "links", "expected"),
    [
        ([], {}, []),
        ([".env"], {}, [".env"]),
        (["compose/.env.prod"], {}, ["compose/.env.prod"]),
        ([".env", "compose/.env.prod"], {}, [".env", "compose/.env.prod"]),
        (["compose/.env.prod"], {".env": "compose/.env.prod"}, [".env"]),
        ([".env"], {"compose/.env.prod": "../.env"}, [".env"]),
    ],
)
def test_env_files_are_composes_own_then_the_runbooks_each_once(
    src: Path, files: list[str], links: dict[str, str], expected: list[str]
) -> None:
    (src / "compose").mkdir()
    for name in files:
        (src / name).write_text("A=1\n")
    for name, target in links.items():
        (src / name).symlink_to(target)
    assert found(src, []).env_files == tuple(str(src / name) for name in expected)


def test_env_files_that_the_operator_names_are_taken_as_they_are(src: Path) -> None:
    (src / "a.env").write_text("")
    (src / ".env").write_text("")
    assert found(src, [], env_files=("a.env", str(src / "a.env"))).env_files == (str(src / "a.env"),) * 2


def test_an_env_file_that_is_not_there_is_refused(src: Path) -> None:
    with pytest.raises(InvalidInput, match=r"The env file .*nowhere\.env does not exist"):
        found(src, [], env_files=("nowhere.env",))
    (src / ".env").symlink_to("compose/.env.prod")
    with pytest.raises(InvalidInput, match=r"The env file .*/\.env is a dangling symlink"):
        found(src, [])


def test_a_project_directory_must_be_there(src: Path) -> None:
    with pytest.raises(InvalidInput, match=f"There is no project directory {src}/nowhere"):
        found(src / "nowhere", [])
    with pytest.raises(InvalidInput, match="There is no project directory"):
        found(src / BASE, [])
    with pytest.raises(InvalidInput, match="must be an absolute path, not titan"):
        locate(StackOptions(project_src="titan"), [])
    (src / BASE).unlink()
    with pytest.raises(InvalidInput, match=f"There is no Compose file {src}/{BASE}"):
        found(src, [])


def test_state_and_lock_are_below_the_project_unless_said_otherwise() -> None:
    plain = StackOptions()
    assert (plain.state_path, plain.lock_file) == ("/opt/titan/state", "/opt/titan/state/deploy.lock")
    moved = StackOptions(project_src="/srv/x", state_dir="/var/lib/x")
    assert (moved.state_path, moved.lock_file) == ("/var/lib/x", "/var/lib/x/deploy.lock")
    assert StackOptions(lock_path="/run/x.lock").lock_file == "/run/x.lock"
