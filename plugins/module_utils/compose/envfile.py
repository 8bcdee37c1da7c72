# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sets variables of an env file, and proves before the write that whoever reads it gets exactly these values."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ..core.errors import CommandFailed, InvalidInput, OpsError
from ..core.files import FileState, read_regular, write_atomic
from ..core.redact import Redactor
from ..core.runner import Runner
from .cli import ComposeCli
from .dotenv import literal, parse, set_values
from .model import Model, Service
from .project import StackOptions, base_of
from .stack import Stack

__all__ = ["EnvChange", "Proof", "apply", "open_proof", "plan", "texts_of"]

_PROOF = "proof"
_REFERABLE = re.compile(r"(?!(?:PATH|HOME|(?:DOCKER|COMPOSE)_\w+)$)[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class EnvChange:
    """What a change of an env file would do; the representation shows no value.

    Attributes:
        file: the file as it was read.
        data: its new content.
        keys: the variables that get another value, those that are added included.
        added: the variables that the file does not have yet.
        proved_by: what read every value back: parser, compose, stack.
        services: the services whose environment changes, once they are recreated.
        warnings: what the operator should know.
    """

    file: FileState = field(repr=False)
    data: bytes = field(repr=False)
    keys: tuple[str, ...]
    added: tuple[str, ...]
    proved_by: tuple[str, ...]
    services: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def diff(self) -> dict[str, str]:
        """Before and after by the variables' names; never a value."""
        old = {key: "absent" if key in self.added else "old value" for key in self.keys}
        return {
            "before": "".join(f"{self.file.path}: {key} ({text})\n" for key, text in old.items()),
            "after": "".join(f"{self.file.path}: {key} (new value)\n" for key in old),
        }


@dataclass(frozen=True)
class Proof:
    """What there is to prove a change with.

    Attributes:
        cli: Compose; None where there is none.
        stack: the stack; None where it cannot be read.
        warnings: what is therefore not known.
    """

    cli: ComposeCli | None
    stack: Stack | None
    warnings: tuple[str, ...] = ()


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as an operator writes them in YAML, as the texts that an env file holds.

    Raises:
        InvalidInput: a value is no text and is not obviously one text; the message shows only its name.
    """
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, bool):
            texts[key] = "true" if value else "false"
        elif isinstance(value, (str, int)):
            texts[key] = str(value)
        elif value is None:
            raise InvalidInput(f"values gives {key} no value", hint="Write '' for an empty one.")
        else:  # of a number like 1.10 YAML has already forgotten how it was written
            kind = "a number with a fraction" if isinstance(value, float) else f"a {type(value).__name__}"
            raise InvalidInput(f"values gives {key} {kind}, not a text", hint="Put the value in quotes.")
    return texts


def open_proof(
    path: str, options: StackOptions, open_stack: Callable[[], Stack], runner: Runner, values: Iterable[str]
) -> Proof:
    """Find what a change of this file can be proved with: the stack, else Compose alone, else nothing.

    The change may be what the stack needs to be readable again (a variable that it requires), so one that cannot be
    read is not the end; a file of the stack without any Compose is.

    Args:
        path: the file, absolute.
        options: the common options.
        open_stack: opens the stack.
        runner: runs commands.
        values: what Compose's words may not show.

    Raises:
        InvalidInput: there is no project directory, or the file is in it and there is no Compose.
    """
    try:
        stack = open_stack()
        for value in values:
            stack.redact.add(value)
        return Proof(stack.cli, stack)
    except OpsError as exc:
        if not os.path.isdir(options.project_src):
            raise
        unread = f"The stack in {options.project_src} could not be read, so what the values mean for it is not known"
        warning = f"{unread}: {exc.msg}"
    cli = ComposeCli(runner, project_src=options.project_src, files=(), docker_host=options.docker_host)
    cli.redact = Redactor(values)
    try:
        cli.check_version()
    except InvalidInput:
        base = os.path.realpath(base_of(options.project_src))
        if os.path.commonpath((base, os.path.realpath(path))) == base:
            raise
        return Proof(None, None, (warning,))
    return Proof(cli, None, (warning,))


def plan(
    path: str,
    values: Mapping[str, str],
    *,
    append: bool,
    cli: ComposeCli | None,
    stack: Stack | None,
) -> EnvChange:
    """Say what setting these values would do, with all proofs; changes nothing.

    Args:
        path: the file, absolute.
        values: the new values by name.
        append: add variables that are absent.
        cli: Compose, for the proof in a project of its own; None where there is none.
        stack: the stack that may use the file; None where there is none.

    Raises:
        InvalidInput: the file, a name or a value is not usable, or would make Compose refuse the stack.
    """
    file = read_regular(path, what="env file")
    try:
        before = parse(file.data)
        data = set_values(file.data, values, append=append)
    except InvalidInput as exc:
        raise InvalidInput(f"{path}: {exc.msg}", hint=exc.hint, facts=exc.facts) from exc
    added = tuple(key for key in values if not before.of(key))
    keys = tuple(key for key in values if key in added or literal(before.of(key)[-1]) != values[key])
    proved_by = ["parser"]  # set_values has read its own result again
    services: tuple[str, ...] = ()
    warnings: list[str] = []
    if data != file.data and cli is not None:
        with _in_memory(data) as place:
            _prove_alone(cli, place, path, values)
            proved_by.append("compose")
            if stack is not None and _used(stack, file.real_path):
                services, warnings = _prove_in_stack(stack, file, place, {key: values[key] for key in keys})
                proved_by.append("stack")
    return EnvChange(file, data, keys, added, tuple(proved_by), services, tuple(warnings))


def apply(change: EnvChange) -> None:
    """Write the file.

    Raises:
        OpsError: it was edited since the plan was made, or cannot be written; it is untouched then.
    """
    file = change.file
    now = read_regular(file.path, what="env file")
    if (now.real_path, now.data) != (file.real_path, file.data):
        raise InvalidInput(f"{file.path} was edited meanwhile by somebody else", hint="Run this again.")
    write_atomic(now.real_path, change.data, mode=now.mode, uid=now.uid, gid=now.gid)


def _prove_alone(cli: ComposeCli, place: str, path: str, values: Mapping[str, str]) -> None:
    """By Compose itself, in a project that has nothing but the file: for ``env_file:`` and for ``${...}`` alike."""
    # Not those of which Compose has its own idea: a variable of its process wins over the file's there.
    referable = [key for key in values if _REFERABLE.fullmatch(key)]
    definition = {
        "name": _PROOF,
        "services": {
            _PROOF: {"image": _PROOF, "env_file": [place]},
            "references": {"image": _PROOF, "environment": {key: f"${{{key}}}" for key in referable}},
        },
    }
    try:
        model = Model.from_config(cli.resolve(definition, env_files=[place], project=_PROOF), {})
    except CommandFailed as exc:
        raise InvalidInput(
            f"{path}: Compose would refuse the file with the new values: {_words(exc, place, path)}",
            hint="Choose other values, or mend the file.",
        ) from exc
    for service, expected in ((_PROOF, list(values)), ("references", referable)):
        got = model.services[service].environment
        wrong = [key for key in expected if got.get(key) != values[key]]
        if wrong:
            raise InvalidInput(
                f"{path}: Compose would not give {', '.join(wrong)} the new value",
                hint="Choose another value; letters and digits are safe everywhere.",
                facts={"keys": wrong},
            )


def _prove_in_stack(
    stack: Stack, file: FileState, place: str, values: Mapping[str, str]
) -> tuple[tuple[str, ...], list[str]]:
    """By Compose, in the stack itself with the new file in the old one's place.

    Returns:
        The services whose environment changes, and warnings about those that set another value themselves.
    """

    def there(path: str) -> str:
        return place if os.path.realpath(path) == file.real_path else path

    raw = stack.cli.config(interpolate=False, project=stack.name)
    for service in (raw.get("services") or {}).values():
        declared = service.get("env_file") or []
        entries = [declared] if isinstance(declared, (str, Mapping)) else declared
        service["env_file"] = [
            {**entry, "path": there(str(entry.get("path")))} if isinstance(entry, Mapping) else there(str(entry))
            for entry in entries
        ]
    env_files = [there(other) for other in stack.project.env_files]
    try:
        config = stack.cli.resolve(raw, env_files=env_files, project=stack.name)
    except CommandFailed as exc:
        raise InvalidInput(
            f"{file.path}: with the new values Compose would refuse the stack in {stack.project.src}: "
            f"{_words(exc, place, file.path)}",
            hint="Choose other values.",
        ) from exc
    services, warnings = [], []
    for name, after in Model.from_config(config, raw).services.items():
        before = stack.model.services.get(name)
        if before is None or before.environment != after.environment:
            services.append(name)
        if place in after.env_files:
            kept = [key for key, value in values.items() if after.environment.get(key) != value]
            own = _own(after, place)
            lost = [key for key in kept if key not in own]
            if lost:
                raise InvalidInput(
                    f"{file.path}: {name} would not get the new value of {', '.join(lost)}",
                    hint="Choose another value, or mend how that service reads the file.",
                    facts={"keys": lost},
                )
            if kept:
                warnings.append(f"{name} does not get {', '.join(kept)} from {file.path}: it has a value of its own")
    return tuple(services), warnings


def _own(service: Service, place: str) -> set[str]:
    """The variables that a service sets after it has read the file: in later env files, and in ``environment:``."""
    files = service.env_files
    later = files[len(files) - files[::-1].index(place) :]
    return {*service.raw_environment, *(key for path in later for key in parse(read_regular(path).data).keys)}


def _used(stack: Stack, real_path: str) -> bool:
    """Whether the stack reads the file, for interpolation or for a service."""
    declared = [path for service in stack.model.services.values() for path in service.env_files]
    return any(os.path.realpath(path) == real_path for path in (*stack.project.env_files, *declared))


def _words(exc: OpsError, place: str, path: str) -> str:
    return str(exc.facts.get("stderr") or exc.msg).replace(place, path)


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path by which other programs of this user read the data, which never is on a disk and ends with us."""
    with os.fdopen(os.memfd_create("env"), "wb") as stream:
        stream.write(data)
        stream.flush()
        yield f"/proc/{os.getpid()}/fd/{stream.fileno()}"
