#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every operator that is called by name (runtime/proxied.def) against eager PyTorch: drawn shapes, strides, dtypes, NaN.

Calls go through the proxy executor with a node made by PyTorch's own serialiser, so that names, kinds and defaults are what
packages have. Results are compared in dtype, shape, strides and contents; matrices that are only unique up to signs, by
what they multiply to. usage: compare_named.py [BUILD] [-k NAME] [-n ROUNDS]
"""
import argparse
import ctypes
import json
import os
import random
import sys
import warnings

import torch
from torch._export.serde.serialize import GraphModuleSerializer

import _shim
from compare_ops import INTS, layout, values

warnings.simplefilter("ignore")
R = random.Random(813)
A = torch.ops.aten
LA = [torch.float32, torch.float64, torch.complex64, torch.complex128]
REAL = [torch.float32, torch.float64]
CASES = {}


def case(*ops):
    def wrap(f):
        for op in ops:
            CASES[str(op)] = (op, f)
        return f
    return wrap


# ---- drawing ----

def batch():
    return [R.randint(0 if R.random() < 0.05 else 1, 3) for _ in range(R.choice([0, 0, 1, 2]))]


def matrix(m, n, dtype=None, b=None):
    dtype = dtype or R.choice(LA)
    t = torch.randn(*(batch() if b is None else b), m, n, dtype=dtype)
    return layout(t, overlap=False) if R.random() < 0.6 else t


def size():
    return 0 if R.random() < 0.05 else R.randint(1, 6)


def square(dtype=None, b=None):
    n = size()
    t = matrix(n, n, dtype, b)
    return t + 2 * torch.eye(n, dtype=t.dtype) if R.random() < 0.5 else t


def spd(dtype=None):
    t = square(dtype)
    return layout(t @ t.mH + 0.5 * torch.eye(t.shape[-1], dtype=t.dtype), overlap=False)


@case(A.linalg_inv_ex.default, A._linalg_det.default, A._linalg_slogdet.default, A.linalg_matrix_exp.default)
def _(op):
    return (square(),), {}


@case(A.linalg_lu_factor_ex.default, A.linalg_lu.default)
def _(op):
    return (matrix(size(), size()),), {}


@case(A.linalg_cholesky_ex.default)
def _(op):
    return (spd(),), {"upper": R.random() < 0.5}


@case(A.cholesky.default)
def _(op):
    return (spd(), R.random() < 0.5), {}


@case(A._linalg_eigh.default)
def _(op):
    return (spd(), R.choice("LU"), R.random() < 0.7), {}


@case(A.linalg_eig.default, A._linalg_eigvals.default)
def _(op):
    return (square(),), {}


@case(A._linalg_svd.default)
def _(op):
    return (matrix(size(), size()), R.random() < 0.5, R.random() < 0.8), {}


@case(A.linalg_qr.default)
def _(op):
    return (matrix(size(), size()), R.choice(["reduced", "complete", "r"])), {}


@case(A.linalg_ldl_factor_ex.default)
def _(op):
    return (spd(),), {"hermitian": R.random() < 0.5}


@case(A.linalg_householder_product.default)
def _(op):
    n = size()
    a, tau = torch.geqrf(matrix(n + R.randint(0, 3), n))
    return (a, tau), {}


@case(A._linalg_solve_ex.default)
def _(op):
    a = square()
    n, left = a.shape[-1], R.random() < 0.7
    if left and R.random() < 0.3:
        return (a, layout(torch.randn(*a.shape[:-1], dtype=a.dtype))), {}
    b = R.choice([list(a.shape[:-2]), [2, *([1] * (a.dim() - 2))]])
    k = R.randint(1, 4)
    return (a, matrix(n, k, a.dtype, b) if left else matrix(k, n, a.dtype, b)), {"left": left}


@case(A.linalg_lu_solve.default)
def _(op):
    a = square()
    lu, piv, _ = A.linalg_lu_factor_ex(a)
    n, k, left = a.shape[-1], R.randint(1, 4), R.random() < 0.6
    b = list(a.shape[:-2])
    return (lu, piv, matrix(n, k, a.dtype, b) if left else matrix(k, n, a.dtype, b)), {
        "left": left, "adjoint": R.random() < 0.5}


@case(A.linalg_solve_triangular.default)
def _(op):
    a = square()
    a = a + 2 * torch.eye(a.shape[-1], dtype=a.dtype)
    n, k, left = a.shape[-1], R.randint(1, 4), R.random() < 0.6
    b = R.choice([list(a.shape[:-2]), [2, *([1] * (a.dim() - 2))]])
    return (a, matrix(n, k, a.dtype, b) if left else matrix(k, n, a.dtype, b)), {
        "upper": R.random() < 0.5, "left": left, "unitriangular": R.random() < 0.3}


@case(A.linalg_pinv.atol_rtol_tensor)
def _(op):
    hermitian = R.random() < 0.4
    a = spd() if hermitian else matrix(size(), size())
    kw = {"hermitian": hermitian}
    if R.random() < 0.3:
        kw["rtol"] = torch.tensor(0.05)
    return (a,), kw


@case(A.mm.default)
def _(op):
    d, k = R.choice(LA[2:]), size()
    return (matrix(size(), k, d, []), matrix(k, size(), d, [])), {}


@case(A.unsqueeze.default)
def _(op):
    t = matrix(size(), size())
    return (t, R.randint(-t.dim() - 1, t.dim())), {}


@case(A._fft_c2r.default)
def _(op):
    nd = R.randint(1, 3)
    n = R.randint(1, 9)
    dims = R.sample(range(nd), R.randint(1, nd))
    shape = [R.randint(1, 4) for _ in range(nd)]
    shape[dims[-1]] = n // 2 + 1
    return (layout(torch.randn(*shape, dtype=R.choice(LA[2:]))), dims, R.randint(0, 2), n), {}


def numbers(shape, dtype=None):
    dtype = dtype or R.choice(INTS + REAL + [torch.float16, torch.bfloat16])
    n = 1
    for s in shape:
        n *= s
    return layout(values(n, dtype, small=True).reshape(shape), overlap=False)


@case(A.median.dim, A.nanmedian.dim)
def _(op):
    shape = [R.randint(1, 5) for _ in range(R.randint(0, 3))]
    return (numbers(shape), R.randint(-len(shape), len(shape) - 1) if shape else 0, R.random() < 0.5), {}


@case(A.median.default, A.nanmedian.default)
def _(op):
    return (numbers([R.randint(1, 5) for _ in range(R.randint(0, 3))]),), {}


@case(A.mode.default)
def _(op):
    shape = [R.randint(1, 5) for _ in range(R.randint(1, 3))]
    return (numbers(shape), R.randint(-len(shape), len(shape) - 1), R.random() < 0.5), {}


@case(A.kthvalue.default)
def _(op):
    shape = [R.randint(1, 5) for _ in range(R.randint(1, 3))]
    d = R.randint(-len(shape), len(shape) - 1)
    return (numbers(shape), R.randint(1, shape[d]), d, R.random() < 0.5), {}


@case(A._unique2.default)
def _(op):
    return (numbers([R.randint(0 if R.random() < .1 else 1, 5) for _ in range(R.randint(0, 3))]), True, R.random() < 0.5,
            R.random() < 0.5), {}


@case(A.unique_consecutive.default)
def _(op):
    shape = [R.randint(1, 5) for _ in range(R.randint(1, 3))]
    dim = R.choice([None, R.randint(-len(shape), len(shape) - 1)])
    return (numbers(shape, R.choice(INTS + REAL)), R.random() < 0.5, R.random() < 0.5, dim), {}


@case(A.unique_dim.default)
def _(op):
    shape = [R.randint(1, 4) for _ in range(R.randint(1, 3))]
    return (numbers(shape, R.choice(INTS)), R.randint(-len(shape), len(shape) - 1), True, R.random() < 0.5,
            R.random() < 0.5), {}


@case(A.bincount.default)
def _(op):
    n = R.randint(0, 20)
    x = layout(torch.randint(0, 9, (n,), dtype=R.choice(INTS)), overlap=False)
    w = R.choice([None, torch.rand(n), torch.rand(n).double(), torch.randint(0, 5, (n,)), torch.rand(n).half()])
    return (x, w, R.choice([0, 0, 15])), {}


@case(A.multinomial.default)
def _(op):
    n = R.randint(1, 8)
    p = torch.rand(*R.choice([[], [3]]), n, dtype=R.choice(REAL)) + 0.01
    repl = R.random() < 0.5
    return (layout(p, overlap=False), R.randint(1, 12 if repl else n), repl), {}


@case(A.poisson.default)
def _(op):
    return (layout(torch.rand(3, 4) * R.choice([2, 15, 500])),), {}


@case(A._standard_gamma.default)
def _(op):
    t = torch.rand(*batch(), 5, dtype=R.choice(REAL + [torch.float16, torch.bfloat16])) * R.choice([1, 1, 4, 300])
    if R.random() < 0.2:
        t = t * (torch.rand(t.shape) < 0.5)
    return (layout(t, overlap=False),), {}


@case(A._sample_dirichlet.default)
def _(op):
    return (layout(torch.rand(*batch(), R.randint(1, 6), dtype=R.choice(REAL)) * R.choice([0.1, 1, 30]) + 1e-3, overlap=False),), {}


@case(A.binomial.default)
def _(op):
    shape, dtype = [*batch(), 4], R.choice(REAL + [torch.bfloat16])
    n = torch.randint(0, R.choice([3, 40, 500]), shape).to(dtype)
    p = torch.rand(shape[R.randint(0, len(shape)):], dtype=torch.float64) * 1.2 - 0.1
    if R.random() < 0.1:
        p = p * float("nan")
    return (layout(n, overlap=False), layout(p.to(dtype), overlap=False)), {}


@case(torch.ops.prims.normal.default)
def _(op):
    return (shape_of(3),), {"mean": R.choice([0, 1.5]), "std": R.choice([1, 2.5, -1.0]), "dtype": R.choice(REAL),
                            "device": torch.device("cpu"), "requires_grad": False}


@case(A.normal.Tensor_float)
def _(op):
    t = torch.randn(R.choice([[], [3, 4], [5, 7], [0, 2]])) * 9
    return (layout(t.to(R.choice(REAL + [torch.int64])), overlap=False), R.choice([1.0, 2.5, 0.0, -1.0])), {}


def shape_of(most):
    return [R.randint(0 if R.random() < 0.05 else 1, 5) for _ in range(R.randint(0, most))]


@case(A._histogramdd_bin_edges.default)
def _(op):
    d = R.randint(1, 3)
    t = numbers([*shape_of(1), R.randint(1, 6), d], R.choice(REAL))
    t = torch.where(t.isfinite(), t, torch.zeros_like(t))
    bins = [R.randint(0 if R.random() < 0.05 else 1, 5) for _ in range(d + (R.random() < 0.05))]
    return (t, bins), {"range": [-1.0, 2.0] * d} if R.random() < 0.4 else {}


@case(A._upsample_bilinear2d_aa.default)
def _(op):
    s = [R.randint(1, 2), R.randint(1, 3), R.randint(1, 12), R.randint(1, 12)]
    dtype = R.choice(REAL + [torch.float32, torch.uint8, torch.bfloat16])
    x = torch.randint(0, 256, s, dtype=dtype) if dtype == torch.uint8 else torch.randn(s).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if R.random() < 0.4 else layout(x, overlap=False) if R.random() < 0.3 else x
    size, align = [R.randint(2, 14), R.randint(0 if R.random() < 0.05 else 2, 14)], R.random() < 0.4
    # A scale that leads past the image's end leaves weights that sum to nearly nothing.
    scales = [None, None] if R.random() < 0.7 else [max(o, 1) / i + 0.01 for o, i in zip(size, s[2:])]
    return (x, size, align, *scales), {}


# ---- calling ----

def flat_out(r):
    return list(r) if isinstance(r, (tuple, list)) else [] if r is None else [r]


def serializer():
    """PyTorch's own, for tensors that have no names."""
    from torch._export.serde import schema
    s = GraphModuleSerializer(None, [])
    plain = s.serialize_input

    def serialize_input(arg, arg_type=None):
        if isinstance(arg, torch.Tensor):
            return schema.Argument.create(as_tensor=schema.TensorArgument(name="t"))
        return plain(arg, arg_type)
    s.serialize_input = serialize_input
    return s


