#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include whom: the table of folders, checked by reading the includes. Prints every line that breaks it.
# Tables (*.def) are data and may be included by anybody.
set -eu

found=$(mktemp)
trap 'rm -f "$found"' EXIT

sources() {
	[ -d "$1" ] || return 0
	find "$1" -name '*.[ch]' -o -name '*.cc' -o -name '*.inc'
}

# folder, what of ours it may include (extended regular expression), library headers that it must not
layer() {
	for file in $(sources "$1"); do
		case "$1 $file" in "broker broker/intake/"*) continue ;; esac
		grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" | sed 's/\r$//' |
			grep -vE "\"($2)\"|\"[a-z_/]+\.def\"" | sed "s|^|$file:|; s|\$|	folder $1 may not include it|" || :
		[ -z "$3" ] || grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($3)" "$file" |
			sed "s|^|$file:|; s|\$|	not in folder $1|" || :
	done >>"$found"
}

base='include/[a-z0-9_]+\.h|ipc/[a-z0-9_]+\.h'
cuda='cuda|nvml'

layer include 'include/pt2box\.h' '(zip|dlfcn|msgpack|jansson|seccomp|linux|sys|unistd|pthread)[./a-z]*'
layer ipc "$base" "zip\.h|dlfcn|seccomp|linux/seccomp|linux/landlock|jansson|$cuda"
layer confine "$base|confine/[a-z0-9_]+\.h" "zip\.h|dlfcn|msgpack|jansson|$cuda"
layer broker "$base|confine/[a-z0-9_]+\.h|broker/[a-z0-9_]+\.h" "zip\.h|dlfcn|jansson|elf\.h|seccomp\.h|$cuda"
layer broker/intake "$base|confine/[a-z0-9_]+\.h|broker/intake/[a-z0-9_]+\.h" "dlfcn|seccomp\.h|$cuda"
# The worker loads the runtime as a library; the header of its C ABI is the contract between the two.
layer worker "$base|confine/[a-z0-9_]+\.h|worker/[a-z0-9_]+\.h|runtime/aoti\.h" "zip\.h|jansson|seccomp\.h"
layer proxy "$base|confine/[a-z0-9_]+\.h|proxy/[a-z0-9_]+\.h" "zip\.h|seccomp\.h"
# dladdr() tells the client where it is installed, hence where the broker is; it loads nothing.
layer client "$base|client/([a-z]+/)?[a-z0-9_]+\.h" "seccomp\.h|linux/seccomp|linux/landlock|$cuda"
layer runtime 'ipc/status\.h|runtime/(ops/)?[a-z0-9_]+\.(h|inc)' "zip\.h|dlfcn|msgpack|jansson|seccomp"
layer python 'include/[a-z0-9_]+\.h' ''
layer bench 'include/[a-z0-9_]+\.h' ''
layer tests '(include|ipc|confine|broker|broker/intake|worker|proxy|client|client/cmd|runtime|runtime/ops)/[a-z0-9_]+\.(h|inc|c)|tests/.*' ''

if [ -s "$found" ]; then
	cat "$found"
	echo "check-layers: $(grep -c . "$found") includes break the table in tools/check-layers.sh" >&2
	exit 1
fi
