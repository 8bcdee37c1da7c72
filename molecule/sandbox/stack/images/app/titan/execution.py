# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""titan-execution: verifies brain's intents and executes them, or rejects them for good."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError

from . import __version__, bus
from .http import NOT_FOUND, Answer, Request, Server
from .service import Metrics, attend, log, required_secret, run, wait_for
from .signing import intent_fault

PORT = 3002
DURABLE = "EXECUTION_CORE"
# The trading state lies in the container's own layer: a recreate destroys it.
HOME = Path(os.environ.get("TITAN_HOME", "/app"))
ARMED, HALT, STATE = HOME / "execution.armed", HOME / "system.halt", HOME / "titan_execution.redb"

_WORK_SECONDS = 0.010
_BATCH = 10
_PULL_SECONDS = 0.2
_SAVE_SECONDS = 5.0


class Positions:
    """Shadow positions, in units of 0.001 per symbol, kept in a small state file."""

    def __init__(self) -> None:
        self.units: dict[str, int] = {}
        if STATE.exists():
            try:
                self.units = {str(symbol): int(units) for symbol, units in json.loads(STATE.read_text()).items()}
                log.info("read %d shadow positions", len(self.units))
            except (ValueError, AttributeError) as error:
                log.error("%s is not readable, starting without shadow positions: %s", STATE, error)

    @staticmethod
    def change(payload: dict[str, Any]) -> tuple[str, int]:
        """The symbol and by how much an intent changes its position."""
        units = round(float(payload["size"]) * 1000)
        return str(payload["symbol"]), units if payload["side"] == "BUY" else -units

    def apply(self, symbol: str, units: int) -> None:
        self.units[symbol] = self.units.get(symbol, 0) + units

    def save(self) -> None:
        scratch = STATE.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.units, sort_keys=True))
        os.replace(scratch, STATE)


class Execution:
    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.positions = Positions()
        self.metrics = Metrics(
            titan_execution_intents_accepted_total=0,
            titan_execution_rejection_events_total=0,
        )
        self.client: Client | None = None
        self.started = time.time()

    # --- work -----------------------------------------------------------------------------------------------------

    async def consume(self, js: JetStreamContext, stop: asyncio.Event) -> None:
        """Pull and handle intents; on a stop finish the pull under way and leave the rest in the stream."""
        assert self.client is not None
        await self._ensure_consumer(js, stop)
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        while not stop.is_set():
            try:
                await self._pull(js, inbox, subscription)
            except NatsError as error:
                # Whatever was not acknowledged is delivered again.
                log.warning("reading intents: %s", error or type(error).__name__)
                await wait_for(stop, 0.5)

    async def _ensure_consumer(self, js: JetStreamContext, stop: asyncio.Event) -> None:
        config = ConsumerConfig(durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, ack_wait=10.0, max_ack_pending=100)
        waiting = False
        while not stop.is_set():
            try:
                await js.add_consumer(bus.COMMANDS, config)
                log.info("reading %s with consumer %s", bus.COMMANDS, DURABLE)
                return
            except NatsError as error:
                # Brain creates the stream; on a new Droplet it may still be starting.
                if not waiting:
                    log.info("waiting for stream %s: %s", bus.COMMANDS, error)
                waiting = True
                await wait_for(stop, 0.2)

    async def _pull(self, js: JetStreamContext, inbox: str, subscription: Subscription) -> None:
        """One pull request, read to its end, so that no message is delivered to a reader that has left."""
        assert self.client is not None
        request = {"batch": _BATCH, "expires": int(_PULL_SECONDS * 1e9)}
        await self.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{bus.COMMANDS}.{DURABLE}", json.dumps(request).encode(), inbox
        )
        for _ in range(_BATCH):
            message = await subscription.next_msg(timeout=_PULL_SECONDS + 1)
            if message.headers and "Status" in message.headers:
                status = message.headers["Status"]
                if status not in ("404", "408"):  # no messages; the request has expired
                    raise APIError(code=int(status), description=message.headers.get("Description", ""))
                return
            await self._handle(js, message)

    async def _handle(self, js: JetStreamContext, message: Msg) -> None:
        """Verify, execute, and acknowledge only when the outcome is stored."""
        try:
            envelope = json.loads(message.data)
            fault = intent_fault(self.secret, envelope)
            if not fault:
                symbol, units = self.positions.change(envelope["payload"])
        except (ValueError, AttributeError, KeyError, TypeError):
            envelope, fault = {}, "malformed"
        nonce = str(envelope.get("nonce") or f"seq-{message.metadata.sequence.stream}")
        outcome: dict[str, Any] = {"nonce": nonce, "ts": int(time.time() * 1000)}
        if fault:
            log.warning("REJECTED Intent (Signature Verify Failed) nonce=%s reason=%s", nonce, fault)
            await self._store(js, bus.REJECT_SUBJECT, {**outcome, "reason": fault})
            self.metrics["titan_execution_rejection_events_total"] += 1
        else:
            halted = HALT.exists()
            await asyncio.sleep(_WORK_SECONDS)
            outcome |= {"symbol": symbol, "units": units, "halted": halted, "armed": ARMED.exists()}
            await self._store(js, bus.FILL_SUBJECT, outcome)
            if not halted:
                self.positions.apply(symbol, units)
            self.metrics["titan_execution_intents_accepted_total"] += 1
        await message.ack()

    @staticmethod
    async def _store(js: JetStreamContext, subject: str, outcome: dict[str, Any]) -> None:
        # The message id makes an intent that is delivered again count once.
        await js.publish(subject, json.dumps(outcome).encode(), timeout=2, headers={"Nats-Msg-Id": outcome["nonce"]})

    async def save_regularly(self, stop: asyncio.Event) -> None:
        while not await wait_for(stop, _SAVE_SECONDS):
            self.positions.save()

    # --- HTTP -----------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Answer:
        connected = self.client is not None and self.client.is_connected
        route = (request.method, request.path)
        if route == ("GET", "/health"):
            state = {
                "status": "ok" if connected else "error",
                "version": __version__,
                "dependencies": {"nats": "Connected" if connected else "Disconnected"},
            }
            return Answer(200 if connected else 503, state)
        if route == ("GET", "/metrics"):
            return Answer(200, self.metrics.text())
        if route == ("GET", "/status"):
            return Answer(
                200,
                {
                    "armed": ARMED.exists(),
                    "halted": HALT.exists(),
                    "positions": self.positions.units,
                    "version": __version__,
                    "uptime_seconds": round(time.time() - self.started, 3),
                },
            )
        return NOT_FOUND


async def main(stop: asyncio.Event) -> None:
    execution = Execution(required_secret("HMAC_SECRET"))
    log.info("titan-execution %s starting", __version__)
    execution.client = await bus.connect("titan-execution", stop)
    js = execution.client.jetstream()
    server = Server(PORT, execution.handle)
    await server.open()
    working = [
        asyncio.create_task(execution.consume(js, stop), name="consuming"),
        asyncio.create_task(execution.save_regularly(stop), name="saving"),
    ]
    await attend(stop, working)
    log.info("stopping: finishing the batch in hand")
    await asyncio.wait(working, timeout=5)
    execution.positions.save()
    await server.close()
    await bus.close(execution.client)


if __name__ == "__main__":
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # its errors reach our log through a callback
    run("titan-execution", main)
