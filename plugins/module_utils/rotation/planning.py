# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plans of all kinds of rotations share: who holds the secret, and what stands against changing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..compose.stack import Stack
from ..core.errors import Refused
from .envsecret import EnvSecret, disagreeing
from .guards import Guard, check_active, check_guards, check_replacement, check_well, refuse

__all__ = [
    "Policy",
    "carry_of",
    "check_names",
    "diff_of",
    "disagreement",
    "guarded",
    "holders_of",
    "not_asked",
    "other_holders",
]


class Policy(Protocol):
    """What is needed of a rotation's options here."""

    @property
    def key(self) -> str:
        """The variable of the secret."""

    @property
    def stale(self) -> str:
        """What is done with other holders: warn, fail or recreate."""

    @property
    def force(self) -> bool:
        """Go on although something stands against it."""

    @property
    def guards(self) -> tuple[Guard, ...]:
        """Declared conditions that forbid it."""

    @property
    def carry_files(self) -> Mapping[str, tuple[str, ...]]:
        """Files that are carried over, by service or container name."""


def check_names(stack: Stack, named: Iterable[Any]) -> None:
    """Refuse a probe of a service that is not there: found only when it is asked, it would undo a rotation.

    Args:
        stack: the stack.
        named: what has a ``service``.

    Raises:
        InvalidInput: there is no such service or container.
    """
    for item in named:
        stack.model.resolve(str(item.service))


def holders_of(secret: EnvSecret, actions: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Each holder with its variables and what is done with it: of ``actions``, by action, the last that names it."""
    done = {name: action for action, names in actions.items() for name in names}
    return [
        {"service": item.service, "variables": item.variables, "action": done.get(item.service, "none")}
        for item in secret.holders
    ]


def diff_of(secret: EnvSecret, holders: Iterable[Mapping[str, Any]], *, first: Sequence[str] = ()) -> dict[str, str]:
    """Before and after, one line a place; never a value.

    Args:
        secret: the secret as it is now.
        holders: what ``holders_of`` returned.
        first: places beside the env file and the holders that change.
    """
    places = [*first, *(f"{secret.file.path}: {key}" for key in secret.keys)]
    kept: list[str] = []
    for holder in holders:
        lines = [f"{holder['service']}: {name}" for name in holder["variables"]]
        if holder["action"] != "none":
            (kept if holder["action"] in ("left", "kept") else places).extend(lines)
    same = "".join(f"{place} (old secret)\n" for place in kept)
    return {
        "before": "".join(f"{place} (old secret)\n" for place in places) + same,
        "after": "".join(f"{place} (new secret)\n" for place in places) + same,
    }


def not_asked(key: str, what: str, probes: Iterable[Any]) -> str:
    """The warning that no probe was asked in the end: its service was not well before, or is not among the holders."""
    names = ", ".join(dict.fromkeys(str(probe.service) for probe in probes))
    return (
        f"No {what} has proved the new {key}: of the services to ask ({names}) none holds it and was well before. "
        "Ask one by hand when it is well"
    )


def other_holders(
    stack: Stack, options: Policy, secret: EnvSecret, services: Sequence[str], *, among: Sequence[str], what: str
) -> tuple[list[str], list[str]]:
    """The holders that are not switched and have a container, and warnings about those that keep the old value.

    Args:
        stack: the stack.
        options: of the rotation.
        secret: the secret as it is now.
        services: those that are switched.
        among: the holders that count.
        what: secret or password.

    Raises:
        Refused: the policy or their nature forbids to go on.
    """
    there = stack.containers_of(among)
    others = [name for name in among if name not in services and there[name]]
    warnings = []
    if others and options.stale == "fail":
        raise Refused(
            f"Other services hold {options.key}, too: {', '.join(others)}",
            hint="Add them to services, or let them be recreated with stale: recreate.",
        )
    if others and options.stale == "warn":
        warnings.append(f"These services keep the old {options.key} until they are recreated: {', '.join(others)}")
    if secret.outsiders:
        names = ", ".join(item.name for item in secret.outsiders)
        text = f"Containers outside of the stack's services hold {options.key}: {names}"
        if options.stale != "warn" and not options.force:
            raise Refused(
                text, hint=f"Remove them or give them the {what} by hand afterwards (stale: warn, or force: true)."
            )
        warnings.append(text + "; they keep the old one")
    absent = [name for name in among if name not in services and not there[name]]
    warnings += [f"{name} has no container: it gets the new {what} when one is made" for name in absent]
    return others, warnings


def disagreement(
    stack: Stack, secret: EnvSecret, touched: Sequence[str], *, ignored: Sequence[str] = (), lost: bool | None = None
) -> list[str]:
    """Warnings about holders of yet another value.

    Args:
        stack: the stack.
        secret: the secret as it is now.
        touched: services that must have the file's value.
        ignored: services that may have any.
        lost: whether the operator says that the value is lost, so that they may have another; None: it cannot be.

    Raises:
        Refused: services that are touched have another.
    """
    others = [name for name in disagreeing(stack, secret) if name not in ignored]
    if set(others) & set(touched) and not lost:
        raise Refused(
            f"The env file was changed since these services were made, and they hold another {secret.key}: "
            f"{', '.join(name for name in touched if name in others)}",
            hint="Recreate them first (recreate.yml -e service=...), or put the right value back into the file"
            + ("." if lost is None else "; recover: true goes on with what the file says."),
        )
    return [f"{name} holds another {secret.key} than the env file says" for name in others]


def guarded(
    stack: Stack,
    options: Policy,
    services: Sequence[str],
    stale: Sequence[str],
    *,
    what: str,
    ill_is_fine: bool = False,
) -> list[str]:
    """Warnings about what is forced or pending.

    Args:
        stack: the stack.
        options: of the rotation.
        services: those that are switched.
        stale: those that are recreated after them.
        what: secret or password.
        ill_is_fine: services that are not well are warned of only.

    Raises:
        Refused: something forbids it; every reason at once.
    """
    told = f"{options.key} is not rotated"
    idle = [name for name in stale if not check_active(stack, name)]
    missing, changing, pending = check_replacement(stack, [*services, *stale])
    if missing:
        raise refuse(missing, what=told, forcible=False)
    ill = check_well(stack, [*services, *(name for name in stale if name not in idle)])
    reasons = [*check_guards(stack, options.guards), *([] if ill_is_fine else ill), *changing]
    if reasons and not options.force:
        raise refuse(reasons, what=told)
    return [
        *(f"Forced although: {reason}" for reason in reasons),
        *(ill if ill_is_fine else ()),
        *(f"{name} does not run: it gets the new {what} and stays stopped" for name in idle),
        *pending,
    ]


def carry_of(stack: Stack, options: Policy, touched: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The files that are carried over, by service, of those that are touched."""
    carry = {stack.model.resolve(name): tuple(paths) for name, paths in options.carry_files.items()}
    return {name: paths for name, paths in carry.items() if name in touched}
