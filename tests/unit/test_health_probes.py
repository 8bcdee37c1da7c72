# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health probes against real servers on loopback, over a stack of fakes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.engine import Engine
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Unhealthy
from ansible_collections.titan.ops.plugins.module_utils.health import ask, probes
from ansible_collections.titan.ops.plugins.module_utils.health.probe import Probe
from ansible_collections.titan.ops.plugins.module_utils.health.probes import check, default_probes
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, container, stack


class Server(ThreadingHTTPServer):
    """Answers every request with what ``status`` and ``body`` say at that moment; remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.body: bytes = b"{}"
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        # Seconds before the answer, and between each two bytes of it.
        self.delay = 0.0
        self.drip = 0.0

    @property
    def port(self) -> int:
        return self.server_address[1]

    def says(self, body: Any, status: int = 200) -> None:
        self.body, self.status = json.dumps(body).encode(), status

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error here."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers = dict(self.headers)
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        for index in range(len(self.server.body)) if self.server.drip else ():
            self.wfile.write(self.server.body[index : index + 1])
            time.sleep(self.server.drip)
        if not self.server.drip:
            self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def silent_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


def probe(**params: Any) -> Probe:
    return Probe.from_params(params)


def once(*asked: Probe, of: Stack | None = None) -> list[dict[str, Any]]:
    """Ask once; a failure gives its probes as well."""
    try:
        result = check(asked, stack=of, clock=of.clock if of else FakeClock(), timeout=0)
    except Unhealthy as exc:
        return exc.facts["probes"]  # type: ignore[return-value]
    return result["probes"]


def brain(*, services: Any = None, **changes: Any) -> Stack:
    """A stack of one service, whose container's address is this machine's loopback."""
    return stack(
        services or {"titan-brain": {"container_name": "titan-brain"}},
        [container("titan-brain", **{"addresses": ("127.0.0.1",), **changes})],
    )


# What an HTTP probe accepts


def test_a_host_probe_needs_no_stack_and_returns_the_body_as_facts(server: Server) -> None:
    server.says({"status": "healthy", "uptime": 12})
    [told] = once(probe(port=server.port, path="/health?deep=1"))
    assert told["ok"]
    assert told["facts"] == {"status": "healthy", "uptime": 12}
    assert (told["status"], told["reason"], told["service"], told["tries"]) == (200, None, None, 1)
    assert server.asked == ["/health?deep=1"]


def test_the_latency_is_what_the_clock_measured(server: Server) -> None:
    class Ticking(FakeClock):
        def monotonic(self) -> float:
            self._now += 0.25
            return self._now

    [told] = check([probe(port=server.port)], stack=None, clock=Ticking(), timeout=0)["probes"]
    assert told["latency_seconds"] == 0.25


def test_another_status_than_the_expected_fails_and_is_told(server: Server) -> None:
    server.says({"status": "unhealthy"}, status=503)
    [told] = once(probe(port=server.port, path="/health"))
    assert not told["ok"]
    assert told["reason"] == f"http://localhost:{server.port}/health answers with status 503 instead of 200"
    assert (told["status"], told["facts"]) == (503, {"status": "unhealthy"})


def test_every_status_of_the_list_passes(server: Server) -> None:
    server.status = 401
    assert once(probe(port=server.port, status=[200, 401]))[0]["ok"]


def test_a_redirect_is_an_answer_of_its_own(server: Server) -> None:
    server.status = 302
    assert once(probe(port=server.port))[0]["status"] == 302


@pytest.mark.parametrize(
    ("body", "expected", "trouble"),
    [
        ({"status": "degraded"}, {"status": ["healthy", "degraded"]}, None),
        ({"status": "broken"}, {"status": ["healthy", "degraded"]}, "status=broken instead of healthy or degraded"),
        ({"a": {"b": [{"c": "x"}]}}, {"a.b.0.c": "x"}, None),
        ({"a": {"b": []}}, {"a.b.0.c": "x"}, "no field a.b.0.c"),
        ({"ready": True}, {"ready": "true"}, None),
        ({"ready": False}, {"ready": True}, "ready=false instead of true"),
        ({"ready": True}, {"ready": 1}, "ready=true instead of 1"),
        ({"count": 3}, {"count": 3.0}, None),
        ({"count": 3}, {"count": "3"}, None),
        ({"error": None}, {"error": None}, None),
        ({"error": "full"}, {"error": None}, "error=full instead of null"),
        ({}, {"status": "ok"}, "no field status"),
        ("text", {"status": "ok"}, "no field status"),
    ],
)
def test_fields_of_the_answer_are_compared(server: Server, body: Any, expected: Any, trouble: str | None) -> None:
    server.says(body)
    reason = once(probe(port=server.port, json=expected))[0]["reason"]
    assert reason == (trouble and f"http://localhost:{server.port}/ answers with {trouble}")


def test_a_field_cannot_be_in_what_is_not_json(server: Server) -> None:
    server.body = b"<html>"
    [told] = once(probe(port=server.port, json={"status": "ok"}))
    assert told["reason"].endswith("answers with a body that is not JSON")
    assert told["facts"] is None


def test_all_that_is_wrong_is_told_at_once(server: Server) -> None:
    server.says({"a": 1, "b": 2}, status=500)
    reason = once(probe(port=server.port, json={"a": 7, "b": 8}))[0]["reason"]
    assert reason.endswith("status 500 instead of 200, a=1 instead of 7, b=2 instead of 8")


def test_of_a_big_body_only_the_fields_asked_about_are_kept(server: Server) -> None:
    server.says({"status": "ok", "padding": "x" * 40_000})
    assert once(probe(port=server.port, json={"status": "ok"}))[0]["facts"] == {"status": "ok"}
    assert once(probe(port=server.port))[0]["facts"] is None


def test_headers_are_sent(server: Server) -> None:
    once(probe(port=server.port, headers={"X-Count": 7}))
    assert server.headers["X-Count"] == "7"


# No answer


def test_nobody_listening_fails_with_the_reason(silent_port: int) -> None:
    [told] = once(probe(port=silent_port, path="/health"))
    assert told["reason"] == f"http://localhost:{silent_port}/health does not answer: Connection refused"
    assert (told["status"], told["latency_seconds"]) == (None, None)


def test_an_answer_that_comes_too_late_fails(server: Server) -> None:
    server.delay = 0.5
    [told] = once(probe(port=server.port, timeout=0.1))
    assert told["reason"] == f"http://localhost:{server.port}/ did not answer within 0.1 seconds"


def test_an_answer_that_never_ends_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_SLACK", 0.1)
    server.body, server.drip = b"x" * 30, 0.1
    began = time.monotonic()
    [told] = once(probe(port=server.port, timeout=0.2))
    assert told["reason"] == "it did not end answering within 0.2 seconds"
    assert time.monotonic() - began < 2


def test_probes_are_asked_at_the_same_time(server: Server) -> None:
    server.delay = 0.4
    began = time.monotonic()
    told = once(*[probe(port=server.port) for _number in range(5)])
    assert [item["ok"] for item in told] == [True] * 5
    assert time.monotonic() - began < 5 * 0.4


# TCP


def test_a_tcp_probe_passes_where_somebody_listens_and_only_there(server: Server, silent_port: int) -> None:
    good, bad = once(probe(kind="tcp", port=server.port), probe(kind="tcp", port=silent_port))
    assert (good["ok"], good["status"], good["facts"]) == (True, None, None)
    assert good["latency_seconds"] is not None
    assert bad["reason"] == f"localhost:{silent_port} takes no connection: Connection refused"


def test_a_tcp_probe_gives_up_after_its_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The kernel lets a few connections wait; the next one gets no answer at all.
        waiting = [socket.socket() for _number in range(4)]
        try:
            for item in waiting:
                item.setblocking(False)
                item.connect_ex(("127.0.0.1", port))
            of = brain()
            [told] = once(probe(kind="tcp", service="titan-brain", port=port, timeout=0.2), of=of)
        finally:
            for item in waiting:
                item.close()
    reason = f"127.0.0.1:{port} (titan-brain) takes no connection: no answer within 0.2 seconds"
    assert told["reason"] == reason


# Services


def test_a_service_is_asked_at_its_containers_address(server: Server) -> None:
    [told] = once(probe(service="titan-brain", port=server.port), of=brain())
    assert told["ok"]
    assert told["name"] == f"titan-brain:{server.port}/"


def test_a_failure_by_address_names_the_container(server: Server) -> None:
    server.status = 500
    [told] = once(probe(service="titan-brain", port=server.port, path="/x"), of=brain())
    url = f"http://127.0.0.1:{server.port}/x (titan-brain)"
    assert told["reason"] == f"{url} answers with status 500 instead of 200"


def test_a_container_name_leads_to_its_service(server: Server) -> None:
    of = stack({"nats": {"container_name": "titan-nats"}}, [container("nats", name="titan-nats", status="exited")])
    [told] = once(probe(service="titan-nats", port=server.port), of=of)
    assert told["service"] == "nats"


def test_with_host_networking_the_address_is_loopback(server: Server) -> None:
    [told] = once(probe(service="titan-brain", port=server.port), of=brain(addresses=(), networks=("host",)))
    assert told["ok"]


def test_via_host_asks_the_host_although_a_service_is_named(server: Server) -> None:
    of = brain(addresses=("192.0.2.1",))
    assert once(probe(service="titan-brain", via="host", port=server.port, timeout=1), of=of)[0]["ok"]


def test_a_service_without_address_fails(server: Server) -> None:
    [told] = once(probe(service="titan-brain", port=server.port), of=brain(addresses=()))
    assert told["reason"] == "titan-brain has no network address"


def test_inside_enters_the_network_of_the_containers_process(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []
    monkeypatch.setattr(ask, "in_network_of", lambda pid, call: entered.append(pid) or call())
    server.status = 503
    [told] = once(probe(service="titan-brain", via="inside", port=server.port), of=brain(pid=77))
    assert entered == [77]
    url = f"http://localhost:{server.port}/ inside titan-brain"
    assert told["reason"] == f"{url} answers with status 503 instead of 200"


ELSEWHERE = """
import ctypes, fcntl, http.server, socket, struct
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET
with socket.socket() as any_socket:  # SIOCSIFFLAGS: lo is down in a new network
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1))
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes and enters a network namespace")
def test_inside_reaches_what_the_host_does_not() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            of = brain(pid=process.pid)
            asked = {"service": "titan-brain", "port": port, "path": "/"}
            inside, tcp, host = once(
                probe(**asked, via="inside"),
                probe(kind="tcp", service="titan-brain", port=port, via="inside"),
                probe(**asked, via="host"),
                of=of,
            )
        finally:
            process.kill()
    assert inside["ok"], inside["reason"]
    assert tcp["ok"], tcp["reason"]
    assert "Connection refused" in host["reason"]


