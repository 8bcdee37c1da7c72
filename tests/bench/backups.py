# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups and restores of a big database against what one types by hand, side by side on the sandbox.

Fills the sandbox's database until it has a gigabyte of rows (--gigabytes) and measures restores, then until it has two
and measures backups, and brings back what was there.
All times are taken on the Droplet itself. Exits 1 when a limit is missed. Limits, medians of the same run: a plain
backup takes at most 1.15 times what pg_dump takes to write to /dev/null, and is 1.8 times as fast as `docker exec ...
> file`; a compressed one (zstd) is 4 times as fast as `docker exec ... | gzip`; a directory restores with jobs 1.5
times as fast as the runbook's pipe; titan-brain is interrupted by the restore of the big one for at most 1.5 times
what a small one takes; our process never holds 80 MB.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from typing import Any

from compare import ROOT, measure, median, on_droplet

PLACE = "/opt/titan/backups/bench"
DUMP = "docker exec titan-postgres pg_dump -U titan titan_brain"
PSQL = "docker exec -i titan-postgres psql -X -q -v ON_ERROR_STOP=1 -U titan"
PIPE = "the runbook's pipe into an empty database"
SETTINGS = "/opt/titan/scripts/ops/backup_db.json"
MEMORY = 80.0
# Executions as a trading engine writes them: about 250 bytes a row with its indexes, in eight tables, so that jobs have
# something to share.
FILL = """
CREATE TABLE IF NOT EXISTS bench_fills (
  id bigint GENERATED ALWAYS AS IDENTITY, part int NOT NULL, at timestamptz NOT NULL, symbol text NOT NULL,
  side text NOT NULL, price numeric(18, 8) NOT NULL, quantity numeric(18, 8) NOT NULL, fee numeric(18, 8),
  client_order_id uuid NOT NULL, detail jsonb NOT NULL, PRIMARY KEY (part, id)
) PARTITION BY LIST (part);
DO $$ BEGIN FOR n IN 0..7 LOOP
  EXECUTE format('CREATE TABLE IF NOT EXISTS bench_fills_%s PARTITION OF bench_fills FOR VALUES IN (%s)', n, n);
END LOOP; END $$;
INSERT INTO bench_fills (part, at, symbol, side, price, quantity, fee, client_order_id, detail)
  SELECT n % 8, '2026-01-01'::timestamptz + n * interval '731 ms', (ARRAY['BTCUSDT', 'ETHUSDT', 'SOLUSDT'])[n % 3 + 1],
    (ARRAY['buy', 'sell'])[n % 2 + 1], 20000 + random() * 50000, random() * 4, random() / 100, gen_random_uuid(),
    jsonb_build_object('venue', 'bybit', 'maker', n % 5 = 0, 'signal', md5(n::text), 'latency_us', n % 900)
  FROM generate_series(1, 250000) AS n;
"""


