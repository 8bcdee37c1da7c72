# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What JetStream holds, read from NATS' monitoring port (no credentials, no ``nats`` command line needed)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.clock import Clock
from ..core.errors import OpsError
from .http import request

__all__ = ["ConsumerState", "StreamState", "streams"]


@dataclass(frozen=True)
class ConsumerState:
    """A consumer's backlog: messages not yet delivered, and delivered but not yet acknowledged."""

    name: str
    pending: int
    ack_pending: int

    @property
    def drained(self) -> bool:
        """Nothing waits and nothing is under way."""
        return self.pending == 0 and self.ack_pending == 0


@dataclass(frozen=True)
class StreamState:
    """A stream: messages it holds now, and the sequence number of the last one it ever took."""

    name: str
    messages: int
    last_seq: int
    consumers: dict[str, ConsumerState]


def streams(base_url: str, *, clock: Clock, timeout: float = 5) -> dict[str, StreamState]:
    """Every stream of every account, with its consumers (NATS documentation, "Monitoring", ``/jsz``).

    Args:
        base_url: the monitoring port, e.g. http://127.0.0.1:8222.
        clock: the source of time.
        timeout: seconds.

    Raises:
        OpsError: no answer, or JetStream is off.
    """
    url = f"{base_url}/jsz?accounts=true&streams=true&consumers=true"
    answer = request(url, timeout=timeout, clock=clock)
    body = answer.json()
    if answer.status != 200 or not isinstance(body, dict):
        raise OpsError(f"NATS' monitoring port answered {answer.status} to {url}")
    if body.get("disabled"):
        raise OpsError("JetStream is disabled on the NATS server")
    found: dict[str, StreamState] = {}
    for account in body.get("account_details") or []:
        for detail in account.get("stream_detail") or []:
            found[detail["name"]] = _stream(detail)
    return found


def _stream(detail: dict[str, Any]) -> StreamState:
    state = detail.get("state") or {}
    consumers = {
        entry["name"]: ConsumerState(
            entry["name"], int(entry.get("num_pending") or 0), int(entry.get("num_ack_pending") or 0)
        )
        for entry in detail.get("consumer_detail") or []
    }
    return StreamState(detail["name"], int(state.get("messages") or 0), int(state.get("last_seq") or 0), consumers)
