# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place where the engine meets Ansible: options in, results out, errors told, secrets masked."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .compose.project import StackOptions
from .compose.stack import Stack, open_stack
from .core.clock import Clock
from .core.errors import OpsError, Refused
from .core.lock import host_lock
from .core.redact import Redactor
from .core.runner import Runner

__all__ = ["Context", "run_module", "stack_spec"]


def stack_spec() -> dict[str, dict[str, Any]]:
    """The argument specification of the documentation fragment titan.ops.stack."""
    return {
        "project_src": {"type": "path", "default": "/opt/titan"},
        "project_name": {"type": "str"},
        "files": {"type": "list", "elements": "path", "default": []},
        "env_files": {"type": "list", "elements": "path", "default": []},
        "profiles": {"type": "list", "elements": "str", "default": []},
        "state_dir": {"type": "path"},
        "lock_path": {"type": "path"},
        "lock_timeout": {"type": "float", "default": 60.0},
        "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
    }


@dataclass
class Context:
    """What a module's operation gets: its options and the real effects.

    Attributes:
        params: the module's options.
        check_mode: plan only.
        clock: the source of time.
        runner: runs commands.
    """

    params: dict[str, Any]
    check_mode: bool
    clock: Clock
    runner: Runner
    stack: Stack | None = None

    def options(self) -> StackOptions:
        """The common options."""
        params = self.params
        return StackOptions(
            project_src=params["project_src"].rstrip("/") or "/",
            project_name=params["project_name"],
            files=tuple(params["files"]),
            env_files=tuple(params["env_files"]),
            profiles=tuple(params["profiles"]),
            state_dir=params["state_dir"],
            lock_path=params["lock_path"],
            lock_timeout=params["lock_timeout"],
            docker_host=params["docker_host"],
        )

    def open(self) -> Stack:
        """Locate and read the stack."""
        self.stack = open_stack(self.options(), runner=self.runner, clock=self.clock)
        return self.stack


Operation = Callable[[Context], "dict[str, Any]"]


def run_module(argument_spec: dict[str, Any], operation: Operation, *, mutates: str | None = None) -> NoReturn:
    """Run an operation as an Ansible module.

    Args:
        argument_spec: the module's own options; the common ones are added.
        operation: does the work and returns the result; raises OpsError.
        mutates: what for the host lock is taken, e.g. "rotate HMAC_SECRET"; None for a module that only reads. The
            lock is not taken in check mode.
    """
    module = AnsibleModule({**stack_spec(), **argument_spec}, supports_check_mode=True)
    context = Context(dict(module.params), module.check_mode, Clock(), Runner())
    try:
        reads_only = mutates is None or module.check_mode
        result = operation(context) if reads_only else _locked(context, operation, str(mutates))
    except OpsError as exc:
        redact = context.stack.redact if context.stack else Redactor()
        _fail(module, exc, redact)
    if context.stack:
        result = _masked(result, context.stack.redact.known)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)
    raise AssertionError("exit_json returned")


def _locked(context: Context, operation: Operation, reason: str) -> dict[str, Any]:
    if os.geteuid() != 0:
        raise Refused(
            f"This must run as root on the managed host to {reason}, not as user id {os.geteuid()}",
            hint="Set become: true (the playbooks do), and let the user use sudo.",
        )
    options = context.options()
    if not os.path.isdir(options.project_src):
        context.open()  # tells what is wrong before a lock file is made anywhere
    _survive_signals()
    with host_lock(
        options.lock_file, reason=reason, holder=_holder(), timeout=options.lock_timeout, clock=context.clock
    ):
        return operation(context)


def _survive_signals() -> None:
    """A lost SSH connection must not stop an operation halfway; a termination request undoes it."""

    def terminated(number: int, frame: object) -> None:
        raise OpsError(f"The operation was ended by signal {signal.Signals(number).name}")

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGINT, terminated)


def _holder() -> str:
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"user id {os.geteuid()}"
    return f"Ansible as {user}"


def _fail(module: AnsibleModule, error: OpsError, redact: Redactor) -> NoReturn:
    facts = {
        "reason": error.msg,
        "state": error.state,
        "hint": error.hint,
        **error.facts,
    }
    module.fail_json(msg=redact(str(error)), **{name: _masked(value, redact) for name, value in facts.items()})
    raise AssertionError("fail_json returned")


def _masked(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _masked(item, redact) for key, item in value.items()}
    return [_masked(item, redact) for item in value] if isinstance(value, (list, tuple)) else value
