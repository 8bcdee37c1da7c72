# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention where it really removes: 400 days of runs, with files and manifests in a directory."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import create, manifest
from ansible_collections.titan.ops.plugins.module_utils.backup.dump import Dumped
from ansible_collections.titan.ops.plugins.module_utils.backup.options import BackupOptions, backup_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.session import Facts, Way
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects
from ansible_collections.titan.ops.plugins.module_utils.compose.project import StackOptions
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.database.login import Endpoint
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, FakeEngine, container

UTC = datetime.timezone.utc
# A Monday; 400 days from it see a week 53 and the turn of the year.
BEGIN = datetime.datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 400


class Killed(BaseException):
    """SIGKILL: nothing catches it."""


@dataclass(frozen=True)
class Made:
    """A whole backup, as the test knows it without looking."""

    name: str
    moment: datetime.datetime
    data: bytes
    labelled: bool = False
    verified: bool = False


def staying(there: list[Made], daily: int, weekly: int, monthly: int) -> list[Made]:
    """The promise in its own words, asked of every backup by itself."""

    def stays(item: Made) -> bool:
        newer = [other for other in there if other.moment > item.moment]
        if not newer or item.labelled:
            return True
        if item.verified and not any(other.verified for other in newer):
            return True
        series = [other for other in newer if not other.labelled]
        if not series:
            return True
        if daily and item.moment.date() == max(other.moment for other in series).date():
            return True
        for number, begin in ((daily, _day), (weekly, _monday), (monthly, _first)):
            later = {begin(other.moment) for other in series}
            if begin(item.moment) not in later and len(later) < number:
                return True
        return False

    return [item for item in there if stays(item)]


def _day(moment: datetime.datetime) -> datetime.date:
    return moment.date()


def _monday(moment: datetime.datetime) -> datetime.date:
    return moment.date() - datetime.timedelta(moment.weekday())


def _first(moment: datetime.datetime) -> datetime.date:
    return moment.date().replace(day=1)


class Series:
    """Backups of one database, made, published and removed by the real code; only the server is missing.

    Attributes:
        there: what must be there, by ``staying`` alone; what is on the disk never gets in here.
        strangers: what must stay as it is: damaged, made by hand.
    """

    def __init__(self, home: Path, database: str, keep: tuple[int, int, int]) -> None:
        self.directory = home / "db"
        self.database = database
        self.there: list[Made] = []
        self.strangers: dict[str, bytes] = {}
        self.fails: BaseException | None = None
        self._keep = keep
        labels = {"com.docker.compose.project.working_dir": str(home)}
        engine: Any = FakeEngine([container("titan-postgres", labels=labels)])
        self._stack = StackOptions(project_src=str(home))
        self._clock = FakeClock(BEGIN.timestamp())
        self._effects = Effects(engine, "unix:///nowhere", self._clock, run_dir=str(home / "run"))

    def _options(self, label: str | None) -> BackupOptions:
        params = {name: item.get("default") for name, item in backup_spec().items()}
        params.update(database=self.database, directory="db", label=label, space_margin=0.0)
        params.update(zip(("keep_daily", "keep_weekly", "keep_monthly"), self._keep))
        return BackupOptions.from_params(params, self._stack.project_src)

    def run(self, moment: datetime.datetime, label: str | None = None) -> Made:
        """One run of backup.yml; what check mode has said is what happens."""
        self._clock.sleep(moment.timestamp() - self._clock.now())
        before = self.names()
        planned = create.plan(self._stack, self._options(label), self._effects)
        assert self.names() == before
        told = create.apply(planned, self._effects)
        made = Made(planned.name, moment, _content(planned.name), labelled=label is not None)
        self.there.append(made)
        if label is None:
            self.there = staying(self.there, *self._keep)
        assert told["removed"] == list(planned.removed)
        assert set(told["removed"]) == {name for name in before - self.names() if name in _backups(before)}
        return made

    def dumped(self, name: str) -> Dumped:
        """In place of pg_dump: half of a dump and a failure, or all of it."""
        data, path = _content(name), self.directory / f".{name}.partial"
        path.write_bytes(data if self.fails is None else data[:3])
        if self.fails is not None:
            raise self.fails
        return Dumped(str(path), len(data), hashlib.sha256(data).hexdigest(), len(data), "15.0", "sidecar")

    def drill(self, made: Made) -> None:
        """What a drill that has proved it leaves."""
        path = str(self.directory / made.name)
        manifest.write(path, replace(manifest.read(path), verified="2026-02-07T00:00:00Z"))
        self.there = [replace(item, verified=True) if item.name == made.name else item for item in self.there]

    def names(self) -> set[str]:
        return set(os.listdir(self.directory)) if self.directory.exists() else set()

    def lose(self, made: Made) -> None:
        """It is no whole backup any more, and so nobody's to remove."""
        self.there = [item for item in self.there if item.name != made.name]
        for name in (made.name, f"{made.name}.manifest.json"):
            self.strangers[name] = (self.directory / name).read_bytes()

    def sweep(self) -> None:
        """Somebody removes what is damaged."""
        for name in self.strangers:
            (self.directory / name).unlink()
        self.strangers.clear()

    def check(self, *others: Series, left: AbstractSet[str] = frozenset()) -> None:
        """The directory holds what it must, byte by byte, and nothing else but ``left``."""
        assert self.names() - left == {name for series in (self, *others) for name in series.wanted()}
        for item in self.there:
            path = self.directory / item.name
            told = json.loads((self.directory / f"{item.name}.manifest.json").read_text())
            assert path.read_bytes() == item.data
            assert (told["size_bytes"], told["sha256"]) == (len(item.data), hashlib.sha256(item.data).hexdigest())
            assert (told["verified"] is not None, told["label"] is not None) == (item.verified, item.labelled)
        for name, data in self.strangers.items():
            assert (self.directory / name).read_bytes() == data, name

    def wanted(self) -> set[str]:
        return {*(f"{item.name}{end}" for item in self.there for end in ("", ".manifest.json")), *self.strangers}


