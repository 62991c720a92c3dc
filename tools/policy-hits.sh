#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which lines of policies/ does anything need? Runs fixtures and honest tests under tests/tools/policy_hits and prints the lines that
# nothing has needed. Takes long: ptrace stops at every call.
# usage: policy-hits.sh BUILD [TORCH]      TORCH: a folder with libtorch_cpu.so, for the lines of backend torch
#
# Hostile models are left out: what an attacker tries is no reason to allow it.
set -eu
b=$1 torch=${2:-none}
found=$b/policy-hits.txt
log=$b/policy-hits.log
rm -f "$found" "$log"
export B="$b"

under() {
	echo "policy-hits: $*"
	timeout 900 "$b/tests/tools/policy_hits" "$found" "$@" </dev/null >>"$log" 2>&1 || echo "  status $?, see $log"
}

run() { # FIXTURE OPTION...
	fixture=tests/fixtures/$1
	shift
	set -- "$@" -i "$fixture/in.npz"
	[ ! -e "$fixture/constants.safetensors" ] || set -- "$@" --constants "$fixture/constants.safetensors"
	under "$b/pt2box" run "$fixture/model.pt2" "$@"
}

export PT2BOX_TORCH=none
for t in "$b"/tests/integration/test_*; do
	case ${t##*/} in
	test_hostile | test_tenants | test_before_filter | *.*) ;;
	*) under "$t" ;;
	esac
done
for f in tests/fixtures/*/model.pt2; do
	f=${f%/model.pt2}
	[ ! -e "$f/in.npz" ] || run "${f##*/}" --profile strict
done
run mlp --explain
run linalg --explain --profile strict
if [ "$torch" != none ]; then
	export PT2BOX_TORCH="$torch"
	for f in mlp attn resnet18 lstm llama linalg customop; do
		[ -e "tests/fixtures/$f/in.npz" ] || continue
		run $f --backend torch --threads 2
		run $f --backend torch --profile strict
	done
fi
for p in policies/*.policy; do
	name=${p##*/}
	name=${name%.policy}
	sed -e '/^#/d;/^default/d;/^include/d;/^ *$/d;s/ *|.*//;s/  */ /g' "$p" | while read -r rule; do
		grep -Fxq "$name: $rule" "$found" || echo "not needed: $name: $rule"
	done
done
