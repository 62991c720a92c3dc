#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes every decoder with libFuzzer, AddressSanitizer and UBSan for FUZZ_SECONDS each (60).
# usage: fuzz.sh [NAME...]     NAME: part of a target's path; none: all
#
# New inputs go to build/fuzz/corpus/, never into the committed corpora; FUZZ_MERGE=1 adds what raises coverage there.
# A crash leaves its input under build/fuzz/crashes/ and fails the run.
set -eu
seconds=${FUZZ_SECONDS:-60}
b=build/fuzz
bad=0

${MAKE:-make} --no-print-directory fuzz=1 fuzz-build
mkdir -p "$b/crashes"

field() { # name in libFuzzer's closing statistics
	sed -n "s/^stat::$1: *//p" "$log" | tail -1
}

coverage() {
	grep -ao 'cov: [0-9]*' "$log" | tail -1 | cut -c6-
}

fuzz_one() {
	dir=${1#tests/fuzz/} stem=${1##*/fuzz_}
	dir=${dir%/*} stem=${stem%.c}
	name=$dir/fuzz_$stem
	log=$b/$dir-$stem.log
	committed=tests/fuzz/$dir/corpus_$stem
	own=$b/corpus/$dir-$stem
	mkdir -p "$own"
	dict=tests/fuzz/$dir/$stem.dict
	rc=0
	# shellcheck disable=SC2086
	timeout --kill-after=10 $((seconds + 120)) "$b/tests/fuzz/$name" -max_total_time="$seconds" -print_final_stats=1 \
		-timeout=20 -rss_limit_mb=2048 -max_len="${FUZZ_MAX_LEN:-65536}" -artifact_prefix="$b/crashes/$dir-$stem-" \
		$([ ! -e "$dict" ] || echo "-dict=$dict") ${FUZZ_ARGS:-} "$own" $([ ! -d "$committed" ] || echo "$committed") \
		</dev/null >"$log" 2>&1 || rc=$?
	printf '%-34s %12s executions  %8s/s  coverage %6s  %s\n' "$name" "$(field number_of_executed_units)" \
		"$(field average_exec_per_sec)" "$(coverage)" "$([ $rc = 0 ] && echo ok || echo "FAILED, see $log")"
	if [ $rc != 0 ]; then
		tail -n 30 "$log"
		return 1
	fi
	[ "${FUZZ_MERGE:-0}" = 0 ] || [ ! -d "$committed" ] ||
		"$b/tests/fuzz/$name" -merge=1 "$committed" "$own" >/dev/null 2>&1
}

for src in tests/fuzz/*/fuzz_*.c; do
	[ -e "$src" ] || continue
	wanted=$([ $# = 0 ] && echo yes || echo no)
	for w; do
		case $src in *"$w"*) wanted=yes ;; esac
	done
	[ $wanted = yes ] || continue
	fuzz_one "$src" || bad=$((bad + 1))
done
[ $bad = 0 ] || {
	echo "fuzz: $bad targets failed; their inputs are in $b/crashes" >&2
	exit 1
}
