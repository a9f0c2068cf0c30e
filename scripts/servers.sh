#!/bin/sh
# Tests read from a real PostgreSQL, which they start themselves (Debian's package, any version).
set -eu
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    export DEBIAN_FRONTEND=noninteractive
    $as_root apt-get update -qq
    # No cluster of the system's own: nothing is to run when no test does.
    $as_root apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null
    $as_root sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
    $as_root apt-get install -y -qq --no-install-recommends postgresql >/dev/null
fi
