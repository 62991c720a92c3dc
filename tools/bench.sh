#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make bench: builds the yardstick where torch is, makes the larger packages once, prints the figures.
# usage: bench.sh BUILD [PYTHON]
set -eu
build=$1
python=${2:-python3}
host= models=
torch=$($python -c 'import torch; print(torch.__path__[0], torch.__version__)' 2>/dev/null) || torch=
case "$torch" in
*" 2.13.0"*)
	dir=${torch% *}
	host=$build/bench/torch_host
	if [ ! -x "$host" ] || [ bench/torch_host.cc -nt "$host" ]; then
		echo "building the yardstick with torch ${torch##* }"
		mkdir -p "$build/bench"
		${CXX:-g++} -std=c++20 -O2 -I"$dir/include" -I"$dir/include/torch/csrc/api/include" bench/torch_host.cc \
			-o "$host" -L"$dir/lib" -Wl,-rpath,"$dir/lib" -Wl,--no-as-needed -ltorch_cpu -lc10 -ltorch \
			-Wl,--as-needed -ldl
	fi
	${CC:-cc} -O3 -shared -fPIC -I. -o "$build/bench/example.so" tests/plugins/example.c
	models=${PT2BOX_BENCH_MODELS:-$build/bench/models}
	$python bench/make_models.py --out "$models"
	;;
esac
exec python3 bench/bench.py --build "$build" --python "$python" ${host:+--torch-host "$host"} ${models:+--models "$models"} ${BENCH_ARGS:-}