def test_a_container_whose_process_is_gone_cannot_be_entered() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    [told] = once(probe(service="titan-brain", via="inside", port=1), of=brain(pid=process.pid))
    assert told["reason"].startswith(f"The container's network (process {process.pid}) cannot be entered: ")


def test_a_service_that_does_not_run_fails_whatever_is_asked() -> None:
    asked = [
        probe(service="titan-brain", port=1),
        probe(service="titan-brain", kind="command", argv=["true"]),
        probe(service="titan-brain", kind="container"),
    ]
    stopped = once(*asked, of=brain(status="exited", exit_code=137))
    assert {item["reason"] for item in stopped} == {"titan-brain exited with code 137"}
    absent = once(*asked, of=stack({"titan-brain": {}}))
    assert {item["reason"] for item in absent} == {"the service has no container"}


# Container and command probes


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"health": "healthy"}, "healthy", None),
        ({}, "running", None),
        ({"health": "starting"}, "starting", "titan-brain is running, its health check says starting"),
        ({"health": "unhealthy"}, "unhealthy", "titan-brain is running, its health check says unhealthy"),
        ({"status": "restarting"}, "restarting", "titan-brain is restarting"),
        ({"started_at": FakeClock().now()}, "running", "titan-brain has only just started"),
        ({"status": "exited", "restart_policy": "no"}, "exited", None),
    ],
)
def test_a_container_probe_reads_health_or_status(changes: Any, status: str, reason: str | None) -> None:
    [told] = once(probe(service="titan-brain", kind="container"), of=brain(**changes))
    assert (told["status"], told["reason"], told["ok"]) == (status, reason, reason is None)


