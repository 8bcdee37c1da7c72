# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret in a real env file: read, exchanged, put back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.dotenv import parse
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation.envsecret import (
    current_value,
    disagreeing,
    put_back,
    read_secret,
    swapped,
)
from ansible_collections.titan.ops.tests.unit.fake_host import ENV, OLD, SERVICES, Host

KEY = "HMAC_SECRET"
NEW = "1" * 64
PASSWORD = "p@ss/w:rd+1"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "titan")


# Reading


def test_the_secret_and_its_holders_are_found(host: Host) -> None:
    host.env_file.write_bytes(ENV.encode() + f"\nCOPY='{OLD}'\nREFERS=$HMAC_SECRET\n".encode())
    found = read_secret(host.stack(), "compose/.env.prod", KEY)
    assert (found.key, found.value, found.keys) == (KEY, OLD, (KEY, "COPY"))
    assert {item.service: item.variables for item in found.holders} == {
        "titan-brain": ["COPY", KEY, "REFERS"],
        "titan-execution": ["COPY", KEY, "REFERS"],
        "titan-opsd": ["OPS_SECRET"],
    }
    assert found.outsiders == ()
    assert OLD not in repr(found)


def test_a_symlink_is_followed_and_both_names_are_known(host: Host) -> None:
    (host.src / ".env").symlink_to("compose/.env.prod")
    found = read_secret(host.stack(), ".env", KEY)
    assert found.file.path == str(host.src / ".env")
    assert found.file.real_path == str(host.env_file.resolve())


def test_the_value_is_masked_from_now_on(host: Host) -> None:
    host.env_file.write_bytes(ENV.replace(KEY, "SIGNATURE").encode())
    stack = host.stack()
    assert stack.redact.known(OLD) == OLD
    read_secret(stack, "compose/.env.prod", "SIGNATURE")
    assert stack.redact.known(OLD) == "********"


