#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cppcheck over all sources, then the clang analyzer over a build. Any finding fails.
# LINT=cppcheck or LINT=scan runs one of them.
set -eu
b=build/lint
jobs=$(nproc)
mkdir -p "$b"

cppcheck_run() {
	# Each suppression with its reason:
	#  missingIncludeSystem  system headers are not read: the code is analysed without them, as cppcheck advises
	#  unknownMacro          tables expanded by X macros
	#  invalidPointerCast    tensors are bytes that are read as floats, in the one process and machine that wrote them
	#  incorrectLogicOperator in convert.c  cppcheck reads the hexadecimal float 0x1p63 as 0
	#  nullPointer in tests  it does not know that cmocka's asserts end the test
	#  internalAstError      cppcheck cannot read "a ? b : c" with a cast of a compound literal in it
	# Hostile models are left out: they do on purpose what is looked for. Of C++ there is a file of a few lines.
	find ipc confine broker worker torch proxy client runtime bench tools -name '*.c' 2>/dev/null | sort >"$b/files"
	find tests -name '*.c' ! -path 'tests/hostile/*' | sort >"$b/files-tests"
	cppcheck_files "$b/files"
	cppcheck_files "$b/files-tests" --suppress=nullPointer --suppress=nullPointerRedundantCheck --suppress=ctunullpointer
}

cppcheck_files() { # list of files, more options
	list=$1
	shift
	timeout 300 cppcheck --std=c11 --language=c --enable=warning,portability,performance --inline-suppr --quiet -j "$jobs" \
		--error-exitcode=1 -I. -D_GNU_SOURCE -D__x86_64__ -DPB_VERSION='""' -DPB_LIBEXEC_DIR='""' \
		--suppress=missingIncludeSystem --suppress=unknownMacro --suppress=invalidPointerCast \
		--suppress=incorrectLogicOperator:runtime/convert.c --suppress=internalAstError \
		--template='{file}:{line}: {severity}: {message} [{id}]' "$@" --file-list="$list" || cpp_bad=1
}

# Analysed while a build of its own runs, without optimisation: only the programs and libraries, the analyzer is slow.
#  runtime/ops is left out: loops over ranks and sizes, where the analyzer reports each array as unset because it also
#  follows the path on which a loop over the same rank is entered only the second time. Those are tested against naive
#  loops, with sanitizers.
scan_run() {
	rm -rf "$b/scan"
	timeout 900 scan-build --status-bugs -o "$b/reports" \
		${MAKE:-make} --no-print-directory -s -j "$jobs" lint=1 programs >"$b/scan.log" 2>&1 || {
		grep -aE 'warning:|error:|scan-build:' "$b/scan.log" | sort -u | head -60
		return 1
	}
}

bad=0
case ${LINT:-all} in all | cppcheck)
	cpp_bad=0
	cppcheck_run
	[ $cpp_bad = 0 ] && echo "cppcheck: no findings" || bad=1
	;;
esac
case ${LINT:-all} in all | scan)
	scan_run && echo "scan-build: no findings" || bad=1
	;;
esac
exit $bad
