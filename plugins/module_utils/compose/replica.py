# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings back a container that Compose has removed, just as it was made, whatever the Compose files say by now.

Compose removes the old container as soon as it has created its replacement. If that replacement cannot run, Compose
itself can only make the same one again; so an undo needs what the engine knew of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engine import Engine

__all__ = ["recall", "snapshot"]

Snapshot = dict[str, Any]


def snapshot(engine: Engine, container: str) -> Snapshot:
    """Everything that is needed to make the container again; holds its environment, so keep it secret."""
    raw = engine.inspect_raw(container)
    return {
        "status": raw["State"]["Status"],
        "health": (raw["State"].get("Health") or {}).get("Status"),
        "id": raw["Id"],
        "name": raw["Name"].lstrip("/"),
        "image_id": raw["Image"],
        "config": raw["Config"],
        "host_config": raw["HostConfig"],
        "mounts": raw.get("Mounts") or [],
        "networks": (raw.get("NetworkSettings") or {}).get("Networks") or {},
    }


def recall(engine: Engine, taken: Mapping[str, Any]) -> str:
    """Create the container of a snapshot again, not started: same name, labels, environment, image, mounts, networks.

    Its own file layer begins anew from the image.

    Returns:
        The new container's id.

    Raises:
        OpsError: the engine refused, e.g. because the name is taken or the image is gone.
    """
    config = dict(taken["config"])
    short_id = taken["id"][:12]
    if config.get("Hostname") == short_id:  # Docker's default, the id of a container that is no more
        config.pop("Hostname")
    # The tag may lead to another image by now.
    if engine.image_id(config["Image"]) != taken["image_id"]:
        config["Image"] = taken["image_id"]
    host_config = dict(taken["host_config"])
    host_config["Binds"] = [*(host_config.get("Binds") or []), *_anonymous_volumes(taken, host_config)]
    endpoints = {name: _endpoint(settings, short_id) for name, settings in taken["networks"].items()}
    first = (
        host_config.get("NetworkMode") if host_config.get("NetworkMode") in endpoints else next(iter(endpoints), None)
    )
    body = {
        **config,
        "HostConfig": host_config,
        # One network at creation, the others after it: what every version of the Engine API allows.
        "NetworkingConfig": {"EndpointsConfig": {first: endpoints[first]} if first else {}},
    }
    created = engine.create(taken["name"], body)
    for name, endpoint in endpoints.items():
        if name != first:
            engine.connect_network(name, created, endpoint)
    return created


def _endpoint(settings: Mapping[str, Any], short_id: str) -> dict[str, Any]:
    aliases = [alias for alias in settings.get("Aliases") or [] if alias != short_id]
    kept = {name: settings[name] for name in ("IPAMConfig", "Links", "DriverOpts") if settings.get(name)}
    return {**kept, "Aliases": aliases}


def _anonymous_volumes(taken: Mapping[str, Any], host_config: Mapping[str, Any]) -> list[str]:
    """Binds for volumes that the image declares: nothing but the mounts of the old container names them."""
    declared = {str(bind).split(":")[1] for bind in host_config.get("Binds") or [] if ":" in str(bind)}
    declared |= {str(mount.get("Target")) for mount in host_config.get("Mounts") or []}
    return [
        f"{mount['Name']}:{mount['Destination']}"
        for mount in taken["mounts"]
        if mount.get("Type") == "volume" and mount["Destination"] not in declared
    ]
