#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backend torch: every fixture against the committed results, packages that only PyTorch's library runs (compiled here), and
what a worker must survive or cost.

usage: check_backend.py [BUILD] [-v] [TEST ...]
"""
import os
import signal
import sys
import tempfile
import threading
import time
import unittest

BUILD = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else "build")
os.environ["B"] = BUILD
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

import torch  # noqa: E402
os.environ["PT2BOX_TORCH"] = os.path.dirname(torch.__file__)

from harness import FIXTURES, Fixture, TestCase, main  # noqa: E402
import numpy as np  # noqa: E402
import pt2box  # noqa: E402

# Operators of a library that nobody has loaded; packages whose operators have no implementation but oneDNN's.
NEEDS_NODES = {"customop", "opkinds"}
NEEDS_JIT = {"lstm", "frozen", "frozenbf", "quantised"}


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7)).to(dtype)


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(64, 128)
        self.b = torch.nn.Linear(128, 32)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Conv(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.n = torch.nn.BatchNorm2d(16)
        self.b = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.l = torch.nn.Linear(16, 10)

    def forward(self, x):
        y = torch.relu(self.n(self.a(x)))
        return self.l(torch.relu(self.b(y) + y).mean((2, 3)))


class Flex(torch.nn.Module):
    def forward(self, q, k, v):
        from torch.nn.attention.flex_attention import flex_attention

        def tilt(score, batch, head, i, j):
            return score + (i - j) * 0.01
        return flex_attention(q, k, v, score_mod=tilt)


class Int8(torch.nn.Module):
    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.register_buffer("w", torch.randint(-128, 127, (64, 128), dtype=torch.int8, generator=g))
        self.register_buffer("s", torch.rand(64, generator=g).to(torch.bfloat16))

    def forward(self, x):
        return torch.ops.aten._weight_int8pack_mm(x, self.w, self.s)


class Draws(torch.nn.Module):
    def forward(self, x):
        return torch.rand_like(x), torch.nn.functional.dropout(x, 0.5, True)


class Named(torch.nn.Module):
    """Operators that have no C function: strings, lists of numbers and of tensors, optional arguments there and not."""

    def forward(self, x, targets):
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        edges = torch.ops.aten._histogramdd_bin_edges(x[:, :2].contiguous(), [3, 4], range=[-2.0, 2.0, -3.0, 3.0])
        values, inverse, counts = torch.ops.aten.unique_consecutive(targets, return_inverse=True, return_counts=True)
        return s, (u * s) @ vh, edges[0] + 1, edges[1] * 2, values, counts


class Fails(torch.nn.Module):
    def forward(self, x):
        return torch.ops.aten._histogramdd_bin_edges(x, [3, 4])[0] + 1


# name: (model, inputs, configuration, imports that show that it is what it should be)
PACKAGES = {
    "autotune": (Mlp, lambda: (drawn(32, 64),), {"max_autotune": True, "max_autotune_gemm_backends": "CPP", "freezing": True}, ""),
    "freezing": (Conv, lambda: (drawn(2, 3, 32, 32),), {"freezing": True}, "mkldnn__convolution_pointwise"),
    "flex": (Flex, lambda: tuple(drawn(1, 2, 128, 64) + i for i in range(3)), {}, "brgemm"),
    "int8": (Int8, lambda: (drawn(4, 128, dtype=torch.bfloat16),), {}, "_weight_int8pack_mm"),
    "named": (Named, lambda: (drawn(6, 4), torch.tensor([[1, 2, 2, 0], [3, 3, 4, 5]])), {},
              "proxy_executor_call_function"),
    "fails": (Fails, lambda: (drawn(6, 2),), {}, "proxy_executor_call_function"),
    "draws": (Draws, lambda: (drawn(64),), {"fallback_random": True}, "native_dropout"),
}
compiled = {}


def compile_package(name):
    """(path, inputs, expected); compiled once."""
    if name not in compiled:
        make, inputs, config, _ = PACKAGES[name]
        torch.manual_seed(5)
        model, args = make().eval(), inputs()
        path = os.path.join(folder.name, name + ".pt2")
        with torch.no_grad():
            want = model(*args)
            torch._inductor.aoti_compile_and_package(torch.export.export(model, args), package_path=path,
                                                     inductor_configs={**config, "cpp.threads": 1})
        compiled[name] = path, list(args), want
    return compiled[name]


def load(name, **options):
    path, args, want = compile_package(name)
    return pt2box.load(path, outputs="torch", explain=True, **options), args, want


class Fixtures(TestCase):
    def one(self, name, model, **options):
        f = Fixture(name, model)
        with f.load(backend="torch", explain=True, **options) as m:
            self.assertEqual(m.describe()["backend"], "torch")
            for inputs, want in f.cases():
                self.assert_close(m.run(inputs), want, f.meta, name)


    def no_jit(self, name, model):
        with self.assertRaises(pt2box.Error) as e:
            self.one(name, model, profile="strict")
        self.assertEqual(e.exception.status, "MODEL_ERROR")
        self.assertIn("profile strict", str(e.exception))


for _name in sorted(os.listdir(FIXTURES)):
    if not os.path.exists(os.path.join(FIXTURES, _name, "meta.json")) or _name in NEEDS_NODES:
        continue
    for _model in Fixture(_name).meta.get("models", [None]):
        _test = "test_" + "_".join(filter(None, (_name, _model)))
        setattr(Fixtures, _test, lambda self, a=_name, b=_model: self.one(a, b))
        setattr(Fixtures, _test + "_2_threads", lambda self, a=_name, b=_model: self.one(a, b, threads=2))
        setattr(Fixtures, _test + "_strict", (lambda self, a=_name, b=_model: self.no_jit(a, b)) if _name in NEEDS_JIT else
                (lambda self, a=_name, b=_model: self.one(a, b, profile="strict")))


class Compiled(TestCase):
    def close(self, name, **options):
        m, args, want = load(name, **options)
        with m:
            self.assertIn(PACKAGES[name][3], str(m.describe()["imports"]))
            for _ in range(3):
                got = m.run(args)
                torch.testing.assert_close(got if isinstance(want, tuple) else got[0], list(want) if isinstance(want, tuple) else want)
            return m.describe()["backend"]

    def test_flex(self):
        self.assertEqual(self.close("flex"), "torch")  # by auto
        self.close("flex", threads=2)
        self.close("flex", profile="strict")

    def test_autotune(self):
        self.assertEqual(self.close("autotune", backend="torch"), "torch")

    def test_named(self):
        self.assertEqual(self.close("named", backend="torch", runners=2), "torch")
        self.close("named", backend="torch", profile="strict")

    def test_named_that_fails(self):
        """The operator throws, through our frames: an error that says why, and the worker serves on."""
        m, args, want = load("fails", backend="torch")
        with m:
            for _ in range(3):
                with self.assertRaises(pt2box.Error) as e:
                    m.run([torch.full((6, 2), float("nan"))])
                self.assertEqual(e.exception.status, "MODEL_ERROR")
                self.assertIn("_histogramdd_bin_edges", str(e.exception))
                self.assertIn("not finite", str(e.exception))
                torch.testing.assert_close(m.run(args)[0], want)

    def test_named_unknown(self):
        for name in ("customop", "opkinds"):
            with self.assertRaises(pt2box.Error) as e:
                Fixture(name).load(backend="torch")
            self.assertEqual(e.exception.status, "UNSUPPORTED")
            self.assertIn("does not have the operator", str(e.exception))

    def test_int8(self):
        self.close("int8", backend="torch")
        self.close("int8", backend="torch", profile="strict")

    def test_freezing(self):
        self.assertEqual(self.close("freezing", backend="torch", runners=2), "torch")

    def test_freezing_strict(self):
        """oneDNN's convolution is compiled at run time, which profile strict does not allow: an error, no death."""
        m, args, _ = load("freezing", backend="torch", profile="strict")
        with m:
            for _ in range(2):
                with self.assertRaises(pt2box.Error) as e:
                    m.run(args)
                self.assertEqual(e.exception.status, "MODEL_ERROR")
                self.assertIn("strict", str(e.exception))
                self.assertNotIn("\n", str(e.exception))

    def test_forks_draw_different_numbers(self):
        m, args, _ = load("draws", backend="torch", runners=3)
        seen = set()
        with m:
            workers = [threading.Thread(target=lambda: seen.update(m.run(args)[0].numpy().tobytes() for _ in range(20)))
                       for _ in range(3)]
            for w in workers:
                w.start()
            for w in workers:
                w.join()
        self.assertEqual(len(seen), 60)


