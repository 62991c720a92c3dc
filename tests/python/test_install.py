#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""pip install ./python gives a package that needs nothing of the tree."""
import os
import subprocess
import sys
import tempfile

from harness import BUILD, FIXTURES, TestCase, main


class Install(TestCase):
    def test_pip(self):
        with tempfile.TemporaryDirectory() as d:
            env = dict(os.environ, PT2BOX_BUILD=BUILD, PIP_DISABLE_PIP_VERSION_CHECK="1")
            env.pop("PYTHONPATH", None)
            p = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps",
                                "--root-user-action", "ignore", "--target", d, "./python"], env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(p.returncode, 0, p.stdout)
            code = ("import sys, pt2box; m = pt2box.load(sys.argv[1]); print(pt2box.__file__, pt2box.__version__,"
                    "m.run([m.empty((4, 64))], outputs='tensor')[0].shape)")
            env["PYTHONPATH"] = d
            env.pop("PT2BOX_LIBEXEC", None)
            out = subprocess.run([sys.executable, "-c", code, os.path.join(FIXTURES, "mlp", "model.pt2")], cwd="/", env=env,
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
            self.assertRegex(out, r"^%s/pt2box/__init__.py \d+\.\d+\.\d+ \(4, 10\)$" % d)
            self.assertTrue(os.path.exists(os.path.join(d, "pt2box", "py.typed")))


if __name__ == "__main__":
    main()
