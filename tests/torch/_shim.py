# SPDX-License-Identifier: Apache-2.0
"""Calls a function of the C ABI twice with the same arguments, in our library and in PyTorch's, and compares.

Signatures are read from PyTorch's own headers, so a test names only the function and its arguments. Tensor arguments are
torch tensors; each library gets its own copy of their storages (tensors that share one still do), at the same offsets and
strides. Results are compared in dtype, shape, strides and contents; so is every storage that went in.
"""
import ctypes
import math
import os
import re
import sys

import torch

INCLUDE = os.path.join(os.path.dirname(torch.__file__), "include/torch/csrc/inductor/aoti_torch")
HEADERS = ["generated/c_shim_cpu.h", "generated/c_shim_aten.h", "c/shim_cpu.h", "c/shim.h", "c/shim_deprecated.h"]
NUMBERS = {
    torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float16: 5, torch.float32: 6,
    torch.float64: 7, torch.complex32: 8, torch.complex64: 9, torch.complex128: 10, torch.bool: 11,
    torch.bfloat16: 15, torch.uint16: 27, torch.uint32: 28, torch.uint64: 29,
    torch.float8_e5m2: 23, torch.float8_e4m3fn: 24,
}
DTYPES = {v: k for k, v in NUMBERS.items()}
P = ctypes.c_void_p


def prototypes():
    text = ""
    for h in HEADERS:
        text += open(os.path.join(INCLUDE, h)).read()
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"^#.*$", "", text, flags=re.M)
    found = {}
    for m in re.finditer(r"AOTITorchError\s+(aoti_torch_\w+)\s*\(([^;]*?)\)\s*;", text, flags=re.S):
        params = []
        for p in m.group(2).split(","):
            p = " ".join(p.split())
            if not p:
                continue
            named = re.match(r"(.*[ *])(\w+)$", p)
            if not named:
                params = None
                break
            kind, name = named.groups()
            params.append((kind.replace("const ", "").replace(" ", ""), name))
        if params is not None:
            found[m.group(1)] = params
    return found


PROTOTYPES = prototypes()


def is_result(kind, name):
    return bool(re.fullmatch(r"ret\d*|out|ret_new_tensor", name)) and kind == "AtenTensorHandle*"


def is_array(params, i):
    """A pointer whose length is the next parameter."""
    return (i + 1 < len(params) and "*" in params[i][0] and
            bool(re.search(r"_len_?$|^num_indices$|_metadata_size$", params[i + 1][1])))


class Library:
    def __init__(self, path, what):
        self.lib = ctypes.CDLL(path, mode=os.RTLD_LOCAL | (0 if "LD_PRELOAD" in os.environ else os.RTLD_DEEPBIND))
        self.what = getattr(self.lib, what)
        self.what.restype = ctypes.c_char_p

    def error(self):
        return (self.what() or b"").decode().split("\n")[0]

    def blob(self, storage, t):
        h = P()
        n = t.dim()
        sizes = (ctypes.c_int64 * max(n, 1))(*t.shape)
        strides = (ctypes.c_int64 * max(n, 1))(*t.stride())
        rc = self.lib.aoti_torch_create_tensor_from_blob(
            P(storage.data_ptr()), ctypes.c_int64(n), sizes, strides, ctypes.c_int64(t.storage_offset()),
            ctypes.c_int32(NUMBERS[t.dtype]), ctypes.c_int32(0), ctypes.c_int32(-1), ctypes.byref(h))
        assert rc == 0, self.error()
        return h

    def get(self, name, h, ctype):
        v = ctype()
        assert getattr(self.lib, "aoti_torch_get_" + name)(h, ctypes.byref(v)) == 0
        return v.value

    def read(self, h):
        """The tensor behind a handle, copied with its strides."""
        n = self.get("dim", h, ctypes.c_int64)
        dtype = DTYPES[self.get("dtype", h, ctypes.c_int32)]
        p = ctypes.POINTER(ctypes.c_int64)()
        self.lib.aoti_torch_get_sizes(h, ctypes.byref(p))
        sizes = [p[i] for i in range(n)]
        self.lib.aoti_torch_get_strides(h, ctypes.byref(p))
        strides = [p[i] for i in range(n)]
        out = torch.empty_strided(sizes, strides, dtype=dtype)
        if out.numel():
            extent = 1 + sum((s - 1) * k for s, k in zip(sizes, strides))
            nbytes = extent * out.element_size()
            ctypes.memmove(out.data_ptr(), self.get("data_ptr", h, P), nbytes)
        return out

    def delete(self, h):
        self.lib.aoti_torch_delete_tensor_object(h)


# Errors that leave nothing to compare with; oneDNN cannot do everything on every CPU.
NO_ANSWER = ["INTERNAL ASSERT FAILED", "could not create a primitive", "needs the cpu support"]
TORCH = os.path.join(os.path.dirname(torch.__file__), "lib/libtorch_cpu.so")


