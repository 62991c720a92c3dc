#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone; public ones also as strict C99 and as C++.
# usage: check-headers.sh [CC [CXX]]
set -eu
cc=${1:-cc} cxx=${2:-c++}
gen=${B:-build}/gen
bad=0

try() { # what, command...
	what=$1
	shift
	"$@" || {
		echo "check-headers: $what" >&2
		bad=1
	}
}

for h in $(find include ipc confine broker worker torch proxy client runtime tests -name '*.h' 2>/dev/null | sort); do
	case $h in
	proxy/python/*) continue ;; # for an interpreter, with whose header it compiles
	tests/hostile/*) continue ;; # a program in a header; its includers define what it needs
	esac
	# A unit that only includes the header: "#pragma once in main file" and unused statics are then no noise.
	try "$h does not compile alone" sh -c 'echo "#include \"$1\"" |
		'"$cc"' -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-function -Werror -I. -I"$2" -fsyntax-only -x c -' - "$h" "$gen"
done
for h in include/*.h; do
	try "$h is not strict C99" sh -c 'echo "#include \"$1\"" |
		'"$cc"' -std=c99 -pedantic -Wall -Wextra -Wc++-compat -Werror -I. -fsyntax-only -x c -' - "$h"
	for std in c++11 c++17; do
		try "$h is not $std" sh -c 'echo "#include \"$1\"" |
			'"$cxx"' -std=$2 -pedantic -Wall -Wextra -Werror -I. -fsyntax-only -x c++ -' - "$h" "$std"
	done
done
exit $bad
