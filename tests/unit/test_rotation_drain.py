# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drain, against a monitoring port that answers as NATS' does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.rotation.drain import Drain, DrainResult, backlog, drain
from ansible_collections.titan.ops.tests.unit import fakes
from ansible_collections.titan.ops.tests.unit.loopback import Request, serve


class Nats:
    """NATS 2.x's /jsz?accounts=true&streams=true&consumers=true, as far as it is read."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, int]] = []  # (pending, unacknowledged); the last one stays
        self.asked: list[str] = []
        self.override: tuple[int, Any] | None = None

    def answer(self, request: Request) -> tuple[int, Any]:
        self.asked.append(request.path)
        if self.override:
            return self.override
        pending, unacknowledged = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        consumers = [
            {"name": "EXECUTION_CORE", "num_pending": pending, "num_ack_pending": unacknowledged},
            {"name": "AUDIT", "num_pending": 7, "num_ack_pending": 7},
        ]
        stream = {
            "name": "TITAN_CMD",
            "state": {"messages": pending + unacknowledged, "last_seq": 100},
            "consumer_detail": consumers,
        }
        other = {"name": "TITAN_EVT", "state": {"messages": 5, "last_seq": 5}}
        return 200, {
            "streams": 2,
            "account_details": [{"name": "SYS"}, {"name": "TITAN", "stream_detail": [stream, other]}],
        }


@pytest.fixture
def nats() -> Nats:
    return Nats()


@pytest.fixture
def port(nats: Nats) -> Iterator[int]:
    with serve(nats.answer) as number:
        yield number


@pytest.fixture
def stack() -> Stack:
    there = fakes.container("nats", name="titan-nats", addresses=("127.0.0.1",))
    return fakes.stack({"nats": {"image": "nats:2", "container_name": "titan-nats"}}, [there])


def test_the_backlog_is_read_from_the_monitoring_port(stack: Stack, nats: Nats, port: int) -> None:
    nats.answers = [(3, 2)]
    stream, consumer = backlog(stack, Drain(port=port))
    assert (stream.name, stream.messages, stream.last_seq) == ("TITAN_CMD", 5, 100)
    assert (consumer.name, consumer.pending, consumer.ack_pending) == ("EXECUTION_CORE", 3, 2)
    assert nats.asked == ["/jsz?accounts=true&streams=true&consumers=true"]


def test_it_waits_until_nothing_is_pending_and_nothing_unacknowledged(stack: Stack, nats: Nats, port: int) -> None:
    nats.answers = [(5, 1), (0, 2), (1, 0), (0, 0), (9, 9)]
    result = drain(stack, Drain(port=port))
    assert len(nats.asked) == 4
    clock: Any = stack.clock
    assert len(clock.sleeps) == 3
    assert result == DrainResult("TITAN_CMD", "EXECUTION_CORE", 6, 0, round(sum(clock.sleeps), 3))


def test_nothing_to_wait_for_takes_no_time(stack: Stack, nats: Nats, port: int) -> None:
    nats.answers = [(0, 0)]
    assert drain(stack, Drain(port=port)) == DrainResult("TITAN_CMD", "EXECUTION_CORE", 0, 0, 0)


def test_a_timeout_undoes_and_says_what_would_be_lost(stack: Stack, nats: Nats, port: int) -> None:
    nats.answers = [(4, 3), (2, 1)]
    with pytest.raises(OpsError) as caught:
        drain(stack, Drain(port=port, timeout=5))
    assert caught.value.msg == (
        "3 messages of TITAN_CMD were not worked off by EXECUTION_CORE within 5 seconds;"
        " with the new secret they would be rejected"
    )
    assert "drain.timeout" in str(caught.value.hint)
    clock: Any = stack.clock
    assert sum(clock.sleeps) == pytest.approx(5)


def test_a_timeout_goes_on_where_that_is_configured_and_tells_what_is_left(stack: Stack, nats: Nats, port: int) -> None:
    nats.answers = [(4, 3), (2, 1)]
    assert drain(stack, Drain(port=port, timeout=5, on_timeout="continue")) == DrainResult(
        "TITAN_CMD", "EXECUTION_CORE", 7, 3, 5
    )


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"stream": "TITAN_CMDS"}, r"NATS has no stream TITAN_CMDS; it has: TITAN_CMD, TITAN_EVT"),
        ({"consumer": "CORE"}, r"TITAN_CMD has no consumer CORE; it has: AUDIT, EXECUTION_CORE"),
        ({"stream": "TITAN_EVT"}, r"TITAN_EVT has no consumer EXECUTION_CORE; it has: none"),
    ],
)
def test_a_stream_or_consumer_that_is_not_there_is_named_with_those_that_are(
    stack: Stack, nats: Nats, port: int, chosen: dict[str, str], said: str
) -> None:
    nats.answers = [(0, 0)]
    with pytest.raises(OpsError, match=said):
        drain(stack, Drain(port=port, **chosen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"disabled": True}), "JetStream is disabled"),
        ((503, b"starting"), "answered 503"),
        ((200, b"<html>"), "answered 200"),
        ((200, {"account_details": None}), "NATS has no stream TITAN_CMD; it has: none"),
    ],
)
def test_an_answer_that_says_nothing_is_an_error(
    stack: Stack, nats: Nats, port: int, answer: tuple[int, Any], said: str
) -> None:
    nats.override = answer
    with pytest.raises(OpsError, match=said):
        backlog(stack, Drain(port=port))


def test_an_answer_that_breaks_off_is_an_error_of_ours() -> None:
    """The server announces more than it sends; the reason is told, not a traceback of the library."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def half() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

        thread = threading.Thread(target=half)
        thread.start()
        there = fakes.container("titan-nats", addresses=("127.0.0.1",))
        with pytest.raises(OpsError, match="does not answer"):
            backlog(fakes.stack({"titan-nats": {}}, [there]), Drain(port=server.getsockname()[1]))
        thread.join()


def test_no_server_is_said_to_be_none(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(OpsError, match="Connection refused"):
        backlog(stack, Drain(port=free))


def test_a_nats_that_does_not_run_is_said_so(stack: Stack) -> None:
    engine: Any = stack.engine
    engine.change("titan-nats", status="exited")
    with pytest.raises(OpsError, match="The service nats has no running container with a network address"):
        backlog(stack, Drain())
