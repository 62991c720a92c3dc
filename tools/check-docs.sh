#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares the generated pages of docs/ with what their tables say now.
# usage: check-docs.sh BUILD [--write]     --write: write the pages that are stale
set -eu
docgen=$1/host/docgen
write=${2:-}
bad=0

page() { # argument of docgen, page, table
	[ -e "$3" ] || return 0
	new=$(mktemp)
	"$docgen" "$1" >"$new"
	if ! cmp -s "$new" "$2"; then
		if [ "$write" = --write ]; then
			mkdir -p "${2%/*}"
			cat "$new" >"$2"
			echo "wrote $2"
		else
			echo "check-docs: $2 is not what $3 says: run make docs" >&2
			diff -u "$2" "$new" 2>&1 | head -20 >&2 || :
			bad=1
		fi
	fi
	rm -f "$new"
}

page protocol docs/PROTOCOL.md ipc/messages.def
page ops docs/OPS.md runtime/shims.def
exit $bad
