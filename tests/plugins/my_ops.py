# SPDX-License-Identifier: Apache-2.0
"""Operators in Python, an example and what tests need of one: those of the fixtures customop and opkinds, on numpy arrays."""
import ctypes
import os
import sys
import threading

import numpy as np
import pt2box.ops


class Silent(Exception):
    def __str__(self):
        raise self


def fork(x):
    if os.fork() == 0:
        os._exit(0)


def recurse(x):
    recurse(x)


def fail(x):
    raise ValueError("does not like %g" % x[0, 0])


def silent(x):
    raise Silent


def hang(x):
    while True:
        pass


def write(x):
    x[0, 0] = 1


def store(x):
    ctypes.memset(x.ctypes.data, 0, 4)


def patch(x):
    """Whatever a file does to the module that it was given, it does to itself."""
    pt2box.ops.describe = pt2box.ops.execute = None
    return x.dtype.type(np.nan)


def executable(x):
    ctypes.CDLL(None).mmap(None, 4096, 7, 0x22, -1, 0)


# What triple() does by the first element of its argument. tests/integration/test_ops_python.c has the other column.
DEEDS = {
    1001: fail,
    1002: hang,
    1003: lambda x: os.abort(),
    1004: lambda x: os.kill(os.getpid(), 9),
    1005: lambda x: open("/etc/passwd"),
    1006: lambda x: ctypes.CDLL(None).socket(2, 1, 0),
    1007: fork,
    1008: lambda x: __import__("csv"),
    1009: lambda x: sys.exit(3),
    1010: lambda x: os._exit(3),
    1011: lambda x: None,
    1012: write,
    1013: lambda x: np.empty(1 << 27, np.float32),
    1014: store,
    1015: lambda x: threading.Thread(target=hang, args=(x,)).start(),
    1016: recurse,
    1017: lambda x: {},
    1018: silent,
    1019: lambda x: os.execv("/bin/true", ["true"]),
    1020: executable,
    1021: lambda x: np.zeros(x.shape, ">f4"),
    1022: lambda x: np.zeros((1,) * 20),
    1023: lambda x: os.listdir("/"),
}


@pt2box.ops.op("pt2box_test::triple", "(Tensor x, int k) -> Tensor")
def triple(x, k):
    if not 1001 <= x[0, 0] < 2000:
        return x * np.float32(3) + np.float32(k)
    return DEEDS[int(x[0, 0])](x)


# See tests/fixtures/make_fixtures.py, opkinds.
@pt2box.ops.op("pt2box_kinds::big",
               "(Tensor x, Tensor[] ys, SymInt n, int ni, float f, bool b, str s, SymInt[] shape, Tensor? opt, Tensor? optn, "
               "ScalarType dt, Device? dev, float[] fl, int? oi, Scalar sc, Scalar fs, MemoryFormat mf, Layout? lay, "
               "Tensor?[] tl, int[] il, bool[] bl, str[] sl, int dflt=9, *, str mode=\"fast\", bool deep=False) -> "
               "(Tensor, Tensor)")
def big(x, ys, n, ni, f, b, s, shape, opt, optn, dt, dev, fl, oi, sc, fs, mf, lay, tl, il, bl, sl, dflt=9, *, mode, deep):
    if optn is not None or oi is not None or tl[1] is not None or deep is not False or mode != "fast" or b is not True:
        raise ValueError("what should be missing is there")
    if (dt, dev, mf, lay) != (np.dtype("float64"), "cpu", "channels_last", "strided"):
        raise ValueError("dtype, device, memory format or layout came wrong")
    y = x * np.float32(f) + np.float32(n + ni + sc + fs + dflt + sum(fl) + sum(il) + sum(shape)) + sum(t.sum() for t in ys)
    return y + np.float32(len(s) + sum(map(len, sl)) + sum(bl) + int(b)), (y + opt + tl[0] + tl[2]).astype(dt)


@pt2box.ops.op("pt2box_kinds::mut", "(Tensor(a!) x, int k) -> ()")
def mut(x, k):
    x += k


@pt2box.ops.op("pt2box_kinds::split", "(Tensor x, int k) -> Tensor[]")
def split(x, k):
    return [x[i:i + k] for i in range(0, len(x), k)]
