# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets are taken out of text, in whatever form they stand there."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor

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
    assert Redactor(["abcd", "abcdef"])("abcdef abcd") == "******** ********"


def test_values_too_short_to_be_secret_are_left() -> None:
    redact = Redactor(["abc", ""])
    assert redact.values() == []
    assert redact("abc ok") == "abc ok"


def test_a_value_can_be_added_later() -> None:
    redact = Redactor()
    assert redact("abcdef") == "abcdef"
    redact.add("abcdef")
    assert redact("abcdef") == "********"


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
    ],
)
def test_what_a_name_or_a_url_calls_secret_is_masked(text: str, masked: str) -> None:
    assert Redactor()(text) == masked


def test_text_of_our_own_keeps_what_only_looks_like_a_secret() -> None:
    text = "hold HMAC_SECRET: titan-opsd; HMAC_SECRET = old"
    assert Redactor(["abcdef"]).known(text) == text
    assert Redactor(["abcdef"])(text) != text