def private_bytes(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(l.split()[1]) * 1024 for l in f if l.startswith("Private_"))


class Life(TestCase):
    def workers(self):
        return [w for m in self.connection.ps()["models"] for w in m["workers"] if w.get("pid")]

    def setUp(self):
        super().setUp()
        self.connection = pt2box.Connection()
        self.fixture = Fixture("mlp")
        self.inputs, self.want = next(iter(self.fixture.cases()))

    def tearDown(self):
        self.connection.close()
        super().tearDown()

    def test_death_of_a_worker(self):
        with self.connection.load(self.fixture.path, backend="torch") as m:
            for _ in range(3):
                self.assert_close(m.run(self.inputs), self.want, self.fixture.meta, "before")
                os.kill(self.workers()[0]["pid"], signal.SIGKILL)
                deadline = time.monotonic() + 10
                while True:
                    try:
                        self.assert_close(m.run(self.inputs), self.want, self.fixture.meta, "after")
                        break
                    except pt2box.Error:
                        self.assertLess(time.monotonic(), deadline)

    def test_deadline(self):
        m, args, want = load("flex", run_deadline=0.000001)
        with m:
            try:
                m.run(args)  # may be done before the broker looks
            except pt2box.Error as e:
                self.assertIn("TIMEOUT", e.status)

    def test_cost(self):
        """A further worker is a fork: it shares what the template has loaded."""
        begun = time.monotonic()
        with self.connection.load(self.fixture.path, backend="torch", runners=8) as m:
            start = time.monotonic() - begun
            for _ in range(200):
                m.run(self.inputs)
            private = [private_bytes(w["pid"]) for w in self.workers()]
            self.assertEqual(len(self.workers()), 8)
        print("    start with 8 workers: %.0f ms; a worker's private memory: %s KiB" %
              (start * 1000, sorted(p // 1024 for p in private)))
        self.assertLess(start, 5)
        self.assertLess(max(private), 16 << 20)

    def test_doctor(self):
        t = self.connection.doctor()["torch"]
        self.assertEqual(t["version"], torch.__version__)
        self.assertTrue(t["path"].endswith("/torch/lib/libtorch_cpu.so"))

    def test_none(self):
        """Where there is no PyTorch: one line."""
        os.environ["PT2BOX_TORCH"] = "none"
        try:
            with pt2box.Connection() as c, self.assertRaises(pt2box.Error) as e:
                c.load(self.fixture.path, backend="torch")
        finally:
            os.environ["PT2BOX_TORCH"] = os.path.dirname(torch.__file__)
        self.assertEqual(e.exception.status, "UNSUPPORTED")
        self.assertIn("PT2BOX_TORCH", str(e.exception))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as d:
        class folder:
            name = d
        main()
