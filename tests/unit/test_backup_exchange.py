# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore that fails or is killed leaves: on the server, on the host, and in what is said of it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import exchange, restore, swap
from ansible_collections.titan.ops.plugins.module_utils.backup.session import Way
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.journal import Journal, endings
from ansible_collections.titan.ops.plugins.module_utils.database.login import Connection, Endpoint, Row
from ansible_collections.titan.ops.tests.unit import test_backup_restore as room
from ansible_collections.titan.ops.tests.unit.sidecars import PASSWORD
from ansible_collections.titan.ops.tests.unit.test_backup_restore import (
    BRAIN,
    DATABASES,
    Killed,
    Site,
    killed_at,
    make,
    more,
    sick_with,
)

pytest.importorskip("psycopg2")

server, site = room.server, room.site

COMMENT = (
    "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = '{}'"  # of a database
)


def kill(site: Site, monkeypatch: pytest.MonkeyPatch, step: str, path: Path) -> None:
    with monkeypatch.context() as patched:
        killed_at(patched, step, written=True)
        with pytest.raises(Killed):
            site.restore(path.name)


def litter(site: Site) -> list[Path]:
    """What SIGKILL leaves beside the databases: a sidecar, the password's file, the pipe's directory."""
    beside = site.services.server_container
    site.services.create("stray", {"Labels": {"titan.ops.sidecar": beside.id}})
    run = Path(site.effects.run_dir)
    (run / "restore").mkdir(parents=True)
    os.mkfifo(run / "restore/dump")
    (run / f"pgpass-{beside.id[:12]}").write_text("*:*:*:*:secret\n")
    return [run / "restore", run / f"pgpass-{beside.id[:12]}"]


def at_work(
    monkeypatch: pytest.MonkeyPatch, statement: str, when: Callable[[], bool]
) -> tuple[threading.Event, list[str]]:
    """From then on a statement takes a minute; what tells that it is under way, and each one that has taken it."""
    busy, through, run = threading.Event(), [], Connection.run

    def slowly(self: Connection, statements: Sequence[str]) -> list[Row]:
        if statement in statements[-1] and when():
            busy.set()
            run(self, ["SELECT pg_sleep(60)"])
            through.append(statements[-1])
        return run(self, statements)

    monkeypatch.setattr(Connection, "run", slowly)
    return busy, through


# Killed


