# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain dumps on their way to psql: what pg_dump writes passes byte for byte, what would go elsewhere does not."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup.source import Source, find_source
from ansible_collections.titan.ops.plugins.module_utils.backup.sqlscan import Scanner, without_carriage_returns
from ansible_collections.titan.ops.plugins.module_utils.backup.zstd import Compressor
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Mistaken, Refused

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
# as psql gets it, which has a \restrict of ours
SENT = DUMP.replace(b"\\restrict abcDEF123", b"").replace(b"\\unrestrict abcDEF123", b"")


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


def test_a_long_line_of_data_passes_in_parts_and_no_part_is_taken_for_the_end() -> None:
    """One of the parts begins with what would end the data, were it a line."""
    size = 100_000
    line = b"x" * (size * 30)
    data = b"COPY a (b) FROM stdin;\n" + line + b"\\.\n\\connect other\n" + line + b"\n\\.\nSELECT 1;\n"
    first = data.index(b"x\\.") + 1
    for start in (first % size, 0, 1):
        pieces = [data[:start], *in_pieces(data[start:], size)]
        scanner = Scanner("x.sql")
        seen = [len(piece) for piece in scanner.passed(pieces)]
        assert (sum(seen), scanner.rows) == (len(data), {"a": 3})
        assert max(seen) < 3 * size
    evil = [b"COPY a (b) FROM stdin;\n", line, b"\n\\.\n\\connect other\n"]
    with pytest.raises(InvalidInput, match=r"line 4: \\connect other"):
        list(Scanner("x.sql").passed(evil))
    with pytest.raises(InvalidInput, match="ends in the middle"):
        list(Scanner("x.sql").passed([*evil[:2], b"\\.\n"]))


