#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""pt2box.batch() over iterators, batch_table() over Arrow and Parquet where pyarrow is, and rows of files that numpy wrote."""
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

from harness import BUILD, FIXTURES, HARMLESS, TestCase, hostile, main, np, pt2box

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    pa = None

MLP = os.path.join(FIXTURES, "mlp", "model.pt2")


def poison(what, ms=0):
    x = HARMLESS.copy()
    x[:3] = 666, what, ms
    return x


class Iterators(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.package = hostile("poison")

    def test_ordered(self):
        out = list(pt2box.batch(self.package, (HARMLESS * i for i in range(200)), workers=2))
        self.assertEqual(len(out), 200)
        for i, y in enumerate(out):
            np.testing.assert_array_equal(y[0], HARMLESS * 2 * i)

    def test_unordered(self):
        slow = [poison(4, 300)] + [HARMLESS * i for i in range(1, 50)]
        out = list(pt2box.batch(self.package, slow, workers=2, ordered=False, with_index=True))
        self.assertEqual(sorted(i for i, _ in out), list(range(50)))
        self.assertNotEqual([i for i, _ in out], list(range(50)))
        for i, y in out:
            np.testing.assert_array_equal(y[0], slow[i] * 2)

    def test_failures(self):
        items = [HARMLESS, poison(1), HARMLESS, poison(5), (HARMLESS, HARMLESS), HARMLESS, poison(2)]
        out = list(pt2box.batch(self.package, items, workers=2, run_deadline=0.3))
        kinds = [type(y.error).__name__ if isinstance(y, pt2box.Failed) else None for y in out]
        self.assertEqual(kinds, [None, "ModelCrashed", None, "ModelError", "TensorError", None, "ModelTimeout"])
        self.assertIs(out[3].item, items[3])
        with self.assertRaises(pt2box.ModelError):
            list(pt2box.batch(self.package, items, workers=1, run_deadline=0.3, max_failures=1))

    def test_bounded(self):
        """An endless iterable is taken as it is needed."""
        taken = itertools.count()
        results = pt2box.batch(self.package, (HARMLESS * next(taken) for _ in itertools.repeat(0)), workers=1)
        for i in range(10):
            np.testing.assert_array_equal(next(results)[0], HARMLESS * 2 * i)
        results.close()
        self.assertLess(next(taken), 20)

    def test_loaded_model_and_calls(self):
        with pt2box.load(self.package) as m:
            self.assertEqual(len(list(pt2box.batch(m, [(HARMLESS,), HARMLESS]))), 2)
            with self.assertRaises(TypeError):
                next(pt2box.batch(m, [HARMLESS], workers=2))

    def test_state_is_refused(self):
        with self.assertRaises(pt2box.Error) as e:
            next(pt2box.batch(os.path.join(FIXTURES, "mutbuf", "model.pt2"), [HARMLESS]))
        self.assertIn("state", str(e.exception))

    def test_killed_workers(self):
        """Each run takes 10 ms, and a worker is killed every 30."""
        stop, kills = threading.Event(), []
        with pt2box.connect() as c, c.load(self.package, runners=2, retries=100) as m:
            def killer():
                while not stop.wait(0.03):
                    for w in c.ps()["models"][0]["workers"][:1]:
                        if w["pid"]:
                            try:
                                os.kill(w["pid"], signal.SIGKILL)
                                kills.append(w["pid"])
                            except ProcessLookupError:
                                pass
            t = threading.Thread(target=killer)
            t.start()
            try:
                items = [poison(4, 10) + np.float32(0) for _ in range(100)]
                for i, x in enumerate(items):
                    x[3] = i
                out = list(pt2box.batch(m, items))
            finally:
                stop.set()
                t.join()
        self.assertGreater(len(kills), 3)
        for x, y in zip(items, out):
            np.testing.assert_array_equal(y[0], x * 2)


class Rows(TestCase):
    """Of a file that numpy compressed: read in order, and from the middle when it is resumed."""

    def test_compressed(self):
        x = np.random.default_rng(1).standard_normal((103, 64)).astype(np.float32)
        with tempfile.TemporaryDirectory() as d:
            np.savez_compressed(d + "/rows.npz", x=x)
            np.savez(d + "/plain.npz", x=x)
            run = [os.path.join(BUILD, "pt2box"), "batch", MLP, "-b", "10"]
            for name in "rows", "plain":
                subprocess.run(run + ["-i", "%s/%s.npz" % (d, name), "-o", "%s/%s" % (d, name)], check=True, stderr=subprocess.DEVNULL)
            parts = sorted(p for p in os.listdir(d + "/rows") if p.startswith("part"))
            self.assertEqual(len(parts), 11)
            got = {}
            for name in "rows", "plain":
                got[name] = b"".join(open("%s/%s/%s" % (d, name, p), "rb").read() for p in parts)
            self.assertEqual(got["rows"], got["plain"])
            with pt2box.load(MLP) as m:
                for i, p in enumerate(parts):
                    want = m(x[i * 10:i * 10 + 10])
                    with np.load("%s/rows/%s" % (d, p)) as z:
                        np.testing.assert_allclose(z["out0"], want, 1e-4, 1e-5)
            for p in parts[5], parts[8]:
                os.unlink("%s/rows/%s" % (d, p))
            subprocess.run(run + ["-i", d + "/rows.npz", "-o", d + "/rows", "--resume"], check=True, stderr=subprocess.DEVNULL)
            self.assertEqual(b"".join(open("%s/rows/%s" % (d, p), "rb").read() for p in parts), got["rows"])


class Tables(TestCase):
    def setUp(self):
        if pa is None:
            self.skipTest("pyarrow is not installed")
        super().setUp()
        self.x = np.random.default_rng(2).standard_normal((103, 64)).astype(np.float32)
        self.table = pa.table({"id": range(103), "x": pa.FixedSizeListArray.from_arrays(pa.array(self.x.ravel()), 64)})
        with pt2box.load(MLP) as m:
            self.want = m(self.x)

    def right(self, batches):
        got = np.concatenate([np.stack(b.column("out0").to_numpy(zero_copy_only=False)) for b in batches])
        np.testing.assert_allclose(got, self.want, 1e-4, 1e-5)

    def test_arrow(self):
        self.right(pt2box.batch_table(MLP, self.table, columns=["x"], workers=2))
        self.right(pt2box.batch_table(MLP, iter(self.table.to_batches(7)), columns=["x"], batch_size=10))
        lists = pa.table({"x": self.x.tolist()}).cast(pa.schema({"x": pa.list_(pa.float32())}))
        self.right(pt2box.batch_table(MLP, lists))

    def test_parquet(self):
        with tempfile.TemporaryDirectory() as d:
            pq.write_table(self.table, d + "/in.parquet", row_group_size=40)
            pt2box.batch_table(MLP, d + "/in.parquet", columns=["x"], output=d + "/out.parquet")
            self.right(pq.read_table(d + "/out.parquet").to_batches())
            self.assertEqual(sorted(os.listdir(d)), ["in.parquet", "out.parquet"])

    def test_failures(self):
        bad = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40, np.float32)), 4)})
        with self.assertRaises(pt2box.TensorError):
            list(pt2box.batch_table(MLP, bad))


if __name__ == "__main__":
    main()
