#!/bin/bash
# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Writes the configuration with one user per service, each password from NATS_<USER>_PASSWORD, and starts the server.
# Not nats-server's own $VARIABLES: it parses their values, and a password such as 1e5 arrives as a number.
set -eu
umask 077
config=/etc/nats/nats.conf

# user NAME PERMISSIONS: one user entry
user() {
    local variable="NATS_${1^^}_PASSWORD"
    local password=${!variable:-}
    if [[ -z $password ]]; then
        echo "error: $variable is empty or not set" >&2
        exit 1
    fi
    password=${password//\\/\\\\}
    printf '      { user: "%s", password: "%s"%s }\n' "$1" "${password//\"/\\\"}" "${2:+, permissions: { $2 \}}"
}

{
    cat <<'CONFIG'
server_name: titan-nats
port: 4222
http_port: 8222
jetstream { store_dir: "/data", max_memory_store: 64MB, max_file_store: 2GB }
system_account: SYS
accounts {
  SYS {
    users: [
CONFIG
    user sys
    cat <<'CONFIG'
    ]
  }
  TITAN {
    jetstream: enabled
    users: [
CONFIG
    inbox='subscribe: ["_INBOX.>"'
    # Brain owns the streams; execution owns its consumer and what comes out of it.
    user brain "publish: [\"titan.cmd.>\", \"titan.evt.brain.>\", \"titan.data.>\", \"titan.signal.>\", \"titan.dlq.>\", \"\$JS.API.>\", \"\$JS.ACK.>\"], $inbox, \"titan.>\"]"
    user execution "publish: [\"titan.execution.>\", \"titan.evt.execution.>\", \"titan.dlq.>\", \"\$JS.API.INFO\", \"\$JS.API.STREAM.INFO.TITAN_CMD\", \"\$JS.API.CONSUMER.*.TITAN_CMD.EXECUTION_CORE\", \"\$JS.API.CONSUMER.DURABLE.CREATE.TITAN_CMD.EXECUTION_CORE\", \"\$JS.API.CONSUMER.MSG.NEXT.TITAN_CMD.EXECUTION_CORE\", \"\$JS.ACK.TITAN_CMD.>\"], $inbox, \"titan.cmd.>\"]"
    for name in scavenger hunter sentinel powerlaw; do
        user "$name" "publish: [\"titan.signal.$name.>\", \"titan.evt.$name.>\", \"\$JS.API.INFO\"], $inbox, \"titan.data.>\", \"titan.evt.>\"]"
    done
    user quant "publish: [\"titan.signal.quant.>\", \"\$JS.API.INFO\"], $inbox, \"titan.data.>\", \"titan.execution.>\"]"
    user console "publish: [\"\$JS.API.INFO\", \"\$JS.API.STREAM.INFO.*\", \"\$JS.API.STREAM.NAMES\", \"\$JS.API.STREAM.LIST\", \"\$JS.API.CONSUMER.INFO.>\", \"\$JS.API.CONSUMER.LIST.*\"], $inbox, \"titan.evt.>\", \"titan.execution.>\"]"
    cat <<'CONFIG'
    ]
  }
}
CONFIG
} >"$config"

exec nats-server --config "$config"
