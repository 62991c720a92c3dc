#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Operators of one's own in a library made for PyTorch (operators.cc, TORCH_LIBRARY), run in the ops process: values on both
backends, every kind of argument and result, operators that crash, hang or try to get out.

usage: check_operators.py [BUILD] [-v] [TEST ...]
"""
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BUILD = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else "build")
os.environ["B"] = BUILD
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "python"))

import torch  # noqa: E402
TORCH = os.path.dirname(torch.__file__)
os.environ["PT2BOX_TORCH"] = TORCH

from harness import Fixture, TestCase, main  # noqa: E402
import numpy as np  # noqa: E402
import pt2box  # noqa: E402
from torch.utils import cpp_extension  # noqa: E402

BACKENDS = ("native", "torch")


def build(name, *flags):
    """As PyTorch's own builder links it: with libraries that it does not need, and a folder to search."""
    path = os.path.join(folder.name, name)
    subprocess.run(["g++", "-std=c++20", "-O1", "-fPIC", "-shared", *flags, "-o", path, os.path.join(HERE, "operators.cc"),
                    *("-I" + p for p in cpp_extension.include_paths()), "-L" + os.path.join(TORCH, "lib"),
                    "-Wl,-rpath," + os.path.join(TORCH, "lib"), "-Wl,-soname," + name, "-Wl,--no-as-needed", "-ltorch_python",
                    "-ltorch", "-ltorch_cpu", "-lc10"], check=True)
    return path


