#!/usr/bin/env bash
# Installs what building and testing takes, only where it is missing: Debian packages (as root, or with
# sudo), and under build/npm the PostgreSQL servers of other versions and node's client, as pinned in
# tests/support/package-lock.json.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(gcc make clang clang-format clang-tidy cppcheck pkg-config libclang-rt-14-dev
    libpq-dev libevent-dev libssl-dev libcmocka-dev libpg-query-dev libprotobuf-c-dev uthash-dev libidn-dev libpam0g-dev libldap-dev
    postgresql-15 postgresql-contrib python3 python3-psycopg nodejs npm)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# A command that is there already from elsewhere (a newer node) does for its package.
have() {
    case $1 in
        nodejs) command -v node >/dev/null && return 0 ;;
        npm) command -v npm >/dev/null && return 0 ;;
    esac
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null | cut -c1-2)" = ii ]
}

missing=()
for p in "${packages[@]}"; do
    have "$p" || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -q
    # The server package would create and start a cluster that nobody asked for.
    conf=/etc/postgresql-common/createcluster.d/pgtrickle-no-main-cluster.conf
    if ! have postgresql-15; then
        as_root apt-get install -q -y --no-install-recommends postgresql-common
        as_root mkdir -p "$(dirname "$conf")"
        echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null
    fi
    status=0
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}" || status=$?
    as_root rm -f "$conf"
    [ "$status" = 0 ] || exit "$status"
fi

lock=tests/support/package-lock.json
if ! cmp -s "$lock" build/npm/installed-lock.json; then
    mkdir -p build/npm
    rm -f build/npm/installed-lock.json
    cp tests/support/package.json "$lock" build/npm/
    (cd build/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    # The packages hold no symbolic links, only a list of them: the libraries' sonames.
    for native in build/npm/node_modules/postgres-*/native; do
        python3 - "$native" <<'PY'
import json, os, sys
native = sys.argv[1]
for link in json.load(open(os.path.join(native, "pg-symlinks.json"))):
    target = os.path.join(os.path.dirname(native), link["target"])
    if not os.path.lexists(target):
        os.symlink(os.path.basename(link["source"]), target)
PY
        chmod +x "$native"/bin/*
    done
    cp "$lock" build/npm/installed-lock.json
fi
