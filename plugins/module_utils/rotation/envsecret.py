# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret in an env file: what it is now, who gets it, and what the file says after a change."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from ..compose.container import Container
from ..compose.dotenv import EnvFile, literal, parse, set_values
from ..compose.holders import Holder, Literal, carries, find_holders, find_literals, find_outsiders
from ..compose.project import secrets_file
from ..compose.stack import Stack
from ..core.errors import InvalidInput, OpsError, Refused
from ..core.files import NEW, OLD, FileState, drop_staging, put_staged, read_regular, restage, stage, write_atomic

# A random secret of this many characters stands nowhere by chance; a shorter one may.
_TELLING = 16

__all__ = ["EnvSecret", "current_value", "disagreeing", "put_back", "put_new", "read_secret", "stage_both", "swapped"]


@dataclass(frozen=True)
class EnvSecret:
    """A secret as the host has it now.

    Attributes:
        key: its variable in the env file.
        file: the env file as it was read.
        value: the secret.
        keys: every variable of the file that contains it, ``key`` first (copies under other names).
        holders: the services that get it.
        outsiders: running containers that hold it and are not of the stack's services.
        warnings: what the operator should know.
    """

    key: str
    file: FileState = field(repr=False)
    value: str = field(repr=False)
    keys: tuple[str, ...]
    holders: tuple[Holder, ...]
    outsiders: tuple[Container, ...] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def services(self) -> list[str]:
        """Names of the services that hold it."""
        return [holder.service for holder in self.holders]


def disagreeing(stack: Stack, secret: EnvSecret) -> list[str]:
    """Holders with a container that was made with another value than the file has now."""
    found = stack.containers_of(secret.services())
    return [
        holder.service
        for holder in secret.holders
        if any(
            name in item.environment and not carries(item.environment[name], secret.value)
            for item in found[holder.service]
            for name in holder.variables
        )
    ]


def read_secret(stack: Stack, path: str, key: str) -> EnvSecret:
    """Read the secret and find its holders.

    Raises:
        InvalidInput: the env file or the key is missing, doubled, or says something else than Compose reads.
        Refused: a holder would keep the old value, because it is written out somewhere else.
    """
    path = secrets_file(stack.project.src, path)
    state = read_regular(path, what="env file")
    env = parse(state.data)
    value = _value(env, path, key)
    files = [other for other in stack.project.env_files if os.path.realpath(other) != state.real_path]
    literals = [
        *find_literals(stack.model, key, value, stack.project.files, path),
        *_shadows(files, key, value),
    ]
    _refuse_short(key, value, path, literals)
    if literals:
        raise Refused(
            f"{key} cannot be rotated: a copy that a change of {path} does not reach is fixed for "
            + "; ".join(str(item) for item in literals),
            hint=_mending(literals, key, path),
            facts={"literals": [str(item) for item in literals]},
        )
    stack.redact.add(value)
    same = _copies(env, key, value)
    if len(value) < _TELLING and same:
        raise Refused(
            f"{key} has the same characters as {', '.join(same)} in {path}, and is too short to tell a copy of it from "
            "a secret of its own",
            hint=f"Give them different values, or write ${{{key}}} where it is meant to be a copy.",
        )
    holders, warnings = [], []
    for holder in find_holders(stack.model, key, value, env_file=path):
        own = stack.model.services[holder.service].environment.get(key)
        foreign = own is not None and not carries(own, value)
        if foreign:
            warnings.append(f"{holder.service} has a variable {key} with another value: it was left alone")
        places = tuple(place for place in holder.places if not (foreign and place == f"environment.{key}"))
        if places:
            holders.append(Holder(holder.service, places))
    unseen = [
        f"{holder.service} ({', '.join(holder.places)})"
        for holder in holders
        if not holder.variables and not holder.files
    ]
    if unseen:
        raise Refused(
            f"{key} cannot be rotated: these services get it in a way in which it cannot be proved afterwards: "
            + ", ".join(unseen),
            hint="Give it to them as an environment variable, recreate them, and run again.",
        )
    outsiders = find_outsiders(stack.engine.all_containers(), stack.name, stack.model.services, value)
    keys = dict.fromkeys([key, *same])
    return EnvSecret(key, state, value, tuple(keys), tuple(holders), tuple(outsiders), tuple(warnings))