def test_every_container_of_a_service_counts() -> None:
    of = stack({"worker": {}}, [container("worker", name="w-1"), container("worker", name="w-2", status="paused")])
    [told] = once(probe(service="worker", kind="container"), of=of)
    assert told["reason"] == "w-2 is paused"


def test_a_command_passes_with_exit_code_0_and_else_says_its_last_words() -> None:
    of = brain()
    of.engine.commands = {("good", "one"): (0, "fine\n"), ("bad",): (2, "first\nno response\n\n")}  # type: ignore[attr-defined]
    good, bad = once(
        probe(service="titan-brain", kind="command", argv=["good", "one"]),
        probe(service="titan-brain", kind="command", argv=["bad"]),
        of=of,
    )
    assert (good["ok"], good["status"], good["name"]) == (True, 0, "titan-brain: good one")
    assert bad["reason"] == "`bad` in titan-brain ended with exit code 2: no response"
    assert bad["status"] == 2


class Exec:
    """The Docker API of one exec whose process is a real one on this machine."""

    def __init__(self, process: subprocess.Popen[bytes], container_id: str) -> None:
        self.process, self.container_id = process, container_id

    def exec_create(self, container: str, argv: list[str]) -> dict[str, str]:
        return {"Id": "e1"}

    def exec_start(self, created: str) -> bytes:
        self.process.wait(timeout=10)
        return b"said\n"

    def exec_inspect(self, created: str) -> dict[str, Any]:
        code = self.process.poll()
        return {"Pid": self.process.pid, "ContainerID": self.container_id, "Running": code is None, "ExitCode": code}