class Call:
    """One call in one library; keeps everything alive that arguments point to."""

    def __init__(self, library, name, args, keyed):
        self.l = library
        self.keep, self.handles, self.opaques, self.storages, self.rets = [], [], [], {}, []
        # An output that no call fills must be seen as such, not as what a library left behind.
        c_args = []
        args = list(args)
        params = PROTOTYPES[name]
        i = 0
        while i < len(params):
            kind, pname = params[i]
            if is_result(kind, pname):
                h = P()
                self.rets.append(h)
                c_args.append(ctypes.byref(h))
            elif is_array(params, i):
                value = args.pop(0)
                c_args += self.array(kind, value, pname)
                i += 1
            else:
                c_args.append(self.scalar(kind, args.pop(0)))
            i += 1
        assert not args, f"{name}: arguments left: {args}"
        self.rc = getattr(library.lib, name)(*c_args)
        self.message = library.error() if self.rc else ""

    def opaque(self, t):
        """A tensor in oneDNN's own layout, as a package's constants have it."""
        md = torch.ops.mkldnn._get_mkldnn_serialized_md(t)
        data = ctypes.create_string_buffer(
            ctypes.string_at(torch.ops.mkldnn.data_ptr(t), torch.ops.mkldnn._nbytes(t)), torch.ops.mkldnn._nbytes(t) + 64)
        # As aligned as a package has it.
        at = (ctypes.addressof(data) + 63) & ~63
        ctypes.memmove(at, data, torch.ops.mkldnn._nbytes(t))
        self.keep.append((md, data))
        h, n = P(), t.dim()
        sizes = (ctypes.c_int64 * n)(*t.shape)
        rc = self.l.lib.aoti_torch_create_tensor_from_blob_v2(
            P(at), ctypes.c_int64(n), sizes, sizes, ctypes.c_int64(0), ctypes.c_int32(NUMBERS[t.dtype]),
            ctypes.c_int32(0), ctypes.c_int32(-1), ctypes.byref(h), ctypes.c_int32(3), P(md.data_ptr()),
            ctypes.c_int64(md.numel()))
        assert rc == 0, self.l.error()
        self.opaques.append(h)
        return h

    def tensor(self, t):
        if t.layout == torch._mkldnn:
            return self.opaque(t)
        key = t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()
        if key not in self.storages:
            self.storages[key] = t.untyped_storage().clone()
        h = self.l.blob(self.storages[key], t)
        self.handles.append(h)
        return h

    def array(self, kind, value, pname=""):
        n = 0 if value is None else len(value)
        length = ctypes.c_int64(n)
        if value is None:
            return [None, length]
        if kind == "AtenTensorHandle**":
            boxes = [None if t is None else P(self.tensor(t).value) for t in value]
            a = (ctypes.POINTER(P) * max(n, 1))(*[None if b is None else ctypes.pointer(b) for b in boxes])
            self.keep.append(boxes)
        elif kind == "AtenTensorHandle*":
            a = (P * max(n, 1))(*[None if t is None else self.tensor(t) for t in value])
        elif kind == "int64_t*":
            a = (ctypes.c_int64 * max(n, 1))(*value)
        elif kind == "int32_t*":
            a = (ctypes.c_int32 * max(n, 1))(*value)
        elif kind == "double**" and pname == "range":  # double[]?, not Scalar?[]
            boxes = (ctypes.c_double * max(n, 1))(*value)
            self.keep.append(boxes)
            a = ctypes.pointer(ctypes.pointer(boxes))
        elif kind == "double**":
            boxes = [None if v is None else ctypes.c_double(v) for v in value]
            a = (ctypes.POINTER(ctypes.c_double) * max(n, 1))(*[None if b is None else ctypes.pointer(b) for b in boxes])
            self.keep.append(boxes)
        else:
            raise TypeError(kind)
        self.keep.append(a)
        return [a, length]

    def scalar(self, kind, v):
        simple = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "double": ctypes.c_double,
                  "uint32_t": ctypes.c_uint32, "bool": ctypes.c_bool, "float": ctypes.c_float}
        if kind == "AtenTensorHandle":
            return P() if v is None else self.tensor(v)
        if kind == "char*":
            return ctypes.c_char_p(v.encode())
        if kind in simple:
            return simple[kind](NUMBERS.get(v, v) if not isinstance(v, float) else v)
        if v is None:
            return None
        if kind == "AtenTensorHandle*":
            box = P(self.tensor(v).value)
        elif kind == "char**":
            box = ctypes.c_char_p(v.encode())
        else:
            box = simple[kind[:-1]](NUMBERS.get(v, v))
        self.keep.append(box)
        return ctypes.byref(box)

    def results(self):
        out = [self.l.read(h) if h.value else None for h in self.rets]
        for h in {h.value for h in self.rets if h.value}:
            self.l.delete(P(h))
        return out

    def tensors_in(self):
        return [self.l.read(h) for h in self.handles]

    def end(self):
        for h in self.handles + self.opaques:
            self.l.delete(h)


