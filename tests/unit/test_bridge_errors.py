# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of an error reaches the operator through Ansible."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.bridge import _fail
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor


class Module:
    """Keeps what it was told, as AnsibleModule prints it."""

    told: dict[str, Any]

    def fail_json(self, **told: Any) -> None:
        self.told = told
        raise SystemExit(1)


def failed(error: OpsError, redact: Redactor) -> dict[str, Any]:
    module: Any = Module()
    with pytest.raises(SystemExit):
        _fail(module, error, redact)
    told: dict[str, Any] = module.told
    return told


def test_our_own_sentences_keep_the_names_of_variables_and_what_follows_them() -> None:
    sentence = "Containers outside of the stack's services hold HMAC_SECRET: by-hand"
    error = OpsError(sentence, state="DB_PASSWORD=unchanged", hint="Set token: none", facts={"reasons": [sentence]})
    told = failed(error, Redactor(["0123456789abcdef"]))
    assert told == {
        "msg": f"{sentence}. DB_PASSWORD=unchanged. Set token: none.",
        "reason": sentence,
        "state": "DB_PASSWORD=unchanged",
        "hint": "Set token: none",
        "reasons": [sentence],
    }


def test_known_values_are_masked_wherever_they_stand_in_an_error() -> None:
    secret = "0123456789abcdef"
    error = OpsError(f"has {secret}", state=secret, hint=secret, facts={"log": [f"x {secret}"], "a": {"b": secret}})
    told = failed(error, Redactor([secret]))
    assert secret not in str(told)
    assert told["log"] == ["x ********"]
    assert told["a"] == {"b": "********"}


def test_a_password_that_is_an_ordinary_word_destroys_no_fact() -> None:
    error = OpsError("titan-postgres has no container", facts={"service": "titan-postgres", "path": "/data/postgres"})
    told = failed(error, Redactor(["postgres"], public=["titan-postgres"]))
    assert told["msg"] == "titan-postgres has no container."
    assert (told["service"], told["path"]) == ("titan-postgres", "/data/postgres")
