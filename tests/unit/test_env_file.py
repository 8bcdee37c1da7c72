# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Setting variables of an env file, with the real Compose as a witness."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose import envfile
from ansible_collections.titan.ops.plugins.module_utils.compose.cli import ComposeCli
from ansible_collections.titan.ops.plugins.module_utils.compose.envfile import (
    EnvChange,
    apply,
    open_proof,
    plan,
    texts_of,
)
from ansible_collections.titan.ops.plugins.module_utils.compose.project import Project, StackOptions
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import CommandFailed, InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Completed, Runner
from ansible_collections.titan.ops.tests.unit import real_compose
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, FakeEngine

CONTENT = (
    b"# top\r\n\r\nA=1  # one\nexport B='two words'\nC=\"x\"\n\nSECRET=0123456789abcdef\nCOPY=${SECRET}-x\n"
    b"DOTTED.NAME=1\nLAST=end"
)


class RealRunner(Runner):
    """Runs the real Compose wherever this machine has it."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        assert tuple(argv[:2]) == ("docker", "compose")
        return super().run([*real_compose.command(), *argv[2:]], **options)


class NoDocker(Runner):
    """A host without Docker."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        raise CommandFailed(f"{argv[0]} cannot be started: No such file or directory")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "compose" / ".env.prod"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    path.chmod(0o600)
    return path


def compose(src: Path) -> ComposeCli:
    return ComposeCli(RealRunner(), project_src=str(src), files=())


def stack_of(src: Path, services: Mapping[str, Any], env_files: Sequence[Path] = ()) -> Stack:
    """A Stack over the real Compose, without an engine."""
    path = src / "docker-compose.prod.yml"
    path.write_text(json.dumps({"name": "titan-prod", "services": services}), encoding="utf-8")
    files, env = (str(path),), tuple(map(str, env_files))
    engine: Any = FakeEngine()
    return Stack(
        StackOptions(project_src=str(src)),
        Project(src=str(src), name="titan-prod", files=files, env_files=env),
        cli=ComposeCli(RealRunner(), project_src=str(src), files=files, env_files=env),
        engine=engine,
        clock=FakeClock(),
        version="2.26.1",
    )


def change(path: Path, values: Mapping[str, str], *, append: bool = True, stack: Stack | None = None) -> EnvChange:
    cli = stack.cli if stack else compose(path.parents[1])
    return plan(str(path), values, append=append, cli=cli, stack=stack)


# What is written


def test_the_values_are_set_and_every_other_byte_is_kept(file: Path) -> None:
    planned = change(file, {"A": "2", "B": "three", "SECRET": "fedcba9876543210"})
    assert file.read_bytes() == CONTENT
    apply(planned)
    assert file.read_bytes() == CONTENT.replace(b"A=1 ", b"A=2 ").replace(b"two words", b"three").replace(
        b"0123456789abcdef", b"fedcba9876543210"
    )
    assert planned.keys == ("A", "B", "SECRET")
    assert planned.added == ()
    assert planned.proved_by == ("parser", "compose")


def test_a_second_run_finds_nothing_to_do(file: Path) -> None:
    values = {"A": 'it\'s "q" $HOME #x', "NEW": "", "LAST": "a b"}
    apply(change(file, values))
    content = file.read_bytes()
    again = change(file, values)
    assert (again.keys, again.added, again.data) == ((), (), content)
    assert again.diff() == {"before": "", "after": ""}


def test_absent_variables_are_added_at_the_end_or_refused(file: Path) -> None:
    planned = change(file, {"NEW": "1", "A": "1", "OTHER": "2"})
    assert planned.keys == planned.added == ("NEW", "OTHER")
    apply(planned)
    assert file.read_bytes() == CONTENT + b"\nNEW=1\nOTHER=2"  # without a last line end, as it was
    with pytest.raises(InvalidInput, match="TYPO is not in the env file") as caught:
        change(file, {"A": "2", "TYPO": "x"}, append=False)
    assert str(file) in str(caught.value) and "Nothing was changed" in str(caught.value)


