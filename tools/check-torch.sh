#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What needs torch: remakes every fixture and compares it with the committed one, then runs tests/torch/*.py.
# usage: check-torch.sh BUILD [PYTHON]
set -eu
build=$1
python=${2:-python3}
need=2.13.0

version=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null) || version=none
case $version in
"$need" | "$need"+*) ;;
*)
	echo "check-torch: $python has torch $version, $need is needed. In a virtual environment:" >&2
	echo "  $python -m venv build/venv" >&2
	echo "  build/venv/bin/pip install torch==$need transformers safetensors numpy hypothesis" >&2
	echo "  make check-torch PYTHON=build/venv/bin/python" >&2
	exit 2
	;;
esac

passed=0 failed=0
step() {
	echo "== $*"
	if timeout "${TORCH_TIMEOUT:-3600}" "$@" </dev/null; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "failed: $*"
	fi
}

step "$python" tests/fixtures/make_fixtures.py --compare
for script in tests/torch/*.py; do
	case $script in
	*'*'* | */_*) continue ;; # none there; a module of the others
	esac
	B=$build step "$python" "$script" "$build"
done
# What models may not do, they may not do in backend torch either.
PT2BOX_TORCH=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))') TEST_HOSTILE_BACKEND=torch B=$build \
	step "$build/tests/integration/test_hostile"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