def swapped(data: bytes, key: str, old: str, new: str) -> bytes:
    """An env file's content with ``new`` for ``old``, in ``key`` and in every other variable that has a copy of it.

    Raises:
        InvalidInput: the value would not survive Compose's parser.
    """
    names = dict.fromkeys(_copies(parse(data), key, old))
    data = set_values(data, {key: new})
    for name in names:
        env = parse(data)
        entry = env.of(name)[-1]
        text = literal(entry)
        if text is not None or len(env.of(name)) > 1:  # the latter is refused there
            data = set_values(data, {name: _exchanged(text or "", old, new)})
            continue
        # It refers to other variables, too: these references stay, so only the secret's own characters are replaced.
        written = env.text[: entry.start] + _exchanged(entry.raw_value, old, new) + env.text[entry.end :]
        data = written.encode("utf-8", "surrogateescape")
        before = env.resolve({})
        if parse(data).resolve({}) != {**before, name: _exchanged(before[name], old, new)}:
            raise InvalidInput(
                f"The new value of {key} cannot be put into {name}, line {entry.line} of the env file",
                hint=f"Write ${{{key}}} there in place of the value.",
            )
    return data


def stage_both(path: str, *, old_data: bytes, new_data: bytes) -> None:
    """Write both contents beside the env file, so that neither the switch nor its undo needs space on a full disk.

    They hold a secret that is not valid yet, and one that will not be for long, so nobody else may read them, whoever
    may read the env file: its owner and mode they get as they are put in place. (Its access control list they have at
    once, for it may need space; mode 0600 masks it.)

    Raises:
        OpsError: the file system refused; nothing is left behind.
    """
    state = read_regular(path, what="env file")
    # who is not root may not be able to give it away later: that is to fail now
    uid, gid = (0, 0) if os.geteuid() == 0 else (state.uid, state.gid)
    try:
        for name, data in ((NEW, new_data), (OLD, old_data)):
            stage(state.real_path, data, mode=0o600, uid=uid, gid=gid, name=name)
    except OpsError:
        drop_staging(state.real_path)
        raise


def put_new(path: str, *, old_data: bytes, new_data: bytes) -> None:
    """Replace the env file by what was staged for it.

    Raises:
        OpsError: somebody has edited it, or taken away what was staged.
    """
    state = read_regular(path, what="env file")
    if state.data != old_data:
        raise OpsError(f"{path} was edited by somebody else while the rotation was under way")
    if not put_staged(state.real_path, new_data, mode=state.mode, uid=state.uid, gid=state.gid, name=NEW):
        raise OpsError(f"The new content of {path} that lay beside it has gone or was altered")


def put_back(path: str, *, old_data: bytes, new_data: bytes, key: str, old: str, new: str) -> bool:
    """Make the env file say the old value again; what other people changed since then is kept.

    What was staged is put in place where it is right. Else the file is written, where possible in the staged file's
    space, for the disk may be full. Nothing staged is left.

    Returns:
        Whether anything had to be changed.

    Raises:
        InvalidInput: the key has a third value now, or cannot be found any more.
    """
    state = read_regular(path, what="env file")
    current = parse(state.data).resolve({}).get(key)
    if current == old:
        drop_staging(state.real_path)
        return False
    if current != new:
        raise InvalidInput(
            f"{path} was edited meanwhile: {key} has neither the value from before the rotation nor the new one",
            state="The env file was left as it is.",
            hint="Decide by hand which secret is right: write it there, recreate every holder with Compose itself, "
            "and run the same playbook again: it sees that all agree.",
        )
    content = old_data if state.data == new_data else swapped(state.data, key, new, old)
    owner = {"mode": state.mode, "uid": state.uid, "gid": state.gid}
    done = put_staged(state.real_path, content, **owner, name=OLD)
    if not done and restage(state.real_path, content, name=OLD):
        done = put_staged(state.real_path, content, **owner, name=OLD)
    drop_staging(state.real_path)
    if not done:
        write_atomic(state.real_path, content, **owner)
    return True