def test_owner_mode_and_link_are_kept(file: Path) -> None:
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before = file.stat()
    link = file.parents[1] / ".env"
    link.symlink_to("compose/.env.prod")
    apply(change(link.parent / "compose" / ".." / ".env", {"A": "2"}))
    after = file.stat()
    assert link.is_symlink() and b"A=2" in file.read_bytes()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert sorted(os.listdir(file.parent)) == [".env.prod"]


def test_a_file_that_somebody_edits_meanwhile_is_left_to_them(file: Path) -> None:
    planned = change(file, {"A": "2"})
    file.write_bytes(CONTENT + b"\nX=theirs\n")
    with pytest.raises(InvalidInput, match="was edited meanwhile"):
        apply(planned)
    assert file.read_bytes() == CONTENT + b"\nX=theirs\n"


def test_no_value_old_or_new_is_shown(file: Path) -> None:
    planned = change(file, {"SECRET": "geheim-geheim", "NEW": "verborgen"})
    assert planned.diff() == {
        "before": f"{file}: SECRET (old value)\n{file}: NEW (absent)\n",
        "after": f"{file}: SECRET (new value)\n{file}: NEW (new value)\n",
    }
    shown = repr(planned) + str(planned)
    assert not any(word in shown for word in ("geheim", "verborgen", "0123456789abcdef"))


# What is refused


