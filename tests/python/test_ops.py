#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""pt2box.ops: what the check by hand says of a file, and load(ops=) with one."""
import os
import subprocess
import sys
import tempfile

import numpy as np
from harness import BUILD, Fixture, TestCase, main

import pt2box
import pt2box.ops

MY_OPS = os.path.abspath("tests/plugins/my_ops.py")
os.environ.setdefault("PT2BOX_PYTHON", sys.executable)


def check(*arguments):
    env = dict(os.environ, PYTHONPATH=os.path.join(BUILD, "python"))
    return subprocess.run([sys.executable, "-m", "pt2box.ops", *arguments], env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


def check_text(text):
    with tempfile.TemporaryDirectory() as d:
        with open(os.path.join(d, "ops.py"), "w") as f:
            f.write(text)
        p = check(f.name)
    return p.returncode, p.stderr


class ByHand(TestCase):
    def test_lists(self):
        p = check(MY_OPS)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertIn("pt2box_test::triple(Tensor x, int k) -> Tensor    numpy\n", p.stdout)
        self.assertIn("pt2box_kinds::mut(Tensor(a!) x, int k) -> ()    numpy\n", p.stdout)

    def test_says_why_not(self):
        register = "import pt2box.ops\n@pt2box.ops.op(%s)\ndef f(x): return x\n"
        for text, says in (("x = 1\n", "registers no operator"), ("\nif:\n", "SyntaxError: invalid syntax (line 2)"),
                           ("\n\nraise OSError('no')\n", "OSError: no (line 3)"), ("import nowhere\n", "No module named 'nowhere' (line 1)"),
                           (register % "'a::b', '(Thing x) -> Tensor'", "a::b: "),
                           (register % "'a::b', '(Tensor x, int k) -> Tensor'", "too many positional arguments (line 2)"),
                           (register % "'a::b', '(Tensor y, *, int x) -> Tensor'", "does not take the arguments"),
                           (register % "'b', '(Tensor x) -> Tensor'", "is not the name of an operator"),
                           ((register % "'a::b', '(Tensor x) -> Tensor'") * 2, "registered twice")):
            code, said = check_text(text)
            self.assertEqual(code, 2, said)
            self.assertIn(says, said)
        for arguments in ((), ("--help",), ("/nonexistent",)):
            self.assertEqual(check(*arguments).returncode, 2)

    def test_the_decorator_only_records(self):
        @pt2box.ops.op("test_ops::twice", "(Tensor x, *, float k=2.0) -> Tensor")
        def twice(x, *, k=2.0):
            return x * k
        self.assertEqual(twice(3), 6)


class Confined(TestCase):
    def test_load(self):
        for name in ("customop", "opkinds"):
            f = Fixture(name)
            with open(MY_OPS, "rb") as source:
                for ops in (MY_OPS, source.read()):
                    with f.load(ops=ops) as m:
                        for inputs, wanted in f.cases():
                            got = m.run(inputs, outputs="numpy")
                            for a, b in zip(got, wanted, strict=True):
                                np.testing.assert_allclose(a, b, rtol=1e-5)

    def test_raises(self):
        f = Fixture("customop")
        with f.load(ops=MY_OPS) as m:
            x = np.zeros((3, 4), np.float32)
            x[0, 0] = 1001
            with self.assertRaisesRegex(pt2box.ModelError, r"pt2box_test::triple: ValueError: does not like 1001 \(line \d+\)"):
                m.run([x])
        with self.assertRaisesRegex(pt2box.Error, r"ZeroDivisionError: division by zero \(line 2\)"):
            f.load(ops=b"x = 0\n1 / x\n")


if __name__ == "__main__":
    main()
