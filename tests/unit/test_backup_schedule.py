# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""schedule_backups.yml: settings with which every night would fail are refused before anything is written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml

from ansible_collections.titan.ops.plugins.module_utils.backup import catalog, report
from ansible_collections.titan.ops.plugins.module_utils.backup.crontab import check_schedule
from ansible_collections.titan.ops.plugins.module_utils.backup.restore_options import RestoreOptions, restore_spec
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Mistaken
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Runner
from ansible_collections.titan.ops.plugins.modules import backup_engine
from ansible_collections.titan.ops.tests.unit.test_backup_files import NOW, backup

Render = Callable[..., Any]
Settings = Callable[..., dict[str, Any]]
ROLE = Path(__file__).resolve().parents[2] / "roles/backup"
# What may be said for one run, by playbook: the short name, and the role's variable.
SHORT = {
    "backup": {"label": "backup_label"},
    "restore": {"backup": "backup_name", "confirm": "backup_confirm", "kept": "backup_kept"},
    "verify_backup": {"backup": "backup_name"},
    "fetch_backup": {"backup": "backup_name"},
}


# Templating is the work of a controller, and whoever has loaded its code is no module any more: a process of its own
# does it, which reads what is known and an expression, a line each time, and writes what that gives.
_TEMPLATING = """
import json, sys
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core before 2.19
    trust_as_template = str

def trusted(value):
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {name: trusted(item) for name, item in value.items()}
    return [trusted(item) for item in value] if isinstance(value, list) else value

for line in sys.stdin:
    known, expression = json.loads(line)
    templar = Templar(loader=DataLoader(), variables={name: trusted(value) for name, value in known.items()})
    print(json.dumps(templar.template(trusted(expression))), flush=True)
"""