@pytest.mark.parametrize(
    ("content", "values", "said"),
    [
        (b"A=1\nB=2\nA=1\n", {"A": "1"}, r"A stands more than once in the env file \(lines 1, 3\)"),
        (b"A=1\nB=2\nA=1\n", {"A": "3"}, r"A stands more than once in the env file \(lines 1, 3\)"),
        (b"A\n", {"A": "geheim"}, "Line 1 of the env file only names A"),
        (b"A=1\n", {"A": "geheim\0"}, "The new value of A contains a NUL character"),
        (b"A=1\n", {"A": "geheim\udcff"}, "The new value of A contains bytes that are not UTF-8"),
        (b"A=1\n", {"no name": "geheim"}, "'no name' cannot be added"),
        (b"A=1\n", {"1K": "geheim"}, "'1K' cannot be added"),
        (b'A=1\nB="open\n', {"A": "geheim"}, "ine 2"),
    ],
)
def test_what_would_not_survive_is_refused_and_the_message_shows_no_value(
    file: Path, content: bytes, values: dict[str, str], said: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        change(file, values)
    assert "Nothing was changed" in str(caught.value) and str(file) in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert file.read_bytes() == content


def test_a_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        plan(str(tmp_path / "gone"), {"A": "1"}, append=True, cli=None, stack=None)
    assert list(tmp_path.iterdir()) == []


def test_values_are_taken_as_an_operator_writes_them() -> None:
    assert texts_of({"A": "x", "B": 50000, "C": True, "D": False, "E": ""}) == {
        "A": "x",
        "B": "50000",
        "C": "true",
        "D": "false",
        "E": "",
    }


@pytest.mark.parametrize("value", [None, 1.1, ["geheim"], {"x": "geheim"}])
def test_a_value_that_is_not_obviously_one_text_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(InvalidInput, match="values gives PORT ") as caught:
        texts_of({"A": "x", "PORT": value})
    assert "geheim" not in str(caught.value)


# How it is proved


ODD = [
    "",
    " ",
    "a b",
    "$HOME",
    "${SECRET}",
    "a$$b",
    "#x",
    "x #y",
    "it's",
    'say "x"',
    "'\"'",
    "a\\nb",
    "a\nb",
    "a\r\nb\t",
    "é日本 ",
    "postgres://u:p%40@h:5/d?x=y&z#f",
    "=",
    "\\",
    "`id`",
]


@pytest.mark.parametrize("form", ["{}=1\n", "export {}='1'\n", '{}="1"\r\n', ""])
def test_odd_values_arrive_as_they_are_and_compose_says_so(file: Path, form: str) -> None:
    """Whatever the old value looks like, or as a new variable."""
    values = {f"K{number}": value for number, value in enumerate(ODD)}
    file.write_bytes(CONTENT + b"\n" + "".join(form.format(key) for key in values).encode())
    planned = change(file, values)
    assert planned.proved_by == ("parser", "compose")
    apply(planned)
    got = real_compose.config(file.parents[1], {"s": {"image": "none", "env_file": [str(file)]}}, {})
    assert got is not None and {key: got["s"][key] for key in values} == values


@pytest.mark.parametrize("key", ["DOTTED.NAME", "PATH", "HOME", "COMPOSE_PROJECT_NAME", "DOCKER_HOST"])
def test_a_name_that_compose_does_not_refer_to_or_knows_better_is_still_proved(file: Path, key: str) -> None:
    planned = change(file, {key: "a$b"})
    assert planned.proved_by == ("parser", "compose")


def test_what_compose_reads_differently_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should our parser ever be wrong: here it believes that a value with a reference is written as it is."""
    monkeypatch.setattr(envfile, "set_values", lambda data, values, append: data.replace(b"A=1", b"A=${SECRET}"))
    with pytest.raises(InvalidInput, match="Compose would not give A the new value"):
        change(file, {"A": "${SECRET}"})
    monkeypatch.setattr(envfile, "set_values", lambda data, values, append: data + b'\nX="geheim')
    with pytest.raises(InvalidInput, match="Compose would refuse the file with the new values") as caught:
        change(file, {"A": "2"})
    assert "geheim" not in str(caught.value) and "/proc/" not in str(caught.value)
    assert file.read_bytes() == CONTENT


def test_the_new_content_is_never_on_the_disk_before_it_is_proved(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Watching(RealRunner):
        def run(self, argv: Sequence[str], **options: Any) -> Completed:
            seen.extend(str(path) for path in file.parents[1].rglob("*") if b"geheim" in _bytes(path))
            assert not any("geheim" in word for word in argv)
            return super().run(argv, **options)

    def _bytes(path: Path) -> bytes:
        return path.read_bytes() if path.is_file() else b""

    cli = ComposeCli(Watching(), project_src=str(file.parents[1]), files=())
    plan(str(file), {"A": "geheim"}, append=True, cli=cli, stack=None)
    assert seen == []
    assert sys.platform.startswith("linux")  # memfd_create


def test_a_variable_of_our_own_process_decides_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "of the session")
    assert change(file, {"A": "2"}).proved_by == ("parser", "compose")


# In the stack


def services(**more: Any) -> dict[str, Any]:
    return {
        "titan-brain": {"image": "b", "env_file": "compose/.env.prod", "environment": {"USER": "brain"}},
        "titan-opsd": {"image": "o", "environment": {"OPS_SECRET": "${SECRET}"}},
        "titan-nats": {"image": "n", "environment": {"X": "a$$b"}, "ports": ["${PORT:-4222}:4222"]},
        **more,
    }


def test_it_says_which_services_get_the_values_when_they_are_recreated(file: Path) -> None:
    stack = stack_of(file.parents[1], services(), [file])
    planned = change(file, {"SECRET": "a$b c"}, stack=stack)
    assert planned.proved_by == ("parser", "compose", "stack")
    assert planned.services == ("titan-brain", "titan-opsd")
    assert change(file, {"A": "2"}, stack=stack).services == ("titan-brain",)
    assert change(file, {"A": "1"}, stack=stack).services == ()
    # it was a prediction: it comes true
    apply(planned)
    model = stack.load_model()
    assert model.services["titan-opsd"].environment["OPS_SECRET"] == "a$b c"
    assert model.services["titan-brain"].environment["SECRET"] == "a$b c"


def test_a_link_of_the_stack_to_the_file_is_understood(file: Path) -> None:
    (file.parents[1] / ".env").symlink_to("compose/.env.prod")
    stack = stack_of(file.parents[1], services(), [file.parents[1] / ".env"])
    assert change(file, {"SECRET": "new-new-new-new"}, stack=stack).services == ("titan-brain", "titan-opsd")


def test_a_file_that_the_stack_does_not_read_concerns_no_service(file: Path) -> None:
    other = file.parent / "other.env"
    other.write_bytes(b"A=1\n")
    stack = stack_of(file.parents[1], services(), [file])
    planned = change(other, {"A": "2"}, stack=stack)
    assert (planned.proved_by, planned.services) == (("parser", "compose"), ())


def test_a_value_with_which_compose_would_refuse_the_stack_is_refused(file: Path) -> None:
    needy = services(needy={"image": "x", "environment": {"N": "${NEEDED:?}"}})
    file.write_bytes(CONTENT + b"\nNEEDED=1\n")
    stack = stack_of(file.parents[1], needy, [file])
    before = file.read_bytes()
    for values in ({"PORT": "many"}, {"NEEDED": ""}):
        with pytest.raises(InvalidInput, match="with the new values Compose would refuse the stack in") as caught:
            change(file, values, stack=stack)
        assert "/proc/" not in str(caught.value) and "Nothing was changed" in str(caught.value)
    assert file.read_bytes() == before


def test_a_service_with_a_value_of_its_own_is_warned_of(file: Path) -> None:
    second = file.parent / "second.env"
    second.write_bytes(b"B=own\n")
    own = services(
        own={
            "image": "x",
            "env_file": ["compose/.env.prod", "compose/second.env"],
            "environment": ["A=own"],
        }
    )
    stack = stack_of(file.parents[1], own, [file])
    planned = change(file, {"A": "2", "B": "3", "C": "4"}, stack=stack)
    assert planned.services == ("own", "titan-brain")
    assert planned.warnings == (f"own does not get A, B from {file}: it has a value of its own",)


# With less than all of it


def options(src: Path) -> StackOptions:
    return StackOptions(project_src=str(src))


def broken() -> Stack:
    raise OpsError("The Docker Engine does not answer")


def test_a_stack_that_cannot_be_read_is_proved_by_compose_alone_and_said_so(file: Path) -> None:
    """The variable that it requires may be what is to be set."""
    src = file.parents[1]
    proof = open_proof(str(file), options(src), broken, RealRunner(), ["x"])
    assert proof.stack is None
    assert proof.warnings == (
        f"The stack in {src} could not be read, so what the values mean for it is not known: "
        "The Docker Engine does not answer",
    )
    planned = plan(str(file), {"A": "2"}, append=True, cli=proof.cli, stack=proof.stack)
    assert planned.proved_by == ("parser", "compose")


def test_without_compose_a_file_of_the_stack_is_refused_and_another_is_proved_by_our_parser(
    file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="Docker Compose v2 is not installed"):
        open_proof(str(file), options(file.parents[1]), broken, NoDocker(), [])
    # by way of a link, too: it is the same file
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(InvalidInput, match="Docker Compose v2 is not installed"):
        open_proof(str(link), options(file.parents[1]), broken, NoDocker(), [])
    src = tmp_path / "src"
    src.mkdir()
    proof = open_proof(str(file), options(src), broken, NoDocker(), [])
    assert proof.cli is None and len(proof.warnings) == 1
    planned = plan(str(file), {"A": "2"}, append=True, cli=proof.cli, stack=proof.stack)
    assert planned.proved_by == ("parser",)


def test_without_a_project_directory_nothing_is_done(file: Path, tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="does not answer"):
        open_proof(str(file), options(tmp_path / "nowhere"), broken, RealRunner(), [])
