# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our reading and writing of env files against the real ``docker compose config``, over thousands of generated files.

The files are always the same ones (hypothesis, derandomized). They are collected first and then given to Compose many
at a time: one project with a service and an env file for each. Only files that Compose should refuse cost a call each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.titan.ops.plugins.module_utils.compose.dotenv import EnvFile, parse, set_values
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.titan.ops.tests.unit import real_compose

T = TypeVar("T")

BATCH = 200
# What the process that runs Compose has in its environment, and so what files may inherit or refer to.
ENVIRONMENT = {"FROM_ENV": "from the environment", "EMPTY_ENV": "", "B": "B of the environment"}

NAMES = ["A", "B", "C", "a", "_u", "S3", "FROM_ENV", "EMPTY_ENV"]
ODD_NAMES = ["A.B", "c-d", "X[0]", "1K", "ß", "Ünï", "T\tT", "é²", "export"]
SEPARATORS = ["=", "=", "=", "=", "= ", " = ", " =", ":", ": ", "\t=\t", "=\xa0", "=\x85", "=\u2003", "=\v\f", "=  "]
PLAIN = [
    "a",
    "0",
    "7",
    "b c",
    "postgres://u:p@h/db?x=y",
    "é",
    "日本",
    "=",
    ":",
    "-",
    "+",
    "?",
    ".",
    "~",
    "&",
    "%41",
    "`",
    "!",
]
SPACES = [" ", "  ", "\t", "\xa0", "\u2003", "\x85", "\x1c", "\v", "\r"]
HASHES = ["#", " #", " # c", "\t#", "# ", "\xa0#"]
BACKSLASHES = [
    "\\",
    "\\\\",
    "\\n",
    "\\r",
    "\\t",
    "\\a",
    "\\b",
    "\\c",
    "\\e",
    "\\x41",
    "\\$",
    "\\'",
    '\\"',
    "\\#",
    "\\ ",
]
OCTALS = ["\\0", "\\07", "\\012", "\\0101", "\\0377", "\\0400", "\\0099", "\\0000", "\\101", "\\01012"]
REFERENCES = [
    "$A",
    "$B",
    "$FROM_ENV",
    "${A}",
    "${B}",
    "${FROM_ENV}",
    "${EMPTY_ENV}",
    "${UNSET}",
    "${a}",
    "$AB",
    "$_u",
    "$é",
]
DEFAULTS = [
    "${A:-d}",
    "${A-d}",
    "${A:+d}",
    "${A+d}",
    "${EMPTY_ENV:-d}",
    "${EMPTY_ENV-d}",
    "${EMPTY_ENV:+d}",
    "${EMPTY_ENV+d}",
]
NESTED = [
    "${A:-${B}}",
    "${UNSET:-${C-$A}x}y",
    "${UNSET:-a}}",
    "${UNSET:-{}}",
    "${UNSET-{a}}",
    "${UNSET:-$$}",
    "${A:-x} ${C}",
]
REQUIRED = ["${FROM_ENV:?m}", "${EMPTY_ENV?m}", "${FROM_ENV?$A}"]
DOLLARS = ["$", "$$", "$$$", "$1", "$-", "$\u212a", "${\u017f}", "$\u0130", "$}", "{", "}", "{}"]
REFUSED = ["${", "${}", "${A", "${A:x}", "${UNSET?m}", "${EMPTY_ENV:?m}", "${A:-${}", "${1}", "\0", "${UNSET:-\n}"]
RAW = ["\udcff", "\udce2\udc82", "\udc85"]  # bytes that are not UTF-8


def joined(*groups: Sequence[str], most: int = 5) -> st.SearchStrategy[str]:
    """Texts of a few pieces, each from one of the groups with equal chance."""
    piece = st.one_of([st.sampled_from(group) for group in groups])
    return st.lists(piece, max_size=most).map("".join)


