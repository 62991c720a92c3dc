#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes named_cases.inc: small calls of operators that are called by name and what torch 2.13.0 answers, as C that needs no torch.

usage: make_named_cases.py BUILD     (BUILD/libexec/libtorch_cpu.so tells which messages are worded alike)

The calls are those of tests/torch/compare_named.py. Left out are decompositions that are unique only up to signs or phases: the
fixture linalg has them.
"""
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../torch"))
import _shim  # noqa: E402
import compare_named as named  # noqa: E402
from make_cases import flat, listing, number, tensor  # noqa: E402

EACH, MOST, ROUNDS, SEED = 2, 24, 100, 17
UNSURE = ("aten::_linalg_svd", "aten::_linalg_eigh", "aten::linalg_eig", "aten::_linalg_eigvals", "aten::linalg_qr",
          "aten::linalg_ldl_factor_ex")


def value(kind, v, variables):
    """One struct pt2box_op_value, by the type in the schema."""
    if v is None:
        return "{.kind = PT2BOX_OP_NONE}"
    if isinstance(v, torch.Tensor):
        variables.append(v)
        return f"GIVEN(t{len(variables) - 1})"
    if isinstance(v, str):
        return f'{{.kind = PT2BOX_OP_STRING, .v.s = "{v}"}}'
    if isinstance(v, torch.dtype):
        return f"{{.kind = PT2BOX_OP_DTYPE, .v.i = {_shim.NUMBERS[v]}}}"
    if isinstance(v, torch.device):
        return "{.kind = PT2BOX_OP_DEVICE, .v.device = {0, -1}}"
    if isinstance(v, (list, tuple)):
        real = "float" in kind or any(isinstance(x, float) for x in v)
        ctype, name, field = ("double", "FLOATS", "floats") if real else ("int64_t", "INTS", "ints")
        return (f"{{.kind = PT2BOX_OP_{name}, .count = {len(v)}, "
                f".v.{field} = {listing(ctype, [number(x) for x in v])}}}")
    if isinstance(v, bool):
        return f"{{.kind = PT2BOX_OP_BOOL, .v.i = {int(v)}}}"
    if isinstance(v, float) or "float" in kind:
        return f"{{.kind = PT2BOX_OP_FLOAT, .v.f = {number(float(v))}}}"
    return f"{{.kind = PT2BOX_OP_INT, .v.i = {v}}}"


def complete(op, args, kwargs):
    """(type, value) of every argument of the schema, defaults filled in."""
    out = []
    for i, a in enumerate(op._schema.arguments):
        v = args[i] if i < len(args) else kwargs.get(a.name, a.default_value if a.has_default_value() else None)
        out.append((str(a.type), v))
    return out


def literal(name, t):
    return f"\t\tstruct pb_rt_tensor *{name} = literal({tensor(t)}{t.storage_offset()}, {listing('double', flat(t))});"


def block(op, args, want, message):
    variables, target = [], op.name()
    values = [value(kind, v, variables) for kind, v in args]
    lines = ["\t{"] + [literal(f"t{i}", t) for i, t in enumerate(variables)]
    lines += ["\t\tconst struct pt2box_op_value args[] = {" + ", ".join(values) + "};",
              f"\t\tstruct pb_rt_tensor *r[{max(len(want or [0]), 1)}] = {{NULL}};",
              f'\t\tconst int rc = named("{target}", args, {len(values)}, r, {len(want or [0])});']
    if want is None:
        lines.append("\t\tfails(rc, " + ("NULL" if message is None else '"' + message.replace('"', '\\"') + '"') + ");")
    else:
        lines.append(f'\t\tsucceeds(rc, "{target}");')
        for i, t in enumerate(want):
            loose = {torch.float64: 1e6, torch.complex128: 1e6}.get(t.dtype, 2000 if t.dtype.is_floating_point or
                                                                    t.dtype.is_complex else 0)
            if t.dtype in (torch.float16, torch.bfloat16):
                loose = 2
            lines.append(f"\t\texpect(r[{i}], {tensor(t)}{listing('double', flat(t))}, {loose:g});")
    lines += [f"\t\tpb_rt_delete(r[{i}]);" for i in range(len(want or [0]))]
    lines += [f"\t\tpb_rt_delete(t{i});" for i in range(len(variables))]
    return lines + ["\t}"]


def cases(ours, op, draw):
    lines, done, failed = [], 0, 0
    for round_ in range(ROUNDS):
        if done == EACH and failed:
            break
        named.R.seed(f"cases of {op.name()} {round_}")
        torch.manual_seed(round_)
        args, kwargs = draw(op)
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        if any(t.numel() > MOST or t.untyped_storage().nbytes() > 2048 for t in tensors):
            continue
        torch.manual_seed(SEED)
        try:
            want, message = named.flat_out(op(*args, **kwargs)), None
        except Exception as e:
            want, message = None, str(e).split("\n")[0]
        if want is None:
            if failed or "view size is not compatible" in message:
                continue
            n_out = len(op._schema.returns)
            _, mine = ours.call(op, tuple(args), kwargs, n_out, SEED)
            message = message if mine == message else None
            failed += 1
        elif done == EACH or any(t.numel() > MOST for t in want):
            continue
        else:
            done += 1
        lines += block(op, complete(op, args, kwargs), want, message)
    return lines, done


def main():
    ours, names, n = named.Ours(sys.argv[1]), [], 0
    out = ["/* SPDX-License-Identifier: Apache-2.0 */",
           f"/* Made by make_named_cases.py with torch {torch.__version__.split('+')[0]}; do not edit. */", ""]
    for op, draw in named.CASES.values():
        if op.name() in UNSURE:
            continue
        lines, done = cases(ours, op, draw)
        n += done
        name = op.name().replace("::", "_").replace(".", "_")
        names.append(name)
        out += [f"static void cases_{name}(void **state)", "{", "\t(void)state;"] + lines + ["}", ""]
        if not done:
            print("no case of " + op.name())
    out += ["static const struct CMUnitTest case_tests[] = {"] + [f"\tcmocka_unit_test(cases_{n})," for n in names] + ["};"]
    with open(os.path.join(HERE, "named_cases.inc"), "w") as f:
        f.write("\n".join(out) + "\n")
    print(f"{n} cases of {len(names)} operators")


if __name__ == "__main__":
    main()