def node_of(op, args, kwargs, n_out):
    from torch._export.serde.serialize import _dataclass_to_dict
    inputs = [_dataclass_to_dict(i) for i in serializer().serialize_inputs(op, args, kwargs)]
    target = op.name()
    outputs = [{"as_tensor": {"name": "o"}}] * n_out
    if str(op._schema.returns[0].type) == "List[Tensor]":
        outputs = [{"as_tensors": [{"name": "o"}] * n_out}]
    return json.dumps({"nodes": [{"name": "b", "node": {
        "target": target, "inputs": inputs, "outputs": outputs, "metadata": {}}}]})


def slots(args, kwargs, op):
    ints, tensors = [], []
    for v in list(args) + [kwargs[a.name] for a in op._schema.arguments if a.name in kwargs]:
        if isinstance(v, torch.Tensor):
            tensors.append(v)
        elif isinstance(v, int) and not isinstance(v, bool):
            ints.append(v)
        elif isinstance(v, (list, tuple)) and all(isinstance(x, int) for x in v):
            ints += v
    return ints, tensors


class Ours:
    def __init__(self, build):
        deep = 0 if "LD_PRELOAD" in os.environ else os.RTLD_DEEPBIND  # sanitizers do not take it
        ctypes.CDLL("liblapacke.so.3", mode=os.RTLD_GLOBAL | deep)
        self.l = _shim.Library(os.path.join(build, "libexec/libtorch_cpu.so"), "pb_rt_last_error")
        ctypes.CDLL(os.path.join(build, "libexec/libtorch_cpu.so"), mode=os.RTLD_GLOBAL | os.RTLD_NOLOAD)
        self.named = ctypes.CDLL(os.path.join(build, "tests/torch/named.so"))
        self.named.named_error.restype = ctypes.c_char_p
        self.keep = None

    def call(self, op, args, kwargs, n_out, seed):
        if self.named.named_set(node_of(op, args, kwargs, n_out).encode()):
            return None, "node: " + self.named.named_error().decode()
        ints, tensors = slots(args, kwargs, op)
        self.keep = [t.untyped_storage().clone() for t in tensors]
        handles = [self.l.blob(s, t) for s, t in zip(self.keep, tensors)]
        for _ in range(n_out):
            h = _shim.P()
            self.l.lib.aoti_torch_new_uninitialized_tensor(ctypes.byref(h))
            handles.append(h)
        array = (_shim.P * max(len(handles), 1))(*[h.value for h in handles])
        self.l.lib.pb_rt_seed(ctypes.c_uint64(seed))
        rc = self.l.lib.aoti_torch_proxy_executor_call_function(
            None, 0, len(ints), (ctypes.c_int64 * max(len(ints), 1))(*ints), len(handles), array)
        out = [self.l.read(h) for h in handles[len(tensors):]] if rc == 0 else None
        for h in handles:
            self.l.delete(h)
        return out, self.l.error() if rc else ""