@pytest.fixture(scope="module")
def controller() -> Iterator[Render]:
    """Gives what a template of the role gives with its defaults and an inventory."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    roles = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    argv = [sys.executable, "-c", _TEMPLATING]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def rendered(expression: Any, **inventory: Any) -> Any:
            assert process.stdin and process.stdout
            known = {**defaults, **roles, "__backup_link": {"stat": {}}, **inventory}
            process.stdin.write(json.dumps([known, expression]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield rendered
        process.stdin.close()


@pytest.fixture
def settings(controller: Render) -> Settings:
    """Gives the settings that the role makes of an inventory."""
    return lambda **inventory: controller("{{ __backup_config }}", **inventory)


def install(
    src: Path, given: dict[str, Any], *, check_mode: bool = False, schedules: dict[str, Any] | None = None
) -> dict[str, Any]:
    params = {"project_src": str(src), "path": "lib/titan-ops.pyz", "settings": given, "schedules": schedules}
    common = {"files": [], "env_files": [], "profiles": [], "lock_timeout": 1.0, "docker_host": "unix:///nowhere"}
    others = dict.fromkeys(("project_name", "state_dir", "lock_path"))
    result: dict[str, Any] = backup_engine.operation(
        Context({**params, **common, **others}, check_mode, Clock(), Runner())
    )
    return result


@pytest.mark.parametrize("inventory", [{}, {"backup_compression": "zstd", "backup_level": 19, "backup_threads": 4}])
def test_good_settings_are_installed(settings: Settings, tmp_path: Path, inventory: dict[str, Any]) -> None:
    assert install(tmp_path, settings(**inventory))["changed"]
    assert (tmp_path / "lib/titan-ops.pyz").exists()


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check"])
@pytest.mark.parametrize(
    ("inventory", "said"),
    [
        ({"backup_keep_daily": -1}, "keep_daily must be 0 or more, not -1"),
        ({"backup_threads": 4}, "threads compress a plain dump"),
        ({"backup_compression": "gzip", "backup_level": 99}, "level must be from 1 to 9 for gzip, not 99"),
        ({"backup_level": 3}, "compression is none"),
        ({"backup_compression": "lzma"}, "compression must be one of none, gzip, zstd, not 'lzma'"),
        ({"backup_timeout": 0}, "timeout must be 1 or more"),
        ({"backup_database": "../x"}, "database"),
        ({"backup_offsite_repository": "ftp:x"}, "The repository 'ftp:x' is nowhere"),
        ({"backup_offsite_repository": "/srv/titan"}, "nowhere/offsite.password does not exist"),
    ],
)
def test_what_would_fail_every_night_is_refused_before_anything_is_written(
    settings: Settings, tmp_path: Path, inventory: dict[str, Any], said: str, check_mode: bool
) -> None:
    given = settings(**{"backup_offsite_password_file": "/nowhere/offsite.password", **inventory})
    with pytest.raises(InvalidInput) as refused:
        install(tmp_path, given, check_mode=check_mode)
    assert said in str(refused.value) and "backup_db.sh would fail" in str(refused.value)
    assert "Nothing was changed." in str(refused.value) and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "0 2 * * *",
        "*/15 0-6,22 1-31/2 jan,mar-dec mon-fri",
        "59 23 31 12 7",
        "0  4\t* * Sun",
        "@daily",
        "@weekly",
    ],
)
def test_what_cron_takes_is_a_schedule(text: str) -> None:
    check_schedule("backup_schedule", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "it has not five fields"),  # what Ansible leaves of -e backup_schedule='0 26 * * *'
        ("daily", "it has not five fields"),
        ("@dayly", "it has not five fields"),
        ("0 2 * *", "it has not five fields"),
        ("0 2 * * * root", "it has not five fields"),
        ("0 2 * *\n*", "it has not five fields"),
        ("0 26 * * *", "'26' is no hour (from 0 to 23)"),
        ("60 2 * * *", "'60' is no minute"),
        ("0 2 0 * *", "'0' is no day of the month"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * 8", "'8' is no day of the week"),
        ("0 2 * * mo", "'mo' is no day of the week"),
        ("0 2 * mon *", "'mon' is no month"),
        ("0 5-3 * * *", "'5-3' is no hour"),
        ("*/0 2 * * *", "'*/0' is no minute"),
        ("5/10 2 * * *", "'5/10' is no minute"),
        ("0,,5 2 * * *", "'' is no minute"),
        ("0 2 * * ?", "'?' is no day of the week"),
    ],
)
def test_what_cron_does_not_take_is_refused_before_anything_is_written(
    settings: Settings, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        install(tmp_path, settings(), schedules={"backup_schedule": "0 2 * * *", "backup_verify_schedule": text})
    assert said in str(refused.value) and "backup_verify_schedule" in str(refused.value)
    assert "Nothing was changed." in str(refused.value) and list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_one_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(InvalidInput, match="file is not a directory"):
            install(tmp_path, settings(backup_directory=str(tmp_path / place)))


def test_the_drill_has_the_jobs_of_a_restore_and_they_are_checked(settings: Settings, tmp_path: Path) -> None:
    assert int(settings(backup_jobs=4)["restore_jobs"]) == 4
    with pytest.raises(InvalidInput, match="restore_jobs must be from 1 to 64, not 0"):
        install(tmp_path, settings(backup_jobs=0))


def test_cron_makes_the_drill_where_that_is_asked_for_and_no_longer_where_it_is_not(controller: Render) -> None:
    there, gone = (
        item
        for item in yaml.safe_load((ROLE / "tasks/schedule.yml").read_text())
        if "/etc/cron.d/titan-backup-verify" in str(item)
    )
    line = controller(there["ansible.builtin.copy"]["content"], backup_verify_schedule="0 5 * * 6").splitlines()[-1]
    assert line == (
        "0 5 * * 6 root /opt/titan/scripts/ops/backup_db.sh --verify > /var/log/titan-backup-verify.log 2>&1"
    )
    assert gone["ansible.builtin.file"]["state"] == "absent"
    for schedule, wanted in (("0 5 * * 6", [True, False]), ("", [False, True])):
        found = [controller(f"{{{{ {item['when']} }}}}", backup_verify_schedule=schedule) for item in (there, gone)]
        assert [str(value) for value in found] == [str(value) for value in wanted]
    assert yaml.safe_load((ROLE / "defaults/main.yml").read_text())["backup_verify_schedule"] == ""


def test_the_off_site_settings_are_checked_with_their_files(settings: Settings, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a secret's file is root's")
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o600)
    offsite = {"backup_offsite_repository": "/srv/titan", "backup_offsite_password_file": str(secret)}
    assert install(tmp_path, settings(**offsite))["changed"]
    with pytest.raises(InvalidInput, match="read_data_subset cannot be 'much'"):
        install(tmp_path, settings(**offsite, backup_offsite_read_data_subset="much"))
    secret.chmod(0o644)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o644
    with pytest.raises(InvalidInput, match="Others may read the password file"):
        install(tmp_path, settings(**offsite))


@pytest.mark.parametrize(("form", "jobs"), [("plain", 1), ("custom", 1), ("directory", 4)])
def test_the_jobs_of_a_restore_do_not_spoil_backups_of_other_formats(
    settings: Settings, controller: Render, tmp_path: Path, form: str, jobs: int
) -> None:
    """One variable is for both; a backup by several jobs is one into a directory."""
    inventory = {"backup_jobs": 4, "backup_format": form}
    given = settings(**inventory)
    assert int(given["jobs"]) == jobs
    assert install(tmp_path, given)["changed"]
    [task, *_rest] = yaml.safe_load((ROLE / "tasks/backup.yml").read_text())
    assert int(controller(task["titan.ops.db_backup"]["jobs"], **inventory)) == jobs


def test_the_schedule_checks_first_what_it_writes_then() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/schedule.yml").read_text())
    writing = [item for item in tasks if not {"ansible.builtin.stat", "ansible.builtin.assert"} & set(item)]
    assert writing[0]["titan.ops.backup_engine"]["settings"] == "{{ __backup_config }}"
    [written] = [item for item in tasks if item["name"] == "Write the settings"]
    assert "__backup_config" in written["ansible.builtin.copy"]["content"]


@pytest.mark.parametrize("said", [{}, {"backup_format": "custom", "backup_compression": "gzip", "backup_jobs": 2}])
def test_a_short_name_wins_over_an_inventory_and_nothing_is_ignored(
    controller: Render, settings: Settings, said: dict[str, Any]
) -> None:
    """What a run is told with -e format=directory, not what every run is."""
    asked = {"format": "directory", "compression": "zstd", "jobs": "4"}
    for entry, names in (("backup", asked), ("restore", ["jobs"]), ("verify", ["jobs"])):
        [task] = (
            found
            for item in yaml.safe_load((ROLE / f"tasks/{entry}.yml").read_text())
            for name, found in item.items()
            if name in ("titan.ops.db_backup", "titan.ops.db_restore", "titan.ops.db_verify")
        )
        for name in names:
            assert str(controller(task[name], **said, **asked)) == asked[name], (entry, name)
            assert str(controller(task[name], **said)) != asked[name], (entry, name)
    made = settings(**said, **asked)
    assert (made["format"], made["compression"]) == ("directory", "zstd")
    assert (int(made["jobs"]), int(made["restore_jobs"])) == (4, 4)


def test_every_short_name_of_a_playbook_reaches_its_role(controller: Render) -> None:
    plays = {name: yaml.safe_load((ROLE.parents[1] / f"playbooks/{name}.yml").read_text())[0] for name in SHORT}
    for name, pairs in SHORT.items():
        given = plays[name]["tasks"][-1]["vars"]
        for short, variable in pairs.items():
            assert controller(given[variable], **{short: "x.sql"}) == "x.sql", (name, short)


@pytest.mark.parametrize("name", ["verify_backup", "fetch_backup"])
def test_a_backup_that_is_named_in_a_way_that_is_not_heeded_is_refused(controller: Render, name: str) -> None:
    """Or the newest one would be taken instead."""
    play = yaml.safe_load((ROLE.parents[1] / f"playbooks/{name}.yml").read_text())[0]
    refusal = play["tasks"][0]["ansible.builtin.assert"]
    for said, fine in (({}, "True"), ({"name": "old.sql"}, "False")):
        assert str(controller(f"{{{{ {refusal['that']} }}}}", **said)) == fine
        assert f"backup={said.get('name', '')}?" in controller(refusal["fail_msg"], **said)  # it is always rendered


@pytest.mark.parametrize("undo", ["true", "false"])
def test_what_is_named_in_a_way_that_a_restore_does_not_heed_is_refused(controller: Render, undo: str) -> None:
    play = yaml.safe_load((ROLE.parents[1] / "playbooks/restore.yml").read_text())[0]
    refusal = play["tasks"][0]["ansible.builtin.assert"]
    for said, fine in (({"undo": undo}, "True"), ({"undo": undo, "name": "old"}, "False")):
        assert str(controller(f"{{{{ {refusal['that']} }}}}", **said)) == fine
        meant = "kept" if undo == "true" else "backup"
        assert controller(refusal["fail_msg"], **said).endswith(f" did you mean -e {meant}={said.get('name', '')}?")


@pytest.mark.parametrize(("backup", "looked_at"), [("offsite:latest", True), ("titan_brain_2026-02-06.sql", False)])
@pytest.mark.parametrize("undo", ["true", "false"])
def test_an_undo_with_a_backup_is_refused_before_that_is_brought(
    controller: Render, backup: str, undo: str, looked_at: bool
) -> None:
    """One that is here already is refused by the module, in the same words."""
    tasks = yaml.safe_load((ROLE / "tasks/restore.yml").read_text())
    names = [task["name"] for task in tasks]
    assert names.index("Refuse a backup for an undo") < names.index("Bring the backup back from off-site")
    refusal = tasks[names.index("Refuse a backup for an undo")]
    said = {"backup_name": backup, "undo": undo}
    assert str(controller(f"{{{{ {refusal['when']} }}}}", **said)) == str(looked_at)
    assert str(controller(f"{{{{ {refusal['ansible.builtin.assert']['that']} }}}}", **said)) == str(undo == "false")
    spec = {name: item.get("default") for name, item in restore_spec().items()}
    with pytest.raises(Mistaken) as caught:
        RestoreOptions.from_params({**spec, "backup": backup, "undo": True}, "/opt/titan")
    assert str(caught.value) == refusal["ansible.builtin.assert"]["fail_msg"]


@pytest.mark.parametrize(
    ("check", "said"), [(False, "removed by the retention: "), (True, "would go by the retention: ")]
)
def test_what_is_said_of_a_backup_tells_why_others_go(controller: Render, check: bool, said: str) -> None:
    numbers = dict.fromkeys(("size_bytes", "needed_bytes", "seconds", "rows", "tables"), 1)
    made = {**numbers, "backup": "/b/new.sql", "sha256": "x", "via_reason": "", "dropped": [], "tidied": []}
    text = (ROLE / "templates/backup.txt.j2").read_text()
    told = controller(text, ansible_check_mode=check, __backup_made={**made, "removed": ["old.sql"]})
    assert f"{said}old.sql" in told


@pytest.mark.parametrize(
    ("backup", "said"),
    [
        (
            {"manifest": True},
            ["its size is the manifest's. Not read yet: its sha256", "60 in 2 tables by the manifest;"],
        ),
        ({"kind": "SQL, zstd"}, ["checked: read to its end, which is that of a whole dump", "60 in 2 tables;"]),
        ({"kind": "directory"}, ["checked: that it is an archive. Whether it is whole tells pg_restore"]),
    ],
)
def test_a_plan_says_what_of_the_backup_was_checked_and_what_is_later(
    controller: Render, backup: dict[str, Any], said: list[str]
) -> None:
    known = {"name": "x", "path": "/x", "kind": "SQL", "size_bytes": 1, "time": "", "age_seconds": 1, "verified": None}
    rows = {"rows": 60, "tables": 2, "size_bytes": 1}
    restored = {
        "confirmed": False,
        "undo": False,
        "database": "titan_brain",
        "backup": {"manifest": False, **known, **backup},
        "rows": 60,
        "tables": 2,
        "today": rows,
        "differences": {},
        "steps": ["load"],
        "kept": None,
        "interruption": {},
        "restore_seconds": 1.0,
        **{name: [] for name in ("writers", "dropped", "tidied", "proved")},
    }
    text = "#jinja2: trim_blocks:True\n" + (ROLE / "templates/restore.txt.j2").read_text()
    told = controller(text, ansible_check_mode=False, __backup_restored=restored)
    assert [part for part in said if part not in told] == []
    done = controller(text, ansible_check_mode=False, __backup_restored={**restored, "confirmed": True})
    assert "checked" not in done and "60 in 2 tables\n" in done


# The list

TABLE = """\
Backups in /opt/titan/backups/db
  name                        time (UTC)                age      size  format          label   drill (UTC)       state
  hand.sql                    2026-02-06 14:03    0 h 0 min    2.5 MB  -               -       -                 unknown
    it has no manifest, so it was not made here
  titan_brain_2026-02-06.sql  2026-02-06 02:00   12 h 3 min       4 B  plain           -       2026-02-06 05:00  good
  cut.sql                     2026-02-05 02:00     1 d 12 h       2 B  plain           -       never             DAMAGED
    it has 2 bytes, its manifest says 4
  old.dir                     2026-01-06 02:00    31 d 12 h       4 B  directory gzip  before  never             good
  .x.sql.partial: of a backup under way, or left by one that was killed; the next backup removes it then
  state: by its size in the manifest; -e checksums=true reads every one and compares its sha256
