#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Constants from Python: given at loading, replaced, exchanged, read, under load."""
import os
import threading

from harness import FIXTURES, Fixture, TestCase, main, np, pt2box


def read_safetensors(path):
    """Names to arrays."""
    import json
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(n)), f.read()
    header.pop("__metadata__", None)
    types = {"F32": np.float32}
    return {k: np.frombuffer(data[slice(*v["data_offsets"])], types[v["dtype"]]).reshape(v["shape"]) for k, v in header.items()}


class Updates(TestCase):
    """What PyTorch's container computes after an update, from a file and from a mapping."""

    def update(self, name, kind, change):
        f = Fixture(name)
        u = f.meta["updates"][kind]
        inputs, _ = next(iter(f.cases()))
        want = f.arrays(u["out"], "out", f.meta["dtypes_out"])
        with f.load() as m:
            for _ in range(u["runs_before"]):
                m.run(inputs)
            change(m, f.file(u["constants"]), inputs)
            self.assert_close(m.run(inputs), want, f.meta, "%s %s" % (name, kind))

    @staticmethod
    def from_file(m, path, inputs):
        m.load_constants(path)

    @staticmethod
    def from_mapping(m, path, inputs):
        m.load_constants(read_safetensors(path))

    @staticmethod
    def exchanged(m, path, inputs):
        m.load_constants(path, inactive=True)
        m.run(inputs)
        m.swap_constants()

    def test_updates(self):
        for name in sorted(os.listdir(FIXTURES)):
            if not os.path.exists(os.path.join(FIXTURES, name, "meta.json")):
                continue
            for kind in Fixture(name).meta.get("updates", ()):
                with self.subTest(name=name, kind=kind):
                    for change in (self.exchanged,) if kind == "swap" else (self.from_file, self.from_mapping):
                        self.update(name, kind, change)


def mlp(x, k):
    """The MLP in numpy."""
    h = np.maximum(x @ k["fc1.weight"].T + k["fc1.bias"], 0)
    return h @ k["fc2.weight"].T + k["fc2.bias"]


def draw(rng):
    shapes = {"fc1.weight": (256, 64), "fc1.bias": (256,), "fc2.weight": (10, 256), "fc2.bias": (10,)}
    return {n: (rng.standard_normal(s) / 16).astype(np.float32) for n, s in shapes.items()}


class Mlp(TestCase):
    def setUp(self):
        super().setUp()
        self.rng = np.random.default_rng(5)
        self.f = Fixture("mlp")
        self.x = next(iter(self.f.cases()))[0][0]

    def right(self, m, k):
        np.testing.assert_allclose(m(self.x), mlp(self.x, k), 1e-3, 1e-4)

    def test_by_name(self):
        k = draw(self.rng)
        with self.f.load() as m:
            m.load_constants(k, full=True)
            self.right(m, k)
            k["fc1.bias"] = k["fc1.bias"] * 2
            m.update_constants({"fc1_bias": k["fc1.bias"]})
            self.right(m, k)
            m.update_constants({"fc1.bias": k["fc1.bias"] / 2}, inactive=True)
            self.right(m, k)
            m.swap_constants()
            k["fc1.bias"] = k["fc1.bias"] / 2
            self.right(m, k)
            # Any strides.
            k["fc1.weight"] = np.asfortranarray(k["fc1.weight"][::-1])
            m.load_constants(k)
            self.right(m, k)

    def test_refused(self):
        k = draw(self.rng)
        with self.f.load() as m:
            before = m(self.x)
            for bad, status, text in (({"nope": k["fc1.bias"]}, "NOT_FOUND", "nope"),
                                      ({"fc1_bias": k["fc1.bias"]}, "NOT_FOUND", "fc1_bias"),
                                      ({"fc1.bias": k["fc1.bias"][:5]}, "BAD_TENSOR", "fc1.bias"),
                                      ({"fc1.bias": k["fc1.bias"].astype(np.float64)}, "BAD_TENSOR", "fc1.bias"),
                                      ({"fc1.weight": k["fc1.weight"].T}, "BAD_TENSOR", "fc1.weight")):
                with self.assertRaisesRegex(pt2box.Error, text) as e:
                    m.load_constants(bad)
                self.assertEqual(e.exception.status, status)
            with self.assertRaisesRegex(pt2box.NotFoundError, "fc1.weight"):
                m.load_constants({"fc1.bias": k["fc1.bias"]}, full=True)
            with self.assertRaises(TypeError):
                m.load_constants({"fc1.bias": "text"})
            with self.assertRaises(TypeError):
                m.load_constants({5: k["fc1.bias"]})
            with self.assertRaises(pt2box.Error):
                m.load_constants(b"no safetensors")
            with self.assertRaises(pt2box.UsageError):
                m.swap_constants()
            with self.assertRaises(pt2box.UsageError):
                m.fold_constants(inactive=True)
            np.testing.assert_array_equal(m(self.x), before)

    def test_read(self):
        k = draw(self.rng)
        with self.f.load() as m:
            m.load_constants(k)
            got = m.extract_constants()
            self.assertEqual(set(got), set(k))
            for name in k:
                np.testing.assert_array_equal(got[name], k[name])
            got["fc1.bias"][:] = 0  # a copy
            self.right(m, k)
            self.assertEqual(m.extract_constants(inactive=True), {})
            m.load_constants({"fc1.bias": k["fc1.bias"] * 0}, inactive=True)
            other = m.extract_constants(inactive=True, outputs="tensor")
            self.assertEqual(type(other["fc1.bias"]), pt2box.Tensor)
            np.testing.assert_array_equal(np.asarray(other["fc1.bias"]), 0)
            m.free_inactive_constants()
            m.free_inactive_constants()
            self.assertEqual(m.extract_constants(inactive=True), {})
        np.testing.assert_array_equal(got["fc2.bias"], k["fc2.bias"])

    def test_at_loading(self):
        f = Fixture("extconst")
        inputs, want = next(iter(f.cases()))
        given = read_safetensors(f.constants)
        for constants in (f.constants, given, open(f.constants, "rb").read()):
            with pt2box.load(f.path, constants=constants) as m:
                self.assert_close(m.run(inputs), want, f.meta)
        with self.assertRaises(pt2box.Error):
            pt2box.load(f.path, constants=dict(given, **{"fc1.weight": given["fc1.bias"]}))
        with pt2box.load(f.path, constants=draw(self.rng)) as m:
            m.load_constants(given)
            self.assert_close(m.run(inputs), want, f.meta)

    def test_under_load(self):
        """Every result is wholly of one generation."""
        generations = [draw(self.rng) for _ in range(2)]
        want = [mlp(self.x, k) for k in generations]
        bad, seen, stop = [], [0, 0], threading.Event()
        with self.f.load(runners=4) as m:
            m.load_constants(generations[0])

            def work():
                while not stop.is_set():
                    y = m(self.x)
                    for i in range(2):
                        if np.allclose(y, want[i], 1e-3, 1e-4):
                            seen[i] += 1
                            break
                    else:
                        bad.append(y)
            threads = [threading.Thread(target=work) for _ in range(4)]
            for t in threads:
                t.start()
            try:
                for n in range(1, 30):
                    m.load_constants(generations[n % 2])
                    self.right(m, generations[n % 2])  # what begins after an update sees it
            finally:
                stop.set()
                for t in threads:
                    t.join()
        self.assertEqual(bad, [])
        self.assertTrue(all(seen), seen)


if __name__ == "__main__":
    main()
