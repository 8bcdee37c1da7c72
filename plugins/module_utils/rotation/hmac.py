# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of the HMAC secret (runbook 3.2) as one transaction."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import InvalidInput, OpsError, Refused
from ..core.journal import Journal
from ..health.http import request
from .drain import DrainResult, backlog, drain
from .envsecret import EnvSecret, read_secret, swapped
from .frame import in_frame, journal_of, recover_interrupted
from .guards import check_guards
from .hmac_options import HmacOptions
from .planning import carry_of, check_names, diff_of, disagreement, guarded, holders_of, not_asked, other_holders
from .signed import SignedProbe, prove_probe
from .switch import Switch
from .transaction import Outcome, Transaction

__all__ = ["JOURNAL", "HmacPlan", "apply", "counters", "plan", "recover", "rotate"]

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
        drained: whether the consumers work off what is under way.
        warnings: what the operator should know.
    """

    secret: EnvSecret = field(repr=False)
    services: tuple[str, ...]
    producers: tuple[str, ...]
    stale: tuple[str, ...]
    left: tuple[str, ...]
    carry: Mapping[str, tuple[str, ...]]
    drained: bool
    warnings: tuple[str, ...]

    def steps(self) -> list[str]:
        """The steps of the transaction, in order, as ``Outcome.steps`` will name them."""
        forward = _STEPS if self.producers else ("stop the services", *_STEPS[3:])
        first = [name for name in forward if self.drained or name != "drain"]
        return [*first, *(["recreate the other holders"] if self.stale else []), "prove"]

    def holders(self) -> list[dict[str, Any]]:
        """Each holder with its variables and what is done with it."""
        return holders_of(self.secret, {"switched": self.services, "recreated": self.stale, "left": self.left})

    def diff(self) -> dict[str, str]:
        """Before and after, one line a place; never a value."""
        return diff_of(self.secret, self.holders())


def rotate(
    stack: Stack,
    options: HmacOptions,
    *,
    check_mode: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The whole operation: recover an interrupted one, plan, and apply unless in check mode.

    Args:
        stack: the stack.
        options: the options.
        check_mode: plan only.
        cancelled: asked before each step; True undoes what was done so far.

    Returns:
        What the module returns (its documentation, "Return values").

    Raises:
        OpsError: refused or failed; the message says what state the host is in.
    """

    def work(warnings: list[str]) -> dict[str, Any]:
        planned = plan(stack, options)
        warnings += planned.warnings
        before = counters(stack, options)
        result: dict[str, Any] = {
            "variables": list(planned.secret.keys),
            "env_file": planned.secret.file.real_path,
            "holders": planned.holders(),
            "steps": planned.steps(),
            "diff": planned.diff(),
            "counters": {"before": before},
        }
        if not check_mode:
            proved: list[str] = []
            outcome, drained = apply(stack, options, planned, cancelled=cancelled, proved=proved)
            result.update(
                **asdict(outcome),
                drained=asdict(drained) if drained else None,
                proved=proved,
                counters={"before": before, "after": _moving_counters(stack, options)},
            )
            if options.probes and not proved:
                warnings.append(not_asked(options.key, "signed request", options.probes))
        return result

    return in_frame(
        stack, JOURNAL, options.key, check_mode=check_mode, recover=lambda: recover(stack, options), work=work
    )


def plan(stack: Stack, options: HmacOptions) -> HmacPlan:
    """Say what a rotation would do, and refuse one that must not begin; changes nothing.

    Raises:
        InvalidInput: an option, the env file or the key is not usable.
        Refused: a guard forbids it, the stack is not well, or a holder cannot be reached.
    """
    secret = read_secret(stack, options.env_file, options.key)
    check_names(stack, options.probes)
    holding = secret.services()
    services = stack.model.resolve_all(options.services) or holding
    for name in services:
        if name not in holding:
            raise InvalidInput(
                f"The service {name} does not hold {options.key}, neither in its environment nor elsewhere",
                hint=f"The holders are: {', '.join(holding) or 'none'}. Name the right ones with services.",
            )
    producers = stack.model.resolve_all(options.producers)
    for name in producers:
        if name in holding and name not in services:
            raise InvalidInput(
                f"The service {name} signs with {options.key} and is not among the services that are switched together",
                hint="Add it to services: what it signs with the old secret would be rejected.",
            )
    others, told = other_holders(stack, options, secret, services, among=holding, what="secret")
    warnings = [*secret.warnings, *told, *disagreement(stack, secret, services)]
    stale = tuple(others) if options.stale == "recreate" else ()
    warnings += guarded(stack, options, services, stale, what="secret")
    _check_backlog(stack, options)
    # The change itself is tried with a value of the same form, so that check mode refuses what a run would refuse.
    swapped(secret.file.data, options.key, secret.value, "0" * 2 * options.length)
    return HmacPlan(
        secret=secret,
        services=tuple(services),
        producers=tuple(name for name in producers if name in services),
        stale=stale,
        left=tuple(others) if options.stale == "warn" else (),
        carry=carry_of(stack, options, [*services, *stale]),
        drained=options.drain.enabled,
        warnings=tuple(warnings),
    )