"""
AWAY = """\
  name                                  time (UTC)                age      size  snapshot  label  host
  titan_brain_2026-02-06T140312Z_x.sql  2026-02-06 14:03    0 h 0 min    3.0 GB  ab12cd34  x      old
"""


@pytest.fixture
def list_of(tmp_path: Path) -> dict[str, Any]:
    """What db_backup_info says of a directory."""
    backup(tmp_path, "titan_brain_2026-02-06.sql", verified="2026-02-06T05:00:00Z")
    backup(tmp_path, "old.dir", format="directory", compression="gzip", label="before", started="2026-01-06T02:00:00Z")
    backup(tmp_path, "cut.sql", started="2026-02-05T02:00:00Z").write_bytes(b"du")
    (tmp_path / "hand.sql").write_bytes(b"x" * 2_500_000)
    os.utime(tmp_path / "hand.sql", (NOW, NOW))
    told = [report.told(item, now=NOW) for item in catalog.listed(str(tmp_path))]
    return {"directory": "/opt/titan/backups/db", "backups": told, "leftovers": [".x.sql.partial"]}


def shown(controller: Render, listed: dict[str, Any], away: dict[str, Any], **said: Any) -> list[str]:
    text = "#jinja2: trim_blocks:True\n" + (ROLE / "templates/list.txt.j2").read_text()
    known = {"__backup_listed": listed, "__backup_listed_away": away, **said}
    lines = str(controller(text, **known)).splitlines()
    # a space at the end of one, and Ansible prints all of it in quotes, as a single line
    assert [line for line in lines if line != line.rstrip()] == []
    return [line for line in lines if line]


def test_the_list_is_a_table_in_which_a_damaged_backup_stands_out(controller: Render, list_of: dict[str, Any]) -> None:
    assert shown(controller, list_of, {"skipped": True}) == TABLE.splitlines()
    assert shown(controller, list_of, {"skipped": True}, checksums="true")[-1] == (
        "  state: by its size and sha256 in the manifest"
    )
    none = shown(controller, {**list_of, "backups": [], "leftovers": []}, {"skipped": True})
    assert none == ["Backups in /opt/titan/backups/db", "  none"]


def test_the_list_shows_what_is_off_site_too_and_says_when_it_could_not_look(
    controller: Render, list_of: dict[str, Any]
) -> None:
    there = {"name": "titan_brain_2026-02-06T140312Z_x.sql", "hostname": "old", "snapshot": "ab12cd34ef", "sha256": "0"}
    there.update(time="2026-02-06T14:03:12Z", age_seconds=7, size_bytes=3_000_000_000, label="x")
    where = {"backup_offsite_repository": "sftp:me@there:/titan"}

    def away(**told: Any) -> list[str]:
        lines = shown(controller, {**list_of, "backups": [], "leftovers": []}, told, **where)
        assert lines[2] == "Off-site, sftp:me@there:/titan"
        return lines[3:]

    assert away(exists=True, backups=[there]) == AWAY.splitlines()
    assert away(exists=True, backups=[]) == ["  none"]
    assert away(exists=False, backups=[]) == ["  there is no repository yet: backup_offsite.yml -e init=true makes it"]
    assert away(failed=False, msg="It does not answer.") == ["  NOT READ: It does not answer."]
    refusal = yaml.safe_load((ROLE / "tasks/list.yml").read_text())[-1]["ansible.builtin.assert"]
    for told, fine in (({"skipped": True}, True), ({"backups": []}, True), ({"msg": "No answer."}, False)):
        assert str(controller(f"{{{{ {refusal['that']} }}}}", __backup_listed_away=told)) == str(fine)
    said = controller(refusal["fail_msg"], __backup_listed_away={"msg": "No answer."})
    assert said == "What is off-site could not be listed. No answer."


def test_awx_gets_the_list_without_the_manifests(controller: Render, list_of: dict[str, Any]) -> None:
    [task] = [item for item in yaml.safe_load((ROLE / "tasks/list.yml").read_text()) if "set_stats" in str(item)]
    given = task["ansible.builtin.set_stats"]["data"]["titan_backups"]
    away = {"exists": True, "backups": [{"name": "a", "snapshot": "ab12"}]}
    told = controller(given, inventory_hostname="x", __backup_listed=list_of, __backup_listed_away=away)["x"]
    assert (told["directory"], told["offsite"]) == ("/opt/titan/backups/db", away["backups"])
    assert told["backups"] == [
        {name: value for name, value in item.items() if name != "manifest"} for item in list_of["backups"]
    ]
    none = controller(given, inventory_hostname="x", __backup_listed=list_of, __backup_listed_away={"skipped": True})
    assert none["x"]["offsite"] == []
