# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets Debian packages from, read from its own apt configuration and written down nowhere."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .paths import CACHE, SUITE
from .shell import SandboxError, run, say

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MACHINE_CA = "/etc/ssl/certs/ca-certificates.crt"
IMAGE_CA = "/etc/apt/machine-ca.crt"
# apt options that say how to reach a source from here; an image built here needs them as well.
_CARRIED = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class Mirror:
    """The machine's own source of Debian packages: its address and, when it has one, that of the security suite."""

    main: str
    security: str | None

    def sources(self, keyring: str = KEYRING) -> str:
        """A sources list for SUITE, to be written into an image or a private apt directory."""
        lines = [f"deb [signed-by={keyring}] {self.main} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
        if self.security:
            lines.append(f"deb [signed-by={keyring}] {self.security} {SUITE}-security main")
        return "\n".join(lines) + "\n"

    def needs_ca(self) -> bool:
        """Whether an image without ca-certificates needs the machine's certificates to reach this mirror."""
        return any(site.startswith("https:") for site in (self.main, self.security or ""))


def find_mirror() -> Mirror | None:
    """Ask apt for the sources it is configured with; None when none of them is Debian's (Ubuntu, no apt at all)."""
    template = "$(CREATED_BY)|$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(CODENAME)"
    listed = run(["apt-get", "indextargets", "--format", template], check=False)
    release = _os_release()
    main = security = None
    for line in listed.stdout.splitlines():
        created_by, site, suite, component, origin, codename = (line.split("|") + [""] * 6)[:6]
        # Origin is known only after an `apt-get update`: an unexpanded or empty field says nothing against the source.
        known = origin and not origin.startswith("$(")
        if created_by != "Packages" or component != "main" or (known and origin != "Debian"):
            continue
        if suite.endswith("-security"):
            security = security or site
        elif release.get("ID") == "debian" and release.get("VERSION_CODENAME") in (suite, codename):
            main = main or site
    return Mirror(main, security) if main else None


def need_mirror() -> Mirror:
    mirror = find_mirror()
    if mirror is None:
        raise SandboxError(
            "this machine's apt is not configured with Debian packages.",
            state="nothing was changed.",
            do="run this on Debian, or where a container registry can be reached and Compose v2 is installed.",
        )
    return mirror


def apt_conf_for_images(mirror: Mirror | None) -> str:
    """apt.conf text for an image built here: the machine's own way to its package sources, and no translations."""
    dump = run(["apt-config", "dump"], check=False).stdout.splitlines()
    lines = [line for line in dump if line.split(" ")[0] in _CARRIED]
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    if mirror and mirror.needs_ca():
        lines.append(f'Acquire::https::CaInfo "{IMAGE_CA}";')
    return "\n".join([*lines, 'Acquire::Languages "none";']) + "\n"


def install(packages: list[str]) -> None:
    """Install distribution packages on this machine, refreshing the package lists only when they do not suffice."""
    if os.geteuid() != 0:
        raise SandboxError(
            f"these packages are needed here and only root can install them: {' '.join(packages)}",
            state="nothing was changed.",
            do=f"run this as root, or: sudo apt-get install {' '.join(packages)}",
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", *packages]
    say(f"installing on this machine: {' '.join(packages)}")
    if run(argv, check=False, env=env).returncode != 0:
        run(["apt-get", "update", "-q"], env=env, what="refreshing the package lists (apt-get update)")
        run(argv, env=env, what=f"installing {' '.join(packages)}")


class PrivateApt:
    """An apt of its own for another Debian suite: nothing of the system's apt is read for it or changed by it."""

    def __init__(self, mirror: Mirror) -> None:
        self.root = CACHE / f"apt-{SUITE}"
        self.mirror = mirror

    def update(self) -> None:
        for part in ("lists/partial", "archives/partial", "empty"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        keyring = KEYRING if os.path.exists(KEYRING) else "/etc/apt/trusted.gpg.d"
        sources = self.mirror.sources(keyring)
        if keyring != KEYRING:
            sources = sources.replace(f"[signed-by={keyring}] ", "")
        (self.root / "sources.list").write_text(sources, encoding="ascii")
        (self.root / "status").touch()
        run(["apt-get", *self.options(), "update", "-q"], what=f"reading the package lists of {SUITE}")

    def download(self, package: str, into: Path) -> Path:
        """Download one package, without its dependencies, verified by apt against the signed lists."""
        into.mkdir(parents=True, exist_ok=True)
        run(["apt-get", *self.options(), "download", package], cwd=str(into), what=f"downloading {package} ({SUITE})")
        return next(iter(into.glob(f"{package}_*.deb")))

    def options(self) -> list[str]:
        values = {
            "Dir::State": str(self.root),
            "Dir::State::Lists": str(self.root / "lists"),
            "Dir::State::status": str(self.root / "status"),
            "Dir::Cache": str(self.root),
            "Dir::Etc::sourcelist": str(self.root / "sources.list"),
            "Dir::Etc::sourceparts": str(self.root / "empty"),
            "Dir::Etc::preferencesparts": str(self.root / "empty"),
            "APT::Sandbox::User": "root",
            "APT::Default-Release": "",
            "APT::Update::Post-Invoke-Success": "",
        }
        return [word for key, value in values.items() for word in ("-o", f"{key}={value}")]

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}