def _content(name: str) -> bytes:
    return f"-- {name}\n".encode()


def _backups(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(".sql") and not name.startswith(".")}


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Series]:
    """Makes series in one directory; what asks a server is answered here, and nothing of what works on files."""
    made: dict[str, Series] = {}

    @contextlib.contextmanager
    def session(_way: Way) -> Iterator[tuple[object, str]]:
        yield SimpleNamespace(cancel=lambda: None), "00000003-00000001-1"

    def find_way(_container: object, target: Any, _options: object) -> Way:
        return Way(Endpoint("titan-postgres", "127.0.0.1", 5432, target.database, "titan"), "password of titan")

    def dump(_effects: object, _container: object, _way: object, options: BackupOptions, **more: Any) -> Dumped:
        return made[options.target.database].dumped(more["name"])

    monkeypatch.setattr(create, "open_session", session)
    monkeypatch.setattr(create, "find_way", find_way)
    monkeypatch.setattr(create, "database_facts", lambda _way: Facts("15.0", 150000, 1, {}, {}))
    monkeypatch.setattr(create, "expired_databases", lambda *_args: [])
    monkeypatch.setattr(create, "counts", lambda _session: {"public.orders": 1})
    monkeypatch.setattr(create, "objects", lambda _session: {"tables": 1})
    monkeypatch.setattr(create, "dump", dump)
    # No power cut here; thousands of real ones would take a minute.
    monkeypatch.setattr(os, "fsync", lambda _fd: None)

    def make(*keep: int, database: str = "titan_brain") -> Series:
        made[database] = Series(tmp_path, database, (keep[0], keep[1], keep[2]))
        return made[database]

    return make


def at(day: int, hour: int) -> datetime.datetime:
    return BEGIN + datetime.timedelta(days=day, hours=hour)


def test_over_400_nights_the_directory_holds_what_the_policy_says_of_all_that_was_ever_made(
    series: Callable[..., Series],
) -> None:
    nightly, ever = series(7, 4, 12), []
    for day in range(DAYS):
        ever.append(nightly.run(at(day, 2)))
        nightly.check()
        if day % 19 == 0 or day == DAYS - 1:
            assert nightly.there == staying(ever, 7, 4, 12)
    # read from a calendar: seven nights, the Sundays of the weeks before, the last days of the months before
    months = [f"2026-{month:02}-{day}" for month, day in zip(range(3, 13), (31, 30, 31, 30, 31, 31, 30, 31, 30, 31))]
    weeks = ["2027-01-24", "2027-01-31"]
    nights = [f"2027-02-0{day}" for day in range(2, 9)]
    assert [item.name for item in nightly.there] == [f"titan_brain_{day}.sql" for day in (*months, *weeks, *nights)]


