# SPDX-License-Identifier: Apache-2.0
"""The ops process whose host is Python: started by the spawner as pid 1 of a new namespace, "python -I -S -B host.py OPTIONS".

    take what was handed in -> import trusted modules -> sandbox on -> run the client's file -> find the operators that the
    package calls -> serve

This file and what it imports are trusted; the client's file is not, and runs only after the sandbox is closed. From then on
nothing can be opened, so nothing more can be imported: what a client's file may use is what stands in MODULES, and numpy
and torch where they are installed.
"""
import importlib
import importlib.abc
import importlib.util
import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = """abc array ast atexit base64 bisect cmath codecs collections collections.abc contextlib contextvars copy ctypes
    dataclasses datetime decimal difflib encodings.ascii encodings.latin_1 encodings.utf_8 enum fractions functools gc hashlib
    heapq hmac inspect io itertools json keyword linecache locale logging math numbers operator os os.path pickle platform pprint
    queue random re secrets statistics string struct sys textwrap threading time timeit token tokenize traceback types typing
    unicodedata uuid warnings weakref zlib""".split()
NUMPY = """numpy numpy.fft numpy.lib numpy.lib.stride_tricks numpy.linalg numpy.ma numpy.polynomial numpy.random
    numpy.testing""".split()
TORCH = "torch torch.fft torch.library torch.linalg torch.nn torch.nn.functional torch.special torch.utils.dlpack".split()
MODULE_NAME = "pt2box_operators"


def load(name, file):
    """A module of ours, from beside this file: no path of the machine is searched for it."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def roots(path):
    """Nobody but root may change what lies there. In a folder like /tmp, others cannot replace what is not theirs."""
    while True:
        s = os.stat(path)
        if s.st_uid != 0 or (s.st_mode & 0o022 and not s.st_mode & 0o1000):
            return False
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)


def package_folders():
    """Where the interpreter has its packages. As the module site finds them, which was not run: it executes lines of .pth files."""
    import site
    prefix = os.path.dirname(os.path.dirname(sys.executable))
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as f:
            lines = [line.replace(" ", "").strip().lower() for line in f]
    except OSError:
        return site.getsitepackages(site.PREFIXES)
    own = [os.path.join(prefix, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")]
    return own + (site.getsitepackages(site.PREFIXES) if "include-system-site-packages=true" in lines else [])


def add_packages(as_root):
    """As root only folders that are root's alone."""
    for folder in package_folders():
        if os.path.isdir(folder) and (not as_root or roots(os.path.realpath(folder))):
            sys.path.append(folder)


def ours():
    """pt2box.ops and pt2box._ops, in a package that has nothing else: a client's file imports pt2box.ops."""
    package = sys.modules["pt2box"] = types.ModuleType("pt2box")
    package.__path__ = []
    package._ops = load("pt2box._ops", "_ops.abi3.so")
    package.ops = load("pt2box.ops", "ops.py")
    return package._ops, package.ops


def import_all(names):
    """False: there is no such package. Modules of it that only some versions have may be missing."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            if name == names[0]:
                return False
    return True


class Closed(importlib.abc.MetaPathFinder):
    """The last finder: says why there are no more modules."""

    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch"):
            raise ModuleNotFoundError("%s is not installed for the Python that runs operators, %s" % (name, sys.executable), name=name)
        there = sorted(n for n in sys.modules if "." not in n and not n.startswith("_") and n != MODULE_NAME)
        raise ModuleNotFoundError("there is no module %s here: nothing can be imported any more when an operators' file "
                                  "runs; these are: %s" % (name, ", ".join(there)), name=name)


def close_imports():
    sys.meta_path[:] = [f for f in sys.meta_path if f in (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)]
    sys.meta_path.append(Closed())
    sys.path[:] = []


def by_number(rows, find):
    """A list by PyTorch's numbers; None where find() knows no such name."""
    table = [None] * (max(n for n, _ in rows) + 1)
    for number, name in rows:
        table[number] = find(name)
    return table


def numbers(table):
    return {dtype: i for i, dtype in enumerate(table) if dtype is not None}


def numpy_look(native):
    import numpy as np

    def find(name):
        return np.dtype(name) if name in np.sctypeDict else None

    def array(x):
        a = np.asarray(x)
        item = a.itemsize or 1
        for s in a.strides:
            if s < 0 or s % item:
                return a.copy(order="C")
        return a
    table = by_number(native.dtypes(), find)
    return {"dtypes": table, "numbers": numbers(table), "layouts": ["strided"], "devices": ["cpu"], "make": np.ndarray,
            "memory_formats": ["contiguous_format", "preserve_format", "channels_last", "channels_last_3d"], "array": array}


def torch_look(native):
    import torch

    def array(x):
        if not isinstance(x, torch.Tensor):
            raise TypeError("a result is a %s, not a tensor" % type(x).__name__)
        x = x.detach()
        return x.resolve_conj().resolve_neg() if x.is_conj() or x.is_neg() else x
    table = by_number(native.dtypes(), lambda name: getattr(torch, name, None))
    return {"dtypes": table, "numbers": numbers(table), "layouts": [torch.strided], "devices": [torch.device("cpu")],
            "memory_formats": [torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d],
            "make": torch._C._from_dlpack, "array": array, "export": torch._C._to_dlpack}


def warm_torch():
    """What PyTorch reads of the machine or imports at its first use, it must have by now. One thread; no machine code is made
    later: oneDNN, which does that, is off where there is another implementation."""
    import torch
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch._C._set_mkldnn_enabled(False)

    @torch.library.custom_op("pt2box_host::warm", mutates_args=("y",))
    def warm(x: torch.Tensor, y: torch.Tensor, k: int = 1) -> torch.Tensor:
        y.add_(k)
        return x @ x

    @warm.register_fake
    def _(x, y, k=1):
        return torch.empty_like(x)
    x = torch.rand(8, 8)
    for t in (x, x.double(), x.bfloat16()):
        torch.ops.pt2box_host.warm(t, x)
    torch.nn.functional.conv2d(x[None, None], x[None, None, :3, :3])
    torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])
    torch.linalg.solve(x + torch.eye(8), x)
    torch.fft.rfft(x)
    torch.softmax(x, 0).sort()
    torch.randn(4)
    str(x)


def preload(source, as_root):
    """Which of the two are there. torch takes seconds, so only for a file that names it."""
    add_packages(as_root)
    import_all(MODULES)
    has_torch = b"torch" in source and import_all(TORCH)
    has_numpy = import_all(NUMPY)
    if has_torch:
        warm_torch()
    if has_numpy:
        sys.modules["numpy"].linalg.solve([[2.0, 0], [0, 1]], [1.0, 1])
        sys.modules["numpy"].ones((64, 64)).dot(sys.modules["numpy"].ones((64, 64)))
    return has_numpy, has_torch


def main():
    native, ops = ours()
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    source = native.take()
    # In a user namespace everybody is 0, and nothing seems to be root's; a process has a uid of its own only where root is.
    has_numpy, has_torch = preload(source, options["--uid"] != "0")
    looks = numpy_look(native) if has_numpy else None, torch_look(native) if has_torch else None
    close_imports()
    wanted = native.confine(int(options["--uid"]), int(options["--gid"]), int(options["--memory"]))
    try:
        ops.execute(source, MODULE_NAME)
        found = ops.find(wanted, has_numpy)
    except BaseException as e:  # also SystemExit: it is the file's, not ours
        native.fail(native.MODEL_ERROR, "the operators' file: " + ops.describe(e))
    native.serve(found, *looks, ops.describe, int(options["--result-bytes"]), options["--some"] == "1")


main()
