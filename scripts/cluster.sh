#!/bin/sh
# Tests submit jobs: to a Slurm of one node (Debian's packages), and to SkyPilot's own reading of a task.
set -eu
if ! command -v slurmctld >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge >/dev/null
fi
# In an environment of its own: it wants older versions of what the server runs on.
if [ ! -x .venv/skypilot/bin/python ]; then
    .venv/bin/python -m venv .venv/skypilot
    .venv/skypilot/bin/pip --disable-pip-version-check install -q skypilot==0.14.1
fi