# What hides a command from who reads otherwise than psql; each passed once.
EVIL = b"\\connect titan_brain\nDELETE FROM public.orders;\n"
HIDDEN = {
    "data end with a carriage return": b"COPY a (b) FROM stdin;\n\\.\r\n" + EVIL + b"\\.\n",
    "dollar quote after a number": b"SELECT 1$a$ ' $a$;\n" + EVIL + b"SELECT ' ';\n",
    "comments for blanks": b"COPY/**/a/**/FROM/**/STDIN;\n'\n\\.\n" + EVIL + b"SELECT ' ';\n",
    "COPY of a query": b"COPY (WITH stdin AS (SELECT 1 AS i) SELECT i FROM stdin) TO STDOUT;\n" + EVIL + b"\\.\n",
    "set_config": b"SELECT set_config('standard_conforming_strings', 'off', false);\nSELECT '\\'';\n"
    + EVIL
    + b"SELECT ' ';\n",
    "f for off": b"SET standard_conforming_strings = f;\nSELECT '\\'';\n" + EVIL + b"SELECT ' ';\n",
    "zero byte": b"SELECT 1; \0 '\n" + EVIL + b"SELECT '; \0 ';\n",
    "open parenthesis": b"SELECT (1;\nCOPY a FROM stdin;\n" + EVIL + b"\\.\n",
    "open block": b"CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS '';\nCOPY a FROM stdin;\n"
    + EVIL
    + b"end;\n\\.\n",
    "block opened after a number": b"CREATE FUNCTION 1begin;\nCOPY a FROM stdin;\n" + EVIL + b"end;\n\\.\n",
    "block that psql before 14 does not know": b"CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS '';\n"
    b"COPY a FROM stdin;\n'\n\\.\n" + EVIL + b"SELECT ''; end;\n",
    "block not closed": b"CREATE FUNCTION begin() :end;\nCOPY a FROM stdin;\n" + EVIL + b"end;\n\\.\n",
    "comment ended by a carriage return": b"SELECT 1; -- \r" + EVIL,
    "dollar quote after a dollar quote": b"SELECT $a$x$a$$b$ ' $b$;\n" + EVIL + b"SELECT ' ';\n",
    "dollar quote after a variable": b"SELECT :abc$a$ ' $a$;\n" + EVIL + b"SELECT ' ';\n",
    "dollar quote after junk": b"SELECT 1a$b$ ' $b$;\n" + EVIL + b"SELECT ' ';\n",
    "E after a number": b"SELECT 1E'\\'';\n" + EVIL + b"SELECT ' ';\n",
    "E string in parts": b"SELECT E'a'\n'\\'';\n" + EVIL + b"SELECT ' ';\n",
    "pg_settings": b"UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings';\n",
    "inserted": b"INSERT INTO a SELECT set_config('standard_conforming_strings', 'off', false);\n",
    "quoted name": b'SET "standard_conforming_strings" = off;\n',
    "escaped name": b'SET U&"\\0073tandard_conforming_strings" = off;\n',
    "names": b"SET NAMES 'SJIS';\n",
    "reset": b"RESET ALL;\n",
    "comment within": b"SET/**/client_encoding/**/=/**/'Shift_JIS';\n",
    "COPY of a program": b"COPY a FROM PROGRAM 'id';\n",
    "COPY with options": b"COPY a FROM stdin WITH (FORMAT csv);\n1\n\\.\n",
    "long statement": b"SET " + b" " * (1 << 16) + b"standard_conforming_strings = off;\n",
    "unended": b"SET standard_conforming_strings = off\n",
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("how", HIDDEN)
def test_no_way_to_hide_a_command_passes(how: str, size: int) -> None:
    scanner, seen = Scanner("x.sql"), b""
    with pytest.raises(InvalidInput):
        for piece in scanner.passed(in_pieces(b"SELECT 1;\n" + HIDDEN[how], size)):
            seen += piece
    assert b"\\connect" not in seen


@pytest.mark.parametrize(
    "text",
    [
        b"SET client_encoding = 'UTF8';\nSET client_encoding TO latin1;\nSET standard_conforming_strings TO 'on';\n",
        b"SELECT pg_catalog.set_config('search_path', '', false);\nSELECT pg_catalog.setval('public.a', 5, true);\n",
        b"INSERT INTO a VALUES ('client_encoding', E'a',\n 'b', E'c'\n, 'd'), (1e5, $1, '1'::text);\n",
        b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('client_encoding') $$;\n",
        b"CREATE FUNCTION f() RETURNS int LANGUAGE sql\n    BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END AS a;\n"
        b" SELECT 2;\nEND;\n" + COPY,
        b"CREATE RULE r AS ON DELETE TO a DO INSTEAD ( SELECT 1;\n SELECT 2;\n);\n" + COPY,
        b'COPY "a.b"."c(d" ("e)f", g) FROM stdin;\n1\t2\n\\.\n',
        b"COPY a (b) FROM stdin;\n\\.x\n\\\\.\n\\.\r\nSELECT 1;\n",
        b"INSERT INTO a VALUES ('" + b"x" * (1 << 17) + b"');\n",
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_what_only_looks_like_it_passes(text: bytes, size: int) -> None:
    assert passed(text, size)[0] == text


def test_a_dump_of_ours_may_name_what_it_does_not_set() -> None:
    text = b"CREATE FUNCTION f() RETURNS int LANGUAGE sql SET client_encoding TO 'UTF8' AS $$ SELECT 1 $$;\n"
    with pytest.raises(InvalidInput, match="names client_encoding"):
        passed(text)
    assert b"".join(Scanner("x.sql", foreign=False).passed([text])) == text


def test_inserts_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    for body, rows in (
        (STRINGS, None),
        (b"SELECT 1;\n", {}),
        (COPY + STRINGS, {'public."odd ""name"': 3, "public.empty": 0}),
    ):
        path.write_bytes(HEAD + body + TAIL)
        assert source(path).rows == rows


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
    assert b"".join(found.through(in_pieces(DUMP, 7))) == SENT


def test_a_terminals_dump_is_known_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_bytes(DUMP.replace(b"\n", b"\r\n"))
    found = source(path)
    assert found.returns and found.kind == "SQL, carriage returns taken out"
    assert b"".join(found.through(iter([path.read_bytes()]))) == SENT


def in_a_tar(data: bytes) -> bytes:
    """As pg_dump -Ft writes its first file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("toc.dat")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


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
        pytest.param(b"\xef\xbb\xbf" + DUMP, "byte order mark of UTF-8, so that", id="UTF-8 mark"),
        pytest.param(DUMP.decode("latin-1").encode("utf-16"), "byte order mark of UTF-16, so that", id="UTF-16"),
        pytest.param(in_a_tar(b"PGDMP"), r"is a tar archive, as pg_dump -Ft makes, which .*\(pg_restore", id="tar"),
        pytest.param(gzip.compress(in_a_tar(b"PGDMP")), "is a tar archive", id="tar, gzip"),
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
        with pytest.raises(Mistaken, match=match) as caught:
            find_source(str(tmp_path), asked, cancelled=lambda: False)
        assert "a.sql" in str(caught.value)
    for asked in ("../a.sql", ".a.sql.partial", "b/a.sql"):
        with pytest.raises(Mistaken, match="must be a name in"):
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
