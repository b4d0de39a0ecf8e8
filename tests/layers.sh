#!/usr/bin/env bash
# Who may know whom: base <- protocol <- proxy, base <- dvm, proxy -> dvm/dvm.h and dvm/runtime/db.h only;
# the compiler half of dvm knows of runtime/ only db.h; proxy/io is for main.c and itself; one file of dvm
# sees libpg_query; sockets and threads stay out of protocol/.  Prints each include that breaks this.
set -u
cd "$(dirname "$0")/.."
status=0
shopt -s nullglob globstar extglob

# rule FILES_GLOB... -- FORBIDDEN_REGEX -- ALLOWED_REGEX -- WHY
rule() {
    local files=() forbidden allowed why out
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    forbidden=$2 allowed=$4 why=$6
        # shellcheck disable=SC2206 # the patterns are meant to be expanded
    local expanded=(${files[@]})
    [ ${#expanded[@]} -gt 0 ] || return 0
    out=$(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($forbidden)" "${expanded[@]}" /dev/null |
        grep -vE "[<\"]($allowed)[>\"]")
    if [ -n "$out" ]; then
        printf '%s\n    %s\n' "$why" "${out//$'\n'/$'\n'    }"
        status=1
    fi
}

rule 'base/*.[ch]' -- '(protocol|dvm|proxy|tests)/|libpq|pg_query|event2/|openssl/' -- 'nothing' -- \
    'base knows nobody:'
rule 'protocol/*.[ch]' -- '(dvm|proxy|tests)/|libpq|pg_query|event2/|sys/socket|pthread' -- 'nothing' -- \
    'protocol is pure functions over bytes, on base alone:'
rule 'dvm/**/*.[ch]' -- '(proxy|protocol|tests)/|event2/' -- 'nothing' -- \
    'dvm knows neither the daemon nor the wire:'
rule 'dvm/*.[ch]' 'dvm/delta/*.[ch]' -- 'dvm/runtime/|libpq' -- 'dvm/runtime/db\.h' -- \
    'the compiler half of dvm knows of the runtime only db.h:'
rule 'proxy/**/*.[ch]' -- 'dvm/|libpq-fe' -- 'dvm/dvm\.h|dvm/runtime/db\.h' -- \
    'proxy sees of dvm only dvm/dvm.h and dvm/runtime/db.h:'
rule 'proxy/!(main).[ch]' -- 'proxy/io/' -- 'nothing' -- 'proxy/io is for main.c and itself:'

users=$(grep -lE '#include [<"]pg_query' dvm/**/*.c proxy/**/*.c /dev/null | sort -u)
if [ "$(printf '%s\n' "$users" | grep -c '^dvm/')" -gt 1 ]; then
    printf 'one file of dvm sees libpg_query:\n%s\n' "$users"
    status=1
fi
exit $status
