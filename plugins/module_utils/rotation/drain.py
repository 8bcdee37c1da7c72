# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets the consumers work off what was signed with the old secret, before they are stopped."""

from __future__ import annotations

from dataclasses import dataclass

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..health.jetstream import ConsumerState, StreamState, streams

__all__ = ["Drain", "DrainResult", "backlog", "drain"]


@dataclass(frozen=True)
class Drain:
    """Which JetStream consumer must have nothing left.

    Attributes:
        enabled: whether to wait at all.
        service: the NATS service or container name.
        port: NATS' monitoring port.
        stream: the stream of signed messages.
        consumer: the durable consumer that verifies them.
        timeout: seconds to wait.
        on_timeout: "undo" the rotation, or "continue" (what is left will be rejected).
    """

    enabled: bool = True
    service: str = "titan-nats"
    port: int = 8222
    stream: str = "TITAN_CMD"
    consumer: str = "EXECUTION_CORE"
    timeout: float = 30
    on_timeout: str = "undo"


@dataclass(frozen=True)
class DrainResult:
    """What was waiting when the producers had stopped, what was left in the end, and how long it took in seconds."""

    stream: str
    consumer: str
    waiting: int
    left: int
    seconds: float


def backlog(stack: Stack, options: Drain) -> tuple[StreamState, ConsumerState]:
    """The stream and the consumer as they are now.

    Raises:
        OpsError: NATS does not answer, or has no such stream or consumer.
    """
    service = stack.model.resolve(options.service)
    base = f"http://{stack.address(service)}:{options.port}"
    found = streams(base, clock=stack.clock)
    stream = found.get(options.stream)
    if stream is None:
        raise OpsError(f"NATS has no stream {options.stream}; it has: {', '.join(sorted(found)) or 'none'}")
    consumer = stream.consumers.get(options.consumer)
    if consumer is None:
        names = ", ".join(sorted(stream.consumers)) or "none"
        raise OpsError(f"The stream {options.stream} has no consumer {options.consumer}; it has: {names}")
    return stream, consumer


def drain(stack: Stack, options: Drain) -> DrainResult:
    """Wait until nothing is pending or unacknowledged.

    Raises:
        OpsError: the time ran out and ``on_timeout`` is "undo".
    """
    began = stack.clock.monotonic()
    first: list[int] = []
    last = [0]

    def drained() -> bool | None:
        consumer = backlog(stack, options)[1]
        last[0] = consumer.pending + consumer.ack_pending
        first.append(last[0])
        return True if consumer.drained else None

    done = wait_for(drained, timeout=options.timeout, clock=stack.clock, interval=0.02)
    if done is None and options.on_timeout == "undo":
        raise OpsError(
            f"{last[0]} messages of {options.stream} were not worked off by {options.consumer} within "
            f"{options.timeout:g} seconds; with the new secret they would be rejected",
            hint="See why the consumer is slow, raise drain.timeout, or accept the loss (drain.on_timeout: continue).",
        )
    seconds = round(stack.clock.monotonic() - began, 3)
    return DrainResult(options.stream, options.consumer, first[0], last[0], seconds)
