# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The signed probe, against a server that checks signatures as brain does."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.rotation.signed import SignedProbe, prove_probe, sign
from ansible_collections.titan.ops.tests.unit import fakes
from ansible_collections.titan.ops.tests.unit.loopback import Request, serve

OLD, NEW = "old-secret-old-secret", "new-secret-new-secret"


class Brain:
    """Brain's HTTP interface: 401 for a wrong signature, a timestamp more than 300 seconds off, or none at all."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.requests: list[Request] = []
        self.first: list[tuple[int, Any]] = []
        self.always: tuple[int, Any] | None = None

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        if self.first:
            return self.first.pop(0)
        if self.always:
            return self.always
        stamp = request.headers.get("x-timestamp", "0")
        expected = hmac.new(self.secret.encode(), f"{stamp}.".encode() + request.body, hashlib.sha256).hexdigest()
        good = request.headers.get("x-signature") == expected and abs(int(stamp) - fakes.NOW) < 300
        return (200, {"services": []}) if good else (401, {"error": "Invalid signature"})


def stack() -> Stack:
    there = fakes.container("brain", name="titan-brain", addresses=("127.0.0.1",))
    return fakes.stack({"brain": {"container_name": "titan-brain"}}, [there])


def prove(brain: Brain, right: str = NEW, wrong: str = OLD, **changes: Any) -> Stack:
    with serve(brain.answer) as port:
        opened = stack()
        probe = SignedProbe(**{"service": "titan-brain", "port": port, "path": "/services", **changes})
        prove_probe(opened, probe, right, wrong, timeout=10)
    return opened


def test_a_signature_is_the_hmac_of_timestamp_and_body() -> None:
    # Computed with: printf '1770386592.{"a":1}' | openssl dgst -sha256 -hmac key
    assert sign("key", 1770386592, b'{"a":1}') == hmac.digest(b"key", b'1770386592.{"a":1}', "sha256").hex()
    assert sign("key", 1, b"") == hmac.digest(b"key", b"1.", "sha256").hex()


def test_the_right_secret_is_accepted_and_the_wrong_one_refused() -> None:
    brain = Brain(NEW)
    prove(brain)
    assert [(item.method, item.path) for item in brain.requests] == [("GET", "/services")] * 2
    assert all(NEW not in str(item) and OLD not in str(item) for item in brain.requests)


def test_a_body_is_signed_too() -> None:
    brain = Brain(NEW)
    prove(brain, method="POST", body='{"dry":true}')
    assert [(item.method, item.body) for item in brain.requests] == [("POST", b'{"dry":true}')] * 2


def test_a_service_that_still_holds_the_old_secret_fails_the_proof() -> None:
    with pytest.raises(
        OpsError, match=r"GET /services of brain was refused with status 401: .* does not hold"
    ) as caught:
        prove(Brain(OLD))
    assert OLD not in str(caught.value)
    assert NEW not in str(caught.value)


def test_a_service_that_accepts_everybody_fails_the_proof() -> None:
    brain = Brain(NEW)
    brain.always = (200, {})
    with pytest.raises(OpsError, match="answered 200 to the other secret; 401 was expected"):
        prove(brain)


@pytest.mark.parametrize("status", [301, 404, 405])
def test_an_answer_that_is_no_acceptance_fails_the_proof(status: int) -> None:
    brain = Brain(NEW)
    brain.always = (status, b"")
    with pytest.raises(OpsError, match=f"was refused with status {status}"):
        prove(brain)


def test_a_refusal_must_be_about_the_signature() -> None:
    brain = Brain(NEW)
    brain.first = [(200, {})]
    brain.always = (500, {})
    with pytest.raises(OpsError, match="answered 500 to the other secret"):
        prove(brain)


def test_a_service_that_is_not_ready_yet_is_waited_for() -> None:
    brain = Brain(NEW)
    brain.first = [(503, b""), (502, b"")]
    clock: Any = prove(brain).clock
    assert len(clock.sleeps) == 2
    assert len(brain.requests) == 4


def test_a_service_that_never_gets_ready_fails_with_its_last_answer() -> None:
    brain = Brain(NEW)
    brain.always = (503, b"")
    with pytest.raises(OpsError, match="got no usable answer in 10 seconds: status 503"):
        prove(brain)


def test_a_service_that_does_not_run_fails_with_the_reason() -> None:
    opened = stack()
    engine: Any = opened.engine
    engine.change("titan-brain", status="exited")
    with pytest.raises(OpsError, match="got no usable answer in 10 seconds: The service brain has no running"):
        prove_probe(opened, SignedProbe("titan-brain", 1, "/services"), NEW, OLD, timeout=10)