def again(m, x):
    """The next ops process loads PyTorch, which a loaded machine takes seconds for: calls that end before may be repeated."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return m.run([x])[0]
        except pt2box.Error as e:
            if e.status != "OP_TIMEOUT" or time.monotonic() > deadline:
                raise


class Kinds(torch.nn.Module):
    def forward(self, x, w, image, kernel):
        op = torch.ops.pt2box_cxx
        a, b = op.kinds(x, [w, w + 1], w, 3, 0.5, True, "fast", [x.shape[0], 2], [0.25, 1.5], torch.float64, [x, None, w])
        c, d = op.kinds(x.t(), [], None, -3, 2.0, False, "", [], [], None, [])
        e = x * 2
        op.add_to(e, 5)
        return a, b, c, d, e, *op.rows(x + 1, 2), op.heavy(image, kernel)


def compile_kinds():
    g = torch.Generator().manual_seed(1)
    args = [torch.randn(*s, generator=g) for s in ((4, 3), (4, 3), (1, 3, 12, 12), (8, 3, 3, 3))]
    path = os.path.join(folder.name, "kinds.pt2")
    with torch.no_grad():
        want = Kinds()(*args)
        torch._inductor.aoti_compile_and_package(torch.export.export(Kinds(), tuple(args)), package_path=path,
                                                 inductor_configs={"cpp.threads": 1})
    return path, args, want


def register():
    torch.ops.load_library(library)
    fake = torch.library.register_fake
    fake("pt2box_cxx::kinds", lambda x, ys, opt, i, f, b, mode, shape, fl, dtype, tl:
         (x.new_empty(x.shape).t(), x.new_empty(x.shape[1:], dtype=dtype or torch.float32)))
    fake("pt2box_cxx::rows", lambda x, k: [torch.empty_like(t) for t in x.split(k)])
    fake("pt2box_cxx::add_to", lambda x, k: None)
    fake("pt2box_cxx::heavy", lambda x, w: torch.nn.functional.conv2d(x, w))


class Operators(TestCase):
    def test_fixture(self):
        """Bit for bit what PyTorch computed, on both backends, and by auto, which need not be torch for it."""
        f = Fixture("customop")
        for backend in (*BACKENDS, "auto"):
            with f.load(backend=backend, ops=library, runners=2) as m:
                self.assertEqual(m.describe()["backend"], "native" if backend == "auto" else backend)
                for inputs, want in f.cases():
                    for _ in range(20):
                        got = m.run(inputs)
                        self.assertTrue(np.array_equal(got[0], want[0]), backend)

    def test_kinds(self):
        path, args, want = kinds
        for backend in BACKENDS:
            with pt2box.load(path, ops=library, backend=backend, outputs="torch") as m:
                for _ in range(3):
                    got = m.run(args)
                    self.assertEqual(len(got), len(want))
                    for i, (g, w) in enumerate(zip(got[:-1], want[:-1])):
                        self.assertEqual(g.dtype, w.dtype)
                        self.assertTrue(torch.equal(g, w), "%s, result %d: %s, %s" % (backend, i, g, w))
                    torch.testing.assert_close(got[-1], want[-1])  # another convolution than eager's: no JIT

    def test_misbehaviour(self):
        rows = ((1001, "OP_CRASHED", "SIGSEGV"), (1002, "OP_TIMEOUT", "deadline"), (1003, "OP_CRASHED", "forbidden system call"),
                (1004, "MODEL_ERROR", "does not like 1004"), (1005, "OP_CRASHED", "SIGSEGV"), (1006, "OP_CRASHED", "system call"))
        for backend in BACKENDS:
            with pt2box.Connection() as c, c.load(Fixture("customop").path, ops=library, backend=backend, run_deadline=4.0) as m:
                x = np.ones((3, 4), np.float32)
                m.run([x])
                workers = [w["pid"] for p in c.ps()["models"] for w in p["workers"]]
                for value, status, says in rows:
                    x[0, 0] = value
                    with self.assertRaises(pt2box.Error) as e:
                        m.run([x])
                    self.assertEqual(e.exception.status, status, (backend, value, str(e.exception)))
                    self.assertIn(says, str(e.exception))
                    self.assertIn("pt2box_test::triple", str(e.exception))
                    x[0, 0] = 1
                    self.assertTrue(np.array_equal(again(m, x), x * 3 + 4))
                self.assertEqual(workers, [w["pid"] for p in c.ps()["models"] for w in p["workers"]])

    def test_threads(self):
        """Many clients of several workers, one ops process."""
        bad = []
        with Fixture("customop").load(ops=library, runners=3) as m:
            def client(n):
                x = np.full((3, 4), n, np.float32)
                for _ in range(100):
                    if not np.array_equal(m.run([x])[0], x * 3 + 4):
                        bad.append(n)
            clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
            for t in clients:
                t.start()
            for t in clients:
                t.join()
        self.assertEqual(bad, [])

    def test_refused(self):
        with self.assertRaises(pt2box.Error) as e:
            Fixture("opkinds").load(ops=library, backend="native")
        self.assertEqual(e.exception.status, "NOT_FOUND")
        self.assertIn("does not have the operator pt2box_kinds::", str(e.exception))
        # Its constructors run after the filter.
        with self.assertRaises(pt2box.Error) as e:
            Fixture("customop").load(ops=early, backend="native")
        self.assertEqual(e.exception.status, "OP_CRASHED")
        self.assertIn("forbidden system call", str(e.exception))

    def test_plugin_beside_torch(self):
        """A plugin in C runs what PyTorch's library lacks, Scalars too."""
        for name in ("customop", "opkinds"):
            f = Fixture(name)
            with f.load(backend="torch", ops=os.path.join(BUILD, "tests", "plugins", "example.so")) as m:
                for inputs, want in f.cases():
                    for _ in range(3):
                        self.assert_close(m.run(inputs), want, f.meta, name)
                with self.assertRaises(pt2box.Error):
                    m.run(inputs[:-1])
                self.assert_close(m.run(inputs), want, f.meta, name)

    def test_not_there(self):
        """Backend torch and an ops process, and neither has the operator: the run says so."""
        with Fixture("opkinds").load(backend="torch", ops=library) as m:
            for inputs, _ in Fixture("opkinds").cases():
                with self.assertRaises(pt2box.Error) as e:
                    m.run(inputs)
                self.assertEqual(e.exception.status, "OP_DENIED")
                self.assertIn("pt2box_kinds::", str(e.exception))

    def test_without_torch(self):
        os.environ["PT2BOX_TORCH"] = "none"
        try:
            with pt2box.Connection() as c, self.assertRaises(pt2box.Error) as e:
                c.load(Fixture("customop").path, ops=library)
        finally:
            os.environ["PT2BOX_TORCH"] = TORCH
        self.assertEqual(e.exception.status, "UNSUPPORTED")
        self.assertIn("PyTorch", str(e.exception))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as d:
        class folder:
            name = d
        library, early = build("operators.so"), build("early.so", "-DEARLY")
        register()
        kinds = compile_kinds()
        main()
