# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof that a service takes the new HMAC secret and refuses the old one: a signed, read-only request."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..health.http import request

__all__ = ["SignedProbe", "prove_probe", "sign"]

_DENIED = (401, 403)


@dataclass(frozen=True)
class SignedProbe:
    """A read-only request that Titan's services accept only when it is signed.

    Attributes:
        service: Compose service or container name.
        port: HTTP port inside the service's network.
        path: HTTP path.
        method: HTTP method.
        body: the request's body; it is signed, too.
    """

    service: str
    port: int
    path: str
    method: str = "GET"
    body: str = ""


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Titan's request signature: HMAC-SHA256 over ``"{timestamp}.{body}"``, hexadecimal; the timestamp in seconds."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def prove_probe(stack: Stack, probe: SignedProbe, right: str, wrong: str, *, timeout: float) -> None:
    """Show that the service accepts ``right`` and refuses ``wrong``.

    Args:
        stack: the stack.
        probe: the request.
        right: the secret that must be accepted.
        wrong: the secret that must be refused.
        timeout: seconds to wait for the service to answer with anything but a connection error or a 5xx.

    Raises:
        OpsError: no answer in time, the right secret is refused, or the wrong one is accepted.
    """
    service = stack.resolve(probe.service)
    where = f"{probe.method} {probe.path} of {service}"
    last = ["no answer"]

    def ask() -> int | None:
        try:
            status = _ask(stack, service, probe, right)
        except OpsError as exc:
            last[0] = exc.msg
            return None
        last[0] = f"status {status}"
        return status if status < 500 else None

    status = wait_for(ask, timeout=timeout, clock=stack.clock)
    if status is None:
        raise OpsError(f"The signed probe {where} got no usable answer in {timeout:g} seconds: {last[0]}")
    if not 200 <= status < 300:
        raise OpsError(
            f"The signed probe {where} was refused with status {status}: the service does not hold the secret"
        )
    refused = _ask(stack, service, probe, wrong)
    if refused not in _DENIED:
        raise OpsError(f"The signed probe {where} answered {refused} to the other secret; 401 was expected")


def _ask(stack: Stack, service: str, probe: SignedProbe, secret: str) -> int:
    timestamp = int(stack.clock.now())
    body = probe.body.encode()
    headers = {"x-timestamp": str(timestamp), "x-signature": sign(secret, timestamp, body)}
    url = f"http://{stack.address(service)}:{probe.port}{probe.path}"
    return request(url, method=probe.method, headers=headers, data=body or None, clock=stack.clock).status
