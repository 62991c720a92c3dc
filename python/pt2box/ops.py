# SPDX-License-Identifier: Apache-2.0
"""Operators of your own for packages that call them, in Python.

    import pt2box.ops

    @pt2box.ops.op("mylib::scale", "(Tensor x, float k=2.0) -> Tensor")
    def scale(x, k):                # numpy arrays in, numpy arrays out
        return x * k

A file with such functions, or with torch.library.custom_op as it stands, is what pt2box.load(ops=...) and the command's --ops take:

    python -m pt2box.ops my_ops.py      checks the file and lists its operators
    pt2box run model.pt2 --ops my_ops.py --input in.npz

With a model it runs in a process of its own, confined as a model is: no files, no network, no threads, no new processes, and
nothing can be imported but what is there (the usual modules of the standard library, numpy, torch if the file names it and it
is installed). Here the decorator only records; the module needs neither numpy nor torch nor a broker.

Tensors that are arguments lie in memory that is shared with the model: an array over it may be read during the call, and
written only where the schema says so, "Tensor(a!) x". Results are copied, with the strides that they have.
"""
from __future__ import annotations

import sys

__all__ = ["op"]

SOURCE_NAME = "<operators>"
_registered: dict[str, tuple[str, object]] = {}


def op(name: str, schema: str):
    """Decorator: the function computes the operator name, "namespace::name" or "namespace::name.overload".

    schema: arguments and returns in PyTorch's syntax, "(Tensor x, int k=2, *, float? eps=None) -> (Tensor, Tensor)". The function
    is given every argument, defaults filled in, those behind "*" by name: numpy arrays, lists of them, int, float, bool, str,
    lists, None; a dtype is numpy's. It returns an array, a tuple of as many as the schema returns, or a list for "Tensor[]".
    """
    def register(function):
        if not isinstance(name, str) or "::" not in name:
            raise ValueError("%r is not the name of an operator, as \"namespace::name\"" % (name,))
        if name in _registered:
            raise ValueError("%s: is registered twice" % name)
        _check(name, schema, function)
        _registered[name] = schema, function
        return function
    return register


def _native():
    """The module that reads schemas as the ops process does; None where the programs are not beside this package."""
    if "pt2box._ops" not in sys.modules:
        import importlib.util
        import os
        file = os.path.join(os.path.dirname(__file__), "libexec", "python", "_ops.abi3.so")
        if not os.path.exists(file):
            return None
        spec = importlib.util.spec_from_file_location("pt2box._ops", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["pt2box._ops"] = module
    return sys.modules["pt2box._ops"]


def _check(name, schema, function):
    """The schema can be read, and the function takes what it says."""
    import inspect
    native = _native()
    if native is None:
        return
    try:
        arguments = native.parse(schema)
    except ValueError as e:
        raise ValueError("%s: %s" % (name, e)) from None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a function in C nothing is known
    try:
        signature.bind(*(n for n, keyword, _ in arguments if not keyword), **{n: n for n, keyword, _ in arguments if keyword})
    except TypeError as e:
        raise TypeError("%s: the function does not take the arguments of %s: %s" % (name, schema, e)) from None


# ---- what the ops process and the check by hand do ----

def execute(source: bytes, module_name: str, file: str = SOURCE_NAME):
    """Run a file of operators as the module module_name."""
    import linecache
    import types
    module = types.ModuleType(module_name)
    module.__file__ = file
    sys.modules[module_name] = module
    code = compile(source, file, "exec", dont_inherit=True)
    # Without a file to read, for whoever asks for lines of it: tracebacks, torch.library, inspect.getsource().
    text = source.decode("utf-8", "replace")
    linecache.cache[file] = len(source), None, text.splitlines(True), file
    exec(code, module.__dict__)


def find(wanted, has_numpy: bool):
    """[(name, schema, function, "numpy" or "torch")] of those operators of wanted that are there."""
    found = {}
    for name in wanted:
        if name in found:
            continue
        if name in _registered:
            if not has_numpy:
                raise ImportError("%s: numpy is not installed for this machine's Python" % name)
            found[name] = (name, *_registered[name], "numpy")
        elif "torch" in sys.modules:
            there = torch_operator(name)
            if there:
                found[name] = (name, *there, "torch")
    return list(found.values())


def torch_operator(name: str):
    """(schema, function) of an operator that PyTorch's dispatcher has; None: it has no such operator."""
    import torch
    base, _, overload = name.partition(".")
    namespace, _, short = base.partition("::")
    try:
        operator = getattr(getattr(getattr(torch.ops, namespace), short), overload or "default")
    except (AttributeError, RuntimeError):
        return None
    schema = str(operator._schema)
    return schema[schema.index("("):], _kernel(base, overload) or operator


def _kernel(base, overload):
    """The function that the dispatcher would call on the CPU in the end. Through it the call takes five times as long."""
    try:
        from torch._library.custom_ops import OPDEFS
        definition = None if overload else OPDEFS.get(base)
        kernels = definition._backend_fns if definition else {}
        return kernels.get("cpu") or kernels.get(None)
    except (ImportError, AttributeError):  # another version of PyTorch
        return None


def describe(e: BaseException, file: str = SOURCE_NAME) -> str:
    """One sentence: what was raised, and in which line of the file."""
    line = e.lineno if isinstance(e, SyntaxError) and e.filename == file else None
    t = e.__traceback__
    while t is not None:
        if t.tb_frame.f_code.co_filename == file:
            line = t.tb_lineno
        t = t.tb_next
    text = e.msg if isinstance(e, SyntaxError) else str(e)
    return "%s%s%s%s" % (type(e).__name__, ": " if text else "", text, " (line %d)" % line if line else "")


def _list(source, file):
    """Lines about every operator that the file registers."""
    before = set()
    if b"torch" in source:
        try:
            import torch
            before = set(torch._C._dispatch_get_all_op_names())
        except ImportError:
            pass  # the file will say so
    execute(source, "pt2box_operators", file)
    lines = ["%s%s    numpy" % (name, schema) for name, (schema, _) in _registered.items()]
    native = _native()
    if before:
        for name in sorted(set(torch._C._dispatch_get_all_op_names()) - before):
            there = torch_operator(name)
            if there and native:
                native.parse(there[0])
            if there:
                lines.append("%s%s    torch" % (name, there[0]))
    return lines


def main(arguments) -> int:
    """Check a file; not confined, it is the user's own."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pt2box.ops FILE.py\n\nRuns the file, here and now, and lists the operators that it registers.",
              file=sys.stderr)
        return 2
    file = arguments[0]
    try:
        with open(file, "rb") as f:
            source = f.read()
    except OSError as e:
        print("pt2box.ops: %s: %s" % (file, e.strerror), file=sys.stderr)
        return 2
    try:
        lines = _list(source, file)
    except (Exception, SystemExit) as e:
        print("pt2box.ops: %s: %s" % (file, describe(e, file)), file=sys.stderr)
        return 2
    if not lines:
        print("pt2box.ops: %s: registers no operator, neither with pt2box.ops.op nor with torch.library" % file, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    from pt2box import ops  # not this copy of it, which the file would not find
    sys.exit(ops.main(sys.argv[1:]))
