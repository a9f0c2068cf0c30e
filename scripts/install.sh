#!/bin/sh
# Install Tanzim into .venv: sh scripts/install.sh [extra]. No CUDA packages where there is no NVIDIA GPU.
set -eu
extra="${1:-all}"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Tanzim needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Try: make install PYTHON=python3.12" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=".venv/bin/python -m pip --disable-pip-version-check"

if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    if command -v nvidia-smi >/dev/null 2>&1; then
        $pip install -c constraints.txt torch
    else
        # PyTorch's own CPU build first; where that index is out of reach, the pinned version from the usual one.
        $pip install --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu \
            "$(grep '^torch==' constraints.txt)" 2>/dev/null \
            || $pip install "$(grep '^torch==' constraints.txt)"
    fi
fi
$pip install -c constraints.txt -e ".[$extra]"