BAD_FILES: dict[str, tuple[Callable[[Host], object], str]] = {
    "missing": (lambda host: host.env_file.unlink(), "The env file {} does not exist."),
    "dangling": (
        lambda host: (host.env_file.unlink(), host.env_file.symlink_to("nowhere")),
        "The env file {} is a dangling symlink: its target {dir}/nowhere does not exist.",
    ),
    "a directory": (
        lambda host: (host.env_file.unlink(), host.env_file.mkdir()),
        "The env file {} is not a regular file.",
    ),
    "a FIFO": (
        lambda host: (host.env_file.unlink(), os.mkfifo(host.env_file)),
        "The env file {} is not a regular file.",
    ),
    "without the key": (
        lambda host: host.env_file.write_bytes(f"X_HMAC_SECRET={OLD}\n# HMAC_SECRET={OLD}\n".encode()),
        "The env file {} does not set HMAC_SECRET.",
    ),
    "with the key twice": (
        lambda host: host.env_file.write_bytes(f"HMAC_SECRET=x\nA=1\nHMAC_SECRET={OLD}\n".encode()),
        "The env file {} sets HMAC_SECRET 2 times (lines 1, 3).",
    ),
    "with the key empty": (
        lambda host: host.env_file.write_bytes(b"A=1\nHMAC_SECRET=\n"),
        "The env file {} gives HMAC_SECRET no value (line 2)",
    ),
    "with the key only named": (
        lambda host: host.env_file.write_bytes(b"HMAC_SECRET\nA=1\n"),
        "The env file {} gives HMAC_SECRET no value (line 1)",
    ),
    "altered by Compose": (
        lambda host: host.env_file.write_bytes(b"HMAC_SECRET=abcd$efghijklmnop\n"),
        "Compose alters the value of HMAC_SECRET in {}, line 1: it interpolates a dollar sign in it.",
    ),
    "not an env file": (
        lambda host: host.env_file.write_bytes(b"A=1\nthis is no assignment\n"),
        "line 2 of the env file",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_an_env_file_that_cannot_be_rotated_is_refused_with_one_sentence(
    host: Host, spoil: Callable[[Host], object], said: str
) -> None:
    stack = host.stack()
    spoil(host)
    with pytest.raises(InvalidInput) as caught:
        read_secret(stack, "compose/.env.prod", KEY)
    text = str(caught.value)
    assert said.format(host.env_file, dir=host.env_file.resolve().parent if said.find("{dir}") > 0 else "") in text
    assert "Nothing was changed." in text
    assert caught.value.hint
    assert OLD not in text


def test_a_dollar_in_single_quotes_is_not_altered(host: Host) -> None:
    host.env_file.write_bytes(b"HMAC_SECRET='abcd$efghijklmnop'\n")
    host.remake("titan-brain", "titan-execution", "titan-opsd")
    assert read_secret(host.stack(), "compose/.env.prod", KEY).value == "abcd$efghijklmnop"


def test_a_hard_coded_copy_is_refused_by_service_variable_file_and_line(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = host.src / "docker-compose.prod.yml"
    file.write_text(file.read_text() + f"    environment:\n      HMAC_SECRET: {OLD}\n")
    monkeypatch.setitem(SERVICES, "titan-nats", {"image": "nats:2", "environment": {KEY: OLD}})
    with pytest.raises(Refused) as caught:
        read_secret(host.stack(), "compose/.env.prod", KEY)
    assert f"service titan-nats, variable HMAC_SECRET ({file}, line 17)" in str(caught.value)
    assert "Write ${HMAC_SECRET} in place of the value in each" in str(caught.value)
    assert OLD not in str(caught.value) + str(caught.value.facts)


def test_of_a_percent_encoded_copy_it_is_said_that_the_whole_text_belongs_into_the_env_file(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.env_file.write_bytes(b"HMAC_SECRET='a/b@0123456789abcdef'\n")
    host.remake("titan-brain", "titan-execution", "titan-opsd")
    url = "http://ops:a%2Fb%400123456789abcdef@h/"
    monkeypatch.setitem(SERVICES, "titan-nats", {"image": "nats:2", "environment": {"URL": url}})
    with pytest.raises(Refused) as caught:
        read_secret(host.stack(), "compose/.env.prod", KEY)
    assert "(service titan-nats, variable URL): move the whole text into" in str(caught.value)


def test_a_copy_in_another_file_for_interpolation_is_refused(host: Host) -> None:
    stack = host.stack()
    other = host.src / ".env"
    other.write_text(f"A=1\nTITAN_HMAC={OLD}\n")
    object.__setattr__(stack.project, "env_files", (str(other), str(host.env_file)))
    with pytest.raises(Refused, match=r"variable TITAN_HMAC \(.*/\.env, line 2\)"):
        read_secret(stack, "compose/.env.prod", KEY)


def test_a_holder_in_which_the_new_value_could_not_be_proved_is_refused(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["serve", "--key", "${HMAC_SECRET}"]
    monkeypatch.setitem(SERVICES, "titan-nats", {"image": "nats:2", "environment": {}, "command": command})
    config = host.config

    def with_command(*, interpolate: bool = True) -> dict[str, object]:
        read = config(interpolate=interpolate)
        if interpolate:
            read["services"]["titan-nats"]["command"] = [*command[:2], OLD]
        return read

    host.config = with_command  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"cannot be proved afterwards: titan-nats \(command\[2\]\)"):
        read_secret(host.stack(), "compose/.env.prod", KEY)


def test_a_container_beside_the_stack_that_holds_it_is_found(host: Host) -> None:
    body = {**host.body("titan-brain"), "Labels": {"com.docker.compose.service": "titan-brain"}}
    made = host.create("by-hand", body)
    host.start(made)
    assert [item.name for item in read_secret(host.stack(), "compose/.env.prod", KEY).outsiders] == ["by-hand"]


@pytest.mark.parametrize("value", ["titan", "changeme1", "fifteen-letters"])
def test_a_short_secret_that_another_variable_has_as_well_is_refused(host: Host, value: str) -> None:
    """Nobody can tell whether it is a copy, or another secret that is just as bad."""
    host.env_file.write_bytes(f"DB_PASSWORD={value}\n{KEY}={value}\nURL=http://{value}@h\nOTHER=1\n".encode())
    stack = host.stack()
    with pytest.raises(Refused) as caught:
        read_secret(stack, "compose/.env.prod", KEY)
    named = "DB_PASSWORD, URL" if len(value) >= 8 else "DB_PASSWORD"
    assert f"{KEY} has the same characters as {named} in {host.env_file}, and is too short" in str(caught.value)
    assert "Give them different values" in str(caught.value)
    host.env_file.write_bytes(f"DB_PASSWORD=other\n{KEY}={value}\nREFERS=${{{KEY}}}\n".encode())
    assert read_secret(host.stack(), "compose/.env.prod", KEY).keys == (KEY,)


def test_a_short_secret_that_a_name_in_the_compose_file_has_is_not_taken_for_a_copy(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint for a copy, a reference in its place, would make the user's name a secret."""
    body = {**SERVICES["titan-nats"], "environment": {"POSTGRES_USER": "titan"}}
    monkeypatch.setitem(SERVICES, "titan-nats", body)
    host.env_file.write_bytes(f"{KEY}=titan\nOTHER=1\n".encode())
    with pytest.raises(Refused, match=r"variable POSTGRES_USER .* too short to tell a copy") as caught:
        read_secret(host.stack(), "compose/.env.prod", KEY)
    assert "runbook 3.1" in str(caught.value)
    assert "in place of the value" not in str(caught.value)
    # the variable itself, written out, is the secret whatever its length
    monkeypatch.setitem(SERVICES, "titan-nats", {**body, "environment": {KEY: "titan"}})
    with pytest.raises(Refused, match=f"{KEY} cannot be rotated") as caught:
        read_secret(host.stack(), "compose/.env.prod", KEY)
    assert "in place of the value" in str(caught.value)


def test_from_sixteen_characters_on_a_copy_is_a_copy(host: Host) -> None:
    host.env_file.write_bytes(f"COPY=sixteen-letters!\n{KEY}=sixteen-letters!\n".encode())
    assert read_secret(host.stack(), "compose/.env.prod", KEY).keys == (KEY, "COPY")


def other_reference(host: Host, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """opsd has a variable named like the key that refers to something else, and perhaps others."""
    monkeypatch.setitem(SERVICES, "titan-opsd", {"image": "titan/opsd:1", "environment": environment})
    file = host.src / "docker-compose.prod.yml"
    file.write_text(file.read_text().replace("OPS_SECRET: ${HMAC_SECRET}", "HMAC_SECRET: ${OTHER_SECRET}"))
    host.env_file.write_bytes(ENV.encode() + f"\nOTHER_SECRET={'7' * 64}\n".encode())
    host.remake("titan-opsd")


def test_a_variable_named_like_the_key_with_another_value_is_left_alone_and_said_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_reference(host, monkeypatch, HMAC_SECRET="${OTHER_SECRET}")
    found = read_secret(host.stack(), "compose/.env.prod", KEY)
    assert found.services() == ["titan-brain", "titan-execution"]
    assert found.warnings == ("titan-opsd has a variable HMAC_SECRET with another value: it was left alone",)


def test_a_service_with_such_a_variable_and_a_copy_under_another_name_is_a_holder_of_the_copy(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_reference(host, monkeypatch, HMAC_SECRET="${OTHER_SECRET}", OPS_SECRET="${HMAC_SECRET}")
    found = read_secret(host.stack(), "compose/.env.prod", KEY)
    assert {item.service: item.variables for item in found.holders}["titan-opsd"] == ["OPS_SECRET"]
    assert len(found.warnings) == 1
    assert disagreeing(host.stack(), found) == []


def test_holders_that_were_made_with_another_value_disagree(host: Host) -> None:
    stack = host.stack()
    assert disagreeing(stack, read_secret(stack, "compose/.env.prod", KEY)) == []
    host.env_file.write_bytes(ENV.replace(OLD, NEW).encode())
    host.remake("titan-brain")
    stack = host.stack()
    found = read_secret(stack, "compose/.env.prod", KEY)
    assert disagreeing(stack, found) == ["titan-execution", "titan-opsd"]
    host.remove(host.one("titan-opsd")["Id"])
    host.one("titan-execution")["Config"]["Env"].clear()  # made before it was to have one
    assert disagreeing(stack, found) == []


def test_the_value_of_now_is_read_if_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    assert current_value(str(path), KEY) is None
    path.write_bytes(b"A=1\n")
    assert current_value(str(path), KEY) is None
    path.write_bytes(b"this is no assignment\n")
    assert current_value(str(path), KEY) is None
    path.write_bytes(ENV.encode())
    assert current_value(str(path), KEY) == OLD


# Exchanging

EXCHANGES: dict[str, tuple[str, str]] = {
    "plain": (f"{KEY}={OLD}\n", f"{KEY}={NEW}\n"),
    "every other byte": (
        f"# c {OLD}\r\n\r\n A = 1\t# x\r\nexport {KEY}='{OLD}' # note\r\nLAST=1",
        f"# c {OLD}\r\n\r\n A = 1\t# x\r\nexport {KEY}='{NEW}' # note\r\nLAST=1",
    ),
    "copies under other names": (
        f'{KEY}={OLD}\nTITAN_HMAC="{OLD}"\nB={OLD[:-1]}\n',
        f'{KEY}={NEW}\nTITAN_HMAC="{NEW}"\nB={OLD[:-1]}\n',
    ),
    "a copy above": (f"COPY={OLD}\n{KEY}={OLD}\n", f"COPY={NEW}\n{KEY}={NEW}\n"),
    "inside a URL": (f"{KEY}={OLD}\nU=http://x:{OLD}@h/\n", f"{KEY}={NEW}\nU=http://x:{NEW}@h/\n"),
    "references stay": (f"{KEY}={OLD}\nR=${{{KEY}}}\nS=$OTHER\n", f"{KEY}={NEW}\nR=${{{KEY}}}\nS=$OTHER\n"),
    "a copy beside a reference": (
        f"USER=titan\n{KEY}={OLD}\nU=http://${{USER}}:{OLD}@$HOST/$$\n",
        f"USER=titan\n{KEY}={NEW}\nU=http://${{USER}}:{NEW}@$HOST/$$\n",
    ),
    "a quoted copy beside a reference": (
        f'{KEY}={OLD}\nU="$USER {OLD}" # c\nV=1\n',
        f'{KEY}={NEW}\nU="$USER {NEW}" # c\nV=1\n',
    ),
}


@pytest.mark.parametrize(("before", "after"), EXCHANGES.values(), ids=EXCHANGES.keys())
def test_the_value_is_exchanged_wherever_the_file_has_it_and_every_other_byte_is_kept(before: str, after: str) -> None:
    assert swapped(before.encode(), KEY, OLD, NEW) == after.encode()
    assert swapped(after.encode(), KEY, NEW, OLD) == before.encode()


def test_a_percent_encoded_copy_is_exchanged_and_the_new_one_encoded_likewise() -> None:
    before = f"P='{PASSWORD}'\nU=postgres://titan:p%40ss%2Fw%3Ard%2B1@db/x\nL=postgres://titan:p%40ss%2fw%3ard%2b1@${{H}}/x\n"
    after = parse(swapped(before.encode(), "P", PASSWORD, "n€w/@1")).resolve({"H": "db"})
    assert after == {
        "P": "n€w/@1",
        "U": "postgres://titan:n%E2%82%ACw%2F%401@db/x",
        "L": "postgres://titan:n%E2%82%ACw%2F%401@db/x",
    }


def test_a_value_that_its_place_cannot_take_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"cannot be put into U, line 2"):
        swapped(f"{KEY}={OLD}\nU=${{USER}}{OLD}\n".encode(), KEY, OLD, "new value # with a comment")


@pytest.mark.parametrize("data", [f"{KEY}={OLD}\nC={OLD}\nC={OLD}\n", f"{KEY}={OLD}\nC=$X{OLD}\nC=$X{OLD}\n"])
def test_a_copy_that_stands_twice_is_refused(data: str) -> None:
    with pytest.raises(InvalidInput, match="C stands more than once"):
        swapped(data.encode(), KEY, OLD, NEW)


# Putting back


def back(path: Path, before: str) -> bool:
    new = swapped(before.encode(), KEY, OLD, NEW)
    return put_back(str(path), old_data=before.encode(), new_data=new, key=KEY, old=OLD, new=NEW)


def test_the_old_file_comes_back_byte_by_byte_with_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    path.write_bytes(swapped(ENV.encode(), KEY, OLD, NEW))
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    owner = (path.stat().st_uid, path.stat().st_gid)
    assert back(path, ENV) is True
    assert path.read_bytes() == ENV.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_file_that_is_old_already_is_not_touched_but_for_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    path.write_bytes(ENV.encode())
    inode = path.stat().st_ino
    staging = tmp_path / ".prod.env.titan-new"
    staging.write_bytes(b"HMAC_SECRET=new")
    assert back(path, ENV) is False
    assert path.stat().st_ino == inode
    assert not staging.exists()


def test_what_others_changed_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    edited = ENV.replace("PORT=3100", "PORT=3200") + "\nADDED=1"
    path.write_bytes(swapped(edited.encode(), KEY, OLD, NEW))
    assert back(path, ENV) is True
    assert path.read_bytes() == edited.encode()


@pytest.mark.parametrize("data", [f"{KEY}={'3' * 64}\n", "A=1\n", f"{KEY}=\n"])
def test_a_third_value_is_nobodys_to_overwrite(tmp_path: Path, data: str) -> None:
    path = tmp_path / "prod.env"
    path.write_text(data)
    with pytest.raises(OpsError, match="neither the value from before the rotation nor the new one") as caught:
        back(path, ENV)
    assert "The env file was left as it is." in str(caught.value)
    assert "write it there, recreate every holder with Compose itself, and run the same playbook again" in str(
        caught.value
    )
    assert path.read_text() == data