@pytest.mark.parametrize("step", ["load", "swap the names"])
def test_what_lies_about_after_a_kill_is_gone_after_the_recovery(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    kill(site, monkeypatch, step, make(site))
    left = litter(site)
    assert restore.recover(site.open(), site.effects) == "undone"
    assert not [path for path in left if path.exists()] and site.services.inspect("stray") is None
    site.whole()


def test_what_lies_about_after_a_kill_without_a_journal_is_gone_after_the_next_restore(site: Site) -> None:
    path, left = make(site), litter(site)
    assert site.restore(path.name)["tidied"] == ["stray"]
    assert not [path for path in left if path.exists()]
    site.whole()


@pytest.mark.parametrize(("step", "how"), [("load", "undone"), ("prove", "finished")])
def test_a_recovery_leaves_a_note_for_the_history_and_warns_of_nothing_when_all_is_well(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, how: str
) -> None:
    """The note is all that remains of it, should this run be killed before it has written the history."""
    kill(site, monkeypatch, step, make(site))
    stack = site.open()
    assert restore.recover(stack, site.effects) == how and stack.warnings == []
    state = str(site.src / "state")
    assert [(note["operation"], note["how"]) for note in endings(state)] == [("restore", how)]


def test_what_was_asked_for_now_is_done_after_another_restore_was_finished(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(site, label="first")
    more(site)
    second = make(site, label="second")
    kill(site, monkeypatch, "prove", first)
    told = site.restore(second.name)
    assert (told["recovered"], told["rows"], site.rows()) == ("finished", 517, "510")
    assert len(site.kept()) == 2


def test_a_run_that_is_refused_after_it_has_recovered_another_says_what_it_has_changed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(site, monkeypatch, "load", make(site))
    with pytest.raises(InvalidInput, match="There is no backup") as caught:
        site.restore("nope.sql")
    assert caught.value.state == "An interrupted restore was undone by this run; beyond that nothing was changed"
    assert caught.value.facts["warnings"] == ["An interrupted restore was found and undone first."]
    site.whole()


def test_a_database_that_somebody_has_renamed_since_is_told_and_nothing_is_guessed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(site, monkeypatch, "start the writers", make(site))
    [kept] = site.kept()
    site.server.sql("ALTER DATABASE titan_brain RENAME TO titan_brain_aside")
    before = site.databases()
    with pytest.raises(OpsError, match="somebody has renamed or dropped it since") as caught:
        restore.recover(site.open(), site.effects)
    assert f"Rename the right one ({kept} or " in str(caught.value.hint) and str(site.journal().path) in str(
        caught.value.state
    )
    assert site.databases() == before and site.journal().load()
    site.server.sql("ALTER DATABASE titan_brain_aside RENAME TO titan_brain")
    assert restore.recover(site.open(), site.effects) == "finished"
    site.whole()


def test_one_that_somebody_makes_before_the_swap_stays_and_is_not_taken_for_the_new_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    site.server.sql("ALTER DATABASE titan_brain RENAME TO titan_brain_aside")
    try:
        kill(site, monkeypatch, "swap the names", path)
        site.server.sql("CREATE DATABASE titan_brain OWNER titan")
        assert restore.recover(site.open(), site.effects) == "undone"
        assert site.server.sql("SELECT count(*) FROM pg_class WHERE relname = 'orders'", database="titan_brain") == "0"
        site.whole()
    finally:
        site.server.sql("DROP DATABASE IF EXISTS titan_brain")
        site.server.sql("ALTER DATABASE titan_brain_aside RENAME TO titan_brain")


def test_where_there_was_no_database_before_nobody_is_told_to_take_it_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    site.server.sql("ALTER DATABASE titan_brain RENAME TO titan_brain_aside")
    try:
        kill(site, monkeypatch, "prove", path)
        sick_with(site, monkeypatch, lambda: True)
        stack = site.open()
        assert restore.recover(stack, site.effects) == "finished" and site.rows() == "500"
        assert stack.warnings == [f"{BRAIN} is not well: {BRAIN} is not well"]
    finally:
        site.server.sql("DROP DATABASE IF EXISTS titan_brain")
        site.server.sql("ALTER DATABASE titan_brain_aside RENAME TO titan_brain")


def test_without_docker_nothing_is_recovered_and_the_journal_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(site)
    with monkeypatch.context() as patched:
        killed_at(patched, "load", written=True)
        with pytest.raises(Killed):
            site.restore(path.name, health_timeout=1.0)
    with monkeypatch.context() as patched:
        patched.setattr(site.services, "answers", lambda: False)
        with pytest.raises(OpsError, match="did not come back within 1 seconds") as caught:
            restore.recover(site.open(), site.effects)
    assert "systemctl start docker" in str(caught.value.hint)
    assert "The journal" in str(caught.value.state) and site.journal().load()
    assert restore.recover(site.open(), site.effects) == "undone"
    site.whole()


# Failed


def test_names_that_are_not_swapped_are_found_out_whatever_the_server_has_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    monkeypatch.setattr(exchange, "swap", lambda *_args: None)
    with pytest.raises(OpsError, match='failed at "prove": The database titan_brain is not the new one') as caught:
        site.restore(path.name)
    assert caught.value.facts["rolled_back"] is True
    assert site.rows() == "510" and site.databases() == DATABASES
    site.whole()


def test_a_request_to_end_after_the_load_stops_no_writer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path, note = make(site), Journal.note

    def asked(self: Journal, **changes: Any) -> None:
        note(self, **changes)
        if changes.get("step") == "analyse":
            site.effects.cancelled = lambda: True

    monkeypatch.setattr(Journal, "note", asked)
    with pytest.raises(OpsError, match='failed at "analyse": The run was asked to end') as caught:
        site.restore(path.name)
    assert "no service was stopped" in str(caught.value) and site.brain() == []
    assert site.databases() == DATABASES
    site.whole()


@pytest.mark.parametrize(("step", "statement"), [("compare", "count(*) FROM public.orders"), ("analyse", "ANALYZE")])
def test_a_request_to_end_is_heard_while_the_server_is_at_work(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, statement: str
) -> None:
    path = make(site)
    busy, through = at_work(monkeypatch, statement, lambda: site.journal().load() is not None)
    site.effects.cancelled = busy.is_set
    with pytest.raises(OpsError, match=f'failed at "{step}": The run was asked to end') as caught:
        site.restore(path.name)
    assert "no service was stopped" in str(caught.value) and site.databases() == DATABASES and through == []
    site.whole()


def test_a_request_to_end_is_heard_while_a_plan_counts_the_rows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(site)
    busy, through = at_work(monkeypatch, "count(*) FROM public.orders", lambda: True)
    site.effects.cancelled = busy.is_set
    with pytest.raises(OpsError, match="The run was asked to end") as caught:
        site.restore(path.name)
    assert str(caught.value.state) == "Nothing was changed." and through == []
    site.whole()


def test_after_a_failed_proof_both_databases_bear_the_comments_that_they_had(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By theirs the kept ones are found again."""
    site.server.sql("COMMENT ON DATABASE titan_brain IS 'its own'")
    path = make(site)
    more(site)
    try:
        with monkeypatch.context() as patched:
            sick_with(site, patched, lambda: site.rows() == "500")
            with pytest.raises(OpsError, match='failed at "prove"'):
                site.restore(path.name)
        [failed] = site.failed()
        assert site.server.sql(COMMENT.format("titan_brain")) == "its own" and site.kept() == []
        text = site.server.sql(COMMENT.format(failed))
        assert text.startswith("titan.ops: titan_brain as left by the failed restore ")
        assert text.endswith(" with the next backup then\nits own")
        kept = site.restore(path.name)["kept"]
        mark = site.server.sql(COMMENT.format(kept))
        with monkeypatch.context() as patched:
            sick_with(site, patched, lambda: site.rows() == "510")
            with pytest.raises(OpsError, match='The undo of titan_brain failed at "prove"'):
                site.restore(undo=True)
        assert (site.rows(), site.kept()) == ("500", [kept])
        assert site.server.sql(COMMENT.format("titan_brain")) == "its own"
        assert site.server.sql(COMMENT.format(kept)) == mark
        site.whole()
        assert site.restore(undo=True)["what"] == kept
    finally:
        site.server.sql("COMMENT ON DATABASE titan_brain IS NULL")


def test_a_brain_that_is_well_with_neither_is_told_of_after_all_is_put_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    sick_with(site, monkeypatch, lambda: True)
    with pytest.raises(OpsError, match=f'failed at "prove": {BRAIN} is not well') as caught:
        site.restore(path.name)
    assert caught.value.facts["rolled_back"] is True and site.rows() == "510"
    assert re.search(
        f"{BRAIN} was stopped for a while and runs with it again. {BRAIN} is not well: {BRAIN} is not well; the new "
        f"database, with what was written into it meanwhile, is kept as {site.failed()[0]} until [0-9TZ:-]{{20}}$",
        str(caught.value.state),
    )
    site.whole()


def test_a_service_that_does_not_run_after_it_was_put_back_leaves_the_journal(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(site)
    more(site)
    with monkeypatch.context() as patched:
        sick_with(site, patched, lambda: site.rows() == "500")
        starts: list[str] = []

        def start(self: Any, container: str) -> None:
            found = self._find(container)
            if found.name == BRAIN:
                starts.append(container)
                if len(starts) > 1:
                    raise OpsError("Docker: port is already allocated")
            original(self, container)

        original = room.ServiceEngine.start
        patched.setattr(room.ServiceEngine, "start", start)
        with pytest.raises(OpsError, match="Undoing it failed, too: Docker: port is already allocated") as caught:
            site.restore(path.name)
    assert caught.value.facts["rolled_back"] is False
    [failed] = site.failed()
    told = f"until then stopped may be: {BRAIN}; the new database, with what was written into it meanwhile, is kept as "
    assert told + failed in str(caught.value.state) and site.journal().load()
    assert site.rows() == "510"
    assert restore.recover(site.open(), site.effects) == "undone"
    site.whole()


def test_two_names_change_in_one_transaction_or_not_at_all(site: Site) -> None:
    admin = Way(Endpoint("titan-postgres", "127.0.0.1", site.server.port, "postgres", "titan"), PASSWORD)
    with pytest.raises(OpsError, match=r"The names could not be swapped: .*does not exist"):
        swap.swap(admin, {"titan_brain": "titan_brain_old", "titan_brain_gone": "titan_brain"}, {})
    assert site.databases() == DATABASES


def test_the_new_database_has_the_statistics_of_its_rows(site: Site) -> None:
    site.restore(make(site).name)
    assert site.server.sql("SELECT reltuples FROM pg_class WHERE relname = 'orders'", database="titan_brain") == "500"
    site.restore(undo=True)
