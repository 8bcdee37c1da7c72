#!/usr/bin/env bash
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Turns the sandbox's ordinary stack into production's layout, with the plain commands of a deployment: two releases, of
# which the first was started in its own directory, whose name is the project's ever since; the second came up through
# the link "current" and replaced only what differs. So some containers bear the labels of one, some of the other.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
first=2026-01-30
second=2026-02-06

compose() {
    docker compose --env-file .env.prod --file docker-compose.prod.yml --file compose.override.digest.yml "$@"
}

# First of all the sandbox's note that its stack is complete goes: from here on `sandbox up` lays that out anew.
rm -f /var/lib/titan-sandbox/stack
cd /opt/titan
docker compose -f docker-compose.prod.yml down --volumes --timeout 5
rm docker-compose.prod.yml .env

# A password that people chose: in the URL it must be percent-encoded.
random=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
password="Chosen/by:$random@people%+?#"
encoded="Chosen%2Fby%3A$random%40people%25%2B%3F%23"
sed -i compose/.env.prod \
    -e "s|^TITAN_DB_PASSWORD=.*|TITAN_DB_PASSWORD='$password'|" \
    -e "/^TITAN_DB_PASSWORD=/a DATABASE_URL=postgres://titan:$encoded@titan-postgres:5432/titan_brain" \
    -e 's|^TITAN_DB_HOST=.*|TITAN_DB_HOST=postgres|' \
    -e 's|^NATS_URL=.*|NATS_URL=nats://nats:4222|' \
    -e 's|^SEED_ROWS=.*|SEED_ROWS=1000|' -e 's|^INTENT_RATE=.*|INTENT_RATE=5|'
cp -p compose/.env.prod /root/first.env # for the tests

for release in "$first" "$second"; do
    directory=/opt/titan/releases/$release
    mkdir -p "$directory"
    sed "s/@release@/$release/" "$here/docker-compose.prod.yml" >"$directory/docker-compose.prod.yml"
    {
        printf -- '---\n# Made by the deployment: which images this release was tested with.\nservices:\n'
        while read -r service image; do
            printf '  %s:\n    image: %s\n' "$service" "$(docker image inspect --format '{{.Id}}' "$image")"
        done <<'IMAGES'
titan-brain titan/brain:1.0.0
titan-execution titan/execution:1.0.0
titan-ai-quant titan/ai-quant:1.0.0
titan-opsd titan/opsd:1.0.0
titan-gpu titan/gpu:1.0.0
postgres titan/postgres:17
nats titan/nats:2
titan-prometheus titan/prometheus:2
IMAGES
    } >"$directory/compose.override.digest.yml"
    ln -s /opt/titan/compose/.env.prod "$directory/.env.prod"
done

cd "/opt/titan/releases/$first"
compose up --detach
ln -s "releases/$second" /opt/titan/current
cd /opt/titan/current
compose --project-name "$first" up --detach --wait