# ---- comparing ----

def close(a, b, loose=1):
    if a.dtype.is_floating_point or a.dtype.is_complex:
        tol = {torch.float64: 1e-8, torch.complex128: 1e-8}.get(a.dtype, 2e-3) * loose
        scale = max(1.0, float(b[torch.isfinite(b.abs())].abs().max()) if torch.isfinite(b.abs()).any() else 1.0)
        return torch.allclose(a, b, rtol=tol, atol=tol * scale, equal_nan=True)
    return torch.equal(a, b)


def products(op, args, out):
    """What does not depend on the signs (or phases) that a decomposition happened to choose."""
    name = op.name()
    if name == "aten::_linalg_svd" and out[0].dim() > 1:
        u, s, vh = out
        k = s.shape[-1]
        return [(u[..., :k] * s.unsqueeze(-2).to(u.dtype)) @ vh[..., :k, :], s, u.mH @ u, vh @ vh.mH]
    if name == "aten::_linalg_eigh" and out[1].dim() > 1:
        return [(out[1] * out[0].unsqueeze(-2).to(out[1].dtype)) @ out[1].mH, out[0]]
    if name in ("aten::linalg_eig", "aten::_linalg_eigvals"):
        w = out[0]
        key = torch.view_as_real(w).round(decimals=3)
        order = (key[..., 0] * 1e4 + key[..., 1]).argsort(-1)
        rest = []
        if len(out) > 1:
            v = out[1]
            a = args[0].to(v.dtype)
            rest = [a @ v - v * w.unsqueeze(-2)]
        return [w.gather(-1, order)] + rest
    return out


