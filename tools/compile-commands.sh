#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes compile_commands.json from what make would run: nothing is compiled. Options of make may follow: san=address.
set -eu
dir=$(pwd)
out=compile_commands.json

# Every compilation is a line of its own in make's plan, with -c and the source last.
${MAKE:-make} --always-make --dry-run --no-print-directory "$@" programs tests-objects 2>/dev/null |
	awk -v dir="$dir" '
	function quote(s) {
		gsub(/\\/, "\\\\", s)
		gsub(/"/, "\\\"", s)
		gsub(/\t/, " ", s)
		return s
	}
	/ -c -o / && $NF ~ /\.(c|cc)$/ && !seen[$NF]++ {
		printf "%s{\"directory\": \"%s\", \"file\": \"%s\", \"command\": \"%s\"}", n++ ? ",\n" : "[\n", quote(dir),
			quote($NF), quote($0)
	}
	END {
		print n ? "\n]" : "[]"
	}' >"$out.new"
mv "$out.new" "$out"
echo "wrote $out: $(grep -c '"file"' "$out") files"
