#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every native operator against PyTorch's own, through the same C ABI: drawn shapes, strides, dtypes, NaN, ties, errors.

usage: compare_ops.py [BUILD] [-v] [-k NAME] [-n ROUNDS]     (seed and rounds are fixed: a difference repeats)
"""
import argparse
import random
import sys
import time

import warnings

import torch

import _shim

warnings.simplefilter("ignore")

INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
REAL = INTS + FLOATS + [torch.bool]
COMPLEX = [torch.complex64, torch.complex128]
R = random.Random(20131)
GEN = torch.Generator().manual_seed(20131)
# Weights of 8 bits: without VNNI oneDNN adds two products in 16 bits, saturating. Here they are always exact.
MOST = 128 if torch.cpu._is_vnni_supported() else 64


def shape(max_dims=4, max_size=5, min_dims=0, empty=0.05):
    return [0 if R.random() < empty else R.randint(1, max_size) for _ in range(R.randint(min_dims, max_dims))]


def values(n, dtype, special=0.1, small=False):
    if dtype == torch.bool:
        return torch.tensor([R.random() < 0.5 for _ in range(n)], dtype=dtype)
    if dtype in INTS:
        lo, hi = (0 if dtype == torch.uint8 else -4, 5) if small or R.random() < 0.7 else (
            torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        return torch.tensor([R.randint(lo, hi) for _ in range(n)], dtype=dtype)
    if dtype.is_complex:
        return torch.complex(values(n, torch.float32), values(n, torch.float32)).to(dtype)
    odd = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0]
    coarse = R.random() < 0.5
    v = [R.choice(odd) if R.random() < special else (R.randint(-3, 3) if coarse else R.gauss(0, 2)) for _ in range(n)]
    return torch.tensor(v, dtype=torch.float64).to(dtype)


def layout(t, overlap=True):
    """The same elements with other strides: permuted, with gaps, at an offset, or (some) broadcast."""
    kind = R.random()
    if kind < 0.35:
        return t.clone()
    order = list(range(t.dim()))
    if kind < 0.8:
        R.shuffle(order)
    gaps = [R.choice([1, 1, 2]) for _ in order]
    offset = R.choice([0, 0, 3])
    strides, step = [0] * t.dim(), 1
    for d in reversed(order):
        step *= gaps[d]
        strides[d] = step
        step *= max(t.shape[d], 1)
    base = torch.zeros(step + offset + 1, dtype=t.dtype)
    if base.is_floating_point():
        base += 77
    out = base.as_strided(t.shape, strides, offset)
    out.copy_(t)
    if overlap and t.dim() and R.random() < 0.1:
        d = R.randrange(t.dim())
        if t.shape[d]:
            out = out.narrow(d, 0, 1).expand(t.shape)
    return out


def draw(dtype, sizes, overlap=True, special=0.1, small=False):
    n = 1
    for s in sizes:
        n *= s
    return layout(values(n, dtype, special, small).reshape(sizes), overlap)


def dim_of(t):
    n = max(t.dim(), 1)
    return R.randint(-n, n - 1) if R.random() > 0.02 else n + 1


def maybe(x, p=0.5):
    return x if R.random() < p else None


# ---- one function a family; each makes one random call or a few ----

def scans(p):
    t = draw(R.choice(REAL + COMPLEX), shape(max_size=R.choice([5, 5, 40])), special=R.choice([0, 0.1]))
    dtype = maybe(R.choice(REAL[:-1]), 0.2) if not t.dtype.is_complex else None
    finite = t.dtype.is_complex or t.isfinite().all()
    if dtype in INTS and not finite:
        dtype = None
    name = R.choice(["cumsum", "cumprod"])
    p.compare("aoti_torch_cpu_" + name, t, dim_of(t), dtype, tol=100 if t.dtype.is_complex else 1)
    t = draw(R.choice(REAL), shape(max_size=R.choice([5, 5, 40])))
    p.compare("aoti_torch_cpu_cummax", t, dim_of(t))
    p.compare("aoti_torch_cpu_cummin", t, dim_of(t))
    t = draw(R.choice(FLOATS), shape())
    p.compare("aoti_torch_cpu_logcumsumexp", t, dim_of(t), tol=4)


def sorts(p):
    n = R.choice([5, 5, 20, 60, 300])
    t = draw(R.choice(REAL), shape(max_dims=3 if n < 100 else 1, max_size=n), small=R.random() < 0.5)
    d = dim_of(t)
    # PyTorch's order among equals is only defined where it is asked to be stable.
    unsure = {"permutes": d}
    p.compare("aoti_torch_cpu_sort", t, d, R.randint(0, 1), **unsure)
    p.compare("aoti_torch_cpu_sort_stable", t, maybe(0), d, R.randint(0, 1), **unsure)
    p.compare("aoti_torch_cpu_sort_stable", t, 1, d, R.randint(0, 1))
    size = (t.shape[d] if t.dim() else 1) if -max(t.dim(), 1) <= d < max(t.dim(), 1) else 3
    p.compare("aoti_torch_cpu_topk", t, R.randint(0, size + (R.random() < 0.05)), d, R.randint(0, 1), R.randint(0, 1))
    p.compare("aoti_torch_cpu_kthvalue", t, R.randint(0 if R.random() < 0.1 else 1, max(size, 1)), d, R.randint(0, 1))
    if not t.is_floating_point() or not t.isnan().any():
        p.compare("aoti_torch_cpu_mode", t, d, R.randint(0, 1))
    p.compare("aoti_torch_cpu_median", t)
    p.compare("aoti_torch_cpu_nanmedian", t)


def index_list(t, bad=0.03):
    """Index tensors, masks and holes for t."""
    common = shape(max_dims=2, max_size=4)
    out, d = [], 0
    while d < t.dim() and len(out) < 4:
        kind = R.random()
        if kind < 0.3:
            out.append(None)
            d += 1
        elif kind < 0.4 and d < t.dim() and not common[1:]:
            n = R.randint(1, min(2, t.dim() - d))
            mask = draw(torch.bool, list(t.shape[d:d + n]))
            if R.random() < bad:
                mask = draw(torch.bool, [t.shape[d] + 1])
            out.append(mask if R.random() < 0.9 else mask.to(torch.uint8))
            d += n
        else:
            size = t.shape[d]
            s = [1 if R.random() < 0.2 else x for x in common[R.randint(0, len(common)):]] if R.random() < 0.3 else common
            n = 1
            for x in s:
                n *= x
            lo, hi = (-size, size - 1) if R.random() > bad and size else (-size - 1, size)
            v = torch.tensor([R.randint(lo, hi) for _ in range(n)], dtype=R.choice([torch.int64] * 4 + [torch.int32]))
            out.append(layout(v.reshape(s)))
            d += 1
    if not any(x is not None for x in out):
        return index_list(t, bad) if t.dim() else [torch.tensor(0)]
    return out


def duplicates(t, idx):
    flat = torch.arange(t.numel()).reshape(t.shape)
    hit = flat[tuple(slice(None) if i is None else i.long() if i.dtype == torch.int32 else i for i in idx)].flatten()
    return hit.unique().numel() != hit.numel()


def indexing(p):
    t = draw(R.choice(REAL + COMPLEX), shape(min_dims=1))
    idx = index_list(t)
    p.compare("aoti_torch_cpu_index_Tensor", t, idx)
    t = draw(R.choice(REAL), shape(min_dims=1), overlap=False, special=0)
    idx = index_list(t)
    try:
        result = list(t[tuple(slice(None) if i is None else (i.long() if i.dtype == torch.int32 else i)
                              for i in idx)].shape)
    except (IndexError, RuntimeError):
        result = []
    v = result[R.randint(0, len(result)):] if R.random() < 0.3 else result
    v = [1 if R.random() < 0.1 else s for s in v]
    if R.random() < 0.03:
        v = v + [3]
    accumulate = R.randint(0, 1)
    vals = draw(t.dtype if R.random() < 0.97 else torch.float32, v, special=0)
    if not accumulate and result and duplicates(t, idx):
        vals = vals.new_full([], 2).expand(v)  # which of several writes is the last is not defined
    p.compare("aoti_torch_cpu_index_put", t, idx, vals, accumulate)
    if all(i is not None for i in idx):
        p.compare("aoti_torch_index_put_out", t, t, idx, vals, accumulate)


def scatters(p):
    dtype = R.choice(REAL)
    self_shape = shape(min_dims=0)
    t = draw(dtype, self_shape, overlap=False)
    d = dim_of(t)
    src = draw(dtype if R.random() < 0.98 else torch.float32, [s + R.randint(0, 1) for s in self_shape])
    ok = -max(t.dim(), 1) <= d < max(t.dim(), 1)
    size = t.shape[d] if ok and t.dim() else 1
    index_shape = [R.randint(0 if R.random() < 0.05 else 1, min(a, b)) if a and b else 0
                   for a, b in zip(self_shape, src.shape)]
    if ok and t.dim():
        index_shape[d % t.dim()] = R.randint(0, src.shape[d])
    n = 1
    for s in index_shape:
        n *= s
    lo, hi = (0, size - 1) if R.random() > 0.04 and size else (-1, size)
    index = layout(torch.tensor([R.randint(lo, hi) for _ in range(n)], dtype=torch.int64).reshape(index_shape))
    out = t if R.random() < 0.5 else draw(dtype, self_shape, overlap=False)
    p.compare("aoti_torch_cpu_scatter_src_out", out, t, d, index, src)
    p.compare("aoti_torch_cpu_scatter_value_out", out, t, d, index, R.choice([0.0, 1.0, 3.0]))
    if dtype in FLOATS and R.random() < 0.7:
        t, src = draw(dtype, self_shape, overlap=False, special=0), draw(src.dtype, list(src.shape), special=0)
        out = t
    for name in ["sum", "prod", "mean", "amax", "amin"]:
        p.compare("aoti_torch_cpu_scatter_reduce_two_out", out, t, d, index, src, name, R.randint(0, 1), tol=2)


def positions(p):
    t = draw(R.choice(REAL + COMPLEX), shape())
    p.compare("aoti_torch_cpu_nonzero", t)
    p.compare("aoti_torch_cpu_nonzero_static", t, R.randint(0, 20), R.choice([-1, 0, 7]))
    mask = draw(torch.bool, [1 if R.random() < 0.2 else s for s in t.shape[R.randint(0, t.dim()):]])
    p.compare("aoti_torch_cpu_masked_select", t, mask)
    n = R.randint(0, 40) if R.random() < 0.1 else t.numel() + R.randint(0, 3)
    p.compare("aoti_torch_cpu_masked_scatter", t, mask, draw(t.dtype, [n]))
    r = layout(torch.tensor([R.randint(0 if R.random() < 0.98 else -1, 4) for _ in range(R.randint(0, 9))],
                            dtype=R.choice([torch.int64, torch.int32])))
    p.compare("aoti_torch_cpu_repeat_interleave_Tensor", r, maybe(int(r.sum()) + (R.random() < 0.05)))


def views(p):
    t = draw(R.choice(REAL + COMPLEX), shape())
    d = dim_of(t)
    size = t.shape[d] if t.dim() and -t.dim() <= d < t.dim() else 2
    p.compare("aoti_torch_cpu_narrow", t, d, R.randint(-size, size), R.randint(0, size))
    p.compare("aoti_torch_cpu_slice_Tensor", t, d, maybe(R.randint(-size - 1, size + 1)),
              maybe(R.randint(-size - 1, size + 1)), R.choice([1, 1, 2, 3, 0]))
    dims = list(range(t.dim()))
    R.shuffle(dims)
    p.compare("aoti_torch_cpu_permute", t, [x - t.dim() if R.random() < 0.2 else x for x in dims])
    p.compare("aoti_torch_cpu_squeeze_dim", t, d)
    n, new = t.numel(), []
    for k in (2, 3, 4, 5):
        while n and n % k == 0 and R.random() < 0.8:
            new.insert(R.randint(0, len(new)), k)
            n //= k
    new.insert(R.randint(0, len(new)), n)
    new = [-1 if R.random() < 0.2 else x for x in new] + [1] * R.randint(0, 1)
    p.compare("aoti_torch_cpu_reshape", t, new)
    p.compare("aoti_torch_cpu_view_dtype", t, R.choice([torch.float32, torch.int64, torch.uint8, torch.int16]))
    if t.dtype.is_complex:
        p.compare("aoti_torch_cpu_view_as_real", t)
    t = draw(R.choice([torch.float32, torch.float64]), shape(max_dims=3) + [2])
    p.compare("aoti_torch_cpu_view_as_complex", t)
    p.compare("aoti_torch_cpu_fill__Scalar", draw(R.choice(REAL + COMPLEX), shape(), overlap=False), 3.0)
    p.compare("aoti_torch_cpu_hann_window", R.randint(0, 20), maybe(R.choice(FLOATS)), None, None, 0, None, tol=4)
    t = draw(torch.float32, shape(empty=0), overlap=False)
    new = shape(max_size=3)
    p.compare("aoti_torch_cpu_resize_", t, new if R.random() < 0.5 else list(t.shape), maybe(0, 0.3), resized=True)


def joins(p):
    dtypes = REAL + COMPLEX if R.random() < 0.3 else [R.choice(REAL)]
    base = shape(min_dims=1, max_size=4)
    d = R.randint(-len(base), len(base) - 1) if R.random() < 0.97 else 7
    ts = []
    for _ in range(R.randint(0 if R.random() < 0.05 else 1, 4)):
        s = list(base)
        if d < len(base):
            s[d] = R.randint(0, 4)
        if R.random() < 0.03:
            s[R.randrange(len(s))] += 1
        t = draw(R.choice(dtypes), s)
        if R.random() < 0.1:
            t = torch.zeros(0)
        elif t.dim() == 4 and R.random() < 0.5:
            t = t.contiguous(memory_format=torch.channels_last)
        ts.append(t)
    p.compare("aoti_torch_cpu_cat", ts, d)

    t = draw(R.choice(REAL + COMPLEX), shape(max_dims=5, min_dims=1, max_size=4))
    if t.dim() == 4 and R.random() < 0.3:
        t = t.contiguous(memory_format=torch.channels_last)
    n = R.randint(0, t.dim())
    p.compare("aoti_torch_cpu_pad", t, [R.randint(-1 if R.random() < 0.3 else 0, 3) for _ in range(2 * n)], "constant",
              maybe(2.0))
    t = draw(R.choice(REAL[:-1]), shape(max_dims=5, min_dims=2, max_size=4, empty=0.01))
    if t.dim() == 4 and R.random() < 0.3:
        t = t.contiguous(memory_format=torch.channels_last)
    n = min(max(1, t.dim() - R.randint(1, 2)), 3)
    pads = [R.randint(-1 if R.random() < 0.1 else 0, 2) for _ in range(2 * n)]
    p.compare("aoti_torch_aten_pad", t, pads, R.choice(["reflect", "replicate", "circular"]), None)


def pointwise(p):
    dtypes = REAL + COMPLEX if R.random() < 0.3 else [R.choice(REAL)]
    a = draw(R.choice(dtypes), shape())
    b = draw(R.choice(dtypes), [1 if R.random() < 0.2 else s for s in a.shape[R.randint(0, a.dim()):]])
    if R.random() < 0.3:
        a, b = b, a
    tol = 20 if a.dtype.is_complex or b.dtype.is_complex else 2
    alpha = 1.0 if R.random() < 0.7 or torch.result_type(a, b) not in FLOATS else 2.0
    if torch.result_type(a, b).is_floating_point or torch.result_type(a, b).is_complex:
        p.compare("aoti_torch_cpu_add_Tensor", a, b, alpha, tol=tol)
        p.compare("aoti_torch_aten_subtract_Tensor", a, b, alpha, tol=tol)
    p.compare("aoti_torch_cpu_mul_Tensor", a, b, tol=tol)
    p.compare("aoti_torch_cpu_add_Scalar", a, 1.5, 1.0, tol=tol)
    p.compare("aoti_torch_cpu_mul_Scalar", a, 1.5, tol=tol)
    p.compare("aoti_torch_cpu_abs", a, tol=tol)
    p.compare("aoti_torch_cpu_angle", a, tol=tol)
    if not a.dtype.is_complex:
        p.compare("aoti_torch_cpu_pow_Tensor_Scalar", a, R.choice([0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5, -2.0, 1.7]), tol=8)
    if not a.dtype.is_complex and not b.dtype.is_complex:
        p.compare("aoti_torch_cpu_pow_Tensor_Tensor", a, b, tol=8)
        p.compare("aoti_torch_cpu_pow_Scalar", R.choice([1.0, 2.0, 3.5, 0.0, -1.5]), a, tol=8)
    x = draw(R.choice(INTS), shape())
    p.compare("aoti_torch_cpu_gcd", x, draw(x.dtype, list(x.shape)))
    x = draw(R.choice(FLOATS[:2]), shape())
    p.compare("aoti_torch_cpu_polar", x, draw(x.dtype, list(x.shape), special=0), tol=8)


def searches(p):
    dtype = R.choice(REAL[:-1])
    s = shape(max_dims=2, min_dims=1, max_size=12)
    seq = values(max(1, int(torch.tensor(s).prod())), dtype, special=0.03)[: int(torch.tensor(s).prod())].reshape(s)
    seq = layout(seq.sort(-1)[0])
    v = draw(dtype if R.random() < 0.95 else torch.float32, list(s[:-1]) + [R.randint(0, 6)])
    side = R.choice([None, "left", "right", "left"])
    right = R.randint(0, 1)
    sorter = None
    if R.random() < 0.2:
        seq = draw(dtype, s)
        sorter = layout(seq.argsort(-1))
    p.compare("aoti_torch_cpu_searchsorted_Tensor", seq, v, R.randint(0, 1), right, side, sorter)
    p.compare("aoti_torch_cpu_searchsorted_Scalar", seq, R.choice([0.0, 1.0, 2.5]), R.randint(0, 1), right, side, sorter)
    p.compare("aoti_torch_cpu_bucketize_Tensor", draw(dtype, shape()), seq, R.randint(0, 1), right)


def pools(p):
    nd = R.choice([2, 2, 3])
    s = [R.randint(1, 3) for _ in range(R.randint(1, 2))] + [R.randint(1, 9) for _ in range(nd)]
    if R.random() < 0.04:
        s[R.randrange(len(s))] = 0
    t = draw(R.choice(FLOATS * 3 + [torch.int64, torch.int32]), s)
    if len(s) == nd + 2 and R.random() < 0.4:
        t = t.contiguous(memory_format=torch.channels_last if nd == 2 else torch.channels_last_3d)
    k = [R.randint(1, 3) for _ in range(nd if R.random() < 0.7 else 1)]
    stride = [] if R.random() < 0.2 else [R.randint(1, 3) for _ in range(R.choice([1, nd]))]
    dil = [R.choice([1, 1, 2]) for _ in range(R.choice([1, nd]))]
    pad = [R.randint(0, 1) for _ in range(R.choice([1, nd]))]
    ceil = R.randint(0, 1)
    p.compare(f"aoti_torch_cpu_max_pool{nd}d_with_indices", t, k, stride, pad, dil, ceil)
    p.compare(f"aoti_torch_cpu_avg_pool{nd}d", t, k, stride, pad, ceil, R.randint(0, 1), maybe(R.choice([1, 3, 7]), 0.2), tol=8)
    size = [R.randint(1, 6) for _ in range(nd)]
    p.compare(f"aoti_torch_cpu__adaptive_avg_pool{nd}d", t, size, tol=8)
    p.compare(f"aoti_torch_cpu_adaptive_max_pool{nd}d", t, size)
    if nd == 2 and t.numel() and t.dtype in FLOATS:
        out = [R.randint(3, 9), R.randint(3, 9)]
        planes = t.numel() // (s[-1] * s[-2])
        picks = [R.sample(range(max(out[0] * out[1], s[-1] * s[-2])), s[-1] * s[-2]) for _ in range(planes)]
        at = torch.tensor(picks).reshape(s)
        p.compare("aoti_torch_cpu_max_unpool2d", t, layout(at, overlap=False), out)


def bags(p):
    rows, n = R.randint(1, 9), R.randint(0, 12)
    w = draw(R.choice(FLOATS), [rows, R.randint(1, 6)], special=0)
    kind = R.choice([torch.int64, torch.int32])
    bad = R.random() < 0.03
    # PyTorch's maximum reads indices and offsets as if contiguous: only such are drawn.
    idx = torch.tensor([R.randint(0, rows - 1 + bad) for _ in range(n)], dtype=kind)
    last = R.randint(0, 1)
    offs = sorted([0] + [R.randint(0, n) for _ in range(R.randint(1, 5))]) + ([n] if last else [])
    offs = torch.tensor(offs, dtype=kind)
    mode = R.randint(0, 2)
    psw = draw(w.dtype, [n], special=0) if mode == 0 and R.random() < 0.5 else None
    for name in ("", "_forward_only"):
        p.compare("aoti_torch_cpu__embedding_bag" + name, w, idx, offs, 0, mode, 0, psw, last,
                  R.choice([-1, -1, R.randint(0, rows - 1)]), tol=8)


def index_reduces(p):
    t = draw(R.choice(REAL[:-1]), shape(min_dims=1), overlap=False, special=0.03)
    d = R.randint(-t.dim(), t.dim() - 1)
    n = R.randint(0, 6) if t.shape[d] else 0
    s = list(t.shape)
    s[d] = n
    idx = layout(torch.tensor([R.randint(0, max(t.shape[d] - 1, 0)) for _ in range(n)], dtype=torch.int64))
    p.compare("aoti_torch_cpu_index_reduce", t, d, idx, draw(t.dtype, s, special=0.03),
              R.choice(["prod", "mean", "amax", "amin"]), R.randint(0, 1), tol=4)


def randoms(p):
    """The same seed, then several calls: their draws follow each other."""
    seed = R.randint(0, 2**40)
    torch.manual_seed(seed)
    p.ours.lib.pb_rt_seed(_shim.ctypes.c_uint64(seed))
    size = shape(max_size=R.choice([3, 6]))
    f = R.choice(FLOATS)
    none = (None, None, 0, None)
    p.compare("aoti_torch_cpu_rand", size, maybe(f), *none)
    high = R.choice([2, 100, 2**20, 2**29, 2**33, 2**62])
    low = R.choice([0, -5, -high])
    p.compare("aoti_torch_cpu_randint_low", low, high, size, maybe(torch.int64), *none)
    p.compare("aoti_torch_cpu_randint", min(high, 100), size, R.choice(INTS + FLOATS[:2]), *none)
    p.compare("aoti_torch_cpu_randint_low_out", torch.zeros(5, dtype=torch.int64), -2**63, 2**63 - 1, [5])
    p.compare("aoti_torch_cpu_randperm", R.choice([0, 1, 5, 100]), maybe(torch.int32, 0.2), *none)
    t = draw(R.choice(FLOATS[:2]), shape(max_size=R.choice([3, 6])), overlap=False)
    # Rounding of log, sin and cos differs; the draws are the same.
    p.compare("aoti_torch_cpu_randn", size, maybe(R.choice(FLOATS[:2])), *none, tol=32)
    p.compare("aoti_torch_cpu_normal_functional", t, 1.0, 2.0, None, tol=32)
    p.compare("aoti_torch_cpu_uniform", t, -1.0, 3.0, None)
    p.compare("aoti_torch_cpu_rand_like", t, None, *none, None)
    p.compare("aoti_torch_cpu_randn_like", t, None, *none, None, tol=32)
    p.compare("aoti_torch_cpu_rand", size, None, *none)
    t = draw(R.choice(FLOATS), shape(max_size=R.choice([3, 6])), overlap=False)
    p.compare("aoti_torch_cpu_exponential", t, R.choice([1.0, 2.5, 0.0]), None, tol=4)
    p.compare("aoti_torch_cpu_native_dropout", t, R.choice([0.0, 0.3, 1.0, 1.5]), R.choice([None, 0, 1, 1]), tol=1)
    t = draw(R.choice(REAL), shape(max_size=R.choice([3, 6])), overlap=False)
    p.compare("aoti_torch_cpu_bernoulli__float", t, R.choice([0.0, 0.3, 1.0, -0.1]), None)
    probabilities = torch.rand(t.shape[R.randint(0, t.dim()):], generator=GEN).to(R.choice([f, torch.float64]))
    p.compare("aoti_torch_cpu_bernoulli__Tensor", t, layout(probabilities), None)
    p.compare("aoti_torch_cpu_rand", size, None, *none)


def heavy(p):
    """Matrix products, convolution, attention, LSTM. Sums in another order: compared against their magnitude."""
    dtype = R.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])
    m, k, n = R.randint(0, 9), R.randint(1, 40), R.randint(1, 33)

    def x(*sizes, of=dtype):
        return draw(of, list(sizes), special=0)
    tol = {torch.float32: 100, torch.float64: 1000}.get(dtype, 8)
    a, b, out = x(m, k), x(k, n), draw(dtype, [m, n], overlap=False, special=0)
    p.compare("aoti_torch_cpu_mm_out", out, a, b, tol=tol)
    p.compare("aoti_torch_cpu_addmm_out", out, x(n), a, b, R.choice([1.0, 0.0, 2.0]), R.choice([1.0, 0.5]), tol=tol)
    a, b, out = x(2, m, k), x(2, k, n), draw(dtype, [2, m, n], overlap=False, special=0)
    p.compare("aoti_torch_cpu_bmm_out", out, a, b, tol=tol)
    p.compare("aoti_torch_cpu_baddbmm_out", out, x(1, n), a, b, 1.0, 2.0, tol=tol)
    g, c, o = R.choice([1, 1, 2]), R.randint(1, 5), R.randint(1, 6)
    nd = R.choice([1, 2, 2, 3])
    t = x(R.randint(1, 2), g * c, *[R.randint(4, 9) for _ in range(nd)])
    if nd == 2 and R.random() < 0.4:
        t = t.contiguous(memory_format=torch.channels_last)
    transposed = R.randint(0, 1)
    w = x(g * c, o, *[R.randint(1, 3)] * nd) if transposed else x(g * o, c, *[R.randint(1, 3)] * nd)
    stride, pad = [R.randint(1, 2)] * nd, [R.randint(0, 1)] * nd
    # PyTorch rounds a transposed one in bfloat16 after each position of the kernel; here once.
    p.compare("aoti_torch_cpu_convolution", t, w, maybe(x(g * o)), stride, pad, [R.randint(1, 2)] * nd, transposed,
              [0] * nd, g, tol=80 if transposed and dtype == torch.bfloat16 else tol)
    dtype = R.choice([torch.float32, torch.bfloat16])
    heads, q, s, e = R.randint(1, 3), R.randint(1, 9), R.randint(1, 70), R.choice([8, 16, 33])
    args = [draw(dtype, [2, heads, l, e], overlap=False, special=0).contiguous() for l in (q, s, s)]
    causal = R.randint(0, 1)
    mask = None if causal or R.random() < 0.5 else draw(dtype, [q, s], overlap=False, special=0)
    p.compare("aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu", *args, 0.0, causal, mask, maybe(0.3),
              tol=({torch.float32: 100}.get(dtype, 8), 1000))
    t_, n_, c_, h_ = R.randint(1, 5), R.randint(1, 3), R.randint(1, 9), R.randint(1, 9)
    p.compare("aoti_torch_cpu_mkldnn_rnn_layer", torch.randn(t_, n_, c_), torch.randn(4 * h_, c_), torch.randn(4 * h_, h_),
              torch.randn(4 * h_), torch.randn(4 * h_), torch.randn(n_, h_), torch.randn(n_, h_), R.randint(0, 1), [], 2,
              h_, 1, 1, 0, 0, 0, tol=100, only=3)


def ffts(p):
    n = R.choice([R.randint(1, 20), R.randint(1, 20), 64, 67, 97, 134, 400])
    s = shape(max_dims=3, min_dims=1, max_size=6, empty=0)
    d = R.randrange(len(s))
    s[d] = n
    dims = [d] + [x for x in range(len(s)) if x != d and R.random() < 0.4]
    R.shuffle(dims)
    t = draw(R.choice([torch.float32, torch.float64]), s, special=0)
    norm, flag = R.randint(0, 2), R.randint(0, 1)
    # Only dimensions counted from the front: PyTorch's own functions do not check them (it reads past its memory).
    p.compare("aoti_torch_cpu__fft_r2c", t, dims, norm, flag, tol=30 + n)
    c = torch.complex(values(t.numel(), torch.float32, 0), values(t.numel(), torch.float32, 0)).reshape(s)
    c = layout(c.to(R.choice(COMPLEX)), overlap=False)
    p.compare("aoti_torch_cpu__fft_c2c", c, dims, norm, flag, tol=30 + n)


def reductions(p):
    t = draw(R.choice(REAL), shape(max_size=R.choice([4, 4, 20])))
    dims = [d for d in range(t.dim()) if R.random() < 0.5]
    p.compare("aoti_torch_aten_amax", t, [d - t.dim() if R.random() < 0.3 else d for d in dims], R.randint(0, 1))


UNARY = [("none", [], None), ("relu", [], None), ("sigmoid", [], None), ("tanh", [], None), ("swish", [], None),
         ("hardswish", [], None), ("hardsigmoid", [], None), ("leaky_relu", [0.1], None), ("hardtanh", [-0.5, 0.7], None),
         ("gelu", [], "none"), ("gelu", [], "tanh"), ("mish", [], None)]
BINARY = ["add", "sub", "mul", "div"]


def fused_linears(p):
    dtype = R.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
    tol = {torch.float32: 200}.get(dtype, 8)
    k, n = R.choice([1, 3, 16, 37, 64, 70]), R.choice([1, 5, 16, 33, 64, 100])
    lead = shape(max_dims=3, min_dims=1, max_size=5, empty=0.02)
    x = draw(dtype, lead + [k], special=0)
    w = torch.randn(n, k, generator=GEN).to(dtype)
    if R.random() < 0.6:
        w = torch.ops.mkldnn._reorder_linear_weight(w, maybe(x.numel() // k) if x.numel() else None)
    b = maybe(draw(dtype, [n], special=0).contiguous())  # oneDNN reads biases without strides
    attr, scalars, algorithm = R.choice(UNARY if x.numel() else UNARY[:-1])  # PyTorch looks at it last
    p.compare("aoti_torch_cpu__linear_pointwise", x, w, b, attr, scalars, algorithm, tol=tol)
    other = draw(dtype, lead + [n], special=0).abs() + 1
    p.compare("aoti_torch_cpu__linear_pointwise_binary", x, other, w, b, R.choice(BINARY), tol=tol)
    m1, m2 = draw(dtype, [R.randint(1, 5), k], special=0), draw(dtype, [k, n], special=0)
    p.compare("aoti_torch_cpu__addmm_activation", draw(dtype, [n], special=0), m1, m2, R.choice([0.0, 1.0, 2.0]), 1.0,
              R.randint(0, 1), tol=tol)


def fused_convs(p):
    dtype = R.choice([torch.float32, torch.float32, torch.bfloat16])
    tol = {torch.float32: 400}.get(dtype, 8)
    g, c, o = R.choice([1, 1, 2, 16]), R.randint(1, 5), R.randint(1, 6)
    if g == 16:
        c = o = 1
    nd = R.choice([2, 2, 3])
    kernel = [R.randint(1, 3) for _ in range(nd)]
    x = draw(dtype, [R.randint(1, 2), g * c] + [R.randint(5, 9) for _ in range(nd)], special=0)
    if nd == 2 and R.random() < 0.4:
        x = x.contiguous(memory_format=torch.channels_last)
    pad, stride, dilation = [R.randint(0, 1)] * nd, [R.randint(1, 2)] * nd, [R.randint(1, 2)] * nd
    w = torch.randn(g * o, c, *kernel, generator=GEN).to(dtype)
    b = maybe(draw(dtype, [g * o], special=0).contiguous())
    attr, scalars, algorithm = R.choice(UNARY)
    opaque = torch.ops.mkldnn._reorder_convolution_weight(w, pad, stride, dilation, g, list(x.shape))
    w = R.choice([w, opaque, opaque])
    p.compare("aoti_torch_cpu_mkldnn__convolution_pointwise", x, w, b, pad, stride, dilation, g, attr, scalars, algorithm,
              tol=tol)
    f = torch.nn.functional.conv2d if nd == 2 else torch.nn.functional.conv3d
    size = f(x.float(), torch.zeros(g * o, c, *kernel), None, stride, pad, dilation, g).shape
    other = (draw(dtype, size, special=0).abs() + 1).contiguous()
    if nd == 2 and R.random() < 0.5:
        other = other.contiguous(memory_format=torch.channels_last)
    act = R.choice([None, "relu"])
    p.compare("aoti_torch_cpu_mkldnn__convolution_pointwise_binary", x, other, w, b, pad, stride, dilation, g,
              R.choice(BINARY), maybe(1.0), act, [], None, tol=tol)
    p.compare("aoti_torch_cpu_mkldnn__convolution_pointwise_binary_", other, x, w, b, pad, stride, dilation, g,
              "add", maybe(1.0), act, [], None, tol=tol)
    w = torch.randn(g * c, o, *kernel, generator=GEN).to(dtype)
    opad = [R.randint(0, stride[0] - 1)] * nd
    if R.random() < 0.6 and nd == 2:
        w = torch.ops.mkldnn._reorder_convolution_transpose_weight(w, pad, opad, stride, dilation, g, list(x.shape))
    p.compare("aoti_torch_cpu_mkldnn__convolution_transpose_pointwise", x, w, b, pad, opad, stride, dilation, g, attr,
              scalars, algorithm, tol=tol)


def quantised(p):
    out = R.choice([torch.float32, torch.uint8, torch.uint8, torch.int8, torch.bfloat16])
    tol = {torch.float32: 50}.get(out, 2)
    x_dtype = torch.uint8 if R.random() < 0.8 else torch.int8
    x_scale, x_zp = torch.tensor([0.03]), torch.tensor([R.randint(0, 200) if x_dtype == torch.uint8 else R.randint(-9, 9)],
                                                       dtype=torch.int32)
    quant = (0.05, R.randint(0, 20)) if out in INTS else (1.0, 0)
    post = R.choice([x for x in UNARY if x[0] not in ("sigmoid", "hardsigmoid", "mish")])

    def weights(n):
        m = R.choice([1, n])
        return torch.rand(m, generator=GEN) * 0.01 + 0.001, torch.zeros(m, dtype=torch.int32)

    def ints(*sizes):
        t = values(torch.Size(sizes).numel(), x_dtype, small=False).reshape(sizes)
        return layout(t, overlap=False)

    k, n = R.choice([1, 3, 16, 37, 64, 600]), R.choice([1, 5, 16, 33, 64, 100])
    lead = shape(max_dims=3, min_dims=1, max_size=5, empty=0)
    w = torch.ops.onednn.qlinear_prepack(torch.randint(-MOST, MOST, (n, k), dtype=torch.int8, generator=GEN), None)
    ws, wz = weights(n)
    b = maybe(torch.randn(n, generator=GEN))
    x = ints(*lead, k)
    p.compare("aoti_torch_cpu__qlinear_pointwise_tensor", x, x_scale, x_zp, w, ws, wz, b, *quant, out, post[0], post[1],
              post[2] or "", tol=tol, ints=1)
    act = R.choice(["none", "relu"])
    other = draw(R.choice([torch.float32, torch.bfloat16]) if out in INTS else out, lead + [n], overlap=False, special=0)
    p.compare("aoti_torch_cpu__qlinear_pointwise_binary_tensor", x, x_scale, x_zp, w, ws, wz, other.contiguous(), b, *quant,
              out, 1.0, 0, "add", 1.0, act, [], "", tol=tol, ints=1)
    accum = draw(out, lead + [n], overlap=False, special=0).contiguous()
    oq = (0.02, R.randint(0, 9)) if out in INTS else (1.0, 0)
    p.compare("aoti_torch_cpu__qlinear_pointwise_binary_tensor", x, x_scale, x_zp, w, ws, wz, accum, b, *quant, out, *oq,
              "sum", 1.0, act, [], "", tol=tol, ints=1)
    g, c, o = R.choice([1, 1, 2, 16]), R.choice([1, 3, 4, 16]), R.choice([1, 5, 8])
    if g == 16:
        c = o = 1
    nd = R.choice([1, 2, 2, 2, 3])
    known = {1: ["none", "relu"], 2: ["none", "relu", "hardtanh", "hardswish", "swish"], 3: ["none"]}[nd]
    post = R.choice([x for x in UNARY if x[0] in known])
    kernel = [R.randint(1, 3) for _ in range(nd)]
    pad, stride, dilation = [R.randint(0, 1)] * nd, [R.randint(1, 2)] * nd, [R.randint(1, 2)] * nd
    x = ints(R.randint(1, 2), g * c, *[R.randint(5, 9) for _ in range(nd)])
    ws, wz = weights(g * o)
    w = torch.randint(-MOST, MOST, (g * o, c, *kernel), dtype=torch.int8, generator=GEN)
    w = torch.ops.onednn.qconv_prepack(w, ws, float(x_scale), int(x_zp), stride, pad, dilation, g, list(x.shape))
    b = maybe(torch.randn(g * o, generator=GEN))
    conv = (x, x_scale, x_zp, w, ws, wz)
    lists = (stride, pad, dilation, g)
    p.compare("aoti_torch_cpu__qconv_pointwise_tensor", *conv, b, *lists, *quant, out, post[0], post[1], post[2], tol=tol,
              ints=1)
    if nd == 2:
        size = torch.nn.functional.conv2d(x.float(), torch.zeros(g * o, c, *kernel), None, stride, pad, dilation, g).shape
        accum = draw(out, list(size), overlap=False, special=0).contiguous(memory_format=torch.channels_last)
        p.compare("aoti_torch_cpu__qconv2d_pointwise_binary_tensor", *conv, accum, b, *lists, *quant, out, *oq, "sum", 1.0,
                  R.choice([None, "relu"]), [], None, tol=tol, ints=1)


def weight_only(p):
    dtype = R.choice([torch.float32, torch.bfloat16, torch.float16])
    tol = {torch.float32: 300}.get(dtype, 8)
    m, k, n, group = R.randint(0 if R.random() < 0.1 else 1, 9), R.choice([64, 128, 256]), 16 * R.randint(1, 9), R.choice([32, 64])
    x = draw(dtype, [m, k], special=0).contiguous().clone()
    w = torch.randint(0, 16, (n, k), dtype=torch.int32, generator=GEN)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(w, 1)
    sz = (torch.rand(k // group, n, 2, generator=GEN) * 0.1).to(dtype)
    p.compare("aoti_torch_cpu__weight_int4pack_mm_cpu_tensor", x, packed, torch.tensor(group), sz, tol=tol)
    k, n = 16 * R.randint(1, 6), 16 * R.randint(1, 6)
    x = torch.randn(m, k, generator=GEN).to(dtype)
    w = torch.randint(-128, 128, (n, k), dtype=torch.int8, generator=GEN)
    p.compare("aoti_torch_cpu__weight_int8pack_mm", x, w, (torch.rand(n, generator=GEN) * 0.1).to(dtype), tol=tol)
    dtype = R.choice([torch.float32, torch.float32, torch.bfloat16])
    k, n = 64 * R.randint(1, 3), R.randint(1, 20)
    block = R.choice([k, 32]) if dtype == torch.float32 else k
    w = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, generator=GEN)
    scales = torch.rand(n, k // block, generator=GEN) * 0.1
    bias = maybe(torch.randn(n, generator=GEN))
    p.compare("aoti_torch_cpu__dyn_quant_pack_4bit_weight", w, scales, bias, block, k, n)
    packed = torch.cat([w.flatten().float(), scales.flatten()] + ([] if bias is None else [bias]))
    x = draw(dtype, [max(m, 1), k], special=0).contiguous().clone()
    p.compare("aoti_torch_cpu__dyn_quant_matmul_4bit", x, packed, block, k, n, tol=20 if dtype == torch.float32 else 2)


def scaled_products(p):
    m, k, n = R.randint(1, 9), 16 * R.randint(1, 3), 16 * R.randint(1, 3)
    f8 = torch.float8_e4m3fn
    a, b = torch.randn(m, k, generator=GEN).to(f8), torch.randn(n, k, generator=GEN).to(f8).t()
    if R.random() < 0.5:
        sa, sb = torch.rand(1, generator=GEN) + 0.5, torch.rand(1, generator=GEN) + 0.5
    else:
        sa, sb = torch.rand(m, 1, generator=GEN) + 0.5, torch.rand(1, n, generator=GEN) + 0.5
    out = R.choice([torch.float32, torch.bfloat16])
    tol = {torch.float32: 200}.get(out, 4)
    bias = maybe(torch.randn(n, generator=GEN).to(out))
    p.compare("aoti_torch_cpu__scaled_mm", a, b, sa, sb, bias, None, out, 0, tol=tol)
    p.compare("aoti_torch_cpu__scaled_mm_out", torch.empty(m, n, dtype=out), a, b, sa, sb, bias, None, out, 0, tol=tol)
    dtype = R.choice([torch.float32, torch.bfloat16, torch.float16])
    tol = {torch.float32: 200}.get(dtype, 8)
    g, k, n = R.randint(1, 4), 8 * R.randint(1, 4), 8 * R.randint(1, 3) + R.choice([0, 0, 3])
    two_a, two_b = R.random() < 0.5, R.random() < 0.5
    along = k if two_a and two_b else m if two_a else n
    offs = torch.tensor(sorted(R.randint(0, along) for _ in range(g - 1)) + [along], dtype=torch.int32)
    a = torch.randn(*([] if two_a else [g]), m, k, generator=GEN).to(dtype)
    b = torch.randn(*([] if two_b else [g]), n, k, generator=GEN).to(dtype).transpose(-1, -2)
    p.compare("aoti_torch_cpu__grouped_mm", a, b, offs if two_a or two_b else None, None, maybe(dtype), tol=tol)


def norms(p):
    t = draw(R.choice(FLOATS), shape(min_dims=1, empty=0.02))
    n = R.randint(1, t.dim())
    w = maybe(draw(t.dtype, list(t.shape[t.dim() - n:]), special=0))
    p.compare("aoti_torch_cpu__fused_rms_norm", t, list(t.shape[t.dim() - n:]), w, maybe(1e-3), tol=(20, 20))


def distances(p):
    dtype = R.choice([torch.float32, torch.float64])
    tol = {torch.float32: 20}.get(dtype, 100)
    batch, m = shape(max_dims=2, max_size=3), R.randint(0 if R.random() < 0.05 else 1, 9)
    norm = R.choice([0.0, 1.0, 2.0, 2.0, 3.5, float("inf")])
    special = 0 if norm == float("inf") else 0.1  # whether a maximum is NaN depends on where in its vectors PyTorch has it
    a = draw(dtype, batch + [R.randint(0 if R.random() < 0.05 else 1, 9), m], special=special)
    b = draw(dtype, [1 if R.random() < 0.3 else x for x in batch[R.randint(0, len(batch)):]] + [R.randint(1, 9), m],
             special=special)
    p.compare("aoti_torch_cpu__cdist_forward", a, b, norm, R.choice([None, 2]), tol=tol)
    p.compare("aoti_torch_cpu__pdist_forward", draw(dtype, [R.randint(0, 9), m], special=special), norm, tol=tol)
    a, b = torch.randn(R.randint(20, 40), 5, generator=GEN), torch.randn(30, 5, generator=GEN)
    p.compare("aoti_torch_cpu__cdist_forward", a, b, 2.0, R.choice([None, 0, 1, 2, 3]), tol=2000)
    n = R.randint(2, 4)
    full = [R.randint(1, 4) for _ in range(n)]
    expands = [[d for d in range(n) if R.random() < 0.3] for _ in range(3)]
    ts = [draw(dtype, [s for d, s in enumerate(full) if d not in e], special=0) for e in expands]
    # Every dimension must be in one of them, and it sums none that is not.
    if all(any(d not in e for e in expands) for d in range(n)):
        sums = [d for d in range(n) if R.random() < 0.5]
        p.compare("aoti_torch_cpu__trilinear", *ts, *expands, sums, R.randrange(n), tol=tol)


def histograms(p):
    dtype = R.choice([torch.float32, torch.float64])
    t = draw(R.choice([dtype, dtype, torch.bfloat16, torch.int64]), shape(empty=0.03), special=R.choice([0, 0.02]))
    lo, hi = R.choice([(0.0, 0.0), (-2.0, 2.0), (-1.0, 3.5), (0.0, 1.0), (3.0, 1.0)])
    p.compare("aoti_torch_cpu_histc", t, R.choice([1, 4, 10, 0]), lo, hi, tol=1)
    t = draw(dtype, shape(empty=0.03), special=0)
    weight = maybe(draw(dtype, list(t.shape), special=0))
    p.compare("aoti_torch_cpu_histogram_bin_ct", t, R.choice([1, 4, 10, 0]), R.choice([None, [-2.0, 2.0], [0.1, 1.7]]),
              weight, R.randint(0, 1), tol=20)
    d = R.randint(1, 3)
    t = draw(dtype, shape(max_dims=2, min_dims=1, empty=0.03) + [d], special=0)
    weight = maybe(draw(dtype, list(t.shape[:-1]), special=0))
    p.compare("aoti_torch_cpu__histogramdd_from_bin_cts", t, [R.randint(1, 5) for _ in range(d)],
              R.choice([None, [-2.0, 2.0] * d]), weight, R.randint(0, 1), tol=20)


def segments(p):
    dtype = R.choice([torch.float32, torch.float64])
    lead, inner = shape(max_dims=1, max_size=3, empty=0), shape(max_dims=2, max_size=3, empty=0)
    size, count, rows = R.randint(1, 8), R.randint(1, 4), 1
    for s in lead:
        rows *= s
    cuts = [sorted(R.randint(0, size) for _ in range(count - 1)) for _ in range(rows)]
    offsets = torch.tensor([[0] + c + [size] for c in cuts]).reshape(lead + [count + 1])
    lengths = offsets.diff(dim=-1)
    if R.random() < 0.05:
        lengths = lengths + 1
    data = torch.empty(lead + [size] + inner, dtype=dtype).copy_(draw(dtype, lead + [size] + inner))
    index = R.choice([torch.int64, torch.int32])
    kind = R.choice(["max", "mean", "min", "sum", "prod"])
    initial = maybe(R.choice([0.5, 2.0]))
    p.compare("aoti_torch_cpu_segment_reduce", data, kind, lengths.to(index), None, None, len(lead), 0, initial, tol=4)
    p.compare("aoti_torch_cpu_segment_reduce", data, kind, None, None, offsets.to(index), len(lead), 0, initial, tol=4)


def samplers(p):
    dtype = R.choice([torch.float32, torch.float64])
    x = draw(dtype, [R.randint(1, 2), R.randint(1, 3)] + [R.randint(1, 4) for _ in range(3)], special=0.01)
    grid = draw(dtype, [x.shape[0]] + [R.randint(1, 3) for _ in range(3)] + [3], special=0)
    if R.random() < 0.7:
        grid = grid / 2
    # Where a coordinate is NaN, what PyTorch reads is not defined.
    p.compare("aoti_torch_cpu_grid_sampler_3d", x, grid, R.randint(0, 1), R.randint(0, 2), R.randint(0, 1), tol=20)
    for nd in (2, 3):
        dtype = R.choice(FLOATS)
        x = draw(dtype, ([R.randint(1, 2)] if R.random() < 0.7 else []) + [R.randint(1, 3)] +
                 [R.randint(3, 7) for _ in range(nd)])
        kernel = [R.randint(1, 3) for _ in range(nd)]
        out = [R.randint(1, s - k + 1 + (R.random() < 0.03)) for s, k in zip(x.shape[-nd:], kernel)]
        n = x.shape[0] if x.dim() == nd + 2 else 1
        samples = torch.rand(n, x.shape[-nd - 1], nd, generator=GEN).to(dtype)
        p.compare(f"aoti_torch_cpu_fractional_max_pool{nd}d", x, kernel, out, samples)


def matrices(*sizes, dtype):
    """Numbers away from zero on the diagonal, so that no solution is a matter of rounding."""
    t = torch.randn(*sizes, generator=GEN, dtype=torch.float64)
    if dtype.is_complex:
        t = torch.complex(t, torch.randn(*sizes, generator=GEN, dtype=torch.float64))
    if len(sizes) > 1:
        t = t + 3 * torch.eye(*sizes[-2:], dtype=torch.float64)
    return layout(t.to(dtype), overlap=False)


def linear_algebra(p):
    dtype = R.choice(FLOATS[:2] + COMPLEX)
    tol = 1000 if dtype in (torch.float32, torch.complex64) else 10000
    batch, n, k = shape(max_dims=2, max_size=3), R.randint(0 if R.random() < 0.05 else 1, 6), R.randint(1, 4)
    if R.random() < 0.03:
        a, b = matrices(*batch, n, n + 1, dtype=dtype), matrices(*batch, n, k, dtype=dtype)
    else:
        a, b = matrices(*batch, n, n, dtype=dtype), matrices(*batch[R.randint(0, len(batch)):], n, k, dtype=dtype)
    flag = [R.randint(0, 1) for _ in range(3)]
    p.compare("aoti_torch_cpu_triangular_solve", b, a, *flag, tol=tol)
    p.compare("aoti_torch_cpu_cholesky_solve", b, a, flag[0], tol=tol)
    if R.random() < 0.05 and a.numel():
        a = a.clone()
        a.diagonal(dim1=-2, dim2=-1)[..., 0] = 0
    if a.shape[-1] == a.shape[-2]:  # a real diagonal, as a factor's is: which part of another LAPACK looks at is its own
        d = a.diagonal(dim1=-2, dim2=-1)
        a = a - torch.diag_embed(d) + torch.diag_embed(d.real.to(dtype) if dtype.is_complex else d)
    p.compare("aoti_torch_cpu_cholesky_inverse", a, flag[0], tol=tol)
    m = R.randint(1, 6)
    a = matrices(*batch, m, max(n, 1), dtype=dtype)
    p.compare("aoti_torch_cpu_geqrf", a, tol=(tol, tol))
    qr, tau = torch.geqrf(a)
    left = flag[1]
    c = matrices(*batch, m, k, dtype=dtype) if left else matrices(*batch, k, m, dtype=dtype)
    p.compare("aoti_torch_cpu_ormqr", qr, tau, c, left, flag[2], tol=tol)
    lu, pivots = torch.linalg.lu_factor(a)
    p.compare("aoti_torch_cpu_lu_unpack", lu, pivots, R.random() < 0.8, R.random() < 0.8)


FAMILIES = [linear_algebra, weight_only, scaled_products, norms, distances, histograms, segments, samplers, quantised, fused_linears, fused_convs, ffts, reductions, heavy, randoms, bags, index_reduces, pools, views, joins, pointwise, searches, scans, sorts, indexing, scatters, positions]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("build", nargs="?", default="build")
    a.add_argument("-v", action="store_true")
    a.add_argument("-k", default="")
    a.add_argument("-n", type=int, default=300)
    a = a.parse_args()
    torch.set_num_threads(1)
    p = _shim.Pair(a.build + "/libexec/libtorch_cpu.so")
    for family in FAMILIES:
        if a.k not in family.__name__:
            continue
        R.seed(family.__name__)
        GEN.manual_seed(1)
        start, before, refused = time.time(), p.calls, {}
        for _ in range(a.n):
            try:
                family(p)
            except RuntimeError as e:  # PyTorch prepares arguments itself, and cannot on every CPU (bfloat16 in oneDNN)
                why = str(e).split("\n")[0]
                refused[why] = refused.get(why, 0) + 1
        print(f"{family.__name__}: {p.calls - before} calls, {time.time() - start:.1f} s")
        for why, n in refused.items():
            print(f"    {n} draws left out, PyTorch says: {why}")
        if sum(refused.values()) > a.n // 2:
            p.fail(family.__name__, "PyTorch refuses most of what is drawn")
    return p.report(a.v)


if __name__ == "__main__":
    sys.exit(main())
