# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images: a Debian base, the Droplet on it, and the stack's, each built only when its inputs changed."""

from __future__ import annotations

import hashlib
import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .packages import IMAGE_CA, MACHINE_CA, apt_conf_for_images, find_mirror, install, need_mirror
from .paths import BASE_IMAGE, CHECKOUT, DROPLET, DROPLET_IMAGE, LABEL, STACK, STORAGE_IMAGE, SUITE
from .shell import SandboxError, run, say

# What debian:trixie-slim leaves out as well.
_SLIM = [
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
]


@dataclass(frozen=True)
class StackImage:
    """An image of the stack as `images.json` declares it, and the digest of everything it is built from."""

    dockerfile: Path
    tags: tuple[str, ...]
    inputs: str


def image_id(reference: str) -> str:
    """The local image's id, or "" when there is none."""
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", reference], check=False).stdout.strip()


def label(reference: str) -> str:
    """The digest of the inputs that the local image was built from, or ""."""
    template = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    return run(["docker", "image", "inspect", "--format", template, reference], check=False).stdout.strip()


def base() -> str:
    """Make sure of the base image; return its id. Its apt sources are this machine's own, found at run time."""
    mirror = find_mirror()
    sources = mirror.sources() if mirror else ""
    conf = apt_conf_for_images(mirror)
    inputs = digest([SUITE, sources, conf, *_SLIM])
    if label(BASE_IMAGE) != inputs:
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            (work / "sources.list").write_text(sources, encoding="utf-8")
            (work / "apt.conf").write_text(conf, encoding="utf-8")
            if _pull(f"debian:{SUITE}-slim"):
                _derive_base(work, inputs, own_sources=mirror is not None)
            else:
                _bootstrap_base(work, inputs)
    return image_id(BASE_IMAGE)


def _pull(reference: str) -> bool:
    """Pull from a registry; False when none answers, which is found out in seconds."""
    say(f"base image: asking a container registry for {reference}")
    argv = ["docker", "pull", reference]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pull:
        assert pull.stdout is not None
        # The first line comes as soon as the registry has answered; only then may it take its time.
        answered = bool(select.select([pull.stdout], [], [], 15)[0])
        if not answered:
            pull.kill()
        try:
            output = pull.communicate(timeout=300)[0]
        except subprocess.TimeoutExpired:
            pull.kill()
            output = pull.communicate()[0]
    if pull.returncode != 0:
        reason = output.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no answer within 15 s"]
        say(f"base image: no registry ({reason[0]})")
    return pull.returncode == 0


def _derive_base(work: Path, inputs: str, *, own_sources: bool) -> None:
    """Put this machine's way to its package sources into a pulled base image."""
    steps = [f"FROM debian:{SUITE}-slim", "COPY apt.conf /etc/apt/apt.conf.d/90machine"]
    if own_sources:
        steps += ["RUN rm -f /etc/apt/sources.list.d/*", "COPY sources.list /etc/apt/sources.list"]
    if IMAGE_CA in (work / "apt.conf").read_text():
        shutil.copy(MACHINE_CA, work / "ca.crt")
        steps.append(f"COPY ca.crt {IMAGE_CA}")
    (work / "Dockerfile").write_text("\n".join(steps) + "\n", encoding="ascii")
    build(work / "Dockerfile", work, [BASE_IMAGE], inputs)


def _bootstrap_base(work: Path, inputs: str) -> None:
    """Make the base image from Debian packages alone."""
    need_mirror()
    if not shutil.which("mmdebstrap"):
        install(["mmdebstrap"])
    say(f"base image: bootstrapping Debian {SUITE} from this machine's own package source (about 20 s)")
    options = ["--mode=root", "--variant=minbase", f"--aptopt={work}/apt.conf", *_SLIM]
    if IMAGE_CA in (work / "apt.conf").read_text():
        options.append(f"--customize-hook=upload {MACHINE_CA} {IMAGE_CA}")
    run(
        ["mmdebstrap", *options, SUITE, f"{work}/base.tar", f"{work}/sources.list"],
        what=f"bootstrapping Debian {SUITE}",
        do="check that this machine's apt works (apt-get update), then run the same command again.",
    )
    change = f"LABEL {LABEL}={inputs}"
    run(["docker", "import", "--change", change, f"{work}/base.tar", BASE_IMAGE], what="importing the base image")


