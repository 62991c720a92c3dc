#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes ops_cases.inc: small calls of every operator and what torch 2.13.0 answers, as C that needs no torch.

usage: make_cases.py BUILD     (BUILD/libexec/libtorch_cpu.so tells which messages are worded alike)

The calls are those of tests/torch/compare_ops.py, drawn small.
"""
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../torch"))
import _shim  # noqa: E402
import compare_ops as ops  # noqa: E402

NAMES = {0: "U8", 1: "I8", 2: "I16", 3: "I32", 4: "I64", 5: "F16", 6: "F32", 7: "F64", 9: "C64", 10: "C128", 11: "BOOL",
         15: "BF16", 24: "F8_E4M3FN"}
EACH = 4
# Operators that say nothing in a few elements: larger cases, and fewer.
LARGE = ("mkldnn__convolution", "_weight_int8pack", "_dyn_quant_matmul", "_scaled_mm")
# PyTorch packs for the machine it runs on.
SKIPPED = ("_weight_int4pack",)


def number(x):
    if isinstance(x, bool):
        return str(int(x))
    if x != x:
        return "NAN"
    if x in (float("inf"), float("-inf")):
        return "INFINITY" if x > 0 else "-INFINITY"
    if isinstance(x, float) and x == int(x) and abs(x) < 1e6 and str(x) != "-0.0":
        return str(int(x))
    return repr(x)


def flat(t):
    if t.dtype.is_complex:
        t = torch.view_as_real(t.contiguous().to(torch.complex128))
    return [number(x) for x in t.flatten().tolist()]


def listing(ctype, items):
    return f"({ctype}[]){{{', '.join(map(str, items)) if items else '0'}}}"


def tensor(t):
    n = t.dim()
    return (f"PB_RT_{NAMES[_shim.NUMBERS[t.dtype]]}, {n}, {listing('int64_t', list(t.shape))}, "
            f"{listing('int64_t', list(t.stride()))}, ")


def bounded(t, most=64):
    return t.layout == torch._mkldnn and t.numel() <= max(most, 200) or t.numel() <= most and (t.dtype not in (torch.int64,) or t.numel() == 0 or int(t.abs().max()) < 2**53)


class Writer:
    """Stands in for Pair: runs PyTorch alone (and ours for messages), and writes the call down."""

    def __init__(self, build):
        self.theirs = _shim.Library(_shim.TORCH, "torch_exception_get_what_without_backtrace")
        self.ours = _shim.Library(os.path.abspath(build) + "/libexec/libtorch_cpu.so", "pb_rt_last_error")
        self.lines, self.count, self.errors, self.n = [], {}, {}, 0

    def wanted(self, name, args, failed):
        table = self.errors if failed else self.count
        return table.get(name, 0) < (1 if failed else 2 if any(k in name for k in LARGE) else EACH)

    def plain(self, t):
        """What our library makes of a tensor in oneDNN's layout."""
        call = _shim.Call.__new__(_shim.Call)
        call.l, call.keep, call.opaques = self.ours, [], []
        h = call.opaque(t)
        out = self.ours.read(h)
        self.ours.delete(h)
        return out

    def compare(self, name, *args, tol=0, permutes=None, resized=False, only=None, ints=0):
        self.ints = ints
        tol = max(tol) if isinstance(tol, tuple) else tol
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        tensors += [x for a in args if isinstance(a, list) for x in a if isinstance(x, torch.Tensor)]
        most = 600 if any(k in name for k in LARGE) else 64
        if any(k in name for k in SKIPPED) or any(not bounded(t, most) for t in tensors) or permutes is not None or resized:
            return
        if any(t.layout != torch._mkldnn and t.untyped_storage().nbytes() > 4096 for t in tensors):
            return
        call = _shim.Call(self.theirs, name, args, None)
        failed = bool(call.rc)
        results = [] if failed else call.results()
        after = [] if failed else call.tensors_in()
        call.end()
        if not self.wanted(name, args, failed) or any(r is None or not bounded(r, most) for r in results):
            return
        if failed:
            mine = _shim.Call(self.ours, name, args, None)
            message = call.message if mine.message == call.message and mine.rc else None
            mine.end()
            if "INTERNAL ASSERT" in call.message:
                return
        (self.errors if failed else self.count)[name] = (self.errors if failed else self.count).get(name, 0) + 1
        self.write(name, args, tol, failed, message if failed else None, results, after)

    def write(self, name, args, tol, failed, message, results, after):
        self.n += 1
        out = self.lines
        out.append("\t{")
        if self.ints:
            out.append(f"\t\tint_slack = {self.ints};")
        self.vars, self.storages = [], {}
        c_args, rets = self.arguments(name, list(args))
        if rets:
            out.append(f"\t\tAtenTensorHandle r[{rets}] = {{NULL}};")
        out.append(f"\t\tconst int rc = {name}({', '.join(c_args)});")
        if failed:
            text = "NULL" if message is None else '"' + message.replace("\\", "\\\\").replace('"', '\\"') + '"'
            out.append(f"\t\tfails(rc, {text});")
        else:
            out.append(f'\t\tsucceeds(rc, "{name}");')
            for i, r in enumerate(results):
                out.append(f"\t\texpect(r[{i}], {tensor(r)}{listing('double', flat(r))}, {tol});")
            for v, t in zip(self.vars, after):
                if any(k in name for k in ("_out", "__Scalar")) and "_out" in name or name.endswith("_"):
                    out.append(f"\t\tcontents({v}, {listing('double', flat(t))}, {tol});")
            if "fill_" in name:
                out.append(f"\t\tcontents({self.vars[0]}, {listing('double', flat(after[0]))}, {tol});")
        for i in range(0 if failed else rets):
            out.append(f"\t\tpb_rt_delete(r[{i}]);")
        for v in self.vars:
            out.append(f"\t\tpb_rt_delete({v});")
        out.append("\t}")

    def variable(self, t):
        v = f"t{len(self.vars)}"
        if t.layout == torch._mkldnn:
            t = self.plain(t)
            self.lines.append(f"\t\tstruct pb_rt_tensor *{v} = frozen(literal({tensor(t)}0, {listing('double', flat(t))}));")
            self.vars.append(v)
            return v
        key = t.untyped_storage().data_ptr()
        if key in self.storages and t.numel():
            self.lines.append(f"\t\tstruct pb_rt_tensor *{v} = alias({self.storages[key]}, {tensor(t)}{t.storage_offset()});")
        else:
            self.storages.setdefault(key, v)
            self.lines.append(f"\t\tstruct pb_rt_tensor *{v} = literal({tensor(t)}{t.storage_offset()}, "
                              f"{listing('double', flat(t))});")
        self.vars.append(v)
        return v

    def arguments(self, name, args):
        params, out, rets, i = _shim.PROTOTYPES[name], [], 0, 0
        while i < len(params):
            kind, pname = params[i]
            if _shim.is_result(kind, pname):
                out.append(f"&r[{rets}]")
                rets += 1
            elif _shim.is_array(params, i):
                out += self.array(kind, args.pop(0), pname)
                i += 1
            else:
                out.append(self.scalar(kind, args.pop(0)))
            i += 1
        return out, rets

    def array(self, kind, value, pname):
        if value is None:
            return ["NULL", "0"]
        if kind.startswith("AtenTensorHandle"):
            vs = [None if t is None else self.variable(t) for t in value]
            if kind.endswith("**"):
                items = ["NULL" if v is None else f"&{v}" for v in vs]
                return [f"(const AtenTensorHandle *[]){{{', '.join(items) or 'NULL'}}}", str(len(vs))]
            return [listing("AtenTensorHandle", ["NULL" if v is None else v for v in vs] or ["NULL"]), str(len(vs))]
        if kind == "double**":
            items = ["NULL" if v is None else f"&(double){{{number(v)}}}" for v in value]
            if pname == "range":
                return [f"&(const double *){{{listing('double', [number(v) for v in value])}}}", str(len(value))]
            return [f"(const double *[]){{{', '.join(items) or 'NULL'}}}", str(len(value))]
        return [listing(kind[:-1], list(value)), str(len(value))]

    def scalar(self, kind, v):
        if isinstance(v, torch.dtype):
            v = _shim.NUMBERS[v]
        if kind == "AtenTensorHandle":
            return self.variable(v)
        if v is None:
            return "NULL"
        if kind == "char*":
            return f'"{v}"'
        if kind == "char**":
            return f'(const char *[]){{"{v}"}}'
        if kind == "AtenTensorHandle*":
            return "&" + self.variable(v)
        if kind.endswith("*"):
            return f"&({kind[:-1]}){{{number(float(v) if kind == 'double*' else v)}}}"
        if kind == "int64_t" and v == -2**63:
            return "INT64_MIN"
        return number(v)


def main():
    w = Writer(sys.argv[1])
    out = ["/* SPDX-License-Identifier: Apache-2.0 */",
           f"/* Made by make_cases.py with torch {torch.__version__.split('+')[0]}; do not edit. */", ""]
    names = []
    real_shape = ops.shape
    ops.shape = lambda max_dims=3, max_size=3, min_dims=0, empty=0.05: real_shape(min(max_dims, 3) if max_dims != 5 else 4,
                                                                               min(max_size, 12), min_dims, empty)
    for family in ops.FAMILIES:
        name = family.__name__
        if name in ("randoms", "heavy"):
            continue
        w.lines = []
        ops.R.seed("cases of " + name)
        for _ in range(60):
            family(w)
        names.append(name)
        out += [f"static void cases_{name}(void **state)", "{", "\t(void)state;"] + w.lines + ["}", ""]
    out += ["static const struct CMUnitTest case_tests[] = {"]
    out += [f"\tcmocka_unit_test(cases_{n})," for n in names] + ["};"]
    with open(os.path.join(HERE, "ops_cases.inc"), "w") as f:
        f.write("\n".join(out) + "\n")
    print(f"{w.n} cases of {len(w.count)} operators")


if __name__ == "__main__":
    main()
