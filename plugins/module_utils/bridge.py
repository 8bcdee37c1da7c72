# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place where the engine meets Ansible: options in, results out, errors told, secrets masked."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .compose.project import StackOptions, base_of
from .compose.stack import Stack, open_stack
from .core.clock import Clock
from .core.errors import NOTHING_CHANGED, LockHeld, OpsError, Refused
from .core.history import History, Recovered, conclude
from .core.journal import drop_endings, endings, interrupted_operations
from .core.lock import held_by, host_lock
from .core.metrics import default_directory
from .core.progress import TOKEN, Progress, clear, published
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
        "metrics_dir": {"type": "path"},
        "operator": {
            "type": "dict",
            "options": {"user": {"type": "str"}, "job": {"type": "str"}, "job_template": {"type": "str"}},
        },
    }


@dataclass
class Context:
    """What a module's operation gets: its options and the real effects.

    Attributes:
        params: the module's options.
        check_mode: plan only.
        clock: the source of time.
        runner: runs commands.
        cancelled: whether a signal has asked us to end.
        stack: the stack, once it is open.
        progress: how far a long operation is.
        began: when the operation itself began (seconds since the epoch, seconds of the monotonic clock): after the wait
            for the lock.
        untold: the operations that ended without their line in the history, for they were killed at the last instant;
            None while the host's lock is not ours.
    """

    params: dict[str, Any]
    check_mode: bool
    clock: Clock
    runner: Runner
    cancelled: bool = False
    stack: Stack | None = None
    progress: Progress = field(default_factory=Progress)
    began: tuple[float, float] = (0.0, 0.0)
    untold: Sequence[Recovered] | None = None

    def begin(self) -> None:
        """The operation begins now."""
        self.began = (self.clock.now(), self.clock.monotonic())

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

    def refuse_half_done(self, consequence: str) -> None:
        """Refuse to go on while an operation has left its journal.

        Args:
            consequence: what could come of it.

        Raises:
            Refused: one was interrupted or, for check mode takes no lock, is under way.
        """
        options = self.options()
        found = ", ".join(interrupted_operations(options.state_path))
        busy = held_by(options.lock_file) if found and self.check_mode else None
        if busy:
            raise Refused(f"An operation is under way ({found}): {busy}", hint="Run again when it has ended.")
        if found:
            raise Refused(
                f"An interrupted operation was found ({found}){consequence}",
                hint="Run recover.yml: it finishes or undoes that one.",
            )

    def open(self, *, read: bool = True) -> Stack:
        """Locate the stack, and read its files, unless something is to be done before that; changes nothing."""
        try:
            stack = open_stack(self.options(), runner=self.runner, clock=self.clock)
            if read:
                stack.load_model()
        except OpsError as exc:
            exc.state = exc.state or NOTHING_CHANGED
            raise
        self.stack = stack
        stack.began = self.began[0]
        return stack


Operation = Callable[[Context], "dict[str, Any]"]


def run_module(
    argument_spec: dict[str, Any],
    operation: Operation,
    *,
    mutates: str | None = None,
    history: str | Callable[[Mapping[str, Any]], str] | None = None,
    looks: Callable[[Mapping[str, Any]], bool] | None = None,
    secret: str | None = None,
    hides: Sequence[str] = (),
    lock: str | None = None,
) -> NoReturn:
    """Run an operation as an Ansible module.

    Args:
        argument_spec: the module's own options; the common ones are added.
        operation: does the work and returns the result; raises OpsError.
        mutates: what for the host lock is taken, e.g. "rotate HMAC_SECRET"; None for a module that only reads. The
            lock is not taken in check mode.
        history: the operation's name in the history and the metrics, or what tells it from the options; None or "" for
            no history. Nothing is written in check mode.
        looks: tells from the options that this run changes nothing: it waits for nobody, as in check mode.
        secret: the option that names the secret which the operation rotates.
        hides: options with no_log whose values may be ordinary words and are never in the result.
        lock: a lock in the state directory that is taken instead of the host's.
    """
    module = AnsibleModule({**stack_spec(), **argument_spec}, supports_check_mode=True)
    context = Context(dict(module.params), module.check_mode, Clock(), Runner())
    for name in hides:
        # Ansible would mask short words, too, wherever they stand: a value "titan" in every service's name.
        module.params[name] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
        module.no_log_values = {value for value in module.no_log_values if len(value) >= 8}

    recorded = False

    def record(outcome: Mapping[str, Any] | Exception) -> None:
        nonlocal recorded
        if history and not module.check_mode and not recorded:
            recorded = True
            name = history if isinstance(history, str) else history(context.params)
            if name:
                _record(module, context, name, context.params[secret] if secret else None, outcome)

    context.begin()
    try:
        if mutates is None or module.check_mode:
            result = operation(context)
        elif looks and looks(context.params):
            result = _looking(context, operation, mutates)
        else:
            result = _locked(context, operation, mutates, record, lock)
    except OpsError as exc:
        if isinstance(exc, LockHeld):
            context.begin()  # it never began: the wait was not its own
        redact = context.stack.redact if context.stack else Redactor()
        for warning in [*(context.stack.warnings if context.stack else ()), *exc.facts.pop("warnings", ())]:
            module.warn(redact.known(warning))
        record(exc)
        _fail(module, exc, redact)
    except Exception as exc:
        record(exc)
        raise
    record(result)
    for name in ("about", "samples"):  # for the history and the metrics alone
        result.pop(name, None)
    if context.stack:
        result["warnings"] = [*context.stack.warnings, *result.get("warnings", [])]
        result = _masked(result, context.stack.redact.known)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)
    raise AssertionError("exit_json returned")