def test_a_command_that_does_not_end_is_killed() -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        # Every cgroup path has a slash: this process counts as the container's.
        engine = Engine(Exec(process, "/"))
        with pytest.raises(OpsError, match=r"`sleep 30` did not end within 0\.1 seconds and was killed"):
            engine.execute("c1", ["sleep", "30"], timeout=0.1)
        assert process.returncode == -9


def test_a_command_that_has_started_others_is_left_alone() -> None:
    """Its orphans would be adopted by PostgreSQL, which takes the death of any child for a crash of its own."""
    with subprocess.Popen(["sh", "-c", "sleep 0.6; exit 5"]) as process:
        engine = Engine(Exec(process, "/"))
        with pytest.raises(OpsError) as caught:
            engine.execute("c1", ["x"], timeout=0.2)
        assert caught.value.msg == "`x` did not end within 0.2 seconds"
        assert process.returncode == 5


def test_a_process_that_is_not_the_containers_is_never_killed() -> None:
    with subprocess.Popen(["sleep", "0.5"]) as process:
        engine = Engine(Exec(process, "of another machine"))
        with pytest.raises(OpsError, match=r"did not end within 0\.1 seconds"):
            engine.execute("c1", ["sleep", "0.5"], timeout=0.1)
        assert process.returncode == 0


def test_a_command_that_ends_in_time_gives_code_and_output() -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as process:
        assert Engine(Exec(process, "/")).execute("c1", ["x"], timeout=5) == (3, "said\n")


# Waiting


def test_a_try_that_does_not_end_is_not_joined_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_SLACK", 0.05)
    release = threading.Event()
    started: list[threading.Thread] = []

    def hang(*_args: Any, **_options: Any) -> tuple[int, str]:
        started.append(threading.current_thread())
        release.wait(10)
        return 0, ""

    of = brain()
    of.engine.execute = hang  # type: ignore[method-assign]
    clock = of.clock
    assert isinstance(clock, FakeClock)

    def later() -> None:
        if len(clock.sleeps) == 4:
            release.set()
            started[0].join()  # its end is what lets the next try begin

    clock.on_sleep = later
    asked = [probe(service="titan-brain", kind="command", argv=["x"], timeout=0.05)]
    told = check(asked, stack=of, clock=clock, timeout=60)["probes"]
    # Asked in the first round, waited for in four, asked again when it had ended.
    assert len(started) == 2
    assert told[0]["tries"] == 5


