# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of the HMAC secret (runbook 3.2) as one transaction."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Callable

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import InvalidInput, OpsError, Refused
from ..core.journal import Journal
from ..health.http import request
from .carry import CarryStore
from .drain import DrainResult, backlog, drain
from .envsecret import EnvSecret, read_secret, swapped
from .guards import check_guards, check_replacement, check_well, refuse
from .hmac_options import HmacOptions
from .signed import prove_probe
from .switch import Switch
from .transaction import Outcome, Transaction

__all__ = ["HmacPlan", "apply", "counters", "interrupted", "plan", "recover", "rotate"]

JOURNAL = "hmac_rotate"
_STEPS = (
    "stop the producers",
    "drain",
    "stop the rest",
    "save files",
    "replace the env file",
    "create the new containers",
    "start",
)


@dataclass(frozen=True)
class HmacPlan:
    """What the rotation would do; holds no new secret, for that is made when it is applied.

    Attributes:
        secret: the secret as it is now.
        services: switched together.
        stale: other holders that are recreated after them.
        left: other holders that keep the old secret (policy "warn").
        carry: files carried over, by service.
        warnings: what the operator should know.
    """

    secret: EnvSecret = field(repr=False)
    services: tuple[str, ...]
    producers: tuple[str, ...]
    stale: tuple[str, ...]
    left: tuple[str, ...]
    carry: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]

    def steps(self) -> list[str]:
        """The steps of the transaction, in order, as ``Outcome.steps`` will name them."""
        first = _STEPS if self.producers else _STEPS[2:]
        return [*first, *(["recreate the other holders"] if self.stale else []), "prove"]

    def holders(self) -> list[dict[str, Any]]:
        """Each holder with its variables and what is done with it."""
        done = {**dict.fromkeys(self.services, "switched"), **dict.fromkeys(self.stale, "recreated")}
        return [
            {"service": item.service, "variables": item.variables, "action": done.get(item.service, "left")}
            for item in self.secret.holders
        ]

    def diff(self) -> dict[str, str]:
        """Before and after, one line a place; never a value."""
        path = self.secret.file.path
        places = [f"{path}: {key}" for key in self.secret.keys]
        kept: list[str] = []
        for holder in self.secret.holders:
            lines = [f"{holder.service}: {name}" for name in holder.variables]
            (kept if holder.service in self.left else places).extend(lines)
        same = "".join(f"{place} (old secret)\n" for place in kept)
        return {
            "before": "".join(f"{place} (old secret)\n" for place in places) + same,
            "after": "".join(f"{place} (new secret)\n" for place in places) + same,
        }


def rotate(stack: Stack, options: HmacOptions, *, check_mode: bool = False) -> dict[str, Any]:
    """The whole operation: recover an interrupted one, plan, and apply unless in check mode.

    Returns:
        What the module returns (its documentation, "Return values").

    Raises:
        OpsError: refused or failed; the message says what state the host is in.
    """
    warnings = []
    recovered = None
    if check_mode:
        if interrupted(stack):
            warnings.append("An interrupted rotation was found: a real run finishes or undoes it first.")
    else:
        recovered = recover(stack, options)
        if recovered:
            warnings.append(f"An interrupted rotation was found and {recovered} first.")
    try:
        planned = plan(stack, options)
    except OpsError as exc:
        if recovered:
            exc.state = f"An interrupted rotation was {recovered} by this run; beyond that nothing was changed"
        raise
    before = counters(stack, options)
    result: dict[str, Any] = {
        "changed": True,
        "key": options.key,
        "env_file": planned.secret.file.real_path,
        "holders": planned.holders(),
        "steps": planned.steps(),
        "diff": planned.diff(),
        "counters": {"before": before},
        "recovered": recovered,
        "warnings": [*warnings, *planned.warnings],
    }
    if not check_mode:
        outcome, drained = apply(stack, options, planned)
        result.update(
            **asdict(outcome),
            drained=asdict(drained) if drained else None,
            counters={"before": before, "after": _moving_counters(stack, options)},
        )
    return result


def plan(stack: Stack, options: HmacOptions) -> HmacPlan:
    """Say what a rotation would do, and refuse one that must not begin; changes nothing.

    Raises:
        InvalidInput: an option, the env file or the key is not usable.
        Refused: a guard forbids it, the stack is not well, or a holder cannot be reached.
    """
    secret = read_secret(stack, options.env_file, options.key)
    holding = secret.services()
    services = stack.model.resolve_all(options.services) or holding
    for name in services:
        if name not in holding:
            raise InvalidInput(
                f"The service {name} does not hold {options.key}, neither in its environment nor elsewhere",
                hint=f"The holders are: {', '.join(holding) or 'none'}. Name the right ones with services.",
            )
    producers = stack.model.resolve_all(options.producers)
    others = [name for name in holding if name not in services]
    warnings = _other_holders(options, secret, others)
    stale = tuple(others) if options.stale == "recreate" else ()
    touched = [*services, *stale]
    _guard(stack, options, touched, warnings)
    # The change itself is tried with a value of the same form, so that check mode refuses what a run would refuse.
    swapped(secret.file.data, options.key, secret.value, "0" * 2 * options.length)
    carry = {stack.model.resolve(name): tuple(paths) for name, paths in options.carry_files.items()}
    return HmacPlan(
        secret=secret,
        services=tuple(services),
        producers=tuple(name for name in producers if name in services),
        stale=stale,
        left=() if stale else tuple(others),
        carry={name: paths for name, paths in carry.items() if name in touched},
        warnings=tuple(warnings),
    )


