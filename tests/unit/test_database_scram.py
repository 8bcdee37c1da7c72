# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verifier that is computed here is the one of the RFC, and the one that PostgreSQL itself would make."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from collections.abc import Iterator

import pytest

from ansible_collections.titan.ops.plugins.module_utils.database.psql import quote_literal
from ansible_collections.titan.ops.plugins.module_utils.database.scram import prepared, verifier
from ansible_collections.titan.ops.tests.unit import postgres

# RFC 7677, 3: the exchange of "user" with the password "pencil".
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = "n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

# RFC 4013, 3 and more: mapped to nothing or to a space, normalised, prohibited, of two directions, unassigned.
STRANGE = (
    "I\u00adX",
    "user",
    "USER",
    "\u00aa",
    "\u2168",
    "\u0007",
    "\u0007\u00e9",
    "\u0627\u0031",
    "\u0627\u0031\u0628",
    "a\u00a0b",
    "\u00ad",
    "na\u00efve",
    "\u05d0\u05d1",
    "\u05d0a\u05d1",
    "\U0001f600",
    "\ufb01\u212b",
    "e\u0301",
    "pass word'\"\\$",
)


def test_the_exchange_of_rfc_7677_succeeds_with_the_verifier() -> None:
    head, keys = verifier("pencil", salt=SALT, iterations=4096).rsplit("$", 1)
    assert head == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    stored_key, server_key = (base64.b64decode(part) for part in keys.split(":"))
    message = f"{CLIENT_FIRST},{SERVER_FIRST},{CLIENT_FINAL}".encode()
    # RFC 5802, 3: the server gets the client's key out of its proof, and knows its hash
    client_signature = hmac.new(stored_key, message, hashlib.sha256).digest()
    client_key = bytes(left ^ right for left, right in zip(PROOF, client_signature))
    assert hashlib.sha256(client_key).digest() == stored_key
    assert base64.b64encode(hmac.new(server_key, message, hashlib.sha256).digest()).decode() == SIGNATURE


def test_each_verifier_has_a_salt_of_its_own_and_never_the_password() -> None:
    first, second = verifier("correct-horse-battery"), verifier("correct-horse-battery")
    assert first != second
    assert "correct" not in first
    assert len(base64.b64decode(first.split("$")[1].split(":")[1])) == 16


def test_ascii_stays_as_it_is_and_other_text_is_prepared_as_rfc_4013_says() -> None:
    assert prepared("a \x7f~") == b"a \x7f~"
    assert [prepared(text).decode() for text in ("I\u00adX", "\u00aa", "\u2168", "a\u00a0b")] == [
        "IX",
        "a",
        "IX",
        "a b",
    ]
    assert prepared("\u0627\u0031") == "\u0627\u0031".encode()  # not allowed there: as it is


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    with postgres.running() as made:
        made.sql("SET password_encryption = 'scram-sha-256'", "CREATE ROLE compared LOGIN")
        yield made


def _servers_own(server: postgres.Postgres, passwords: list[str]) -> list[str]:
    statements = ["CREATE TABLE made (place serial, verifier text)"]
    for password in passwords:
        statements.append(f"ALTER ROLE compared PASSWORD {quote_literal(password)}")
        statements.append("INSERT INTO made (verifier) SELECT rolpassword FROM pg_authid WHERE rolname = 'compared'")
    server.sql(*statements)
    made = server.sql("SELECT verifier FROM made ORDER BY place").splitlines()
    server.sql("DROP TABLE made")
    return made


def test_postgresql_itself_makes_the_same_verifiers(server: postgres.Postgres) -> None:
    rng = random.Random(7677)
    pool = [*range(0x20, 0x7F), *range(0xA0, 0x250), *range(0x5D0, 0x5EB), *range(0x627, 0x64B), *range(0x2000, 0x2070)]
    pool += [*range(0x2150, 0x2180), *range(0x3040, 0x3100), *range(0xFB00, 0xFB07), 0xE000, 0xFFFD, 0x1F600, 0x221]
    drawn = ["".join(chr(rng.choice(pool)) for _char in range(rng.randint(1, 6))) for _word in range(300)]
    passwords = [*STRANGE, *drawn]
    for password, theirs in zip(passwords, _servers_own(server, passwords)):
        salt = base64.b64decode(theirs.split("$")[1].split(":")[1])
        assert verifier(password, salt=salt) == theirs, ascii(password)
