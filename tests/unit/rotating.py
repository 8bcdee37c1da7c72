# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rotation on the host of fake_host, as a process that can be killed; and what is true after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac, transaction
from ansible_collections.titan.ops.plugins.module_utils.rotation.drain import Drain
from ansible_collections.titan.ops.plugins.module_utils.rotation.frame import journal_of
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import HmacOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.switch import Switch
from ansible_collections.titan.ops.tests.unit.fake_host import ENV, OLD, Host, Killed

NEW = "1" * 8 + "new" + "1" * 53
BRAIN, EXECUTION, OPSD = "titan-brain", "titan-execution", "titan-opsd"
HALT, REDB = "/app/system.halt", "/app/titan_execution.redb"
HOLDERS = {BRAIN: "HMAC_SECRET", EXECUTION: "HMAC_SECRET", OPSD: "OPS_SECRET"}

# Which services are switched together; the other holders are recreated after them.
GROUPS: dict[str, tuple[str, ...]] = {
    "the runbook's two": (BRAIN, EXECUTION),
    "brain alone": (BRAIN,),
    "all holders": (),
}


def options(group: str = "the runbook's two", **changes: Any) -> HmacOptions:
    plain: dict[str, Any] = {"drain": Drain(enabled=False), "probes": (), "counters": (), "health_timeout": 20}
    return HmacOptions(**{"services": GROUPS[group], **plain, **changes})


@dataclass
class Process:
    """A run of the module: what lasts is on the host, the rest is gone when it ends."""

    host: Host
    options: HmacOptions

    def rotate(self) -> transaction.Outcome:
        stack = self.host.stack()
        hmac.recover(stack, self.options)
        planned = hmac.plan(stack, self.options)
        return hmac.apply(stack, self.options, planned, token_hex=lambda _bytes: NEW)[0]

    def recover(self) -> str | None:
        return hmac.recover(self.host.stack(), self.options)


def new_host(src: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(src)
    replace, rename, unlink = os.replace, os.rename, os.unlink

    def counted_replace(source: str, target: str, **kwargs: Any) -> None:
        if str(target).startswith(str(src)):
            made.do(f"write {os.path.basename(target)}")
        replace(source, target, **kwargs)

    def counted_rename(source: str, target: str, **kwargs: Any) -> None:
        """Of a file that was written before: it needs no space."""
        if str(target).startswith(str(src)):
            made.do(f"rename {os.path.basename(target)}")
        rename(source, target, **kwargs)

    def counted_unlink(path: str, **kwargs: Any) -> None:
        ours = str(path).startswith(str(src)) and not str(path).endswith(".titan-new") and os.path.exists(path)
        if ours or (kwargs.get("dir_fd") is not None and str(path).endswith(".tar")):  # the latter is shutil.rmtree
            made.do(f"delete {os.path.basename(path)}")
        unlink(path, **kwargs)

    monkeypatch.setattr(os, "replace", counted_replace)
    monkeypatch.setattr(os, "rename", counted_rename)
    monkeypatch.setattr(os, "unlink", counted_unlink)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    return made


def assert_one_secret(host: Host, value: str) -> None:
    """The file and every holder say the value and nothing else does; all run, under their own names; all is tidy."""
    other = {OLD: NEW, NEW: OLD}[value]
    assert host.env_file.read_bytes() == ENV.replace(OLD, value).encode()
    assert host.env_file.stat().st_mode & 0o777 == 0o600
    for service, variable in HOLDERS.items():
        raw = host.one(service)
        assert host.environment(service)[variable] == value
        assert other not in str(raw)
        assert raw["State"]["Status"] == "running"
        assert raw["Name"] == f"/{service}"
    assert host.layer(EXECUTION)[HALT] == b"halted by the operator"
    found = [path for path in host.src.rglob("*") if path.is_file() and path.parent != host.src]
    notes = [path for path in found if path.suffix == ".ended"]  # until the history says so, which is not in play here
    assert [path.name for path in found if path not in notes] == [".env.prod"]
    assert not any(secret in path.read_text() for path in notes for secret in (value, other))
    assert not (host.src / "state" / "hmac_rotate.journal.files").exists()
    assert host.one("titan-nats")["State"]["StartedAt"] < "2026-02-06T14:04"


def kill_at(host: Host, number: int) -> None:
    """Kill whatever runs before its operation of that number, counted from now."""
    begun = len(host.operations)

    def at(count: int, _name: str) -> None:
        if count - begun >= number:
            raise Killed

    host.at = at


def kill_before(host: Host, name: str) -> None:
    """Kill whatever runs before it does this."""

    def at(_count: int, now: str) -> None:
        if now == name:
            raise Killed

    host.at = at


def killed_before(host: Host, name: str, chosen: HmacOptions) -> None:
    """A rotation that was killed there."""
    kill_before(host, name)
    with pytest.raises(Killed):
        Process(host, chosen).rotate()
    let_live(host)


def start_by_hand(host: Host, *services: str) -> None:
    """What an operator does who finds services stopped: docker start."""
    for service in services:
        for raw in host.of(service):
            host.start(raw["Id"])


def let_live(host: Host) -> None:
    host.at = lambda number, name: None


def direct(
    host: Host,
    *,
    chosen: HmacOptions | None = None,
    drain: Any = lambda: None,
    prove: Any = lambda right, wrong, services: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> transaction.Transaction:
    """The transaction itself, with a drain and a proof of the test's own."""
    stack: Stack = host.stack()
    planned = hmac.plan(stack, chosen or options())
    switch = Switch(
        key="HMAC_SECRET",
        env_file=str(host.env_file),
        old=OLD,
        new=NEW,
        old_data=ENV.encode(),
        new_data=ENV.replace(OLD, NEW).encode(),
        producers=planned.producers,
        services=planned.services,
        stale=planned.stale,
        holders={item.service: item.variables for item in planned.secret.holders},
        carry=planned.carry,
        health_timeout=20,
    )
    return transaction.Transaction(
        stack, journal_of(stack, hmac.JOURNAL), switch, drain=drain, prove=prove, cancelled=cancelled
    )
