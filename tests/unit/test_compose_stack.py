# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stack shows of its containers' logs, and which of its secrets it knows."""

from __future__ import annotations

from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.tests.unit.fakes import FakeEngine, container, stack

URL = "nats://brain:p%40ss%2Fword@titan-nats:4222"
ENVIRONMENT = {
    "SIGNING": "s1gn1ng-va1ue",
    "BINANCE": "binance va1ue",
    "SERVERS": URL,
    "MODE": "live",
    "LANGUAGE": "english-and-german",
    "DATA": "/var/lib/titan",
    "BUS": "titan-nats:4222",
    "DB": "titan_brain",
    "ENV": "production",
    "SINCE": "1770386592",
}


def brain(log: list[str], **environment: str) -> tuple[Stack, FakeEngine]:
    """A stack whose brain says something; its image sets LANGUAGE."""
    found = container("titan-brain", environment={**ENVIRONMENT, **environment})
    of = stack({"titan-brain": {"image": "titan/app:1"}, "nats": {"container_name": "titan-nats"}}, [found])
    engine: Any = of.engine
    engine.log = {"titan-brain": log}
    engine.images = {"titan/app:1": {"id": "sha256:1", "environment": {"LANGUAGE": ENVIRONMENT["LANGUAGE"]}}}
    return of, engine


def test_in_a_log_every_value_of_the_environment_is_masked_that_may_be_a_secret() -> None:
    of, engine = brain(
        [
            "signing with s1gn1ng-va1ue, trading with binance va1ue",
            f"connecting to {URL} as p@ss/word",
            "speaking english-and-german, live, in production since 1770386592",
            "titan_brain keeps its data in /var/lib/titan and asks titan-nats:4222",
        ]
    )
    assert of.tail(engine.containers[0]) == [
        "signing with ********, trading with ********",
        "connecting to ******** as ********",
        "speaking english-and-german, live, in production since 1770386592",
        "titan_brain keeps its data in /var/lib/titan and asks titan-nats:4222",
    ]


def test_a_value_that_differs_from_the_images_is_masked() -> None:
    of, engine = brain(["speaking klingon-only"], LANGUAGE="klingon-only")
    assert of.tail(engine.containers[0]) == ["speaking ********"]


def test_a_log_that_cannot_be_read_gives_the_reason() -> None:
    of, engine = brain([])
    found = engine.containers[0]
    engine.failure = OpsError("The Docker Engine is gone, says s1gn1ng-va1ue")
    assert of.tail(found) == ["(no log: The Docker Engine is gone, says ********)"]


def test_a_password_that_is_a_services_name_leaves_that_name_alone() -> None:
    environment = {"POSTGRES_PASSWORD": "postgres", "SALT": "s4lt", "HMAC_SECRET": "0123456789abcdef"}
    of = stack({"postgres": {"container_name": "titan-postgres", "environment": environment, "image": "postgres:16"}})
    assert of.redact.known("postgres, titan-postgres and postgres:16 hold s4lt") == (
        "postgres, titan-postgres and postgres:16 hold s4lt"
    )
    assert of.redact.known("it is 0123456789abcdef") == "it is ********"
    assert of.redact("postgres: password is 'postgres', salt=s4lt") == "postgres: password is '********', salt=********"


def test_compose_and_the_stack_mask_the_same() -> None:
    of = stack({"a": {"environment": {"HMAC_SECRET": "0123456789abcdef"}}})
    assert of.cli.redact("0123456789abcdef") == "********"
    of.redact.add("another-secret")
    assert of.cli.redact("another-secret") == "********"
