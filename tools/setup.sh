#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that pt2box is built from and tested with: the one list of them.
# --check: exit 0 if nothing is missing, without changing anything.
set -eu
PACKAGES="gcc g++ make pkg-config libzip-dev libmsgpack-dev libjansson-dev libseccomp-dev libdnnl-dev libsleef-dev
libcmocka-dev libssl-dev binutils python3-minimal cppcheck clang clang-tools"

if ! command -v dpkg-query >/dev/null 2>&1; then
	for h in zip.h msgpack.h jansson.h seccomp.h dnnl.h sleef.h cmocka.h openssl/sha.h; do
		echo "#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <$h>" | ${CC:-cc} -fsyntax-only -x c - 2>/dev/null || missing="${missing:-} $h"
	done
	[ -z "${missing:-}" ] && exit 0
	echo "pt2box: headers missing:$missing" >&2
	echo "pt2box: this is not a Debian system: install gcc, g++, GNU make and the development files of libzip," >&2
	echo "  msgpack-c, jansson, libseccomp, oneDNN, SLEEF, cmocka and OpenSSL, then run make again." >&2
	exit 1
fi

missing=
for p in $PACKAGES; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
[ "${1:-}" = --check ] && exit 1

sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "pt2box: install as root: apt-get install$missing" >&2
		exit 1
	}
	sudo=sudo
fi
echo "pt2box: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$sudo apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 ||
	{ $sudo apt-get update -q && $sudo apt-get install -y -q --no-install-recommends $missing; }
