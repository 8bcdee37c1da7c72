# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of a long module: its progress as lines, and Ctrl-C that ends it on the host as well.

The module itself runs as it always does: over its connection, to its end, with its own result. Beside it a thread asks
the host every few seconds, over the same connection settings, how far it is. Whatever goes wrong there, the module does
not notice. (Ansible's own async would run it detached from the connection, keep its result in a file on the host, and
take Ctrl-C from it for good.)
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.utils.display import Display

from ansible_collections.titan.ops.plugins.module_utils.core.progress import RUN_DIR, TOKEN

__all__ = ["WatchedAction"]

display = Display()
# Seconds that the host has to answer a request to end; after that the module goes on to its end.
_PATIENCE = 8
# Says it until somebody listens (the module may just be starting), then waits until it was heard.
_ASK_TO_END = (
    'said=; for turn in $(seq 50); do if [ -d "{path}" ]; then : > "{path}/end"; said=1;'
    ' elif [ -n "$said" ]; then break; fi; sleep 0.1; done 2>/dev/null'
)


def _give_up(_number: int, _frame: Any) -> None:
    raise TimeoutError(f"it did not answer within {_PATIENCE} seconds")


class WatchedAction(NormalAction):
    """Runs the task's module, and shows what it says of its progress."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the module; its result is what it would be without any of this."""
        interval = self._interval()
        # Check mode is over in a moment; a detached run is one that nobody wants to look at. And a signal's handler can
        # be set in the main thread alone, where Ansible itself has us.
        hidden = self._task.check_mode or self._task.async_val or self._task.no_log
        if interval is None or hidden or threading.current_thread() is not threading.main_thread():
            return super().run(tmp, task_vars)
        token = secrets.token_hex(16)
        path = f"{RUN_DIR}/progress-{token}"
        environment = self._task.environment
        given = environment if isinstance(environment, list) else [environment]
        self._task.environment = [*given, {TOKEN: token}]
        host = str((task_vars or {}).get("inventory_hostname") or self._play_context.remote_addr)
        try:
            with self._ended_by_signals(path, host), self._shown(path, host, interval):
                return super().run(tmp, task_vars)
        finally:
            self._task.environment = environment

    def _interval(self) -> float | None:
        """Seconds between two lines; None for none at all. What is wrong with the options, the module says."""
        with contextlib.suppress(TypeError, ValueError):
            if boolean(self._task.args.get("progress", True)):
                return max(1.0, float(self._task.args.get("progress_interval", 5)))
        return None

    def _beside(self) -> WatchedAction:
        """Another one of us with a connection of its own: the module's is busy. ``become`` keeps a state, too."""
        other = copy.copy(self)
        other._connection = copy.copy(self._connection)
        other._connection.become = copy.copy(self._connection.become)
        return other

    def _ask(self, command: str) -> str:
        """What a command says on the host, as the user as whom the module runs."""
        # With input, be it empty: without any, Ansible would ask for a terminal on the host.
        data = b"\n" if self._connection.has_pipelining else None
        return str(self._low_level_execute_command(command, in_data=data)["stdout"])

    @contextlib.contextmanager
    def _shown(self, path: str, host: str, interval: float) -> Iterator[None]:
        over = threading.Event()
        name = self._task.action.rpartition(".")[2]

        def look() -> None:
            other = self._beside()
            try:
                while not over.wait(interval):
                    line = other._ask(f"cat {path}/line 2>/dev/null || :").strip()
                    if line and not over.is_set():
                        display.display(f"{host}  {name}  {line}")
            except Exception as exc:  # pylint: disable=broad-exception-caught  # the module must not suffer from it
                display.vvv(f"no more progress of {name} is shown: {exc}", host=host)

        # In the task's own context, which Ansible looks for in some of its calls.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(look,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(interval)

    @contextlib.contextmanager
    def _ended_by_signals(self, path: str, host: str) -> Iterator[None]:
        """Ctrl-C ends Ansible's worker and its ssh, of which a module notices nothing: it must be told."""
        before: dict[int, Any] = {}

        def ask(number: int, frame: Any) -> None:
            # Ansible sends SIGTERM after SIGINT at once; its main process then waits for us.
            for each in before:
                signal.signal(each, lambda _number, _frame: None)
            signal.signal(signal.SIGALRM, _give_up)
            signal.alarm(_PATIENCE)
            try:
                self._beside()._ask(_ASK_TO_END.format(path=path))
            except Exception as exc:  # pylint: disable=broad-exception-caught  # we end anyway
                display.vvv(f"the host could not be asked to end: {exc}", host=host)
            finally:
                signal.alarm(0)
                for each, handler in before.items():
                    signal.signal(each, handler)
                os.kill(os.getpid(), number)

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, ask)
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
