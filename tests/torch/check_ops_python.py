#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Operators of torch.library in the confined Python host: custom_op as it stands, a Library with definitions, one that is written
to, dtypes that numpy lacks (a package compiled here).

usage: check_ops_python.py [BUILD] [-v] [TEST ...]
"""
import os
import sys
import tempfile

BUILD = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else "build")
os.environ["B"] = BUILD
os.environ["PT2BOX_PYTHON"] = sys.executable
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

import torch  # noqa: E402
from harness import Fixture, TestCase, main  # noqa: E402
import numpy as np  # noqa: E402
import pt2box  # noqa: E402

CUSTOM = b"""
import torch

@torch.library.custom_op("pt2box_test::triple", mutates_args=())
def triple(x: torch.Tensor, k: int) -> torch.Tensor:
    if x[0, 0] == 1001:
        raise ValueError("not that one")
    return x * 3 + k

@triple.register_fake
def _(x, k):
    return torch.empty_like(x)
"""
LIBRARY = b"""
import torch
lib = torch.library.Library("pt2box_kinds", "FRAGMENT")
lib.define("big(Tensor x, Tensor[] ys, SymInt n, int ni, float f, bool b, str s, SymInt[] shape, Tensor? opt, "
           "Tensor? optn, ScalarType dt, Device? dev, float[] fl, int? oi, Scalar sc, Scalar fs, MemoryFormat mf, "
           "Layout? lay, Tensor?[] tl, int[] il, bool[] bl, str[] sl, int dflt=9, *, str mode='fast', "
           "bool deep=False) -> (Tensor, Tensor)")
lib.define("mut(Tensor(a!) x, int k) -> ()")
lib.define("split(Tensor x, int k) -> Tensor[]")

def big(x, ys, n, ni, f, b, s, shape, opt, optn, dt, dev, fl, oi, sc, fs, mf, lay, tl, il, bl, sl, dflt=9, *, mode="fast", deep=False):
    assert (dt, dev, mf, lay, mode) == (torch.float64, torch.device("cpu"), torch.channels_last, torch.strided, "fast")
    y = x * f + n + ni + sc + fs + dflt + sum(fl) + sum(il) + sum(shape) + sum(t.sum() for t in ys)
    return y + len(s) + sum(map(len, sl)) + sum(bl) + int(b), (y + opt + tl[0] + tl[2]).to(dt)
lib.impl("big", big, "CPU")
lib.impl("mut", lambda x, k: None if x.add_(k) is x else None, "CPU")
lib.impl("split", lambda x, k: [t.clone() for t in x.split(k)], "CPU")
"""
BFLOAT = b"""
import torch

@torch.library.custom_op("pt2box_bf::both", mutates_args=("y",))
def both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    y.mul_(2)
    return x + y

@both.register_fake
def _(x, y):
    return torch.empty_like(x)
"""


class Torch(TestCase):
    def compare(self, name, ops):
        f = Fixture(name)
        with f.load(ops=ops, load_deadline=300, run_deadline=300) as m:
            for inputs, wanted in f.cases():
                for a, b in zip(m.run(inputs, outputs="numpy"), wanted, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-5)

    def test_custom_op(self):
        self.compare("customop", CUSTOM)

    def test_library(self):
        self.compare("opkinds", LIBRARY)

    def test_fails(self):
        f = Fixture("customop")
        with f.load(ops=CUSTOM, load_deadline=300, run_deadline=300) as m:
            x = np.zeros((3, 4), np.float32)
            x[0, 0] = 1001
            with self.assertRaisesRegex(pt2box.ModelError, r"pt2box_test::triple: ValueError: not that one \(line 7\)"):
                m.run([x])
            x[0, 0] = 1
            self.assertEqual(m.run([x], outputs="numpy")[0][0, 0], 7)

    def test_bfloat16(self):
        exec(BFLOAT, {})
        class M(torch.nn.Module):
            def forward(self, x):
                y = x * 3
                return torch.ops.pt2box_bf.both(x, y), y
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(3)).bfloat16()
        with tempfile.TemporaryDirectory() as d, torch.no_grad():
            path = os.path.join(d, "m.pt2")
            torch._inductor.aoti_compile_and_package(torch.export.export(M(), (x,)), package_path=path)
            with pt2box.load(path, ops=BFLOAT, load_deadline=300, run_deadline=300) as m:
                for a, b in zip(m(x), M()(x)):
                    self.assertEqual(a.dtype, torch.bfloat16)
                    self.assertTrue(torch.equal(a, b))


if __name__ == "__main__":
    main()
