#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs test programs one after the other and adds up their counts.
# usage: B=BUILD run-tests.sh PROGRAM...
#
# A program under .../fuzz/DIR/fuzz_NAME is a replay: it gets the corpus tests/fuzz/DIR/corpus_NAME and counts as one test.
# So does a script ("tools/check-x.sh", its arguments behind it in the same word). Anything else is a cmocka program, or prints its counts as one does. One that dies, hangs or prints no count is a failure, whatever it printed before.
# Each program has TEST_TIMEOUT seconds (300); its whole output is kept in BUILD/tests/logs. TESTS=word runs only the
# programs whose path contains the word. The last line is "N passed, N failed".
set -eu
# Tests do not depend on whether PyTorch is installed: check-torch.sh has those that use it.
export PT2BOX_TORCH=none

logs=${B:-build}/tests/logs
limit=${TEST_TIMEOUT:-300}
passed=0 failed=0 skipped=0
bad=
mkdir -p "$logs"

# Sum of the numbers that cmocka prints for $1 (PASSED, FAILED, SKIPPED) in the log: a program may have several groups.
count() {
	sed -n "s/^\[ *$1 *\] *\(tests: \)\{0,1\}\([0-9][0-9]*\) test(s).*/\2/p" "$log" | awk '{ n += $1 } END { print n + 0 }'
}

# cmocka's lines but RUN, cut to what a reader can take in.
show() {
	grep -a -v '^\[ RUN  ' "$log" | cut -c1-300 | awk -v max="$1" '
		{ line[NR] = $0 }
		END {
			head = NR > max ? int(max / 3) : NR
			for (i = 1; i <= head; i++) print line[i]
			if (NR > max) print "... " NR - max " lines in the log ..."
			for (i = NR > max ? NR - (max - head) + 1 : NR + 1; i <= NR; i++) print line[i]
		}'
}

# Sets p, f, s: what this program adds.
run_one() {
	command=$1 prog=${1%% *} single= p=0 f=0 s=0
	name=$(echo "${prog#*tests/}" | tr / _)
	log=$logs/$name.log
	case $prog in
	*.sh) single=1 ;;
	*/fuzz/*/fuzz_*)
		stem=${prog##*/fuzz_}
		dir=${prog%/*}
		command="$prog tests/fuzz/${dir##*/}/corpus_$stem"
		single=1
		;;
	esac
	rc=0
	# shellcheck disable=SC2086
	timeout --kill-after=10 "$limit" $command </dev/null >"$log" 2>&1 || rc=$?
	if [ -n "$single" ]; then
		[ $rc = 0 ] && p=1 || f=1
	else
		# A test whose teardown fails is an ERROR of its own, not in the list of the failed.
		p=$(count PASSED) s=$(count SKIPPED)
		f=$(($(count FAILED) + $(grep -c '^\[  ERROR   \] [A-Za-z_]' "$log" || :)))
		if [ $rc != 0 ] && [ "$f" = 0 ]; then
			f=1
		elif [ $((p + f + s)) = 0 ]; then
			f=1
			echo "no test was counted" >>"$log"
		fi
	fi
	case $rc in
	124 | 137) echo "$prog: stopped after $limit seconds" >>"$log" ;;
	13[0-9] | 14[0-9] | 15[0-9]) echo "$prog: ended by signal $((rc - 128))" >>"$log" ;;
	esac
}

for test; do
	case $test in *"${TESTS:-}"*) ;; *) continue ;; esac
	began=$(date +%s)
	run_one "$test"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	took=$(($(date +%s) - began))
	if [ "$f" = 0 ]; then
		echo "ok    $prog: $p passed${s:+$([ "$s" = 0 ] || echo ", $s skipped")} ($took s)"
		show "${TEST_LINES:-40}"
	else
		bad="$bad $prog"
		echo "FAIL  $prog: $p passed, $f failed, exit status $rc ($took s); whole output: $log"
		show "${TEST_LINES:-120}"
	fi
done

[ "$skipped" = 0 ] || echo "$skipped skipped: they cannot be run here; their logs in $logs say why"
for prog in $bad; do
	echo "failed: $prog"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
