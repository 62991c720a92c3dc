# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share: where things are, fixtures, a main() that prints counts as cmocka does."""
import collections
import gc
import io
import json
import os
import sys
import unittest
import zipfile

BUILD = os.path.abspath(os.environ.get("B", "build"))
sys.path.insert(0, os.path.join(BUILD, "python"))
FIXTURES = os.path.abspath("tests/fixtures")

import numpy as np  # noqa: E402
import pt2box  # noqa: E402

Point = collections.namedtuple("Point", "x y")
pt2box.register_namedtuple(Point, serialized_type_name="pt2box_test.Point")


class Fixture:
    """A package with its inputs and what eager PyTorch computes from them."""

    def __init__(self, name, model=None):
        self.name, self.model = name, model or "model"
        self.folder = os.path.join(FIXTURES, name)
        self.path = os.path.join(self.folder, "model.pt2")
        with open(os.path.join(self.folder, "meta.json")) as f:
            self.meta = json.load(f)
        self.about = self.meta["models"][model] if model else self.meta
        self.constants = self.file(self.meta["constants"]) if "constants" in self.meta else None

    def file(self, name):
        return os.path.join(self.folder, name)

    def load(self, **options):
        return pt2box.load(self.path, model=self.model, constants=self.constants, **options)

    def cases(self):
        """(inputs, expected) of each case; a tensor of a type that numpy lacks is a pt2box.Tensor, an absent one None."""
        if "in" in self.about:
            names = [(self.about["in"], self.about["out"])]
        else:
            names = [("in%s.npz" % c, "out%s.npz" % c) for c in self.about["cases"]]
        for i, o in names:
            yield self.arrays(i, "in", self.about["dtypes_in"]), self.arrays(o, "out", self.about["dtypes_out"])

    def arrays(self, name, prefix, dtypes):
        with np.load(self.file(name)) as z:
            return [None if d is None else typed(z["%s%d" % (prefix, i)], d) for i, d in enumerate(dtypes)]


def typed(array, dtype):
    return array if str(array.dtype) == dtype else pt2box.Tensor(array, dtype)


def value(tensor):
    """float64, complex or integer values of any output."""
    if isinstance(tensor, pt2box.Tensor):
        raw = np.asarray(tensor)
        if tensor.dtype == "bfloat16":
            return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        tensor = raw
    return np.asarray(tensor)


def flat(tree):
    """Leaves of an output, None among them."""
    if isinstance(tree, dict):
        return [x for v in tree.values() for x in flat(v)]
    if isinstance(tree, (list, tuple, collections.deque)):
        return [x for v in tree for x in flat(v)]
    return [tree]


def nest(tree, leaves):
    """Arguments from the decoded call spec of inspect()."""
    if isinstance(tree, int):
        return leaves[tree]
    if "tuple" in tree:
        return tuple(nest(t, leaves) for t in tree["tuple"])
    if "list" in tree:
        return [nest(t, leaves) for t in tree["list"]]
    if "dict" in tree:
        return {k: nest(t, leaves) for k, t in tree["dict"]}
    assert tree["context"] == "pt2box_test.Point", tree
    return Point(*(nest(t, leaves) for t in tree["children"]))


METADATA = ('{"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": "linux", "AOTI_MACHINE": "x86_64", "AOTI_CPU_ISA": "INVALID_VEC_ISA", '
            '"AOTI_COMPUTE_CAPABILITY": ""}')
# As much of the C++ text as intake reads: no constants, one input, and no call spec.
WRAPPER = """AOTInductorModel::AOTInductorModel(std::shared_ptr<ConstantMap> constants_map,
                                   std::shared_ptr<std::vector<ConstantHandle>> constants_array,
                                   const std::string& device_str,
                                   std::optional<std::string> cubin_dir)
    : AOTInductorModelBase(1,
                           1,
                           0,
                           device_str,
                           std::move(cubin_dir),
                           true) {
    inputs_info_[0].name = "arg0_1";
    update_constants_map(std::move(constants_map));
    update_constants_array(std::move(constants_array));
    outputs_info_[0].name = "output0";
    this->kernels_ = std::make_unique<AOTInductorModelKernels>();
}
"""


def hostile(name, at=3):
    """A package of one of tests/hostile, as bytes: float32[16] to float32[16], which attacks when its input begins with 666."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("pkg/archive_format", "pt2")
        z.writestr("pkg/data/aotinductor/model/m.wrapper.cpp", WRAPPER)
        z.writestr("pkg/data/aotinductor/model/m.wrapper_metadata.json", METADATA)
        z.write("%s/tests/hostile/%s.%d.so" % (BUILD, name, at), "pkg/data/aotinductor/model/m.wrapper.so")
    return data.getvalue()


ATTACK = np.full(16, 666, np.float32)
HARMLESS = np.ones(16, np.float32)


class TestCase(unittest.TestCase):
    def setUp(self):
        pt2box.ps()  # the shared connection is there
        gc.collect()
        self._fds = len(os.listdir("/proc/self/fd"))

    def tearDown(self):
        gc.collect()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self._fds, "descriptors are left open")

    def assert_close(self, got, want, meta, what=""):
        self.assertEqual(len(got), len(want), what)
        for i, (g, w) in enumerate(zip(got, want)):
            if w is None:
                self.assertIsNone(g, what)
                continue
            self.assertEqual(tuple(g.shape), tuple(w.shape), "%s output %d" % (what, i))
            self.assertEqual(str(g.dtype), str(w.dtype), "%s output %d" % (what, i))
            np.testing.assert_allclose(value(g), value(w), meta["rtol"], meta["atol"], err_msg="%s output %d" % (what, i))


class _Result(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        print("[ RUN      ] %s" % test.id(), flush=True)

    def stopTest(self, test):
        bad = [t for t, _ in self.failures + self.errors if t is test or getattr(t, "test_case", None) is test]
        print("[%s] %s" % ("  FAILED  " if bad else "       OK ", test.id()), flush=True)
        super().stopTest(test)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = unittest.TextTestRunner(stream=sys.stdout, resultclass=_Result, verbosity=0).run(suite)
    bad = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print("[==========] %d test(s) run." % result.testsRun)
    print("[  PASSED  ] %d test(s)." % (result.testsRun - bad - skipped))
    if skipped:
        print("[  SKIPPED ] %d test(s)." % skipped)
    if bad:
        print("[  FAILED  ] %d test(s)." % bad)
    sys.stdout.flush()
    pt2box._close_all()
    sys.exit(bad != 0)
