# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets are taken out of text, in whatever form they stand there."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote, quote_plus

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor, all_values, secret_values

SECRET = 'p@ss/w:ö"r\\d $1+='
FORMS = {
    "raw": SECRET,
    "percent-encoded": quote(SECRET, safe=""),
    "form-encoded": quote_plus(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "as Compose prints it": SECRET.replace("$", "$$"),
    "as JSON prints it": json.dumps(SECRET)[1:-1],
    "as JSON prints it in UTF-8": json.dumps(SECRET, ensure_ascii=False)[1:-1],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("method", ["known", "__call__"])
def test_a_known_value_is_masked_in_every_usual_form(form: str, method: str) -> None:
    redact = Redactor([SECRET])
    text = getattr(redact, method)(f"before {form} after, and {form}")
    assert form not in text
    assert text == "before ******** after, and ********"


def test_the_longer_of_two_values_is_masked_whole() -> None:
    assert Redactor(["abcdefgh", "abcdefghij"])("abcdefghij abcdefgh") == "******** ********"


def test_values_too_short_to_be_secret_are_left() -> None:
    redact = Redactor(["abc", ""])
    assert redact.values() == []
    assert redact("abc ok") == "abc ok"


def test_a_value_can_be_added_later() -> None:
    redact = Redactor()
    assert redact("abcdefgh") == "abcdefgh"
    redact.add("abcdefgh")
    assert redact("abcdefgh") == "********"


def test_of_a_value_with_several_lines_each_is_masked() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nab=\n-----END PRIVATE KEY-----\n"
    assert Redactor([key])("read: MIIEvQIBADANBgkq") == "read: ********"


WEAK = Redactor(["postgres", "abcd"], public=["titan-postgres", "/opt/titan"])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password: postgres", "password: ********"),
        ("auth abcd=abcd", "auth abcd=********"),
        ('{"user":"postgres","a":1}', '{"user":"********","a":1}'),
        ('{\\"user\\":\\"postgres\\"}', '{\\"user\\":\\"********\\"}'),
        ("is 'abcd' or abcd: abcd.", "is '********' or abcd: ********."),
        (
            "postgres://postgres:postgres@titan-postgres:5432/postgres",
            "postgres://postgres:********@titan-postgres:5432/postgres",
        ),
        ("https://abcd@host/", "https://********@host/"),
        ("titan-postgres: postgres runs in /var/lib/postgres", "titan-postgres: ******** runs in /var/lib/postgres"),
        ("x=abcde, abcd, image=postgres:16", "x=abcde, abcd, image=postgres:16"),
    ],
)
def test_an_ordinary_word_is_masked_in_other_programs_words_where_it_is_a_value(text: str, masked: str) -> None:
    assert WEAK(text) == masked


@pytest.mark.parametrize(
    "text",
    ["titan-postgres", "postgres:16", "/opt/titan/data/postgres", "The service postgres is running: postgres", "abcd"],
)
def test_an_ordinary_word_never_destroys_our_own_facts(text: str) -> None:
    assert WEAK.known(text) == text


def test_only_what_is_long_and_no_public_word_is_masked_everywhere() -> None:
    redact = Redactor(["s3cr3t-value", "titan-execution"])
    assert redact.known("titan-execution has s3cr3t-value") == "******** has ********"
    redact.allow(["titan-execution"])
    assert redact.known("titan-execution has s3cr3t-value") == "titan-execution has ********"


