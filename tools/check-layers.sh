#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include whom: the table of folders, checked by reading the includes. Prints every line that breaks it.
# Tables (*.def) are data and may be included by anybody.
set -eu
found=$(mktemp)
trap 'rm -f "$found"' EXIT

# All includes: FILE:LINE:#include ... Then, for each, the row of the table that its folder has.
find include ipc confine broker worker torch proxy client runtime python bench tests \
	-name '*.[ch]' -o -name '*.cc' -o -name '*.inc' 2>/dev/null |
	xargs grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]' | awk -F: '
	# folder, what of ours it may include, library headers that it must not
	function layer(folder, ours, not_theirs) {
		may[folder] = "^\"(" ours ")\""
		must_not[folder] = not_theirs == "" ? "" : "^<(" not_theirs ")"
	}
	BEGIN {
		base = "include/[a-z0-9_]+[.]h|ipc/[a-z0-9_]+[.]h"
		cuda = "cuda|nvml"
		layer("include", "include/pt2box(_op)?[.]h", "(zip|dlfcn|msgpack|jansson|seccomp|unistd|pthread)[.]h|linux/|sys/")
		layer("ipc", base, "zip[.]h|dlfcn|seccomp|linux/seccomp|linux/landlock|jansson|" cuda)
		layer("confine", base "|confine/[a-z0-9_]+[.]h", "zip[.]h|dlfcn|msgpack|jansson|" cuda)
		layer("broker", base "|confine/[a-z0-9_]+[.]h|broker/[a-z0-9_]+[.]h", "zip[.]h|dlfcn|jansson|elf[.]h|seccomp[.]h|" cuda)
		layer("broker/intake", base "|confine/[a-z0-9_]+[.]h|broker/intake/[a-z0-9_]+[.]h", "dlfcn|seccomp[.]h|" cuda)
		# The worker loads the runtime as a library: the types of its C ABI are the contract between the two.
		layer("worker", base "|confine/[a-z0-9_]+[.]h|worker/[a-z0-9_]+[.]h|torch/[a-z0-9_]+[.]h|runtime/aoti[.]h", "zip[.]h|jansson|seccomp[.]h")
		layer("torch", base "|torch/[a-z0-9_]+[.]h|runtime/aoti[.]h", "zip[.]h|jansson|seccomp")
		layer("proxy", base "|confine/[a-z0-9_]+[.]h|proxy/[a-z0-9_]+[.]h|torch/[a-z0-9_]+[.]h|runtime/aoti[.]h", "zip[.]h|seccomp[.]h")
		layer("proxy/python", base "|confine/[a-z0-9_]+[.]h|proxy/(python/)?[a-z0-9_]+[.]h", "zip[.]h|dlfcn|seccomp[.]h")
		layer("client", base "|client/([a-z]+/)?[a-z0-9_]+[.]h", "seccomp[.]h|linux/seccomp|linux/landlock|" cuda)
		# The worker hands the nodes of a package to the runtime, and values go on to operators as plugins see them.
		layer("runtime", "ipc/(status|nodes|node_call)[.]h|include/pt2box_op[.]h|runtime/(ops/)?[a-z0-9_]+[.](h|inc)", "zip[.]h|dlfcn|msgpack|jansson|seccomp")
		layer("python", "include/[a-z0-9_]+[.]h|python/src/[a-z0-9_]+[.]h", "")
		layer("bench", "include/[a-z0-9_]+[.]h", "")
		layer("tests", "(include|ipc|confine|broker|worker|torch|proxy|client|runtime|tests)/[a-z0-9_/]+[.](h|inc|c)", "")
	}
	{
		folder = substr($1, 1, index($1, "/") - 1)
		if ($1 ~ /^broker\/intake\//)
			folder = "broker/intake"
		if ($1 ~ /^proxy\/python\//)
			folder = "proxy/python"
		what = $0
		sub(/^[^:]*:[^:]*:[[:space:]]*#[[:space:]]*include[[:space:]]*/, "", what)
		if (what ~ /^"/ && what !~ may[folder] && what !~ /^"[a-z_]+\/[a-z_\/]+[.]def"/)
			print $0 "\tfolder " folder " may not include it"
		if (what ~ /^</ && must_not[folder] != "" && what ~ must_not[folder])
			print $0 "\tnot in folder " folder
		seen[folder]++
		total++
	}
	END {
		if (total < 300 || !seen["ipc"] || !seen["confine"] || !seen["broker/intake"])
			print "only " total " includes were found: the check itself is broken"
	}' >"$found" 2>&1 || { cat "$found"; exit 1; }
if [ -s "$found" ]; then
	cat "$found"
	echo "check-layers: the lines above break the table in tools/check-layers.sh" >&2
	exit 1
fi
