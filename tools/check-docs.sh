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

part() { # argument of docgen, page, table: what stands between "<!-- begin ARGUMENT -->" and "<!-- end ARGUMENT -->"
	[ -e "$3" ] || return 0
	new=$(mktemp) inner=$(mktemp)
	"$docgen" "$1" >"$inner"
	awk -v name="$1" -v inner="$inner" '
		$0 == "<!-- end " name " -->" { skip = 0 }
		!skip { print }
		$0 == "<!-- begin " name " -->" { skip = 1; while ((getline line < inner) > 0) print line }
	' "$2" >"$new"
	if ! cmp -s "$new" "$2"; then
		if [ "$write" = --write ]; then
			cat "$new" >"$2"
			echo "wrote $2"
		else
			echo "check-docs: $2 is not what $3 says: run make docs" >&2
			diff -u "$2" "$new" 2>&1 | head -20 >&2 || :
			bad=1
		fi
	fi
	rm -f "$new" "$inner"
}

page protocol docs/PROTOCOL.md ipc/messages.def
page ops docs/OPS.md runtime/shims.def
part attacks docs/SECURITY.md tests/attacks.def
part matrix docs/SECURITY.md tests/matrix.def
exit $bad