def apply(
    stack: Stack, options: HmacOptions, planned: HmacPlan, *, token_hex: Callable[[int], str] = secrets.token_hex
) -> tuple[Outcome, DrainResult | None]:
    """Carry out the rotation.

    Args:
        stack: the stack.
        options: the options that the plan was made with.
        planned: what ``plan`` returned.
        token_hex: the source of randomness; takes a number of bytes, returns twice as many hexadecimal digits.

    Raises:
        OpsError: it failed; the message says whether the old secret is back everywhere.
    """
    secret = planned.secret
    new = token_hex(options.length)
    switch = Switch(
        key=options.key,
        env_file=secret.file.real_path,
        old=secret.value,
        new=new,
        old_data=secret.file.data,
        new_data=swapped(secret.file.data, options.key, secret.value, new),
        producers=planned.producers,
        services=planned.services,
        stale=planned.stale,
        holders={holder.service: holder.variables for holder in secret.holders},
        carry=planned.carry,
        health_timeout=options.health_timeout,
    )
    drained: list[DrainResult] = []
    transaction = _transaction(stack, _journal(stack), options, switch, drained)
    return transaction.run(), drained[0] if drained else None


def recover(stack: Stack, options: HmacOptions) -> str | None:
    """Finish or undo an interrupted rotation, if there is one.

    Returns:
        "finished", "undone", or None when there was nothing to do.

    Raises:
        OpsError: neither was possible.
    """
    journal = _journal(stack)
    record = journal.load()
    if record is None:
        journal.end()
        CarryStore.beside(journal.path, {}).clear()  # of a run that was killed when all was done but this
        return None
    done = _transaction(stack, journal, options, Switch.from_record(record), []).recover()
    stack.model = stack.load_model()  # it was read from the files as the interrupted run had left them
    return done


def interrupted(stack: Stack) -> bool:
    """Whether an earlier rotation left its journal."""
    return _journal(stack).load() is not None


def counters(stack: Stack, options: HmacOptions) -> dict[str, int]:
    """The declared counters, as far as they can be read now, by metric name."""
    values: dict[str, int] = {}
    for counter in options.counters:
        try:
            service = stack.model.resolve(counter.service)
            url = f"http://{stack.address(service)}:{counter.port}{counter.path}"
            text = request(url, clock=stack.clock).body.decode("utf-8", "replace")
        except OpsError:
            continue  # they inform, they decide nothing: what cannot be read is not shown
        pattern = rf"^{re.escape(counter.metric)}(?:\{{[^}}]*\}})?\s+(\S+)"
        found = [float(value) for value in re.findall(pattern, text, flags=re.MULTILINE)]
        if found:
            values[counter.metric] = int(sum(found))
    return values


def _moving_counters(stack: Stack, options: HmacOptions) -> dict[str, int]:
    """The counters as soon as one of them counts again, or after five seconds: they inform, they decide nothing."""

    def moving() -> dict[str, int] | None:
        values = counters(stack, options)
        return values if any(values.values()) else None

    return wait_for(moving, timeout=5, clock=stack.clock, interval=0.2) or counters(stack, options)


def _transaction(
    stack: Stack, journal: Journal, options: HmacOptions, switch: Switch, drained: list[DrainResult]
) -> Transaction:
    def drain_step() -> None:
        if options.drain.enabled:
            drained.append(drain(stack, options.drain))

    def prove(right: str, wrong: str) -> None:
        for probe in options.probes:
            if stack.model.resolve(probe.service) in (*switch.services, *switch.stale):
                prove_probe(stack, probe, right, wrong, timeout=min(60.0, switch.health_timeout))

    return Transaction(stack, journal, switch, drain=drain_step, prove=prove, stop_timeout=options.stop_timeout)


def _journal(stack: Stack) -> Journal:
    return Journal(stack.options.state_path, JOURNAL)


def _other_holders(options: HmacOptions, secret: EnvSecret, others: list[str]) -> list[str]:
    """Warnings about holders that are not switched; raises where the policy or their nature forbids to go on."""
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
                text, hint="Remove them or give them the secret by hand afterwards (stale: warn, or force: true)."
            )
        warnings.append(text + "; they keep the old one")
    return warnings


def _guard(stack: Stack, options: HmacOptions, touched: list[str], warnings: list[str]) -> None:
    what = f"{options.key} is not rotated"
    for reasons in (check_guards(stack, options.guards), check_well(stack, touched)):
        if reasons and not options.force:
            raise refuse(reasons, what=what)
        warnings += [f"Forced although: {reason}" for reason in reasons]
    missing, pending = check_replacement(stack, touched)
    if missing:
        raise refuse(missing, what=what, forcible=False)
    warnings += pending
    if options.drain.enabled:
        try:
            backlog(stack, options.drain)
        except OpsError as exc:
            raise Refused(
                f"{what}: its backlog cannot be read. {exc.msg}",
                hint="Mend that, or go without draining (drain.enabled: false): intents under way will be rejected.",
            ) from exc
