#!/bin/bash
# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts PostgreSQL as operators know it from the official image: POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB count
# only while the data directory is empty; local connections are trusted, all others need the password.
set -eu -o pipefail

say() { echo "$(date -u '+%F %T') UTC [entrypoint] $*" >&2; }

if [[ ${1:-} != postgres ]]; then exec "$@"; fi

if [[ $(id -u) == 0 ]]; then
    install -d -o postgres -g postgres -m 0700 "$PGDATA"
    [[ $(stat -c %U "$PGDATA") == postgres ]] || chown -R postgres: "$PGDATA"
    chown postgres: /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

# Everything is made in a directory of its own and moved into place at the end, PG_VERSION last: a first start that was
# killed half-way is done again instead of passing for a finished one (which it does with the official image).
staging=$PGDATA/.initialising

initialise() {
    if [[ -z ${POSTGRES_PASSWORD:-} ]]; then
        say "error: the database is not initialised and POSTGRES_PASSWORD is empty or not set"
        exit 1
    fi
    say "initialising the database"
    find "$PGDATA" -mindepth 1 -delete
    # The password travels through a pipe: never an argument, never a file.
    initdb --pgdata="$staging" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=trust --no-instructions --no-sync >&2
    printf '\nhost all all all scram-sha-256\n' >>"$staging/pg_hba.conf"
    printf '%s\n' "listen_addresses = '*'" "log_timezone = 'Etc/UTC'" "timezone = 'Etc/UTC'" \
        >>"$staging/postgresql.conf"

    # On the socket only: nobody may connect over the network before the scripts are done.
    pg_ctl --pgdata="$staging" --wait --silent --options="-c listen_addresses='' -c fsync=off" start >&2
    if [[ $database != postgres ]]; then
        psql --no-psqlrc --quiet --username="$user" --dbname=postgres --set=ON_ERROR_STOP=1 \
            --set=database="$database" <<<'CREATE DATABASE :"database";' >&2
    fi
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        say "running $script"
        case $script in
            *.sh) PGUSER=$user PGDATABASE=$database "$script" >&2 ;;
            *.sql)
                psql --no-psqlrc --quiet --username="$user" --dbname="$database" --set=ON_ERROR_STOP=1 \
                    --single-transaction --file="$script" >&2
                ;;
            *) say "ignored: $script" ;;
        esac
    done
    pg_ctl --pgdata="$staging" --wait --silent --mode=fast stop >&2
    find "$staging" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    sync --file-system "$PGDATA"
    mv "$staging/PG_VERSION" "$PGDATA/"
    rmdir "$staging"
    say "initialisation complete"
}

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    initialise
fi
exec "$@"
