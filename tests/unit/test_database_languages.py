# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wrong password is told from other failures whatever language the server or libpq speaks."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.database import login
from ansible_collections.titan.ops.plugins.module_utils.database.knock import ASKS, ASKS_MD5, knock
from ansible_collections.titan.ops.plugins.module_utils.database.login import Endpoint, LoginFailed, accepts, connect
from ansible_collections.titan.ops.tests.unit import postgres

pytest.importorskip("psycopg2")

RIGHT = "the-password-of-titan"


@pytest.fixture(scope="module", params=["de", "fr", "klingon"])
def server(request: pytest.FixtureRequest) -> Iterator[postgres.Postgres]:
    """A real server, which says it in German, French, or in a language that we make of its English."""
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    faked = request.param == "klingon"
    with postgres.running(language="" if faked else request.param) as made:
        for name in ("titan_brain", "rejecting"):
            made.sql(f"CREATE DATABASE {name}")
        made.sql(
            "SET log_statement = none",
            f"CREATE ROLE titan LOGIN PASSWORD '{RIGHT}'",
            f"CREATE ROLE barred NOLOGIN PASSWORD '{RIGHT}'",
            f"CREATE ROLE busy LOGIN PASSWORD '{RIGHT}' CONNECTION LIMIT 0",
        )
        plain = login._log_in

        def translated(*args: Any) -> Any:
            try:
                return plain(*args)
            except login.psycopg2.OperationalError as exc:
                raise login.psycopg2.OperationalError(str(exc)[::-1]) from exc

        with pytest.MonkeyPatch.context() as patch:
            if faked:
                patch.setattr(login, "_log_in", translated)
            with pytest.raises(login.psycopg2.OperationalError) as caught:
                login._log_in(at(made), "wrong", 5)
            if "password authentication failed" in str(caught.value):
                pytest.skip(f"NOT RUN: the server's messages in {request.param} are not on this machine")
            yield made


def at(server: postgres.Postgres, **changes: Any) -> Endpoint:
    plain = {"name": "titan-postgres", "host": "127.0.0.1", "port": server.port, "database": "titan_brain"}
    return Endpoint(**{**plain, "role": "titan", **changes})


def test_a_right_password_a_wrong_one_and_a_missing_role_are_told_apart(server: postgres.Postgres) -> None:
    assert accepts(at(server), RIGHT) is True
    assert accepts(at(server), "wrong") is False
    assert accepts(at(server, role="nobody"), RIGHT) is False


@pytest.mark.parametrize(
    "changes", [{"database": "rejecting"}, {"database": "nowhere"}, {"role": "barred"}, {"role": "busy"}]
)
def test_a_login_that_fails_for_another_reason_is_no_wrong_password(
    server: postgres.Postgres, changes: dict[str, Any]
) -> None:
    with pytest.raises(LoginFailed) as caught:
        accepts(at(server, **changes), RIGHT)
    assert not caught.value.wrong_password
    assert not caught.value.passing


def test_a_server_that_is_not_there_is_only_passing_in_any_language(
    server: postgres.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = at(server, port=free.getsockname()[1])
    monkeypatch.setattr(login, "_PASSING", login._WRONG)  # as if libpq spoke another language
    with pytest.raises(LoginFailed) as caught:
        connect(nobody, RIGHT)
    assert caught.value.passing


def test_the_real_server_asks_or_refuses_in_codes(server: postgres.Postgres) -> None:
    where = ("127.0.0.1", server.port)
    assert knock(*where, database="titan_brain", role="titan", timeout=5) == ASKS
    assert knock(*where, database="rejecting", role="titan", timeout=5) == "28000"


# Servers that only say one thing


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[int]:
    """A server without TLS that gives this answer to every start-up message, and breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        if connection.recv(1000) == struct.pack("!ii", 8, 80877103):
                            connection.sendall(b"N")
                            connection.recv(1000)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def fatal(code: str) -> bytes:
    return message(b"E", f"SFATAL\0C{code}\0Mles mots\0\0".encode())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (fatal("57P03"), "57P03"),
        (fatal("53300"), "53300"),
        (message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"), ASKS),
        (message(b"R", struct.pack("!i", 5) + b"salt"), ASKS_MD5),
        (message(b"R", struct.pack("!i", 0)), ""),
        (b"", None),
        (fatal("28000")[:9], None),
    ],
)
def test_what_a_server_says_first_is_read(answer: bytes, told: str | None) -> None:
    with saying(answer) as port:
        assert knock("127.0.0.1", port, database="d", role="r", timeout=5) == told


@pytest.mark.parametrize(("code", "passing"), [("57P03", True), ("57P01", True), ("53300", True), ("28000", False)])
def test_a_server_that_comes_up_is_only_passing_whatever_its_words(code: str, passing: bool) -> None:
    with saying(fatal(code)) as port, pytest.raises(LoginFailed) as caught:
        connect(Endpoint("titan-postgres", "127.0.0.1", port, "titan_brain", "titan"), RIGHT)
    assert re.search("les mots|stom sel", str(caught.value))
    assert caught.value.passing is passing
    assert not caught.value.wrong_password
