# SPDX-License-Identifier: Apache-2.0
"""pip install ./python, from the tree: builds the C parts with the tree's Makefile and takes the programs into the package.

The package is self-contained but for Debian's libraries (msgpack-c, jansson, SLEEF, libgomp). One wheel serves every Python from 3.11 on.
PT2BOX_BUILD names another build folder than build/.
"""
import os
import re
import shutil
import subprocess

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.path.abspath(os.environ.get("PT2BOX_BUILD", os.path.join(ROOT, "build")))
PROGRAMS = ["pt2boxd", "pt2box-worker", "pt2box-intake", "pt2box-ops", "libtorch_cpu.so", "python/_ops.abi3.so",
            "python/host.py", "python/ops.py"]
PARTS = ["libpt2box.a"] + ["libexec/" + p for p in PROGRAMS]

with open(os.path.join(ROOT, "Makefile")) as f:
    VERSION = re.search(r"^VERSION := (\S+)$", f.read(), re.M).group(1)


def build_parts():
    """With make, if they are not there."""
    if all(os.path.exists(os.path.join(BUILD, p)) for p in PARTS):
        return
    if "PT2BOX_BUILD" in os.environ:
        raise SystemExit("pt2box: %s lacks some of %s" % (BUILD, ", ".join(PARTS)))
    subprocess.check_call(["make", "-C", ROOT])


class BuildProgramsToo(build_py):
    def run(self):
        super().run()
        build_parts()
        folder = os.path.join(self.build_lib, "pt2box", "libexec")
        os.makedirs(os.path.join(folder, "python"), exist_ok=True)
        for p in PROGRAMS:
            shutil.copy(os.path.join(BUILD, "libexec", p), os.path.join(folder, p))


class BuildPartsFirst(build_ext):
    def run(self):
        build_parts()
        super().run()


setup(
    version=VERSION,
    cmdclass={"build_py": BuildProgramsToo, "build_ext": BuildPartsFirst},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    ext_modules=[Extension(
        "pt2box._core",
        sorted("src/" + name for name in os.listdir(os.path.join(HERE, "src")) if name.endswith(".c")),
        include_dirs=[ROOT],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=["-std=gnu17", "-fvisibility=hidden", "-O2"],
        extra_link_args=["-Wl,--exclude-libs,ALL", "-Wl,-z,relro,-z,now"],
        extra_objects=[os.path.join(BUILD, "libpt2box.a")],
        libraries=["msgpackc", "jansson", "pthread"],
        py_limited_api=True,
    )],
)
