#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The operator for Ray Data: called directly; and, where Ray is installed, on a local cluster of two nodes while workers and an
actor are killed. Run it with an interpreter that has ray, pyarrow and pandas for the second part."""
import os
import signal
import subprocess
import tempfile
import threading
import time

from harness import BUILD, HARMLESS, FIXTURES, TestCase, hostile, main, np, pt2box
import pt2box.ray  # noqa: E402

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None

MLP = os.path.join(FIXTURES, "mlp", "model.pt2")


class Broker:
    """A host's broker, which can be killed and started again."""

    def __init__(self, folder):
        self.socket = os.path.join(folder, "s")
        self.start()

    def start(self):
        # A killed broker's spawner removes the socket a moment later, whoever has it then.
        for _ in range(500):
            if not os.path.exists(self.socket):
                break
            time.sleep(0.02)
        self.p = subprocess.Popen([os.path.join(BUILD, "libexec", "pt2boxd"), "--socket", self.socket], stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                pt2box.connect(self.socket).close()
                return
            except pt2box.Error:
                time.sleep(0.02)
        raise RuntimeError("the broker did not start")

    def workers(self):
        with pt2box.connect(self.socket) as c:
            return [w["pid"] for m in c.ps()["models"] for w in m["workers"] if w["pid"]]

    def stop(self, sig=signal.SIGTERM):
        self.p.send_signal(sig)
        self.p.wait()


class Killer(threading.Thread):
    def __init__(self, broker, period):
        super().__init__()
        self.broker, self.period, self.ended, self.kills, self.turn = broker, period, threading.Event(), 0, 0

    def run(self):
        while not self.ended.wait(self.period):
            pids = self.broker.workers()
            if pids:
                self.turn += 1
                try:
                    os.kill(pids[self.turn % len(pids)], signal.SIGKILL)
                    self.kills += 1
                except ProcessLookupError:
                    pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self.join()


class Direct(TestCase):
    def test_rows(self):
        x = np.random.default_rng(3).standard_normal((75, 64)).astype(np.float32)
        p = pt2box.ray.Predictor(MLP, columns=["x"], keep=["id"], workers=2)
        with pt2box.load(MLP) as m:
            want = m(x)
        for column in x, np.array([*map(np.array, x), None], object)[:-1]:
            out = p({"id": np.arange(75), "x": column})
            np.testing.assert_allclose(out["out0"], want, 1e-4, 1e-5)
            np.testing.assert_array_equal(out["id"], np.arange(75))
        p.close()

    def test_bad_block(self):
        """float32[16] without a batch: the rows are the elements, so halves do not fit. The reason comes with each."""
        p = pt2box.ray.Predictor(hostile("poison"), batch_size=16, on_error="null")
        out = p({"x": HARMLESS})
        np.testing.assert_array_equal(out["out0"], HARMLESS * 2)
        self.assertEqual(list(out["error"]), [""] * 16)
        bad = HARMLESS.copy()
        bad[:2] = 666, 1
        out = p({"x": np.concatenate([HARMLESS, bad, HARMLESS])})
        # Alone, the first element is in the first place only when it is the row that is filled up.
        self.assertTrue(out["error"][16].startswith("MODEL_"))
        self.assertTrue(np.isnan(out["out0"][16]))
        self.assertEqual([e for i, e in enumerate(out["error"]) if i != 16], [""] * 47)
        np.testing.assert_array_equal(out["out0"][[*range(16), *range(32, 48)]], np.full(32, 2, np.float32))
        p.close()
        with self.assertRaises(pt2box.ModelError):
            p = pt2box.ray.Predictor(hostile("poison"), batch_size=16)
            try:
                p({"x": bad})
            finally:
                p.close()

    def test_broker_is_killed(self):
        with tempfile.TemporaryDirectory() as d:
            b = Broker(d)
            p = pt2box.ray.Predictor(hostile("poison"), batch_size=16, socket=b.socket)
            np.testing.assert_array_equal(p({"x": HARMLESS})["out0"], HARMLESS * 2)
            b.stop(signal.SIGKILL)
            b.start()
            np.testing.assert_array_equal(p({"x": HARMLESS})["out0"], HARMLESS * 2)
            p.close()
            b.stop()


class OnRay(TestCase):
    def setUp(self):
        if ray is None:
            self.skipTest("ray is not installed")
        super().setUp()
        os.environ["PYTHONPATH"] = os.path.join(BUILD, "python") + os.pathsep + os.environ.get("PYTHONPATH", "")

    def tearDown(self):
        pass  # Ray keeps descriptors

    def test_two_nodes(self):
        blocks, rows = 120, 16
        with tempfile.TemporaryDirectory() as d:
            b = Broker(d)
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {pt2box.ray.SLOTS: 1}})
            try:
                cluster.add_node(num_cpus=1, resources={pt2box.ray.SLOTS: 1})
                ray.init(address=cluster.address, log_to_driver=False)
                self.assertEqual(ray.cluster_resources()[pt2box.ray.SLOTS], 2)
                # Each block of 16 rows begins with what makes it take 60 ms, and has its number.
                x = np.ones((blocks, rows), np.float32)
                x[:, :3] = 666, 4, 60
                x[:, 3] = np.arange(blocks)
                ds = ray.data.from_numpy(x.reshape(-1)).repartition(12)
                out = ds.map_batches(
                    pt2box.ray.Predictor, batch_size=rows, fn_constructor_args=(hostile("poison"),),
                    fn_constructor_kwargs={"batch_size": rows, "socket": b.socket, "keep": ["data"], "retries": 100},
                    **pt2box.ray.actors(2))
                with Killer(b, 0.1) as killer:
                    got = out.take_all()
                self.assertGreater(killer.kills, 5)
                self.assertEqual(len(got), blocks * rows)
                for row in got:
                    self.assertEqual(row["out0"], 2 * row["data"])
                numbers = sorted(row["data"] for row in got if row["data"] not in (666, 4, 60, 1))
                self.assertEqual(numbers, [float(i) for i in range(blocks) if i not in (4, 60, 1)])
            finally:
                ray.shutdown()
                cluster.shutdown()
                b.stop()


if __name__ == "__main__":
    main()