def compare(op, args, ours, want):
    for i, (a, b) in enumerate(zip(ours, want)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"result {i}: {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}"
        if b.numel() and [s for s, n in zip(a.stride(), a.shape) if n > 1] != [
                s for s, n in zip(b.stride(), b.shape) if n > 1]:
            return f"result {i} of {tuple(b.shape)}: strides {a.stride()}, not {b.stride()}"
    for i, (a, b) in enumerate(zip(products(op, args, ours), products(op, args, want))):
        if not close(a, b):
            return f"result {i}: {a} not {b}"
    return ""


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("build", nargs="?", default="build")
    ap.add_argument("-k")
    ap.add_argument("-n", type=int, default=60)
    o = ap.parse_args()
    ours, bad, calls = Ours(o.build), 0, 0
    for name, (op, draw) in CASES.items():
        if o.k and o.k not in name:
            continue
        worst = ""
        for round_ in range(o.n):
            R.seed(f"{name} {round_}")
            torch.manual_seed(round_)
            args, kwargs = draw(op)
            args = tuple(args)
            torch.manual_seed(round_)
            try:
                want, error = flat_out(op(*args, **kwargs)), ""
            except Exception as e:
                want, error = None, str(e).split("\n")[0]
            n_out = len(op._schema.returns) if want is None else len(want)
            got, message = ours.call(op, args, kwargs, n_out, round_)
            calls += 1
            if "view size is not compatible" in error:  # PyTorch's own fault with some strides
                continue
            if (want is None) != (got is None):
                why = f"PyTorch: {error or 'succeeds'}; here: {message or 'succeeds'}"
            else:
                why = compare(op, args, got, want) if want is not None else "" if message.split(":")[0] == error.split(":")[0] \
                    else f"errors differ: {error} / {message}"
            if why:
                bad += 1
                worst = worst or f"round {round_}, {[tuple(a.shape) if isinstance(a, torch.Tensor) else a for a in args]} " \
                    f"{[a.dtype for a in args if isinstance(a, torch.Tensor)]} {kwargs}: {why}"
        print(("ok    " if not worst else "WRONG ") + name + (": " + worst if worst else ""), flush=True)
    missing = named_rows() - {op.name() for op, _ in CASES.values()}
    print("%d calls, %d wrong; without a case here: %s" % (calls, bad, " ".join(sorted(missing)) or "none"))
    return 1 if bad or missing - {"aten::_linalg_check_errors"} else 0


def named_rows():
    import re
    here = os.path.dirname(os.path.abspath(__file__))
    text = open(os.path.join(here, "../../runtime/proxied.def")).read()
    return set(re.findall(r'^PROXIED\(\w+, "([^"]+)"', text, flags=re.M))


if __name__ == "__main__":
    sys.exit(main())
