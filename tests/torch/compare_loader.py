#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every call of pt2box.torch_compat against PyTorch's own loader on every fixture: values, dtypes, strides, aliasing, errors.

usage: compare_loader.py BUILD     (PYTHON of a virtual environment with torch 2.13.0)

STRICTER names the calls that PyTorch takes, and why it should not; anything else must end the same way in both.
"""
import io
import json
import logging
import os
import sys
import tempfile

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
sys.path.insert(0, os.path.join(BUILD, "python"))
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch._inductor.package  # noqa: E402

import pt2box  # noqa: E402
from pt2box import torch_compat  # noqa: E402

logging.disable(logging.WARNING)
torch.set_num_threads(1)
Theirs = torch._C._aoti.AOTIModelPackageLoader
Ours = torch_compat.AOTIModelPackageLoader

# What PyTorch answers with numbers that are wrong, or memory that is not its own.
STRICTER = {
    "input of another dtype": "read with the compiled dtype",
    "input of another size": "read beyond its end",
    "input of another rank": "its strides are not looked at",
    "input in other strides": "read as if it had the compiled ones (here: right)",
    "constant in other strides": "its elements are taken in the wrong order (here: right, or refused if user-managed)",
    "constant of another dtype": "copied with its own size",
    "constant of another size": "the heap is overwritten",
    "unknown internal name": "ignored",
}
# Fixtures that pt2box refuses.
REFUSED = {"customop": "an operator that only Python knows"}

checks = failures = 0


def check(ok, what):
    global checks, failures
    checks += 1
    if not ok:
        failures += 1
        print("FAIL  %s" % what)


def outcome(f):
    """("ok", value) or ("error", class): TypeError apart from RuntimeError, which is all that PyTorch raises else."""
    try:
        return "ok", f()
    except (RuntimeError, TypeError, ValueError) as e:
        return "error", next(c for c in (RuntimeError, TypeError, ValueError) if isinstance(e, c)), str(e)


def same_end(what, ours, theirs):
    """Both return, or both raise the same class."""
    o, t = outcome(ours), outcome(theirs)
    check(o[0] == t[0] and (o[0] == "ok" or o[1] is t[1]), "%s: here %s, PyTorch %s" % (what, o, t))
    return o, t


def stricter(what, ours):
    """What PyTorch would take."""
    assert what in STRICTER
    o = outcome(ours)
    check(o[0] == "error" and o[1] is RuntimeError, "%s: not refused: %s" % (what, o[:2]))


def tensors(path, prefix, dtypes):
    ret = []
    with np.load(path) as z:
        for i, d in enumerate(dtypes):
            if d is None:
                ret.append(None)
                continue
            t = torch.from_numpy(np.array(z["%s%d" % (prefix, i)]))
            ret.append(t.view(torch.bfloat16) if d == "bfloat16" else t)
    return ret


def strided_as(t, like):
    """The elements of t in the strides of like."""
    return t if like is None else torch.empty_strided(t.shape, like, dtype=t.dtype).copy_(t)


def same_tensors(what, ours, theirs, meta):
    check(len(ours) == len(theirs), "%s: %d outputs, not %d" % (what, len(ours), len(theirs)))
    for i, (o, t) in enumerate(zip(ours, theirs)):
        if o is None or t is None:
            check(o is t, "%s: output %d: None or not" % (what, i))
            continue
        where = "%s: output %d: " % (what, i)
        check(type(o) is torch.Tensor, where + "type")
        check(o.dtype is t.dtype, where + "dtype %s, not %s" % (o.dtype, t.dtype))
        check(o.shape == t.shape, where + "shape %s, not %s" % (o.shape, t.shape))
        check(o.shape != t.shape or torch.allclose(o.to(torch.float64), t.to(torch.float64), meta["rtol"], meta["atol"],
                                                   equal_nan=True), where + "values")
        check(o.numel() == 0 or [s for s, n in zip(o.stride(), o.shape) if n > 1] ==
              [s for s, n in zip(t.stride(), t.shape) if n > 1], where + "strides %s, not %s" % (o.stride(), t.stride()))
        check(not o.requires_grad, where + "wants a gradient")


def aliases(outputs, inputs):
    """Who shares memory with whom, how far apart, and who is the same object."""
    all_ = [x for x in list(outputs) + list(inputs) if x is not None and x.numel()]
    ret = []
    for i, a in enumerate(all_):
        for j, b in enumerate(all_[:i]):
            overlap = max(a.data_ptr(), b.data_ptr()) < min(end(a), end(b))
            ret.append((i, j, a.data_ptr() - b.data_ptr() if overlap else None, a is b))
    return ret


def end(t):
    return t.data_ptr() + t.element_size() * (1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride())))


class Case:
    def __init__(self, name, model, about, meta, i, o):
        self.name, self.model, self.meta = name, model, meta
        self.folder = os.path.join(FIXTURES, name)
        self.path = os.path.join(self.folder, "model.pt2")
        self.about, self.i, self.o = about, i, o
        self.what = name if model == "model" else "%s/%s" % (name, model)

    def inputs(self, strides=None):
        t = tensors(os.path.join(self.folder, self.i), "in", self.about["dtypes_in"])
        return [strided_as(x, s) for x, s in zip(t, strides or [None] * len(t))]

    def constants(self, name):
        """In the strides that the package declares, without which PyTorch takes them in the wrong order."""
        from safetensors.torch import load_file
        strides = {k["fqn"]: k["strides"] for k in pt2box.inspect(self.path, self.model)["constants"]["list"]}
        return {n: strided_as(t, strides[n]) for n, t in load_file(os.path.join(self.folder, name)).items()}

    def open(self, cls):
        loader = cls(self.path, self.model, False, 1, -1)
        if "constants" in self.meta:
            loader.load_constants(self.constants(self.meta["constants"]), False, False)
        return loader


def cases():
    for name in sorted(os.listdir(FIXTURES)):
        path = os.path.join(FIXTURES, name, "meta.json")
        if not os.path.exists(path):
            continue
        with open(path) as f:
            meta = json.load(f)
        if "models" in meta:
            for model, about in meta["models"].items():
                yield Case(name, model, about, meta, about["in"], about["out"])
        else:
            yield Case(name, "model", meta, meta, "in.npz", "out.npz")


def declared_strides(case):
    """PyTorch needs inputs in the strides that the package was compiled for."""
    ret = []
    for i, t in zip(pt2box.inspect(case.path, case.model)["inputs"] or [], case.inputs()):
        s, n = [], 1
        for d, size in zip(reversed(i["dims"] or []), reversed(t.shape)):
            s.append(n if d["stride"] is None else d["stride"])
            n = s[-1] * size
        ret.append(tuple(reversed(s)))
    return ret or None


# ---- the comparisons --------------------------------------------------------------------------------------------------

def compare_run(case, ours, theirs, strides):
    for n in range(3 if case.meta["sequence"] else 1):
        a, b = case.inputs(strides), case.inputs(strides)
        o, t = ours.run(a), theirs.run(b)
        same_tensors("%s run %d" % (case.what, n), o, t, case.meta)
        same_tensors("%s: inputs after run %d" % (case.what, n), a, b, case.meta)
        check(aliases(o, a) == aliases(t, b), "%s: aliasing: %s, not %s" % (case.what, aliases(o, a), aliases(t, b)))
    a, b = case.inputs(strides), case.inputs(strides)
    same_tensors(case.what + " boxed_run", ours.boxed_run(a), theirs.boxed_run(b), case.meta)
    check(a == [] and b == [], case.what + ": boxed_run empties the list")
    same_tensors(case.what + " stream", ours.run(case.inputs(strides), None), theirs.run(case.inputs(strides), None), case.meta)


def compare_texts(case, ours, theirs):
    check(ours.get_metadata() == theirs.get_metadata(), case.what + ": metadata")
    check(Ours.load_metadata_from_package(case.path, case.model) == Theirs.load_metadata_from_package(case.path, case.model),
          case.what + ": metadata without loading")
    check(ours.get_call_spec() == theirs.get_call_spec(), case.what + ": call spec")
    check(sorted(ours.get_constant_fqns()) == sorted(theirs.get_constant_fqns()), "%s: constants %s, not %s" % (
        case.what, sorted(ours.get_constant_fqns()), sorted(theirs.get_constant_fqns())))
    check(ours.get_custom_objs() == theirs.get_custom_objs(), case.what + ": custom objects")


def compare_call(case, strides):
    """AOTICompiledModel, nested."""
    if "constants" in case.meta:
        return
    theirs = torch._inductor.package.load_package(case.path, case.model)
    ours = torch_compat.load_package(case.path, case.model)
    tree = torch.utils._pytree
    leaves = iter(case.inputs(strides))
    flat = [next(leaves) if k == "tensor" else k for k in case.meta.get("leaves_in") or ["tensor"] * len(case.about["dtypes_in"])]
    args, kwargs = tree.tree_unflatten(flat, tree.treespec_loads(theirs.loader.get_call_spec()[0]))
    clone = lambda x: tree.tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, x)  # noqa: E731
    o, t = ours(*args, **kwargs), theirs(*clone(args), **clone(kwargs))
    check(tree.tree_structure(o) == tree.tree_structure(t), "%s: nesting of outputs" % case.what)
    if not case.meta["notes"].startswith("writes"):
        same_tensors(case.what + " called", tree.tree_leaves(o), tree.tree_leaves(t), case.meta)
    check(ours.get_metadata() == theirs.get_metadata(), case.what + ": metadata of the compiled model")
    check(sorted(ours.get_constant_fqns()) == sorted(theirs.get_constant_fqns()), case.what + ": names of the compiled model")
    same_end(case.what + " called with one more", lambda: ours(*args, torch.ones(1), **kwargs),
             lambda: theirs(*args, torch.ones(1), **kwargs))
    same_end(case.what + " called with a keyword", lambda: ours(*args, **kwargs, nope=1), lambda: theirs(*args, **kwargs, nope=1))


def compare_updates(case, strides):
    """What committed results cannot say: each kind of update, by both names, against a fresh container of PyTorch."""
    if "updates" not in case.meta:
        return
    full = case.constants(case.meta["updates"]["full"]["constants"])
    partial = case.constants(case.meta["updates"]["partial"]["constants"])
    for user_managed in (False, True):
        ours, theirs = case.open(Ours), case.open(Theirs)
        for loader in (ours, theirs):
            loader.load_constants(full, False, True, user_managed)
        same_tensors("%s full update" % case.what, ours.run(case.inputs(strides)), theirs.run(case.inputs(strides)), case.meta)
        # A partial user-managed update after another leaves the rest with dangling state in PyTorch's container.
        if not user_managed:
            for loader in (ours, theirs):
                loader.load_constants(partial, False, False)
            same_tensors("%s partial update" % case.what, ours.run(case.inputs(strides)), theirs.run(case.inputs(strides)), case.meta)
    ours, theirs = case.open(Ours), case.open(Theirs)
    names = {k: k.replace(".", "_") for k in partial}
    for loader in (ours, theirs):
        loader.update_constant_buffer({names[k]: v for k, v in partial.items()}, False, False)
    same_tensors("%s update by internal names" % case.what, ours.run(case.inputs(strides)), theirs.run(case.inputs(strides)), case.meta)
    for loader in (ours, theirs):
        loader.load_constants(full, True, False)
    same_tensors("%s: an inactive update is not seen" % case.what, ours.run(case.inputs(strides)), theirs.run(case.inputs(strides)),
                 case.meta)


def compare_errors():
    mlp = os.path.join(FIXTURES, "mlp", "model.pt2")
    two = os.path.join(FIXTURES, "twomodels", "model.pt2")
    for what, args in (("single-threaded with two runners", (mlp, "model", True, 2, -1)), ("no runners", (mlp, "model", False, 0, -1)),
                       ("a negative number of runners", (mlp, "model", False, -1, -1)),
                       ("no file", ("/nowhere.pt2", "model", False, 1, -1)), ("no zip", (__file__, "model", False, 1, -1)),
                       ("no such model", (two, "third", False, 1, -1)), ("no name where there are two", (two, "model", False, 1, -1)),
                       ("path of a wrong type", (3, "model", False, 1, -1)), ("fine", (mlp, "model", True, 1, -1)),
                       ("fine, two runners", (mlp, "model", False, 2, -1))):
        o, t = same_end("constructor: " + what, lambda: Ours(*args), lambda: Theirs(*args))
        if what in ("single-threaded with two runners", "no runners"):
            check(o[2] == t[2], "constructor: %s: text %r, not %r" % (what, o[2], t[2]))
        if what == "no such model":
            check("first" in o[2] and "second" in o[2] and "third" in o[2], "constructor: the models there are: %r" % o[2])
    for args in ((two, "third"), ("/nowhere.pt2", "model"), (mlp, "model"), (two, "second")):
        same_end("load_metadata_from_package%r" % (args,), lambda: Ours.load_metadata_from_package(*args),
                 lambda: Theirs.load_metadata_from_package(*args))
    ours, theirs = Ours(mlp, "model", False, 1, -1), Theirs(mlp, "model", False, 1, -1)
    x = torch.randn(4, 64)
    for what, f in (("no inputs", lambda m: m.run([])), ("two inputs", lambda m: m.run([x, x])), ("a number", lambda m: m.run([1])),
                    ("None", lambda m: m.run([None])), ("a tensor for a list", lambda m: m.run(x)), ("a tuple", lambda m: m.run((x,))),
                    ("boxed tuple", lambda m: m.boxed_run((x,))), ("boxed, two", lambda m: m.boxed_run([x, x])),
                    ("keywords", lambda m: m.run(inputs=[x], stream_handle=None)), ("a stream", lambda m: m.run([x], 3)),
                    ("a gradient", lambda m: m.run([x.clone().requires_grad_()])),
                    ("a parameter", lambda m: m.run([torch.nn.Parameter(x)])),
                    ("unknown name", lambda m: m.load_constants({"nope": x}, False, False)),
                    ("missing names", lambda m: m.load_constants({"fc1.weight": torch.randn(256, 64)}, False, True)),
                    ("missing names, inactive", lambda m: m.load_constants({"fc1.weight": torch.randn(256, 64)}, True, True)),
                    ("missing internal names", lambda m: m.update_constant_buffer({"fc1_weight": torch.randn(256, 64)}, False, True)),
                    ("user managed and h2d", lambda m: m.load_constants({}, False, False, True, True)),
                    ("h2d", lambda m: m.load_constants({"fc1.bias": torch.randn(256)}, False, False, allow_h2d_copy=True)),
                    ("empty map", lambda m: m.load_constants({}, False, False)),
                    ("empty full map", lambda m: m.load_constants({}, False, True)),
                    ("a list for a map", lambda m: m.load_constants([x], False, False)),
                    ("numbers in the map", lambda m: m.load_constants({"fc1.bias": 3}, False, False)),
                    ("keywords of constants", lambda m: m.load_constants(constants_map={}, use_inactive=False, check_full_update=False)),
                    ("keywords of update", lambda m: m.update_constant_buffer(tensor_map={}, use_inactive=False,
                                                                            validate_full_updates=False, user_managed=False))):
        same_end(what, lambda: f(ours), lambda: f(theirs))
    same_tensors("after all that", ours.run([x]), ours.run([x]), {"rtol": 0, "atol": 0})
    same_end("aoti_load_package of nothing", lambda: torch_compat.aoti_load_package("/nowhere.pt2"),
             lambda: torch._inductor.aoti_load_package("/nowhere.pt2"))
    same_end("aoti_load_package of two", lambda: torch_compat.aoti_load_package(two), lambda: torch._inductor.aoti_load_package(two))
    with open(mlp, "rb") as f:
        data = io.BytesIO(f.read())
    same_tensors("from a buffer", [torch_compat.aoti_load_package(data)(x)], [torch._inductor.aoti_load_package(data)(x)],
                 {"rtol": 1e-4, "atol": 1e-5})
    with tempfile.NamedTemporaryFile(suffix=".pt2") as f:
        f.write(data.getvalue())
        f.flush()
        same_tensors("single-threaded", [torch_compat.aoti_load_package(f.name, run_single_threaded=True)(x)],
                     [torch._inductor.aoti_load_package(f.name, run_single_threaded=True)(x)], {"rtol": 1e-4, "atol": 1e-5})


def compare_strictness():
    m = Ours(os.path.join(FIXTURES, "mlp", "model.pt2"))
    stricter("input of another dtype", lambda: m.run([torch.randn(4, 64, dtype=torch.float64)]))
    stricter("input of another size", lambda: m.run([torch.randn(4, 63)]))
    stricter("input of another rank", lambda: m.run([torch.randn(4, 64, 1)]))
    stricter("constant of another dtype", lambda: m.load_constants({"fc1.bias": torch.randn(256, dtype=torch.float64)}, False, False))
    stricter("constant of another size", lambda: m.load_constants({"fc1.bias": torch.randn(300)}, False, False))
    b = Ours(os.path.join(FIXTURES, "blobmut", "model.pt2"))
    stricter("constant in other strides", lambda: b.load_constants({"weight": torch.randn(24, 32)}, False, False, True))
    b.load_constants({"weight": torch.randn(24, 32)}, False, False)
    e = Ours(os.path.join(FIXTURES, "extconst", "model.pt2"))
    o = outcome(lambda: e.run([torch.randn(4, 64)]))
    check(o[0] == "error" and "fc1.weight" in o[2], "a run without constants: %s" % (o,))
    stricter("unknown internal name", lambda: m.update_constant_buffer({"nope": torch.randn(3)}, False, False))
    # Right here, where PyTorch reads what is not meant.
    x = torch.randn(64, 4)
    same_tensors("input in other strides", m.run([x.t()]), m.run([x.t().contiguous()]), {"rtol": 1e-5, "atol": 1e-6})
    c = torch.complex(torch.randn(4, 64), torch.randn(4, 64)).conj().imag
    same_tensors("input to be negated", m.run([c]), m.run([c.clone()]), {"rtol": 0, "atol": 0})
    big = torch_compat.load_package(os.path.join(FIXTURES, "omp2", "model.pt2"))(torch.rand(300, 1000))[0]
    big.add_(1)  # large results may be written, too


def main():
    register_nested()
    for case in cases():
        if case.name in REFUSED:
            o = outcome(lambda: case.open(Ours))
            check(o[0] == "error" and o[1] is RuntimeError, case.what + ": loaded although " + REFUSED[case.name])
            continue
        try:
            strides = declared_strides(case)
            ours, theirs = case.open(Ours), case.open(Theirs)
            compare_run(case, ours, theirs, strides)
            compare_texts(case, ours, theirs)
            compare_call(case, strides)
            compare_updates(case, strides)
        except Exception as e:
            check(False, "%s: %s: %s" % (case.what, type(e).__name__, e))
    compare_errors()
    compare_strictness()
    print("stricter than PyTorch: " + "; ".join("%s (%s)" % k for k in STRICTER.items()))
    print("compare_loader: %d checks, %d failed" % (checks, failures))
    sys.exit(failures != 0)


def register_nested():
    import collections
    point = collections.namedtuple("Point", "x y")
    torch.utils._pytree._register_namedtuple(point, serialized_type_name="pt2box_test.Point")


if __name__ == "__main__":
    main()
