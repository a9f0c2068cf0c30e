#!/bin/sh
# Tests look at the pages in a real browser: make sure Chromium and a font with Persian letters are here.
set -eu
if command -v chromium >/dev/null 2>&1 && fc-list :lang=fa 2>/dev/null | grep -q .; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests need Chromium and a font with Persian letters; install them with your package manager." >&2
    exit 1
fi
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
    chromium fontconfig fonts-noto-core >/dev/null
