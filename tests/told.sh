#!/usr/bin/env bash
# Restart without dropping anybody: what a client and a server are is told to the next process. Each field
# of their structs is named where it is packed, or in the list "Not told" of proxy/takeover.c, with why.
set -u
cd "$(dirname "$0")/.."
status=0

# fields FILE STRUCT: the names of its fields.
fields() {
    awk -v head="^struct $2 \\\\{" '$0 ~ head { on = 1; next } on && /^};/ { exit } on' "$1" |
        sed -e 's,/\*.*\*/,,' -e 's,/\*.*,,' |
        sed -nE 's/^ {4}[A-Za-z].*[ *]([a-z_0-9]+)(\[[^]]*\])?;.*$/\1/p'
}

# check FILE STRUCT PACKED_IN
check() {
    local not_told field known=0
    not_told=$(sed -nE "/^ \* Not told of struct $2:/,/^ \* *$|\*\//p" "$3" | sed -e '1s/.*://' -e 's/^ \*//' |
        tr '\n' ' ' | sed -e 's/([^)]*)//g' | tr -c 'a-z_0-9' ' ')
    for field in $(fields "$1" "$2"); do
        known=$((known + 1))
        if ! grep -qE "(->|\.)$field\b" "$3" && [[ " $not_told " != *" $field "* ]]; then
            printf '%s: struct %s has `%s`, which %s neither packs nor lists as not told\n' "$1" "$2" "$field" "$3"
            status=1
        fi
    done
    for field in $not_told; do
        if ! fields "$1" "$2" | grep -qx "$field"; then
            printf '%s lists `%s` as not told, which is no field of struct %s\n' "$3" "$field" "$2"
            status=1
        fi
    done
    if [ "$known" -lt 5 ]; then
        printf '%s: the fields of struct %s were not found\n' "$1" "$2"
        status=1
    fi
}

check proxy/client.h client proxy/takeover.c
check proxy/client.h client_rare proxy/takeover.c
check proxy/server.h server proxy/takeover.c
check proxy/server.h reply_owed proxy/takeover.c
check proxy/prepared.h client_statement proxy/takeover.c
check proxy/session_state.c session proxy/session_state.c
exit $status
