# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain dumps on their way to psql: what pg_dump writes passes byte for byte, what would go elsewhere does not."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup.source import Source, find_source
from ansible_collections.titan.ops.plugins.module_utils.backup.sqlscan import Scanner, without_carriage_returns
from ansible_collections.titan.ops.plugins.module_utils.backup.zstd import Compressor
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Refused

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n\\restrict abcDEF123\n\nSET standard_conforming_strings = on;\n"
TAIL = b"\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abcDEF123\n"
COPY = (
    b"--\n-- Data for Name: orders; it's \\connect time\n--\n\n"
    b'COPY public."odd ""name" (id, note) FROM stdin;\n'
    b"1\t\\\\connect other\n\\\\connect other\n2\t\\N\n\\.\n\n\n"
    b"/* one; */ COPY public.empty (id) FROM stdin;\n\\.\n"
)
STRINGS = (
    b"INSERT INTO t VALUES ('it''s; \\connect x', E'a \\' b \\\\', U&'\\0041', \"x\"\"; \\c y\");\n"
    b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$ SELECT '\\connect'; COPY x FROM stdin; $_$;\n"
    b"/* a /* nested \\connect */ comment; */ SELECT 1; -- \\connect\n"
    b"SELECT a$b$c, $1 FROM t;\n"
)
DUMP = HEAD + COPY + STRINGS + TAIL


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def passed(data: bytes, size: int = 1 << 20) -> tuple[bytes, dict[str, int]]:
    scanner = Scanner("x.sql")
    return b"".join(scanner.passed(in_pieces(data, size))), scanner.rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_a_dump_passes_byte_for_byte_and_its_rows_are_counted(size: int) -> None:
    assert passed(DUMP, size) == (DUMP, {'public."odd ""name"': 3, "public.empty": 0})


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "bad",
    [
        b"\\connect evil\n",
        b"\\c other\n",
        b"SELECT 1 \\connect other\n",
        b"\\! rm -rf /\n",
        b"SELECT 1 \\; \\connect x\n",
        b"SELECT 'a' \\g /tmp/x\n",
        b"CREATE TABLE a (x int \\connect y\n",
        b"\\restrict x; \\connect y\n",
        b"/* */ \\connect other\n",
        b"SELECT $a$ x $a$; \\connect other\n",
        b"SELECT E'\\\\'; \\connect other\n",
        b"SELECT '\\'; \\connect other\n",
    ],
)
def test_a_command_to_psql_never_passes(bad: bytes, size: int) -> None:
    scanner = Scanner("x.sql")
    seen = b""
    with pytest.raises(InvalidInput, match=r"(goes to another database|holds a command)"):
        for piece in scanner.passed(in_pieces(HEAD + COPY + bad + TAIL, size)):
            seen += piece
    assert bad not in seen


def test_the_line_of_the_command_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"line 3: \\connect other"):
        passed(b"SELECT 1;\nSELECT 2;\n\\connect other\n")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"SET standard_conforming_strings = off;\n", "standard_conforming_strings off"),
        (b"SET client_encoding = 'SJIS';\n", "SJIS"),
        (b"COPY a (b) FROM stdin; SELECT 1;\n", "on the same line"),
        (b"COPY a (b) FROM stdin;\n1\n", "ends in the middle"),
        (b"SELECT 'abc\n", "ends in the middle"),
    ],
)
def test_what_cannot_be_read_safely_is_refused(text: bytes, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        passed(text)


@pytest.mark.parametrize("size", [1, 2, 5, 1 << 20])
def test_a_terminals_carriage_returns_go_and_no_others(size: int) -> None:
    data = DUMP + b"a\rb\r\nSELECT 'x';\n"
    sent = data.replace(b"\n", b"\r\n")
    assert b"".join(without_carriage_returns(in_pieces(sent, size), "x")) == data


def test_carriage_returns_in_some_lines_only_are_refused() -> None:
    with pytest.raises(InvalidInput, match="some lines only"):
        list(without_carriage_returns([b"a\r\nb\n"], "x"))


def zstd(data: bytes) -> bytes:
    compressor = Compressor(1, 1)
    try:
        return compressor.compress(data) + compressor.flush()
    finally:
        compressor.close()


# What a file is, whatever it is called


def source(path: Path) -> Source:
    return find_source(str(path.parent), str(path), cancelled=lambda: False)


@pytest.mark.parametrize("name", ["x.sql", "x", "x.dump", "strange: name"])
@pytest.mark.parametrize(("packed", "kind"), [(bytes, "SQL"), (gzip.compress, "SQL, gzip"), (zstd, "SQL, zstd")])
def test_a_plain_dump_is_known_by_its_content(tmp_path: Path, name: str, packed: object, kind: str) -> None:
    assert callable(packed)
    path = tmp_path / name
    path.write_bytes(packed(DUMP))
    found = source(path)
    assert (found.kind, found.foreign, found.rows, found.raw_bytes) == (
        kind,
        True,
        {'public."odd ""name"': 3, "public.empty": 0},
        len(DUMP),
    )
    assert b"".join(found.through(iter([DUMP]))) == DUMP


def test_a_terminals_dump_is_known_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_bytes(DUMP.replace(b"\n", b"\r\n"))
    found = source(path)
    assert found.returns and found.kind == "SQL, carriage returns taken out"
    assert b"".join(found.through(iter([path.read_bytes()]))) == DUMP


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"hello\n", "is not a dump that pg_dump has made"),
        (os.urandom(100), "is not a dump|cannot be restored"),
        (HEAD + COPY, "last line is missing"),
        (HEAD + COPY[: COPY.index(b"2\t")], "ends in the middle"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", "whole server"),
        (HEAD + b"\\connect other\n" + TAIL, "goes to another database"),
        (gzip.compress(DUMP)[:-20], "end too early"),
        (gzip.compress(b"PGDMP" + b"x" * 100), "packed archive"),
        (b"BZh91AY", "packed in a way"),
    ],
)
def test_what_is_no_whole_dump_is_refused_in_one_sentence(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "x.sql"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=match) as caught:
        source(path)
    assert "Nothing was changed" in str(caught.value)


def test_a_name_that_is_not_there_tells_which_are(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_bytes(DUMP)
    for asked, match in (
        ("nope.sql", r"There is no backup nope\.sql in"),
        ("/nope", "There is no backup /nope"),
        ("", "must name"),
    ):
        with pytest.raises(InvalidInput, match=match) as caught:
            find_source(str(tmp_path), asked, cancelled=lambda: False)
        assert "a.sql" in str(caught.value)
    for asked in ("../a.sql", ".a.sql.partial", "b/a.sql"):
        with pytest.raises(InvalidInput, match="must be a name in"):
            find_source(str(tmp_path), asked, cancelled=lambda: False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither a file nor a directory"):
        source(tmp_path / "pipe")
    (tmp_path / "empty.dir").mkdir()
    with pytest.raises(InvalidInput, match=r"has a file toc\.dat"):
        source(tmp_path / "empty.dir")


def test_a_file_that_differs_from_its_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_bytes(DUMP)
    (tmp_path / "a.sql.manifest.json").write_text("{}")
    with pytest.raises(Refused, match="cannot be restored: The manifest"):
        source(tmp_path / "a.sql")