def current_value(path: str, key: str) -> str | None:
    """What the env file says now; None if it cannot be read or does not say it."""
    try:
        return parse(read_regular(path, what="env file").data).resolve({}).get(key)
    except InvalidInput:
        return None


def _refuse_short(key: str, value: str, path: str, literals: Sequence[Literal]) -> None:
    """Refuse a value that stands elsewhere, too, where nobody can tell whether that is a copy of it.

    To write a reference there, as for a true copy, might make a user's or an image's name a secret.
    """
    found = [item for item in literals if item.variable not in (key, f"environment.{key}")]
    if len(value) >= _TELLING or not found:
        return
    told = "; ".join(str(item) for item in found)
    raise Refused(
        f"{key} has the same characters as {told}, and is too short to tell a copy of it from a name or a secret of "
        "its own",
        hint=f"Leave these places as they are where they are no copies. Set a long {key} by hand first (a database "
        "password as in runbook 3.1: ALTER ROLE, and the same value in "
        f"{path}; then recreate its holders), and rotate that one.",
        facts={"literals": [str(item) for item in found]},
    )


def _mending(literals: Sequence[Literal], key: str, path: str) -> str:
    """How copies that a change of the env file does not reach are mended."""
    encoded = [f"service {item.service}, variable {item.variable}" for item in literals if item.encoded]
    exception = (
        f" Not so where it is percent-encoded ({'; '.join(encoded)}): move the whole text into {path} as a variable of"
        " its own, which is kept in step there, and refer to that one."
        if encoded
        else ""
    )
    return (
        f"Write ${{{key}}} in place of the value in each (or env_file: {path}).{exception} Recreate these services, "
        "and run again."
    )


def _exchanged(text: str, old: str, new: str) -> str:
    """``new`` for ``old`` as it is and percent-encoded (RFC 3986, 2.1); within a URL the new one is encoded."""
    encoded = ("".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")) for char in old)
    pattern = "".join(f"(?:{re.escape(char)}|(?i:{code}))" for char, code in zip(old, encoded))

    def put(found: re.Match[str]) -> str:
        in_url = found[0] != old or "://" in text[: found.start()]
        return quote(new, safe="") if in_url else new

    return re.sub(pattern, put, text)


def _copies(env: EnvFile, key: str, value: str) -> list[str]:
    return [item.key for item in env.entries if item.key != key and carries(item.raw_value, value)]


def _value(env: EnvFile, path: str, key: str) -> str:
    lines = env.lines_of(key)
    if not lines:
        raise InvalidInput(f"The env file {path} does not set {key}", hint="Name the right variable with key.")
    if len(lines) > 1:
        raise InvalidInput(
            f"The env file {path} sets {key} {len(lines)} times (lines {', '.join(map(str, lines))})",
            hint="Only the last one counts for Compose; remove the others.",
        )
    entry = next(item for item in env.entries if item.key == key)
    value = "" if entry.inherited else literal(entry)
    if value is None:
        raise InvalidInput(
            f"Compose alters the value of {key} in {path}, line {lines[0]}: it interpolates a dollar sign in it",
            hint="Put the value in single quotes (and recreate its holders), so that file and services agree.",
        )
    if not value:
        raise InvalidInput(
            f"The env file {path} gives {key} no value (line {lines[0]}): nothing to rotate, nothing to return to",
            hint="Write a first one there (openssl rand -hex 32), and run recreate.yml for its holders.",
        )
    return value


def _shadows(files: Sequence[str], key: str, value: str) -> list[Literal]:
    """Other ``--env-file`` files that set the key or contain the value."""
    found = []
    for path in files:
        for entry in parse(read_regular(path, what="env file").data).entries:
            if entry.key == key or carries(entry.raw_value, value):
                found.append(Literal("(interpolation)", entry.key, path, entry.line))
    return found
