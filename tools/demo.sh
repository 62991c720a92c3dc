#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make demo: the demo program, then the same through the command.
# usage: demo.sh BUILD
set -eu
build=$1
PT2BOX_LIBEXEC=$build/libexec "$build/tests/tools/demo" "$build"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() {
	echo
	echo "\$ $*"
	"$@"
}
run "$build/pt2box" inspect tests/fixtures/gpt2/model.pt2
run "$build/pt2box" run tests/fixtures/mlp/model.pt2 --input tests/fixtures/mlp/in.npz --output "$out/out.npz"
run "$build/pt2box" bench tests/fixtures/mlp/model.pt2 --input tests/fixtures/mlp/in.npz