NAMES = [
    *("SIGNING_KEY", "HMAC_KEY", "NATS_PASS", "DB_PASS", "REDIS_AUTH", "BINANCE_KEY", "PASSPHRASE", "DB_PASSWD"),
    *("AWS_ACCESS_KEY_ID", "ENCRYPTION_SALT", "signingKey", "dbPass", "--key", "db.pwd", "APP_CREDENTIALS"),
]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("HMAC_SECRET=abc123 next", "HMAC_SECRET=******** next"),
        ("TITAN_DB_PASSWORD: hunter2", "TITAN_DB_PASSWORD: ********"),
        ('{"db_password": "hun ter2", "port": 5}', '{"db_password": ********, "port": 5}'),
        ("KIMI_API_KEY='a b'", "KIMI_API_KEY=********"),
        ("x-api-token=abc;path=/", "x-api-token=********;path=/"),
        ("postgres://titan:hunter2@db:5432/titan_brain", "postgres://titan:********@db:5432/titan_brain"),
        ("nats://brain:s3cr3t@titan-nats:4222 refused", "nats://brain:********@titan-nats:4222 refused"),
        ("http://10.0.0.5:8000/v1 answers", "http://10.0.0.5:8000/v1 answers"),
        ("nothing of the kind: level=info port=3100", "nothing of the kind: level=info port=3100"),
        *[(f"bad {name}=abc1 x", f"bad {name}=******** x") for name in NAMES],
        ('say {\\"hmac_key\\": \\"abc\\", \\"x\\": 1}', 'say {\\"hmac_key\\": ********, \\"x\\": 1}'),
        ("error: password=abc", "error: password=********"),
        ("Authorization: Bearer abc.def, next", "Authorization: ********, next"),
        ("DATABASE_URI=postgres://titan:p@ss:w@db/titan", "DATABASE_URI=postgres://titan:********@db/titan"),
        ("nats://a:b1@h1:4222,nats://c:d1@h2", "nats://a:********@h1:4222,nats://c:********@h2"),
        ("http://10.0.0.5:8000/v1?mail=a@b", "http://10.0.0.5:8000/v1?mail=a@b"),
        ("duplicate key: 23505, auth: ok, monkey=1", "duplicate key: 23505, auth: ok, monkey=1"),
    ],
)
def test_what_a_name_or_a_url_calls_secret_is_masked(text: str, masked: str) -> None:
    assert Redactor()(text) == masked


def test_text_of_our_own_keeps_what_only_looks_like_a_secret() -> None:
    text = "hold HMAC_SECRET: titan-opsd; HMAC_SECRET = old"
    assert Redactor(["abcdef"]).known(text) == text
    assert Redactor(["abcdef"])(text) != text


def test_what_an_environment_has_by_its_names_is_secret() -> None:
    environment = {
        "HMAC_SECRET": "1",
        "SIGNING_KEY": "2",
        "KEY": "3",
        "POSTGRES_PASSWORD_FILE": "/run/secrets/db",
        "BRAIN_URL": "http://titan-brain:3100/health",
        "WEBHOOK_URL": "https://hooks.example.com/services/T0/abcd1234abcd1234abcd",
        "DATABASE_URI": "postgres://titan:p%40ss@db/titan",
        "SERVERS": "nats://a:b@h1:4222,nats://c:d@h2",
        "LEVEL": "verbose",
    }
    found = set(secret_values(environment))
    assert {"1", "2", "3", environment["WEBHOOK_URL"], environment["DATABASE_URI"], "p%40ss", "p@ss", "b", "d"} <= found
    assert not found & {"/run/secrets/db", "http://titan-brain:3100/health", "verbose"}


def test_a_password_that_nobody_encoded_is_found_in_its_url() -> None:
    assert "p@s/s" in set(secret_values({"X": "postgres://titan:p@s/s@db:5432/titan"}))


HARMLESS = [
    "/var/lib/titan",
    "/opt/titan/releases/20260206",
    "titan-postgres:5432",
    "titan_postgres",
    "10.11.12.13:4222",
    "api.example.com",
    "http://titan-brain:3100/x",
    "unix:///var/run/docker.sock",
    "1234567890",
    "-0.00001234",
    "production",
]
SECRET_ANYWAY = [
    "hunter2hunter2",
    "correct horse",
    "0123456789abcdef0123456789abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.abc",
    "/9f3kdAbc1234567890abcdef",
    "12345678901234567890",
    "postgres://titan:hunter22@db/titan",
    "https://hooks.example.com/services/T0/abcd1234abcd1234abcd",
]


def test_of_an_environment_everything_is_masked_that_is_not_obviously_harmless() -> None:
    """Whatever the variables are called, and whatever the image says anyway."""
    values = dict.fromkeys(f"X{number}" for number in range(len(HARMLESS + SECRET_ANYWAY)))
    environment = dict(zip(values, HARMLESS + SECRET_ANYWAY))
    image = {"LANGUAGES": "english and german", "CHANGED": "before, in the image"}
    found = set(
        all_values(
            {**environment, **image, "CHANGED": "another value", "SHORT": "abc"}, image=image, names={"titan-postgres"}
        )
    )
    assert not found & {*HARMLESS, *image.values(), "abc"}
    assert {*SECRET_ANYWAY, "another value", "hunter22"} <= found


def test_a_long_line_takes_no_long_time() -> None:
    began = time.monotonic()
    for text in ("a", "a_", "http://a:", "secret", "secret:", "pass_", " ", "a=", '"', "://"):
        Redactor(["s3cr3t-value", "abcd"])(text * (200_000 // len(text)))
    assert time.monotonic() - began < 5
