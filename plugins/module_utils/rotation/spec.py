# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Argument specifications of the rotation modules, as plain data."""

from __future__ import annotations

from typing import Any

from .hmac_options import CARRY_FILES, STALE
from .pg_options import ALPHABET, ON_SESSION_TIMEOUT

__all__ = ["hmac_spec", "pg_spec", "rotation_spec"]

Spec = dict[str, Any]


def rotation_spec() -> Spec:
    """The options of the documentation fragment titan.ops.rotation."""
    return {
        "env_file": {"type": "path", "default": "compose/.env.prod"},
        "stale": {"type": "str", "choices": list(STALE), "default": "recreate"},
        "carry_files": {"type": "dict", "default": {name: list(paths) for name, paths in CARRY_FILES.items()}},
        "guards": {
            "type": "list",
            "elements": "dict",
            "options": {
                "service": {"type": "str", "required": True},
                "path": {"type": "str", "required": True},
                "port": {"type": "int"},
                "field": {"type": "str"},
                "value": {"type": "str"},
                "reason": {"type": "str"},
                "hint": {"type": "str"},
            },
        },
        "health_timeout": {"type": "float", "default": 300.0},
        "stop_timeout": {"type": "float"},
        "force": {"type": "bool", "default": False},
    }


def hmac_spec() -> Spec:
    """The options of hmac_rotate."""
    return {
        **rotation_spec(),
        "key": {"type": "str", "default": "HMAC_SECRET", "no_log": False},
        "length": {"type": "int", "default": 32},
        "services": {"type": "list", "elements": "str", "default": ["titan-brain", "titan-execution"]},
        "producers": {"type": "list", "elements": "str", "default": ["titan-brain"]},
        "drain": {
            "type": "dict",
            "default": {},
            "options": {
                "enabled": {"type": "bool", "default": True},
                "service": {"type": "str", "default": "titan-nats"},
                "port": {"type": "int", "default": 8222},
                "stream": {"type": "str", "default": "TITAN_CMD"},
                "consumer": {"type": "str", "default": "EXECUTION_CORE"},
                "timeout": {"type": "float", "default": 30.0},
                "on_timeout": {"type": "str", "choices": ["undo", "continue"], "default": "undo"},
            },
        },
        "probes": {
            "type": "list",
            "elements": "dict",
            "options": {
                **_endpoint(),
                "path": {"type": "str", "required": True},
                "method": {"type": "str", "default": "GET"},
                "body": {"type": "str", "default": ""},
            },
        },
        "counters": {
            "type": "list",
            "elements": "dict",
            "options": {
                **_endpoint(),
                "metric": {"type": "str", "required": True},
                "path": {"type": "str", "default": "/metrics"},
            },
        },
    }


def pg_spec() -> Spec:
    """The options of pg_password."""
    return {
        **rotation_spec(),
        "key": {"type": "str", "default": "TITAN_DB_PASSWORD", "no_log": False},
        "password": {"type": "str", "no_log": True},
        "length": {"type": "int", "default": 40},
        "alphabet": {"type": "str", "default": ALPHABET},
        "role": {"type": "str", "default": "titan"},
        "database": {"type": "str", "default": "titan_brain"},
        "service": {"type": "str", "default": "titan-postgres"},
        "port": {"type": "int", "default": 5432},
        "host": {"type": "str"},
        "recover": {"type": "bool", "default": False},
        "recreate_database": {"type": "bool", "default": False},
        "services": {"type": "list", "elements": "str", "default": ["titan-brain", "titan-execution"]},
        "session_timeout": {"type": "float", "default": 30.0},
        "on_session_timeout": {"type": "str", "choices": list(ON_SESSION_TIMEOUT), "default": "undo"},
        "probes": {
            "type": "list",
            "elements": "dict",
            "options": {
                **_endpoint(),
                "path": {"type": "str", "default": "/health"},
                "status": {"type": "list", "elements": "int", "default": [200]},
            },
        },
    }


def _endpoint() -> Spec:
    return {"service": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}
