#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that pt2box is built from and tested with: the one list of them. Quick when nothing is missing.
# usage: setup.sh [--lint] [--check]
#	--lint: also what `make lint`, `make fuzz` and `make format` use
#	--check: change nothing; exit 1 if something is missing
set -eu
PACKAGES="gcc g++ make pkg-config libzip-dev libmsgpack-dev libjansson-dev libseccomp-dev libsleef-dev
libconfuse-dev libsqlite3-dev
liblapacke-dev libcmocka-dev libssl-dev binutils python3-minimal python3-dev python3-pip python3-setuptools
python3-wheel python3-numpy python3-hypothesis"
LINT_PACKAGES="cppcheck clang clang-tools clang-format"

lint= check=
for arg; do
	case $arg in
	--lint) lint=1 ;;
	--check) check=1 ;;
	*) sed -n '3,6s/^# //p' "$0" >&2 && exit 2 ;;
	esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
	missing=
	for h in zip.h msgpack.h jansson.h seccomp.h confuse.h sqlite3.h lapacke.h sleef.h cmocka.h openssl/sha.h; do
		echo "#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <$h>" | ${CC:-cc} -fsyntax-only -x c - 2>/dev/null || missing="$missing $h"
	done
	[ -z "$missing" ] && exit 0
	echo "pt2box: headers missing:$missing" >&2
	echo "pt2box: this is not a Debian system: install gcc, g++, GNU make and the development files of libzip," >&2
	echo "  msgpack-c, jansson, libseccomp, libconfuse, SQLite, LAPACKE, SLEEF, cmocka and OpenSSL, then run make again." >&2
	exit 1
fi

# Of the packages given, those that are not installed.
not_installed() {
	have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ')
	for p; do
		case " $have" in *" $p "*) ;; *) printf ' %s' "$p" ;; esac
	done
}

# shellcheck disable=SC2086
missing=$(not_installed $PACKAGES ${lint:+$LINT_PACKAGES})
# libFuzzer and the sanitizers' runtime: clang only recommends them, under a name with its version.
if [ -n "$lint" ]; then
	rt=$(dpkg-query -W -f='${Depends}' clang 2>/dev/null | sed -n 's/.*clang-\([0-9][0-9]*\).*/libclang-rt-\1-dev/p')
	[ -z "$rt" ] || missing="$missing$(not_installed "$rt")"
fi
[ -z "$missing" ] && exit 0
if [ -n "$check" ]; then
	echo "pt2box: missing:$missing" >&2
	exit 1
fi

sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "pt2box: not root, and there is no sudo. As root: apt-get install --no-install-recommends$missing" >&2
		exit 1
	}
	sudo=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lists of a fresh system are empty or old: then update, and try once more.
apt() {
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" >"$log" 2>&1 </dev/null
}
echo "pt2box: installing$missing"
# shellcheck disable=SC2086
apt install --no-install-recommends $missing ||
	{ apt update && apt install --no-install-recommends $missing; } || {
	tail -n 20 "$log" >&2
	echo "pt2box: apt-get could not install:$missing" >&2
	exit 1
}
# The first pass could not know which clang it would get.
[ -z "$lint" ] || exec "$0" --lint