def weighted(*choices: tuple[int, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """One of several strategies, each as often as its weight says."""
    strategies = [strategy for weight, strategy in choices for _copy in range(weight)]
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy)


ORDINARY = (PLAIN, PLAIN, REFERENCES, DEFAULTS, NESTED, REQUIRED, DOLLARS, BACKSLASHES, OCTALS, HASHES, SPACES)
NAME = st.sampled_from(NAMES * 3 + ODD_NAMES)
UNQUOTED = joined(*ORDINARY, ["'", '"', "x'"], RAW)
SINGLE = joined(*ORDINARY, ['"', "\\'", "\n", "\r\n"], RAW).map("'{}'".format)
DOUBLE = joined(*ORDINARY, ["'", '\\"', "\n", "\r\n"], RAW).map('"{}"'.format)
ASSIGNMENT = st.tuples(
    st.sampled_from(["", "", "", "", "export ", "export\t ", " ", "export\v"]),
    NAME,
    st.sampled_from(SEPARATORS),
    weighted((2, UNQUOTED), (1, SINGLE), (2, DOUBLE)),
    st.sampled_from(["", "", "", "", "", " ", "  # c", "# c", " #", "\t", "\r", " B=2", " C", "\u2003"]),
).map("".join)
LINE = weighted(
    (60, ASSIGNMENT),
    (3, NAME),
    (2, NAME.map("export {}".format)),
    (5, st.sampled_from(["", " ", "# comment", '  # it\'s a "comment" = $', "#", "export", "\r"])),
    (1, st.tuples(NAME, st.just("="), joined(*ORDINARY, REFUSED, REFUSED, ["'", '"'], most=3)).map("".join)),
    (1, joined(*ORDINARY, NAMES, ["=x"], most=3)),
    (1, st.tuples(NAME, st.sampled_from([" ", "  \t", "\t "]), NAME, st.sampled_from(["", "=x"])).map("".join)),
)
LINES = st.lists(
    st.tuples(LINE, st.sampled_from(["\n", "\n", "\n", "\n", "\r\n", "\n\n"])).map("".join), min_size=1, max_size=6
)
FILE = st.tuples(
    st.sampled_from(["", "", "", "", "", "\ufeff"]), LINES.map("".join), st.sampled_from([str] * 5 + [str.rstrip])
).map(lambda parts: parts[2](parts[0] + parts[1]).encode("utf-8", "surrogateescape"))


def generated(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """The first distinct items that a strategy yields; always the same ones."""
    items: dict[T, None] = {}

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(item: T) -> None:
        items.setdefault(item)

    collect()
    return list(items)


def ours(data: bytes) -> dict[str, str] | None:
    """How we resolve a file; None if we refuse it."""
    try:
        return parse(data).resolve(ENVIRONMENT)
    except InvalidInput:
        return None


def impossible(data: bytes) -> bool:
    """Whether we refuse a file for a variable that no container can be given: one without a name or with a NUL.

    Compose's parser lets them pass. So does `config` for a service; for the project it depends on the version.
    """
    try:
        parse(data).resolve(ENVIRONMENT)
    except InvalidInput as error:
        return any(reason in error.msg for reason in ("no variable name", "ends right after a name", "NUL"))
    return False


def as_shown(values: dict[str, str] | None) -> dict[str, str] | None:
    """Values as JSON can show them: bytes that are not UTF-8 are replaced."""
    if values is None:
        return None
    return {
        key: "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in text)
        for key, text in values.items()
    }


class Compose:
    """Compose, asked for what it makes of env files of services."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def resolve(self, files: Sequence[bytes]) -> list[dict[str, str | None] | None]:
        """What Compose resolves each file to as a service's ``env_file:``; None for those that it refuses."""
        expected = [ours(file) is not None for file in files]
        results: list[dict[str, str | None] | None] = [None] * len(files)
        fine = [index for index, good in enumerate(expected) if good]
        batches = [fine[start : start + BATCH] for start in range(0, len(fine), BATCH)]
        batches += [[index] for index, good in enumerate(expected) if not good]
        with ThreadPoolExecutor(2) as pool:
            for batch, answers in zip(batches, pool.map(lambda batch: self._ask([files[i] for i in batch]), batches)):
                for index, answer in zip(batch, answers):
                    results[index] = answer
        return results

    def _ask(self, files: Sequence[bytes]) -> list[dict[str, str | None] | None]:
        project = self._directory / str(next(self._numbers))
        project.mkdir()
        services = {}
        for number, data in enumerate(files):
            (project / f"{number}.env").write_bytes(data)
            services[f"s{number}"] = {"image": "none", "env_file": [f"{number}.env"]}
        answer = real_compose.config(project, services, ENVIRONMENT)
        if answer is not None:
            return [answer[f"s{number}"] for number in range(len(files))]
        if len(files) == 1:
            return [None]
        # One that we take and Compose refuses makes it refuse all: find it.
        half = len(files) // 2
        return self._ask(files[:half]) + self._ask(files[half:])


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    return Compose(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def corpus(compose: Compose) -> dict[bytes, dict[str, str | None] | None]:
    """The generated files and what Compose makes of each."""
    files = generated(FILE, 3000)
    return dict(zip(files, compose.resolve(files)))


@pytest.fixture(scope="module")
def readable(corpus: dict[bytes, dict[str, str | None] | None]) -> list[tuple[EnvFile, dict[str, str | None]]]:
    """Those that we and Compose accept."""
    return [(parse(data), theirs) for data, theirs in corpus.items() if theirs is not None and ours(data) is not None]


def report(differences: Sequence[tuple[Any, ...]], total: int) -> str:
    shown = "\n".join(
        "\n    ".join(str(part) for part in parts) for parts in sorted(differences, key=lambda d: len(repr(d)))[:5]
    )
    return f"{len(differences)} of {total} differ, the shortest:\n{shown}"


def test_as_a_services_env_file_every_file_reads_as_compose_reads_it(
    corpus: dict[bytes, dict[str, str | None] | None],
) -> None:
    differences, refused, nameless = [], 0, 0
    for data, theirs in corpus.items():
        mine = ours(data)
        if theirs is not None and impossible(data):
            nameless += 1
            good = "" in theirs or any("\0" in str(text) for text in theirs.values())
        else:
            good = as_shown(mine) == theirs
        if not good:
            differences.append((data, f"ours:   {mine}", f"theirs: {theirs}"))
        refused += theirs is None
    assert not differences, report(differences, len(corpus))
    # The generator must go on finding all kinds.
    assert len(corpus) > 2200 and 150 < refused < len(corpus) / 4 and nameless > 30, (len(corpus), refused, nameless)


def test_as_the_projects_env_file_every_file_reads_as_compose_reads_it(
    corpus: dict[bytes, dict[str, str | None] | None], tmp_path: Path
) -> None:
    files = sorted(corpus, key=len)[::16]  # here each costs a call, so a sample

    def difference(numbered: tuple[int, bytes]) -> tuple[bytes, str, str] | None:
        number, data = numbered
        project = tmp_path / str(number)
        project.mkdir()
        (project / "prod.env").write_bytes(data)
        mine = ours(data)
        # A variable without a value in `environment:` is taken from the project's environment, and so is ${NAME}.
        keys = sorted({*NAMES, *ODD_NAMES, *(mine or {})})
        services = {
            "taken": {"image": "none", "environment": dict.fromkeys(keys)},
            "interpolated": {"image": "none", "environment": {name: f"${{{name}-unset}}" for name in NAMES}},
        }
        theirs = real_compose.config(project, services, ENVIRONMENT, project / "prod.env")
        # The environment of the process wins over the file.
        values = as_shown(None if mine is None else {**mine, **ENVIRONMENT})
        expected = (
            None
            if values is None
            else {
                "taken": {key: values.get(key) for key in keys},
                "interpolated": {name: values.get(name, "unset") for name in NAMES},
            }
        )
        return None if theirs == expected or impossible(data) else (data, f"ours:   {expected}", f"theirs: {theirs}")

    with ThreadPoolExecutor(2) as pool:
        differences = [found for found in pool.map(difference, enumerate(files)) if found]
    assert not differences, report(differences, len(files))


def test_one_file_for_both_uses_reads_as_compose_reads_it(tmp_path: Path) -> None:
    data = b"A=1\nX=$A\nA=2\nY=$Z\nZ=3\nFROM_ENV=file\nW=$FROM_ENV\nFROM_ENV\n"
    (tmp_path / "prod.env").write_bytes(data)
    services = {
        "s": {"image": "none", "env_file": ["prod.env"]},
        "p": {"image": "none", "environment": ["X", "Y", "W"]},
    }
    theirs = real_compose.config(tmp_path, services, ENVIRONMENT, tmp_path / "prod.env")
    file = parse(data)
    project = {**file.resolve(ENVIRONMENT), **ENVIRONMENT}
    assert theirs == {"s": file.resolve(project), "p": {key: project[key] for key in ("X", "Y", "W")}}
    assert theirs["p"]["X"] == "1" and theirs["s"]["X"] == "2"


# Bytes and NUL cannot be in a value, and are refused by name in test_dotenv.py.
VALUES = st.one_of(
    joined(*ORDINARY, [piece for piece in REFUSED if "\0" not in piece], ["'", '"', "\n"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=24),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)


def test_a_value_that_is_set_is_what_compose_returns_and_nothing_else_changes(
    compose: Compose, readable: list[tuple[EnvFile, dict[str, str | None]]]
) -> None:
    cases = []
    for (file, before), value in zip(readable, itertools.cycle(generated(VALUES, 900))):
        once = [entry for entry in file.entries if len(file.of(entry.key)) == 1 and not entry.inherited]
        if once:
            entry = once[len(cases) % len(once)]
            cases.append((file, entry, value, before, set_values(file.data, {entry.key: value})))
    differences = []
    for (file, entry, value, old, data), new in zip(cases, compose.resolve([case[-1] for case in cases])):
        head = file.text[: entry.start].encode("utf-8", "surrogateescape")
        tail = file.text[entry.end :].encode("utf-8", "surrogateescape")
        expected = {**old, entry.key: value}
        for name in file.referencing(entry.key):
            expected[name] = (new or {}).get(name)
        kept = data.startswith(head) and data.endswith(tail) and len(data) >= len(head) + len(tail)
        if new != expected or not kept:
            differences.append((file.data, f"{entry.key} -> {value!r}", data, f"before: {old}", f"after:  {new}"))
    assert not differences, report(differences, len(cases))
    assert len(cases) > 1500


def test_a_variable_that_is_added_is_what_compose_returns_and_nothing_else_changes(
    compose: Compose, readable: list[tuple[EnvFile, dict[str, str | None]]]
) -> None:
    cases = [
        (file, value, before, set_values(file.data, {"ADDED": value}, append=True))
        for (file, before), value in zip(readable[::3], itertools.cycle(generated(VALUES, 300)))
    ]
    differences = [
        (file.data, f"ADDED -> {value!r}", data, f"before: {old}", f"after:  {new}")
        for (file, value, old, data), new in zip(cases, compose.resolve([case[-1] for case in cases]))
        if new != {**old, "ADDED": value} or not data.startswith(file.data)
    ]
    assert not differences, report(differences, len(cases))
    assert len(cases) > 500
