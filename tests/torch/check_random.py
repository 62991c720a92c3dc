#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A run with a seed draws what PyTorch draws after torch.manual_seed(): native and in backend torch, by the Python package and by
`pt2box run --seed`; a run without one draws its own.

usage: check_random.py [BUILD] [-v] [TEST ...]
"""
import os
import subprocess
import sys
import tempfile
import threading

BUILD = os.path.abspath(sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else "build")
os.environ["B"] = BUILD
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

import torch  # noqa: E402
os.environ["PT2BOX_TORCH"] = os.path.dirname(torch.__file__)

from harness import TestCase, main  # noqa: E402
import numpy as np  # noqa: E402
import pt2box  # noqa: E402

SEEDS = [0, 7, 2**32 + 5, 2**64 - 1, -3]


class Draws(torch.nn.Module):
    """What the CPU generator itself is asked for, in one order."""

    def forward(self, x):
        a = torch.rand_like(x)
        b = torch.randn(33)
        c = torch.randint(0, 2**40, (5,))
        d = torch.randperm(9)
        e = torch.bernoulli(torch.full((40,), 0.3))
        f = torch.nn.functional.dropout(x, 0.5, True)
        g = torch.multinomial(torch.arange(1.0, 9.0), 4)
        h = torch.normal(x, 2.0)
        return a, b, c, d, e, f, g, h


class Compiled(torch.nn.Module):
    """Inductor's own generator, whose seed is drawn from PyTorch's: in every run once."""

    def forward(self, x):
        return torch.rand_like(x) + 1, torch.nn.functional.dropout(x, 0.5, True) * 2, torch.randn(7) * 3


class Seeds(TestCase):
    def package(self, model, **config):
        path = os.path.join(folder.name, type(model).__name__ + ".pt2")
        x = torch.arange(64.0)
        if not os.path.exists(path):
            torch._inductor.aoti_compile_and_package(torch.export.export(model, (x,)), package_path=path,
                                                     inductor_configs={**config, "cpp.threads": 1})
        return path, x

    def check(self, path, x, expected, backend, **options):
        with pt2box.load(path, outputs="torch", backend=backend, **options) as m:
            self.assertEqual(m.describe()["backend"], backend)
            for seed in SEEDS:
                want = expected(seed)
                m.run([x])  # draws numbers of its own in between
                for _ in range(2):
                    got = m.run([x], seed=seed)
                    for i, (a, b) in enumerate(zip(got, want, strict=True)):
                        self.assertTrue(torch.equal(a, b) if not a.is_floating_point() else
                                        torch.allclose(a, b, rtol=1e-5, atol=1e-5), (seed, i, a, b))
            self.assertTrue(torch.equal(m.boxed_run([x.clone()], seed=7)[0], m.run([x], seed=7)[0]))

    def eager(self, model, x):
        def expected(seed):
            torch.manual_seed(seed)
            return model(x)
        return expected

    def test_eager(self):
        model = Draws()
        path, x = self.package(model, fallback_random=True)
        for backend in ("native", "torch"):
            self.check(path, x, self.eager(model, x), backend)
        self.check(path, x, self.eager(model, x), "native", runners=3, profile="strict")

    def test_compiled(self):
        """Against PyTorch's own loader: eager draws otherwise."""
        path, x = self.package(Compiled())
        loaded = torch._inductor.aoti_load_package(path)
        for backend in ("native", "torch"):
            self.check(path, x, self.eager(loaded, x), backend)

    def test_without_a_seed(self):
        path, x = self.package(Draws(), fallback_random=True)
        seen = set()
        with pt2box.load(path, outputs="torch", backend="native", runners=2) as m:
            threads = [threading.Thread(target=lambda: seen.update(m.run([x])[0].numpy().tobytes() for _ in range(20)))
                       for _ in range(2)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        self.assertEqual(len(seen), 40)

    def test_command(self):
        model = Draws()
        path, x = self.package(model, fallback_random=True)
        given, out = os.path.join(folder.name, "x.npy"), os.path.join(folder.name, "out.npz")
        np.save(given, x.numpy())
        for repeat in (1, 3):
            subprocess.run([BUILD + "/pt2box", "run", path, "-i", given, "-o", out, "--seed", "11", "--repeat", str(repeat)],
                           check=True)
            torch.manual_seed(11 + repeat - 1)
            got = np.load(out)
            for i, want in enumerate(model(x)):
                np.testing.assert_allclose(got[f"out{i}"], want.numpy(), rtol=1e-5, atol=1e-5)
        bad = subprocess.run([BUILD + "/pt2box", "run", path, "--seed", "-1"], capture_output=True, text=True)
        self.assertNotEqual(bad.returncode, 0)
        self.assertIn("--seed -1", bad.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as d:
        class folder:
            name = d
        main()
