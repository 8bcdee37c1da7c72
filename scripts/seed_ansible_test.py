"""Prepares the home directory that ansible-test runs with: seed_ansible_test.py HOME

ansible-test makes virtual environments for its tests. It downloads get-pip.py for them from a host of its own, and of
the whole environment lets only PATH and HOME through to pip. So this puts below HOME
- pip's settings, from every file and variable that counts here;
- for each version of pip that this ansible-test asks for: its wheel, and get_pip.py under the name it is looked for.
Run by the Python of the virtual environment that ansible-test is installed in.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def settings() -> RawConfigParser:
    """What `pip config list` tells, lowest precedence first, as one section; its variables come as `:env:.name`."""
    config = RawConfigParser()
    config["global"] = {"cache-dir": pip("cache", "dir").strip()}
    told = [line.split("=", 1) for line in pip("config", "list").splitlines()]
    for name, value in sorted(told, key=lambda line: line[0].startswith(":env:")):
        section, option = name.rsplit(".", 1)
        if section in ("global", "install", "download", ":env:"):
            config["global"][option] = ast.literal_eval(value)
    config["global"]["quiet"] = "2"
    return config


def main() -> None:
    home = Path(sys.argv[1])
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    conf = home / ".config" / "pip" / "pip.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    with conf.open("w", encoding="utf-8") as stream:
        settings().write(stream)

    pythons = (SimpleNamespace(version=f"3.{minor}") for minor in range(8, 16))
    for version in {get_venv_packages(python)["pip"] for python in pythons}:
        if not (cache / f"pip-{version}-py3-none-any.whl").exists():
            pip("download", "-qq", "--no-deps", "--dest", str(cache), f"pip=={version}")
        script = cache / f"get_pip_{version.replace('.', '_')}.py"
        shutil.copyfile(Path(__file__).with_name("get_pip.py"), script)


main()
