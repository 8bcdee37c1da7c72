#!/bin/sh
# Everything that a rotation may change on a host, in a form that can be compared: the project's files (content, owner,
# mode, links) and each container's identity and start. Prints no secret.
set -eu
cd /opt/titan
find . -path ./state -prune -o -path ./logs -prune -o -printf '%p %y %l %u %g %m\n' | sort
find . -path ./state -prune -o -path ./logs -prune -o -type f -exec sha256sum {} + | sort -k 2
find state -mindepth 1 ! -name deploy.lock | sort
docker ps --all --quiet --no-trunc | sort | xargs docker inspect --format '{{.Id}} {{.Name}} {{.State.StartedAt}}'
