#!/bin/sh
# Makes .venv from the lock (requirements.txt), with whatever this machine has; does nothing when it is up to date.
# Plain POSIX sh, so that macOS's bash 3.2, dash and WSL run it alike. Everything later is Python: see course_lib/.
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }
stop() { say "course: $*"; exit 1; }

installed=.venv/.installed-requirements.txt
# A clone that was moved or renamed has scripts that start another folder's Python: the stamp names the folder, too.
here=$(pwd -P)/.venv
made_here() { [ "$(cat .venv/.installed-at 2>/dev/null || true)" = "$here" ]; }
if made_here && [ -x .venv/bin/course ] && cmp -s requirements.txt "$installed" && cmp -s pyproject.toml .venv/.installed-pyproject.toml; then
    exit 0
fi

case "$(uname -s)" in
    Linux | Darwin) ;;
    *) stop "this is $(uname -s). On Windows, open a WSL2 terminal (wsl --install), clone there and run the same command." ;;
esac

# Where a company or campus inspects TLS, its certificate authority is in the system's store: ask there, too.
UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
export UV_SYSTEM_CERTS UV_NATIVE_TLS

uv=
pip_log=.cache/bootstrap.log
mkdir -p .cache

find_uv() {
    for candidate in "$(command -v uv 2>/dev/null || true)" .cache/uv/bin/uv .cache/uv-venv/bin/uv; do
        if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
            uv=$candidate
            return 0
        fi
    done
    return 1
}

# Three ways to get uv, in the order in which they disturb the machine least.
uv_by_pip() { python3 -m pip --version >/dev/null 2>&1 && python3 -m pip install --quiet --upgrade --target .cache/uv uv >>"$pip_log" 2>&1; }
uv_by_venv() { rm -rf .cache/uv-venv && python3 -m venv .cache/uv-venv >>"$pip_log" 2>&1 && .cache/uv-venv/bin/python -m pip install --quiet uv >>"$pip_log" 2>&1; }
apt_venv() {
    command -v apt-get >/dev/null 2>&1 || return 1
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || return 1
        sudo=sudo
    fi
    if [ "${YES:-}" = 1 ] || [ "${CI:-}" = true ] || { [ "$(id -u)" = 0 ] && [ ! -t 0 ]; }; then
        say "course: installing python3 and python3-venv with apt-get"
    elif [ -t 0 ]; then
        printf 'course: Python has neither pip nor venv here. Install the packages python3 and python3-venv with apt-get? [y/N] ' >&2
        read -r answer
        case "$answer" in y | Y | yes) ;; *) return 1 ;; esac
    else
        say "course: Python has neither pip nor venv here; run this in a terminal, where it can ask, or with YES=1"
        return 1
    fi
    $sudo apt-get update -qq >>"$pip_log" 2>&1 || true
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >>"$pip_log" 2>&1
}

if ! find_uv; then
    say "course: getting uv, which installs the Python environment"
    : >"$pip_log"
    { uv_by_pip || uv_by_venv || { apt_venv && uv_by_venv; }; } || true
    find_uv || stop "no way to get uv here: no pip, no venv, no apt package python3-venv, or no package index reached. Install uv (https://docs.astral.sh/uv/) and run the same command again. What was tried: $pip_log"
fi

say "course: making .venv from requirements.txt"
if ! made_here || [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    rm -rf .venv # uv's own --clear is newer than many a uv
    "$uv" venv --quiet --python '>=3.11,<3.14' .venv ||
        stop "no Python 3.11, 3.12 or 3.13 on this machine, and none could be downloaded. Install one (Ubuntu 24.04 and Debian 12 or later: the package python3; macOS: brew install python@3.13) and run the same command again."
fi
rm -f "$installed"
printf '%s\n' "$here" >.venv/.installed-at
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.txt ||
    stop "the packages of requirements.txt could not be installed (uv says why, above). Behind a proxy, set HTTPS_PROXY; behind a TLS-inspecting company network, set SSL_CERT_FILE to its CA file. Then run the same command again."
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
cp pyproject.toml .venv/.installed-pyproject.toml
cp requirements.txt "$installed"
