#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks docs/lane.pml with spin: that the protocol holds in each setting, and that the model finds the faults which are built
# into it on demand. Needs spin (`apt-get install spin`) and gcc; some minutes and 2 GB.
# usage: check-model.sh [WORD...]: only settings whose name contains one of the words
set -eu
cd "$(dirname "$0")/.."
command -v spin >/dev/null || {
	echo "check-model: spin is not installed: apt-get install spin" >&2
	exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$PWD/docs/lane.pml
words=$* bad=0 n=0

wanted() {
	[ -n "$words" ] || return 0
	for word in $words; do
		case $1 in *"$word"*) return 0 ;; esac
	done
	return 1
}

# setting NAME hold|break safety|liveness DEFINES...
setting() {
	name=$1 want=$2 kind=$3
	shift 3
	wanted "$name" || return 0
	(
		cd "$work"
		spin -a "$@" "$model" >/dev/null
		if [ "$kind" = safety ]; then
			gcc -w -O2 -DSAFETY -DNOCLAIM -DNOFAIR -DCOLLAPSE -DMEMLIM=8000 -o pan pan.c
			./pan -m1000000 >out
		else
			gcc -w -O2 -DNFAIR=5 -DCOLLAPSE -DMEMLIM=8000 -o pan pan.c
			./pan -a -f -m1000000 >out
		fi
	)
	errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/out")
	states=$(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/out")
	grep -qE 'max search depth|memory limit|out of memory' "$work/out" && errors=unknown
	case $want.$errors in
	hold.0 | break.[1-9]*) verdict=ok ;;
	*) verdict=WRONG bad=$((bad + 1)) ;;
	esac
	n=$((n + 1))
	printf '%-28s %-8s %-5s %10s states, %s faults: %s\n' "$name" "$kind" "$want" "$states" "$errors" "$verdict"
}

setting one-worker hold safety -DWORKERS=1 -DSEQS=2 -DDEATHS=1
setting one-worker hold liveness -DWORKERS=1 -DSEQS=2 -DDEATHS=1
setting one-worker-retry hold safety -DWORKERS=1 -DSEQS=2 -DDEATHS=2 -DRETRY=1
setting client-dies hold safety -DWORKERS=1 -DSEQS=2 -DDEATHS=1 -DRETRY=1 -DCLIENT_DIES=1
setting cancel hold safety -DWORKERS=1 -DSEQS=2 -DDEATHS=1 -DCANCEL=1
setting two-slots hold safety -DWORKERS=1 -DSLOTS=2 -DSEQS=1 -DDEATHS=1
setting two-workers hold safety -DWORKERS=2 -DSEQS=1 -DDEATHS=1 -DRETRY=1
setting no-rouse break safety -DWORKERS=1 -DSEQS=2 -DDEATHS=1 -DNO_ROUSE=1
setting cancel-blindly break safety -DWORKERS=1 -DSEQS=2 -DDEATHS=1 -DCANCEL=1 -DCANCEL_BLINDLY=1
setting first-look-only break safety -DWORKERS=2 -DSEQS=2 -DDEATHS=1 -DRETRY=1 -DFIRST_LOOK_ONLY=1
echo "$n settings, $bad wrong"
[ "$bad" = 0 ]