def droplet(base_id: str) -> str:
    """Make sure of the Droplet's image; return its id."""
    dockerfile = DROPLET / "Dockerfile"
    inputs = digest([base_id, *_contents(DROPLET, [DROPLET])])
    if label(DROPLET_IMAGE) != inputs:
        say("Droplet image: systemd, sshd, Docker Engine and Compose from Debian packages (about 30 s)")
        build(dockerfile, DROPLET, [DROPLET_IMAGE], inputs, base_id)
    return image_id(DROPLET_IMAGE)


def manifest() -> dict[str, Any]:
    """The stack's own description of itself (`stack/README.md`)."""
    loaded: dict[str, Any] = json.loads((STACK / "images.json").read_text(encoding="utf-8"))
    return loaded


def stack(base_id: str) -> list[StackImage]:
    """Make sure of the stack's images on this machine's engine; return them."""
    described = manifest()
    context = STACK / described["context"]
    _download_wheels(described["pip_packages"], STACK / described["wheels_dir"])
    images = []
    for entry in described["images"]:
        dockerfile = STACK / entry["dockerfile"]
        tags = tuple(entry["tags"])
        inputs = digest([base_id, *tags, *_contents(context, [dockerfile, *_copied(dockerfile, context)])])
        images.append(StackImage(dockerfile, tags, inputs))
        if any(label(tag) != inputs for tag in tags):
            say(f"stack image: {tags[0]}")
            build(dockerfile, context, tags, inputs, base_id)
    return images


def build(dockerfile: Path, context: Path, tags: Iterable[str], inputs: str, base_id: str = "") -> None:
    argv = ["docker", "build", "--file", str(dockerfile), "--label", f"{LABEL}={inputs}"]
    argv += ["--build-arg", f"BASE_IMAGE={base_id}"] if base_id else []
    argv += [word for tag in tags for word in ("--tag", tag)]
    # The classic builder: there from Docker 20.10 on without a plugin, and it finds local base images always.
    run([*argv, str(context)], env={"DOCKER_BUILDKIT": "0"}, what=f"building the image {' '.join(tags)}")


def remove(*, everything: bool) -> None:
    """Remove what builds left behind of earlier versions, or every image made here."""
    if everything:
        tags = [tag for entry in manifest()["images"] for tag in entry["tags"]]
        for reference in [*tags, DROPLET_IMAGE, STORAGE_IMAGE, BASE_IMAGE]:
            run(["docker", "image", "rm", "--force", reference], check=False)
    listing = ["docker", "image", "ls", "--quiet", "--filter", "dangling=true", "--filter", f"label={LABEL}"]
    for superseded in sorted(set(run(listing, check=False).stdout.split())):
        # One that other images are built on stays.
        run(["docker", "image", "rm", superseded], check=False)


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _contents(root: Path, places: Iterable[Path]) -> list[str]:
    """Path, owner's executable bit and content digest of every file in ``places``."""
    files = {file for place in places for file in ([place] if place.is_file() else place.rglob("*"))}
    found = []
    for file in sorted(files):
        if file.is_file() and "__pycache__" not in file.parts:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.append(f"{file.relative_to(root)} {file.stat().st_mode & 0o100:o} {content}")
    return found


def _copied(dockerfile: Path, context: Path) -> list[Path]:
    """What of the build context a Dockerfile copies into its image."""
    places: list[Path] = []
    for line in dockerfile.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] in (["COPY"], ["ADD"]) and not any(word.startswith("--from") for word in words):
            for word in [word for word in words[1:-1] if not word.startswith("--")]:
                places += context.glob(word.lstrip("./") or "*")
    return places


def _download_wheels(packages: list[str], into: Path) -> None:
    """Python packages come from this machine's package index: no image build needs a network for them."""
    into.mkdir(parents=True, exist_ok=True)
    wanted = [package for package in packages if not any(into.glob(_wheel_pattern(package)))]
    if not wanted:
        return
    say(f"Python packages for the images: {' '.join(wanted)}")
    pythons = (sys.executable, str(CHECKOUT / ".venv" / "bin" / "python"), "/usr/bin/python3")
    if not any(_has_pip(python) for python in pythons):
        install(["python3-pip"])
    python = next((python for python in pythons if _has_pip(python)), "")
    if not python:
        raise SandboxError(
            "no Python with pip on this machine.",
            state="the stack's images are not built.",
            do="install pip for the Python that runs this script.",
        )
    run(
        [python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(into), *wanted],
        what="downloading Python packages",
    )


def _wheel_pattern(package: str) -> str:
    name, _, version = package.partition("==")
    return f"{name.replace('-', '_')}-{version or '*'}-*.whl"


def _has_pip(python: str) -> bool:
    return run([python, "-m", "pip", "--version"], check=False).returncode == 0