def test_it_asks_until_all_pass_and_says_how_often_it_took(server: Server) -> None:
    clock = FakeClock()
    server.says({"status": "starting"}, status=503)

    def later() -> None:
        if len(clock.sleeps) == 2:
            server.says({"status": "healthy"})

    clock.on_sleep = later
    with Server() as steady:
        thread = threading.Thread(target=steady.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        result = check(
            [probe(port=server.port), probe(port=steady.port)], stack=None, clock=clock, timeout=60, interval=1
        )
        steady.shutdown()
        thread.join()
    assert [item["tries"] for item in result["probes"]] == [3, 1]
    assert result["waited_seconds"] == round(sum(clock.sleeps), 3) == 2.3


def test_a_probe_that_stops_passing_is_waited_for_again(server: Server, silent_port: int) -> None:
    clock = FakeClock()
    tcp = [probe(port=server.port), probe(kind="tcp", port=silent_port)]
    opened: list[socket.socket] = []

    def later() -> None:
        server.status = 503 if len(clock.sleeps) == 1 else 200
        if len(clock.sleeps) == 1:
            opened.append(socket.create_server(("127.0.0.1", silent_port)))

    clock.on_sleep = later
    try:
        result = check(tcp, stack=None, clock=clock, timeout=60)
    finally:
        for item in opened:
            item.close()
    assert [item["tries"] for item in result["probes"]] == [3, 2]


def test_it_stops_waiting_when_the_time_is_over(silent_port: int) -> None:
    clock = FakeClock()
    with pytest.raises(Unhealthy) as caught:
        check([probe(port=silent_port)], stack=None, clock=clock, timeout=10, interval=1)
    assert sum(clock.sleeps) == pytest.approx(10)
    assert caught.value.facts["waited_seconds"] == 10
    assert caught.value.facts["probes"][0]["tries"] == len(clock.sleeps) + 1  # type: ignore[index]


def test_a_timeout_of_0_asks_once(silent_port: int) -> None:
    clock = FakeClock()
    with pytest.raises(Unhealthy):
        check([probe(port=silent_port)], stack=None, clock=clock, timeout=0)
    assert clock.sleeps == []


def test_an_engine_that_comes_back_is_worth_waiting_for() -> None:
    clock = FakeClock()
    of = stack({"titan-brain": {}}, [container("titan-brain")], clock=clock)
    of.engine.failure = OpsError("The Docker Engine is gone")  # type: ignore[attr-defined]
    asked = [probe(service="titan-brain", kind="container")]
    with pytest.raises(Unhealthy, match="titan-brain: The Docker Engine is gone"):
        check(asked, stack=of, clock=clock, timeout=0)

    def back() -> None:
        of.engine.failure = None  # type: ignore[attr-defined]

    clock.on_sleep = back
    assert check(asked, stack=of, clock=clock, timeout=5)["probes"][0]["tries"] == 2


def test_a_defect_in_a_probe_is_not_taken_for_ill_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ask_host", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        once(probe(port=1))


# Failing


def test_the_failure_has_a_sentence_for_each_failing_probe_and_none_for_the_others(server: Server) -> None:
    of = brain(status="exited", exit_code=1)
    with pytest.raises(Unhealthy) as caught:
        check(
            [
                probe(name="web", port=server.port, status=[204]),
                probe(name="fine", port=server.port),
                probe(name="brain", service="titan-brain", port=3100),
            ],
            stack=of,
            clock=of.clock,
            timeout=0,
        )
    assert caught.value.msg == (
        f"2 of 3 health probes failed: web: http://localhost:{server.port}/ answers with status 200 instead of 204. "
        "brain: titan-brain exited with code 1."
    )
    assert [item["ok"] for item in caught.value.facts["probes"]] == [False, True, False]  # type: ignore[attr-defined]


def test_the_last_log_lines_of_a_failing_container_are_shown_once_and_without_secrets() -> None:
    of = brain(status="exited", exit_code=1, environment={"HMAC_SECRET": "5ec4e7-value"})
    of.engine.log = {"titan-brain": [f"line {number}" for number in range(30)] + ["key 5ec4e7-value is bad"]}  # type: ignore[attr-defined]
    with pytest.raises(Unhealthy) as caught:
        check(
            [probe(service="titan-brain", port=1), probe(service="titan-brain", kind="container")],
            stack=of,
            clock=of.clock,
            timeout=0,
        )
    logs = caught.value.facts["logs"]
    assert list(logs) == ["titan-brain"]  # type: ignore[call-overload]
    assert len(logs["titan-brain"]) == 20  # type: ignore[index]
    assert caught.value.msg.endswith("The last log lines of titan-brain: line 28 | line 29 | key ******** is bad.")
    assert caught.value.msg.count("line 29") == 1


def test_secrets_are_masked_in_facts_and_reasons(server: Server) -> None:
    secret = "n0t-f0r-y0ur-eyes"
    of = brain(services={"titan-brain": {"environment": {"TITAN_DB_PASSWORD": secret}}})
    server.says(
        {
            "dsn": f"postgres://titan:{secret}@db/titan_brain",
            "why": f"login with {secret} failed",
            "nested": {"api_key": "a b c", "tokens": ["t1", "t2"], "port": 5432},
            "echo": "Bearer 123456",
        }
    )
    [told] = once(
        probe(
            service="titan-brain",
            port=server.port,
            headers={"Authorization": "Bearer 123456"},
            json={"why": "fine"},
        ),
        of=of,
    )
    assert told["facts"] == {
        "dsn": "postgres://titan:********@db/titan_brain",
        "why": "login with ******** failed",
        "nested": {"api_key": "********", "tokens": ["********", "********"], "port": 5432},
        "echo": "********",
    }
    assert told["reason"].endswith("why=login with ******** failed instead of fine")


def test_a_short_secret_is_masked_in_facts_but_not_in_names(server: Server) -> None:
    services = {"titan-brain": {"environment": {"DB_PASS": "titan", "API_TOKEN": "healthy"}}}
    of = brain(services=services)
    server.says({"status": "healthy", "service": "titan-brain", "signing_key": "x", "key": "y"})
    [told] = once(probe(service="titan-brain", port=server.port), of=of)
    assert told["facts"] == {"status": "********", "service": "titan-brain", "signing_key": "********", "key": "y"}
    assert (told["name"], told["service"]) == (f"titan-brain:{server.port}/", "titan-brain")


# Bad input, refused before anything is asked


@pytest.mark.parametrize(
    ("params", "trouble"),
    [
        ({}, "The probe of the host cannot be asked: http needs a port between 1 and 65535"),
        ({"name": "x", "port": 65536}, "The probe x cannot be asked: http needs a port between 1 and 65535"),
        ({"kind": "tcp"}, "tcp needs a port between 1 and 65535"),
        ({"kind": "udp", "port": 1}, "its kind must be one of http, tcp, command, container, not udp"),
        ({"port": 1, "via": "magic"}, "its via must be one of host, address, inside, not magic"),
        ({"port": 1, "via": "inside"}, "via inside needs the service whose container is meant"),
        ({"port": 1, "via": "address"}, "via address needs the service whose container is meant"),
        ({"kind": "container"}, "container needs the service whose container is meant"),
        ({"kind": "command", "argv": ["true"]}, "command needs the service whose container is meant"),
        ({"kind": "command", "service": "a"}, "command needs argv, the command and its arguments"),
        ({"port": 1, "path": "health"}, "its path must begin with a slash: health"),
        ({"port": 1, "timeout": 0}, "its timeout must be more than 0 seconds"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(params: dict[str, Any], trouble: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Probe.from_params(params)
    assert caught.value.msg.endswith(trouble)


def test_an_unknown_service_is_refused_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(InvalidInput, match="no service or container named titan-brian"):
        check(
            [probe(port=server.port), probe(service="titan-brian", port=1)],
            stack=brain(),
            clock=FakeClock(),
            timeout=0,
        )
    assert server.asked == []


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        ({"probes": []}, "no probe to ask"),
        ({"timeout": -1}, "timeout must not be negative"),
        ({"interval": 0}, "interval must be more than 0"),
        ({"probes": [Probe(service="a", port=1)]}, "there is no stack to look for it in"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(arguments: dict[str, Any], trouble: str) -> None:
    whole = {"probes": [probe(port=1)], "stack": None, "clock": FakeClock(), "timeout": 0, **arguments}
    with pytest.raises(InvalidInput, match=trouble):
        check(whole.pop("probes"), **whole)


# The runbook's endpoints


@pytest.mark.parametrize("prefix", ["titan-", ""])
def test_the_default_probes_are_the_runbooks_under_whatever_names(prefix: str) -> None:
    services = {
        "titan-brain" if prefix else "brain": {},
        "titan-execution" if prefix else "execution": {},
        "nats": {"container_name": f"{prefix}nats"},
    }
    found = default_probes(stack(services))
    assert [(item.service, item.port, item.path, item.via, item.status) for item in found] == [
        (f"{prefix}brain", 3100, "/health", "inside", (200,)),
        (f"{prefix}execution", 3002, "/health", "inside", (200,)),
        ("nats", 8222, "/healthz", "inside", (200,)),
    ]
    assert [dict(item.json) for item in found] == [{"status": ["healthy", "degraded"]}, {}, {}]


def test_a_stack_without_one_of_them_is_told_so() -> None:
    of = stack({"titan-brain": {}, "titan-nats": {}})
    with pytest.raises(InvalidInput, match="no service or container named titan-execution"):
        check(default_probes(of), stack=of, clock=of.clock, timeout=0)