def apply(
    stack: Stack,
    options: HmacOptions,
    planned: HmacPlan,
    *,
    token_hex: Callable[[int], str] = secrets.token_hex,
    cancelled: Callable[[], bool] = lambda: False,
    proved: list[str] | None = None,
) -> tuple[Outcome, DrainResult | None]:
    """Carry out the rotation.

    Args:
        stack: the stack.
        options: the options that the plan was made with.
        planned: what ``plan`` returned.
        token_hex: the source of randomness; takes a number of bytes, returns twice as many hexadecimal digits.
        cancelled: asked before each step; True undoes what was done so far.
        proved: is given what was proved by requests.

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
        context={
            "probes": [asdict(replace(probe, service=stack.resolve(probe.service))) for probe in options.probes],
            "stop_timeout": options.stop_timeout,
        },
    )
    drained: list[DrainResult] = []
    transaction = _transaction(stack, journal_of(stack, JOURNAL), options, switch, drained, cancelled, proved)
    return transaction.run(), drained[0] if drained else None


def recover(stack: Stack, options: HmacOptions) -> str | None:
    """Finish or undo an interrupted rotation, if there is one.

    Returns:
        "finished", "undone", or None when there was nothing to do.

    Raises:
        OpsError: neither was possible.
    """

    def again(journal: Journal, switch: Switch) -> Transaction:
        begun = options
        if switch.context:  # as it was begun, not as this run was asked
            probes = tuple(SignedProbe(**entry) for entry in switch.context["probes"])
            begun = replace(options, probes=probes, stop_timeout=switch.context["stop_timeout"])
        return _transaction(stack, journal, begun, switch, [])

    return recover_interrupted(stack, JOURNAL, again)


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
        samples = [_number(word) for word in re.findall(pattern, text, flags=re.MULTILINE)]
        found = [value for value in samples if math.isfinite(value)]
        if found:
            values[counter.metric] = int(sum(found))
    return values


def _number(word: str) -> float:
    """A sample's value; what is none, like NaN and Inf, which the format allows, counts for nothing."""
    try:
        return float(word)
    except ValueError:
        return math.nan


def _moving_counters(stack: Stack, options: HmacOptions) -> dict[str, int]:
    """The counters as soon as one of them counts again, or after five seconds: they inform, they decide nothing."""

    def moving() -> dict[str, int] | None:
        values = counters(stack, options)
        return values if any(values.values()) else None

    return wait_for(moving, timeout=5, clock=stack.clock, interval=0.2) or counters(stack, options)


def _transaction(
    stack: Stack,
    journal: Journal,
    options: HmacOptions,
    switch: Switch,
    drained: list[DrainResult],
    cancelled: Callable[[], bool] = lambda: False,
    proved: list[str] | None = None,
) -> Transaction:
    def drain_step() -> None:
        drained.append(drain(stack, options.drain))
        # Of a producer, which is stopped by now, only files can be asked.
        guards = [
            guard
            for guard in options.guards
            if guard.port is None or stack.model.resolve(guard.service) not in switch.producers
        ]
        reasons = [] if options.force else check_guards(stack, guards)
        if reasons:  # stopping and draining takes its time: the engine may have been armed meanwhile
            raise OpsError(" ".join(reasons))

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        for probe in options.probes:
            service = stack.resolve(probe.service)
            if service in services:
                prove_probe(stack, probe, right, wrong, timeout=min(60.0, switch.health_timeout))
                if proved is not None:
                    told = "accepted when signed with the new secret, refused with the old one"
                    proved.append(f"{service}: {probe.method} {probe.path} {told}")

    return Transaction(
        stack,
        journal,
        switch,
        drain=drain_step if options.drain.enabled else None,
        prove=prove,
        cancelled=cancelled,
        stop_timeout=options.stop_timeout,
    )


def _check_backlog(stack: Stack, options: HmacOptions) -> None:
    if options.drain.enabled:
        try:
            backlog(stack, options.drain)
        except OpsError as exc:
            raise Refused(
                f"{options.key} is not rotated: its backlog cannot be read. {exc.msg}",
                hint="Mend that, or go without draining (drain.enabled: false): intents under way will be rejected.",
            ) from exc