def shell(script: str) -> dict[str, Any]:
    """Run a script as root on the Droplet, timed there; nothing of what ran before it still waits for the disk."""
    subprocess.run(on_droplet("sync"), check=True)
    done = subprocess.run(
        on_droplet("sudo", "python3", "/tmp/titan-timed.py"), input=script, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"failed on the Droplet:\n{script}\n{done.stderr}{done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def listed(pattern: str, size: str = "") -> str:
    """The last such file's name, or its size."""
    script = f"'cd {PLACE} && ls -d{size} {pattern} | tail -n1'"
    return subprocess.run(
        on_droplet("sudo", "bash", "-c", script), capture_output=True, text=True, check=True
    ).stdout.strip()


def sql(statements: str, database: str = "titan_brain") -> None:
    shell(f"{PSQL} -d {database} <<'END'\n{statements}\nEND")


def ours(label: str, **settings: Any) -> dict[str, Any]:
    """backup_db.sh's engine, with other settings than the installed ones."""
    changes = {"directory": PLACE, "on_failure": "", **settings}
    config = f"import json; s = json.load(open('{SETTINGS}')); s.update({changes!r}); print(json.dumps(s))"
    return shell(
        f'umask 077; python3 -c "{config}" >/run/titan-bench.json\n'
        f"python3 -I /opt/titan/lib/titan-ops.pyz --config /run/titan-bench.json {label}"
    )


def restored(table: Table, name: str, pattern: str, *arguments: str, probed: bool = True) -> dict[str, Any]:
    """restore.yml of a backup; gives what the prober saw, whose questions cost a load some of both cores."""
    backup = listed(pattern)
    options = ["-e", f"backup={PLACE}/{backup}", "-e", "confirm=titan_brain", "-e", "progress=false", *arguments]
    taken: dict[str, Any] = {}

    def operation() -> None:
        command = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/restore.yml", *options]
        with subprocess.Popen(
            on_droplet("sudo", "python3", "/tmp/titan-timed.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdin
            watch.stdin.write("while [ ! -e /run/titan-bench.over ]; do sleep 0.1; done")
            watch.stdin.close()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            subprocess.run(on_droplet("sudo", "touch", "/run/titan-bench.over"), check=True)
            assert watch.stdout
            taken.update(json.loads(watch.stdout.read()))
        loading = re.search(r"Loading\n +([\d.]+) s", done.stdout)
        taken["loading"] = float(loading[1]) if loading else None
        subprocess.run(on_droplet("sudo", "rm", "/run/titan-bench.over"), check=True)
        if done.returncode != 0:
            raise SystemExit(f"restore.yml failed:\n{done.stdout}{done.stderr}")

    seen: dict[str, Any] = {}
    if probed:
        seen = measure(operation)
    else:
        operation()
    line = subprocess.run(
        on_droplet("sudo", "tail", "-n1", "/opt/titan/logs/ops.jsonl"), capture_output=True, text=True, check=True
    )
    table.add(f"restore.yml of {name}", {**taken, "seconds": json.loads(line.stdout)["seconds"]})
    table.add(f"  loading {name}", {"seconds": taken["loading"], "megabytes": None})
    return seen


class Table:
    """What is measured, line by line, and whether the limits are kept."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.memory: list[float] = []
        self.kept = True

    def add(self, name: str, taken: dict[str, Any]) -> None:
        self.seconds.setdefault(name, []).append(taken["seconds"])
        memory = taken["megabytes"]
        if memory is not None:
            self.memory.append(memory)
        print(f"{name:44}{taken['seconds']:>8.2f} s" + (f"{memory:>8.0f} MB" if memory else ""), flush=True)

    def limit(self, what: str, value: float, limit: float, *, least: bool = False) -> None:
        """Print and judge a ratio: at most the limit, or at least."""
        met = value >= limit if least else value <= limit
        self.kept = self.kept and met
        word = "at least" if least else "at most"
        print(f"{what}: {value:.2f}, {word} {limit:g}: {'ok' if met else 'MISSED'}")

    def ratio(self, one: str, other: str) -> float:
        """Of the medians."""
        return statistics.median(self.seconds[one]) / statistics.median(self.seconds[other])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=3, help="backups of each kind, in turn (default: 3)")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="how much of rows to fill in first (default: 1)")
    asked = parser.parse_args()
    code = (ROOT / "tests/bench/timed.py").read_bytes()
    subprocess.run(on_droplet("cat > /tmp/titan-timed.py"), input=code, check=True)
    for name in ("start", "schedule_backups"):
        subprocess.run(
            ["ansible-playbook", "-i", "inventories/sandbox", f"playbooks/{name}.yml"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    table = Table()
    shell(f"install -d -m 700 {PLACE}; find {PLACE} -mindepth 1 -delete")
    try:
        bench(table, asked.runs, asked.gigabytes)
    finally:
        sql("DROP TABLE IF EXISTS bench_fills")
        shell(f"rm -rf {PLACE} /run/titan-bench.json /run/titan-bench.over")
        drop_kept()
    return int(not table.kept)


def drop_kept() -> None:
    """Drop what the restores kept of the database before them."""
    kept = (
        "SELECT format('DROP DATABASE %I;', datname) FROM pg_database"
        " WHERE datname LIKE 'titan\\_brain\\_\\_before\\_%'"
    )
    shell(f'{PSQL} -d postgres -At <<<"{kept}" | {PSQL} -d postgres')


def fill(gigabytes: float) -> None:
    """Rows until there are as many."""
    size = f"SELECT 1 / (pg_total_relation_size('bench_fills_0') * 8 < {gigabytes * 1e9:.0f})::int"
    sql(FILL)
    while (
        subprocess.run(
            on_droplet(f'sudo {PSQL} -d titan_brain -c "{size}"'), capture_output=True, check=False
        ).returncode
        == 0
    ):
        sql(FILL)
    sql("VACUUM ANALYZE; CHECKPOINT")


def bench(table: Table, runs: int, gigabytes: float) -> None:
    ours("small")
    fill(gigabytes)
    ours("big", format="directory", jobs=2, compression="zstd")
    shell(f"{DUMP} >{PLACE}/by_hand.sql")
    into = f"cat {PLACE}/by_hand.sql | docker exec -i titan-postgres psql -U titan -d bench_pipe >/dev/null"
    seen: dict[str, list[dict[str, Any]]] = {"big": [], "small": []}
    for _number in range(runs):
        sql("CREATE DATABASE bench_pipe", "postgres")
        sql("CHECKPOINT")
        try:
            table.add(PIPE, shell(into))
        finally:
            sql("DROP DATABASE bench_pipe", "postgres")
        sql("CHECKPOINT")
        restored(table, "a directory", "*_big.dir", "-e", "backup_jobs=2", probed=False)
        drop_kept()
        seen["big"].append(restored(table, "a directory, probed", "*_big.dir", "-e", "backup_jobs=2"))
        drop_kept()
    for _number in range(runs):
        seen["small"].append(restored(table, "the small one", "*_small.sql"))
    drop_kept()
    fill(2 * gigabytes)
    piped = "docker exec pg_dump | gzip > file"
    for number in range(runs):
        for turn in "ab":  # a few percent are to be told apart
            table.add(
                "pg_dump > /dev/null",
                shell("docker exec titan-postgres sh -c 'pg_dump -U titan titan_brain >/dev/null'"),
            )
            table.add("plain", ours(f"plain{number}{turn}"))
        table.add("docker exec pg_dump > file", shell(f"{DUMP} >{PLACE}/by_hand.sql"))
        table.add("zstd", ours(f"zstd{number}", compression="zstd", level=1))
        table.add("gzip", ours(f"gzip{number}", compression="gzip", threads=2))
        table.add(piped, shell(f"{DUMP} | gzip >{PLACE}/by_hand.sql.gz"))
    for what, pattern in (("zstd", "*_zstd0.*.zst"), ("gzip", "*_gzip0.*.gz"), ("| gzip", "by_hand.sql.gz")):
        print(f"{what}: {int(listed(pattern, 's --block-size=1').split()[0]) / 1e6:.0f} MB")
    table.limit("plain / pg_dump to /dev/null", table.ratio("plain", "pg_dump > /dev/null"), 1.15)
    table.limit("docker exec > file / plain", table.ratio("docker exec pg_dump > file", "plain"), 1.8, least=True)
    table.limit("docker exec | gzip / zstd", table.ratio(piped, "zstd"), 4, least=True)
    print(f"docker exec | gzip / gzip: {table.ratio(piped, 'gzip'):.2f}")
    # The pipe only loads; restore.yml counts every row before and after, and takes titan-brain out and back, as well.
    table.limit("the runbook's pipe / loading", table.ratio(PIPE, "  loading a directory"), 1.5, least=True)
    print(f"the runbook's pipe / restore.yml: {table.ratio(PIPE, 'restore.yml of a directory'):.2f}")
    out = [median(seen[which], "titan-brain") for which in ("big", "small")]
    print(f"titan-brain out: {out[0]:.2f} s by the big restore, {out[1]:.2f} s by the small one")
    table.limit("brain's interruption, big / small", out[0] / out[1], 1.5)
    table.limit("memory of our process, MB", max(table.memory), MEMORY)


if __name__ == "__main__":
    sys.exit(main())