def describe(args):
    def one(a):
        if isinstance(a, torch.Tensor) and a.layout == torch._mkldnn:
            return f"{str(a.dtype)[6:]}{list(a.shape)} of oneDNN"
        if isinstance(a, torch.Tensor):
            return f"{str(a.dtype)[6:]}{list(a.shape)}/{list(a.stride())}+{a.storage_offset()}"
        if isinstance(a, (list, tuple)):
            return "[" + ", ".join(one(x) for x in a) + "]"
        return repr(a)
    return ", ".join(one(a) for a in args)


def same(a, b, tol, ints=0):
    if a is None or b is None:
        return (a is None) == (b is None)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    strides = [(x, y) for x, y, s in zip(a.stride(), b.stride(), a.shape) if a.numel() > 0 and s > 1]
    if any(x != y for x, y in strides):
        return False
    if a.dtype.is_complex:
        if a.dtype == torch.complex32:
            a, b = a.to(torch.complex64), b.to(torch.complex64)
        a, b = torch.view_as_real(a.contiguous()), torch.view_as_real(b.contiguous())
    if not a.dtype.is_floating_point:
        return torch.equal(a, b) if not ints else not a.numel() or int((a.long() - b.long()).abs().max()) <= ints
    rtol = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-14}.get(a.dtype, 0) * tol
    return torch.allclose(a.double(), b.double(), rtol=rtol, atol=rtol, equal_nan=True)


class Pair:
    def __init__(self, ours):
        self.theirs = Library(TORCH, "torch_exception_get_what_without_backtrace")
        self.ours = Library(os.path.abspath(ours), "pb_rt_last_error")
        self.calls, self.failures, self.messages = 0, [], {}

    def compare(self, name, *args, tol=0, permutes=None, resized=False, only=None, ints=0):
        """tol: in units of the dtype's rounding; 0 means bit for bit but for NaN's payload;
        a tuple has one for each result.
        permutes: result 1 need only say where along this dimension result 0 came from.
        resized: contents past the storage that went in are nobody's.
        ints: integer results may differ by so much (rounded from numbers that may differ in their last digit).
        only: so many results are compared (the others are for a backward pass)."""
        self.calls += 1
        a, b = Call(self.theirs, name, args, None), Call(self.ours, name, args, None)
        what = f"{name}({describe(args)})"
        ok = True
        if a.rc and any(x in a.message for x in NO_ANSWER):
            pass
        elif bool(a.rc) != bool(b.rc):
            ok = self.fail(what, f"PyTorch: {a.message or 'succeeds'}; here: {b.message or 'succeeds'}")
        elif a.rc:
            if a.message != b.message:
                self.messages.setdefault(name, set()).add((a.message, b.message))
        else:
            theirs, ours = a.results(), b.results()
            if permutes is not None and args[0].dim():
                moved = args[0].gather(permutes, ours[1])
                whole = torch.equal(ours[1].sort(permutes)[0], theirs[1].sort(permutes)[0])
                if not whole or not same(moved.contiguous(), ours[0].contiguous(), 0):
                    ok = self.fail(what, f"not a permutation: {show(ours[1])}")
                theirs[1] = theirs[1].copy_(ours[1])
            for i, (x, y) in enumerate(list(zip(theirs, ours))[:only]):
                if not same(x, y, tol[i] if isinstance(tol, tuple) else tol, ints):
                    ok = self.fail(what, f"result {i}: PyTorch {show(x)}, here {show(y)}")
            for i, (x, y) in enumerate(zip(a.tensors_in(), b.tensors_in())):
                if resized and x.shape == y.shape and x.stride() == y.stride():
                    x = y = x.new_empty(0)
                if not same(x, y, max(tol) if isinstance(tol, tuple) else tol, ints):
                    ok = self.fail(what, f"tensor argument {i} after the call: PyTorch {show(x)}, here {show(y)}")
        a.end()
        b.end()
        return ok

    def fail(self, what, text):
        self.failures.append((what, text))
        return False

    def report(self, verbose=False):
        seen = {}
        for what, text in self.failures:
            name = what.split("(")[0]
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= 3:
                print(f"{what}\n    {text}")
        for name, n in seen.items():
            print(f"{name}: {n} differences")
        if verbose:
            for name, pairs in self.messages.items():
                for x, y in sorted(pairs)[:6]:
                    print(f"message of {name}:\n    PyTorch: {x}\n    here:    {y}")
        print(f"{self.calls} calls compared, {len(self.failures)} differences, "
              f"{sum(map(len, self.messages.values()))} messages worded otherwise")
        return 1 if self.failures else 0


def show(t):
    if t is None:
        return "nothing"
    flat = t.flatten()[:12].tolist()
    return f"{str(t.dtype)[6:]}{list(t.shape)}/{list(t.stride())} {flat}"


def isfinite(x):
    return math.isfinite(x)


if __name__ == "__main__":
    sys.exit("a module of compare_ops.py")
