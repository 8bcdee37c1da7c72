# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which project is meant: files and name, taken from the labels of what really runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.project import (
    Project,
    StackOptions,
    locate,
    secrets_file,
)
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Refused
from ansible_collections.titan.ops.tests.unit.fakes import NOW, container

BASE = "docker-compose.prod.yml"
OVERRIDE = "compose.override.digest.yml"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    home = tmp_path / "titan"
    home.mkdir()
    (home / BASE).write_text("services: {}\n")
    return home


def made_from(src: Path, *files: str, project: str = "titan-prod", service: str = "brain", **changes: Any) -> Container:
    labels = {
        WORKING_DIR: str(src),
        CONFIG_FILES: ",".join(str(src / name) for name in files or (BASE,)),
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


def test_override_files_come_from_the_labels(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    both = [made_from(src, BASE, OVERRIDE, service=name) for name in ("brain", "execution")]
    stopped = made_from(src, BASE, OVERRIDE, service="opsd", status="exited")
    assert found(src, [*both, stopped]).files == (str(src / BASE), str(src / OVERRIDE))


@pytest.mark.parametrize("newest", ["brain", "execution", "opsd"])
def test_containers_that_disagree_on_their_files_are_refused_and_the_sets_are_named(src: Path, newest: str) -> None:
    """Whichever is the newest: to leave the digests out would move services to other images."""
    (src / OVERRIDE).write_text("services: {}\n")

    def made(service: str, *files: str) -> Container:
        return made_from(src, *files, service=service, started_at=NOW - (10 if service == newest else 100))

    running = [made("execution", BASE, OVERRIDE), made("brain", BASE), made("opsd", BASE)]
    with pytest.raises(Refused) as caught:
        found(src, running)
    assert caught.value.msg == (
        f"The containers of {src} were made from 2 different sets of Compose files: {BASE} (brain, opsd); "
        f"{BASE}, {OVERRIDE} (execution)"
    )
    assert "Name the right ones with files" in str(caught.value.hint)
    assert found(src, running, files=(BASE, OVERRIDE)).files == (str(src / BASE), str(src / OVERRIDE))


def test_the_order_of_the_files_makes_another_set(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    with pytest.raises(Refused, match="2 different sets"):
        found(src, [made_from(src, BASE, OVERRIDE), made_from(src, OVERRIDE, BASE, service="opsd")])


def test_paths_of_an_old_compose_are_relative_to_the_working_directory(src: Path) -> None:
    (src / "sub").mkdir()
    (src / "sub" / OVERRIDE).write_text("services: {}\n")
    labels = {CONFIG_FILES: f"{BASE},sub/{OVERRIDE}"}
    assert found(src, [made_from(src, labels=labels)]).files == (str(src / BASE), str(src / "sub" / OVERRIDE))


def test_the_files_are_those_of_the_project_that_is_meant(src: Path) -> None:
    (src / OVERRIDE).write_text("services: {}\n")
    other = made_from(src, OVERRIDE, project="titan-dev", started_at=NOW)
    ours = made_from(src, BASE, project="titan-prod", started_at=NOW - 50)
    assert found(src, [other, ours], project_name="titan-prod").files == (str(src / BASE),)


def test_labels_that_name_a_file_which_is_gone_are_refused(src: Path) -> None:
    running = [made_from(src, BASE, OVERRIDE)]
    with pytest.raises(Refused) as caught:
        found(src, running)
    assert caught.value.msg == (
        f"The containers of {src} were made from {BASE}, {OVERRIDE} (brain), but there is no {src / OVERRIDE} any more"
    )
    assert found(src, running, files=(BASE,)).files == (str(src / BASE),)


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


@pytest.mark.parametrize("asked", ["current", "releases/2"])
def test_containers_of_another_release_belong_to_the_same_stack(releases: Path, asked: str) -> None:
    """The label may say a real path; the release may be gone; what was not changed since is older than the rest."""
    (releases / "current").unlink()
    (releases / "current").symlink_to("releases/2")
    running = [
        made_from(releases / "releases/1", BASE, OVERRIDE, service="brain"),
        made_from(releases / "releases/0", BASE, OVERRIDE, service="nats"),
        made_from(releases / "current", BASE, OVERRIDE, service="execution"),
    ]
    project = found(releases / asked, running)
    assert project.name == "titan-prod"
    assert project.files == (str(releases / asked / BASE), str(releases / asked / OVERRIDE))


def test_a_release_without_one_of_the_files_is_refused(releases: Path) -> None:
    (releases / "releases/1" / OVERRIDE).unlink()
    with pytest.raises(Refused, match=f"there is no {releases / 'current' / OVERRIDE} any more"):
        found(releases / "current", [made_from(releases / "releases/2", BASE, OVERRIDE)])


def test_a_file_outside_of_the_releases_stays_where_it_is(releases: Path) -> None:
    shared = releases / "compose" / "shared.yml"
    shared.parent.mkdir()
    shared.write_text("services: {}\n")
    labels = {CONFIG_FILES: f"{releases / 'releases/2' / BASE},{shared}"}
    running = made_from(releases / "releases/2", labels=labels)
    assert found(releases / "current", [running]).files == (str(releases / "current" / BASE), str(shared))


def test_neither_the_directory_around_the_releases_nor_another_one_is_the_stack(releases: Path, tmp_path: Path) -> None:
    (releases / BASE).write_text("services: {}\n")
    (tmp_path / "other" / "releases" / "1").mkdir(parents=True)
    running = made_from(releases / "releases/1")
    assert found(releases, [running]).name is None
    assert found(releases / "current", [made_from(releases), made_from(tmp_path / "other/releases/1")]).name is None


def test_where_only_the_releases_have_a_compose_file_that_is_said(releases: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        found(releases, [])
    assert str(caught.value.hint) == f"Name the right ones with files, or set project_src to {releases}/current."


def test_two_projects_made_from_different_releases_are_refused(releases: Path) -> None:
    """Without a fixed name Compose takes the directory's, and makes a second stack of every release."""
    both = [made_from(releases / f"releases/{name}", project=name) for name in "12"]
    with pytest.raises(Refused, match="belong to 2 Compose projects: 1, 2"):
        found(releases / "current", both)


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
        ([".env", ".env.prod"], {}, [".env", ".env.prod"]),
        (["compose/.env.prod"], {".env.prod": "compose/.env.prod"}, ["compose/.env.prod"]),
        (["compose/.env.prod"], {".env.prod": "compose/.env.prod", ".env": ".env.prod"}, [".env"]),
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


@pytest.mark.parametrize("linked", [True, False])
def test_the_env_file_of_a_release_is_its_link_or_the_one_that_outlives_it(releases: Path, linked: bool) -> None:
    (releases / "compose").mkdir()
    (releases / "compose" / ".env.prod").write_text("A=1\n")
    expected = releases / "compose" / ".env.prod"
    if linked:
        expected = releases / "current" / ".env.prod"
        expected.symlink_to("../../compose/.env.prod")
    assert found(releases / "current", []).env_files == (str(expected),)
    # By the path that is relative to the project directory in the other layout.
    assert secrets_file(str(releases / "current"), "compose/.env.prod") == str(releases / "compose" / ".env.prod")
    assert secrets_file(str(releases / "current"), str(expected)) == str(expected)


def test_the_secrets_file_of_a_release_may_be_its_own(releases: Path) -> None:
    own = releases / "current" / ".env.prod"
    own.symlink_to("nowhere")  # whoever reads it says that it dangles
    assert secrets_file(str(releases / "current"), "compose/.env.prod") == str(own)


def test_a_secrets_file_is_looked_for_in_the_project_directory_first(releases: Path) -> None:
    for home in (releases, releases / "current"):
        (home / "compose").mkdir()
        (home / "compose" / ".env.prod").write_text("A=1\n")
        assert secrets_file(str(home), "./compose/.env.prod") == str(home / "compose" / ".env.prod")


def test_a_secrets_file_that_is_nowhere_is_refused_with_all_places(src: Path, releases: Path) -> None:
    (src / ".env.prod").write_text("A=1\n")  # not a release: nothing else was meant
    with pytest.raises(InvalidInput) as caught:
        secrets_file(str(src), "compose/.env.prod")
    assert caught.value.msg == f"The env file {src}/compose/.env.prod does not exist"
    current = releases / "current"
    with pytest.raises(InvalidInput) as caught:
        secrets_file(str(current), "compose/.env.prod")
    assert caught.value.msg == (
        f"The env file {current}/compose/.env.prod does not exist"
        f" (neither do {releases.resolve()}/compose/.env.prod and {current}/.env.prod)"
    )
    with pytest.raises(InvalidInput, match=r"The env file /nowhere/\.env\.prod does not exist\. Nothing"):
        secrets_file(str(current), "/nowhere/.env.prod")


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


@pytest.mark.parametrize("asked", ["current", "releases/1"])
def test_state_and_lock_outlive_a_release(releases: Path, asked: str) -> None:
    """Deployments lock /opt/titan/state/deploy.lock, whichever release they make."""
    options = StackOptions(project_src=str(releases / asked))
    home = releases.resolve()
    assert (options.state_path, options.lock_file) == (str(home / "state"), str(home / "state" / "deploy.lock"))
    assert StackOptions(project_src=str(releases)).state_path == str(releases / "state")