def _refuse_without_root(reason: str) -> None:
    if os.geteuid() != 0:
        raise Refused(
            f"This must run as root on the managed host to {reason}, not as user id {os.geteuid()}",
            hint="Set become: true (the playbooks do), and let the user use sudo.",
        )


def _looking(context: Context, operation: Operation, reason: str) -> dict[str, Any]:
    """Without the lock, be an operation under way or not; a look may be long, so that it is shown, and can be ended."""
    _refuse_without_root(reason)
    with published(context.progress, os.environ.pop(TOKEN, None)):
        _survive_signals(context)
        context.progress.phase("making the plan")
        return operation(context)


def _locked(
    context: Context,
    operation: Operation,
    reason: str,
    record: Callable[[dict[str, Any] | Exception], None],
    lock_name: str | None,
) -> dict[str, Any]:
    _refuse_without_root(reason)
    options = context.options()
    if not os.path.isdir(options.project_src):
        context.open()  # tells what is wrong before a lock file is made anywhere
    clear()
    context.progress.phase("waiting for the lock")
    with (
        published(context.progress, os.environ.pop(TOKEN, None)),
        host_lock(
            os.path.join(options.state_path, lock_name) if lock_name else options.lock_file,
            reason=reason,
            holder=_holder(context.params["operator"]),
            timeout=options.lock_timeout,
            clock=context.clock,
            waiting=lambda held: context.progress.phase(f"waiting for the lock, held by {held}"),
        ) as lock,
    ):
        # Should we be killed, a command of ours that still changes something goes on holding the lock.
        context.runner.keep_open(lock)
        _survive_signals(context)
        context.begin()
        if not lock_name:
            context.untold = [
                Recovered(note["operation"], note.get("secret"), note["how"], began=note["began"], ended=note["ended"])
                for note in endings(options.state_path)
            ]
        context.progress.phase(reason)
        try:
            result = operation(context)
        except Exception as exc:
            record(exc)
            raise
        record(result)  # while nobody else can leave a note, or find ours
        return result


def _survive_signals(context: Context) -> None:
    """A lost SSH connection stops nothing; a request to end is noted, for the operation to undo what it has begun."""

    def noted(_number: int, _frame: object) -> None:
        context.cancelled = True

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, noted)
    signal.signal(signal.SIGINT, noted)


def _user() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"user id {os.geteuid()}"


def _holder(operator: Mapping[str, Any] | None) -> str:
    """Who holds the lock, for whoever waits for it."""
    given = {name: value for name, value in (operator or {}).items() if value}
    job = f"job {given['job']}" if "job" in given else ""
    asked = ", ".join(text for text in (given.get("user", ""), job) if text)
    return f"Ansible as {_user()}" + (f" for {asked}" if asked else "")


def _record(
    module: AnsibleModule, context: Context, name: str, secret: str | None, outcome: Mapping[str, Any] | Exception
) -> None:
    """Write the history; whatever happens there, the operation has ended as it has."""
    options = context.options()
    if os.geteuid() != 0 or not os.path.isdir(options.project_src):
        return  # it was refused for that, and there is no place for a history
    asked = {name: value for name, value in (context.params["operator"] or {}).items() if value}
    who = {"user": _user(), **{"operator" if name == "user" else name: value for name, value in asked.items()}}
    directory = context.params["metrics_dir"]
    started, ticks = context.began
    try:
        ended = conclude(
            name,
            outcome,
            started=started,
            seconds=context.clock.monotonic() - ticks,
            who=who,
            secret=secret,
            recovered=[*(context.untold or ()), *(context.stack.recovered if context.stack else ())],
            redact=context.stack.redact.known if context.stack else str,
        )
        history = History(
            os.path.join(base_of(options.project_src), "logs", "ops.jsonl"),
            metrics_dir=default_directory() if directory is None else directory,
            clock=context.clock,
        )
        for warning in history.write(ended):
            module.warn(warning)
        if history.told and context.untold is not None:
            drop_endings(options.state_path)
    except Exception as exc:  # pylint: disable=broad-exception-caught
        module.warn(f"The history was not written ({type(exc).__name__}). The operation itself is not affected.")


def _fail(module: AnsibleModule, error: OpsError, redact: Redactor) -> NoReturn:
    """Fail with the error in our own words, which name variables and never their values: only known ones are masked.

    Whatever other programs said in it was redacted where it was taken.
    """
    facts = {
        "reason": error.msg,
        "state": error.state,
        "hint": error.hint,
        **error.facts,
    }
    masked = {name: _masked(value, redact.known) for name, value in facts.items()}
    module.fail_json(msg=redact.known(str(error)), **masked)
    raise AssertionError("fail_json returned")


def _masked(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _masked(item, redact) for key, item in value.items()}
    return [_masked(item, redact) for item in value] if isinstance(value, (list, tuple)) else value