@pytest.mark.parametrize("keep", [(3, 2, 3), (0, 2, 2), (0, 0, 0)], ids=lambda keep: "-".join(map(str, keep)))
def test_two_runs_a_day_labels_drills_and_another_databases_backups_beside_them(
    series: Callable[..., Series], keep: tuple[int, int, int]
) -> None:
    brain, other = series(*keep), series(1, 0, 0, database="titan_other")
    brain.directory.mkdir()
    brain.strangers = {"by_hand.sql": b"SELECT 1;\n", "notes.txt": b"x", "moved.sql.manifest.json": b"{}"}
    for name, data in brain.strangers.items():
        (brain.directory / name).write_bytes(data)
    labelled = 0
    for day in range(DAYS):
        for hour in (2, 14):
            made = brain.run(at(day, hour))
            if day % 11 == 0 and hour == 2:
                brain.drill(made)
        if day % 60 == 7:
            labelled += 1
            made = brain.run(at(day, 20), label="release")
            if day % 120 == 7:
                brain.drill(made)
        if day % 40 == 3:
            for hour in (21, 22):
                other.run(at(day, hour))
        brain.check(other)
        other.check(brain)
    assert len([item for item in brain.there if item.labelled]) == labelled > 5
    assert len([item for item in brain.there if item.verified]) >= 1
    assert len(other.there) == 2


def test_a_run_with_a_label_removes_nothing_whatever_the_policy_says_by_now(series: Callable[..., Series]) -> None:
    generous = series(7, 4, 12)
    for day in range(5):
        generous.run(at(day, 2))
    strict = series(0, 0, 0)
    strict.there = list(generous.there)
    strict.run(at(5, 2), label="release")
    strict.check()
    assert len(strict.there) == 6


FAILURES = ["refused", "killed", "killed before the name", "rots", "rots once verified", "altered", "by hand"]


def failing(brain: Series, how: str, moment: datetime.datetime, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """One run that ends without a whole backup; gives what it leaves for the next one to remove."""
    name = f"titan_brain_{moment:%Y-%m-%d}.sql"
    if how == "by hand":
        (brain.directory / name).write_bytes(b"")
        brain.strangers[name] = b""
        return set()
    if how.startswith("rots") or how == "altered":
        made = brain.run(moment)
        if how == "rots once verified":
            brain.drill(made)
        spoilt = f"{made.name}.manifest.json" if how == "altered" else made.name
        (brain.directory / spoilt).write_bytes(b"{}")
        brain.lose(made)
        return set()
    with monkeypatch.context() as patched:
        if how == "killed before the name":

            def dies(_old: str, _new: str) -> None:
                raise Killed

            patched.setattr(os, "rename", dies)
        else:
            patched.setattr(brain, "fails", OpsError("pg_dump failed") if how == "refused" else Killed())
        with pytest.raises(OpsError if how == "refused" else Killed):
            brain.run(moment)
    partial = f".{name}.partial"
    return {"refused": set(), "killed": {partial}}.get(how, {partial, f"{name}.manifest.json"})


@pytest.mark.parametrize(
    ("keep", "before", "after"),
    [((3, 2, 2), [26, 27, 28, 29, 30], [29, 30]), ((0, 0, 0), [29, 30], [29])],
    ids=["3-2-2", "0-0-0"],
)
def test_when_every_later_run_fails_the_newest_verified_one_stays(
    series: Callable[..., Series],
    monkeypatch: pytest.MonkeyPatch,
    keep: tuple[int, int, int],
    before: list[int],
    after: list[int],
) -> None:
    """What seemed to succeed has taken the place of one night, one week and one month; nothing else goes."""
    brain = series(*keep)
    made = {}
    for day in range(31):
        made[day] = brain.run(at(day, 2))
        if day in (27, 29):
            brain.drill(made[day])
    brain.check()
    assert [item.name for item in brain.there] == [made[day].name for day in before]
    for day in range(31, DAYS):
        if day % 28 == 0:
            brain.sweep()
        left = failing(brain, FAILURES[day % len(FAILURES)], at(day, 2), monkeypatch)
        assert left <= brain.names()
        brain.check(left=left)
        assert made[29].name in [item.name for item in brain.there if item.verified]
    assert [item.name for item in brain.there] == [made[day].name for day in after]
    brain.run(at(DAYS, 2))
    brain.check()
