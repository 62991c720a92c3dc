#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Calls: what may be an argument, what comes back, what goes wrong, threads, asyncio, Ctrl-C, fork, closing."""
import array
import asyncio
import collections
import copy
import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref

from harness import ATTACK, BUILD, FIXTURES, HARMLESS, Fixture, Point, TestCase, hostile, main, np, pt2box, value

MLP = os.path.join(FIXTURES, "mlp", "model.pt2")


def mlp_case():
    f = Fixture("mlp")
    inputs, want = next(iter(f.cases()))
    return inputs[0], want[0]


class Arguments(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.m = pt2box.load(MLP)
        cls.x, cls.y = mlp_case()

    @classmethod
    def tearDownClass(cls):
        cls.m.close()

    def right(self, x):
        np.testing.assert_allclose(self.m(x), self.y, 1e-4, 1e-5)

    def test_buffers(self):
        self.right(self.x)
        self.right(memoryview(self.x))
        self.right(memoryview(bytes(self.x)).cast("f", (4, 64)))
        self.right(pt2box.tensor(self.x))
        self.right(pt2box.Tensor(self.x))
        with self.assertRaises(pt2box.TensorError):
            self.m(array.array("f", self.x.ravel()))

    def test_strides(self):
        wide = np.zeros((4, 128), np.float32)
        wide[:, ::2] = self.x
        self.right(wide[:, ::2])
        self.right(np.asfortranarray(self.x))
        back = self.x[::-1, ::-1].copy()
        self.right(back[::-1, ::-1])
        record = np.zeros((4, 64), [("a", "u1"), ("b", "f4")])
        record["b"] = self.x
        self.right(record["b"])  # strides of 5 bytes
        readonly = self.x.copy()
        readonly.flags.writeable = False
        self.right(readonly)
        self.right(self.m.empty((4, 64)).numpy() * 0 + self.x)

    def test_in_the_lane(self):
        t = self.m.empty((4, 64), "float32")
        t.numpy()[:] = self.x
        self.right(t)
        self.assertEqual(repr(t), "pt2box.Tensor(shape=(4, 64), dtype=float32)")

    def test_dlpack(self):
        class Old:
            def __init__(self, t):
                self.t = t

            def __dlpack__(self):
                return self.t.__dlpack__()

        class New:
            def __init__(self, t):
                self.t = t

            def __dlpack__(self, **options):
                return self.t.__dlpack__(**options)
        self.right(Old(pt2box.tensor(self.x)))
        self.right(New(pt2box.tensor(self.x)))
        self.right(New(self.x))
        with self.assertRaises(AttributeError):
            self.m(New(3))  # what goes wrong in it

    def test_refused(self):
        for bad in ("text", [1.0], None, object(), {}):
            with self.assertRaises(TypeError):
                self.m(bad)
        for bad in (self.x.astype(">f4"), np.zeros(4, "M8[s]"), np.array(["a"])):
            with self.assertRaisesRegex(TypeError, "dtype"):
                self.m(bad)
        for bad in (self.x.astype(np.float64), self.x[:, :63], self.x[0], np.float32(1), 1.5,
                    np.zeros((1,) * 16, np.float32), np.zeros((0, 64), np.float32)):
            with self.assertRaises(pt2box.TensorError) as e:
                self.m(bad)
            self.assertEqual((e.exception.status, e.exception.code), ("BAD_TENSOR", 13))
        with self.assertRaises(TypeError):
            self.m(np.zeros((1,) * 17, np.float32))
        self.right(self.x)

    def test_counts(self):
        for args, kwargs in (((), {}), ((self.x, self.x), {}), ((self.x,), {"x": self.x}), ((), {"x": self.x})):
            with self.assertRaises(TypeError):
                self.m(*args, **kwargs)
        with self.assertRaisesRegex(pt2box.TensorError, "1 inputs, not 2"):
            self.m.run([self.x, self.x])

    def test_numbers(self):
        with pt2box.load(os.path.join(FIXTURES, "zerod", "model.pt2")) as m:
            e, x = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
            for number in (2.5, np.float32(2.5), np.array(2.5, np.float32)):
                self.assertEqual(float(m(number, e, x)[0]), 5.0)
            self.assertEqual(float(m(2, e, x)[0]), 4.0)
            with self.assertRaises(TypeError):
                m("2", e, x)
        with pt2box.load(os.path.join(FIXTURES, "cond", "model.pt2")) as m:
            x = np.linspace(0, 1, 6, dtype=np.float32)
            np.testing.assert_allclose(m(x, True), np.sin(x), 1e-5)
            np.testing.assert_allclose(m(x, False), np.cos(x) * 2, 1e-5)
            with self.assertRaises(TypeError):
                m(x, 1)

    def test_references(self):
        for f in (lambda x: self.m(x), lambda x: self.m.run([x]), lambda x: self.m.boxed_run([x])):
            x = self.x.copy()
            r = sys.getrefcount(x)
            y = f(x)
            self.assertEqual(sys.getrefcount(x), r)
            x.resize((1,), refcheck=False)  # no buffer is held
            del y


class Isolated(TestCase):
    def test_every_run_is_the_first(self):
        f = Fixture("mutbuf")
        inputs = next(f.cases())[0]
        with f.load() as m:
            first, second = value(m.run(inputs)[0]), value(m.run(inputs)[0])
        self.assertFalse(np.array_equal(first, second), "it keeps a state")
        with f.load(isolate="request") as m:
            for _ in range(3):
                np.testing.assert_array_equal(value(m.run(inputs)[0]), first)


class Results(TestCase):
    def test_kinds(self):
        x, y = mlp_case()
        for kind, cls in (("numpy", np.ndarray), ("tensor", pt2box.Tensor), ("auto", np.ndarray)):
            with pt2box.load(MLP, outputs=kind) as m:
                self.assertIs(type(m(x)), cls)
                np.testing.assert_allclose(np.asarray(m(x)), y, 1e-4, 1e-5)
                self.assertIs(type(m.run([x], outputs="tensor")[0]), pt2box.Tensor)
        with self.assertRaises(ValueError):
            pt2box.load(MLP, outputs="cupy")

    def test_outlive(self):
        x, y = mlp_case()
        c = pt2box.connect()
        m = c.load(MLP)
        small = m(x)
        many = m(np.tile(x, (256, 1)))
        m.close()
        c.close()
        del m, c
        np.testing.assert_allclose(small, y, 1e-4, 1e-5)
        np.testing.assert_allclose(many, np.tile(y, (256, 1)), 1e-4, 1e-5)
        small += 1

    def test_large(self):
        path = os.path.join(FIXTURES, "omp2", "model.pt2")
        x = np.linspace(0, 1, 300000, dtype=np.float32).reshape(300, 1000)
        with pt2box.load(path) as m:
            big = m(x)[0]
            self.assertFalse(big.flags.writeable)
            with self.assertRaises(ValueError):
                big += 1
            t = m.run([x], outputs="tensor")[0]
            self.assertTrue(t.readonly)
            own = np.from_dlpack(t)  # a copy: not everybody heeds the flag
            if own.flags.writeable:
                own.fill(1)
            with self.assertRaises(BufferError):
                t.__dlpack__(copy=False)
            t.__dlpack__(copy=False, max_version=(1, 0))
            t.copy().numpy().fill(1)
            np.testing.assert_allclose(t.numpy(), np.sin(x) * 2, 1e-5)
        with pt2box.load(path, copy_outputs=True) as m:
            big = m(x)[0]
            big += 1
            np.testing.assert_allclose(big, np.sin(x) * 2 + 1, 1e-5)

    def test_alias(self):
        a, b = np.random.rand(4, 6).astype("f"), np.random.rand(3, 5).astype("f")
        with pt2box.load(os.path.join(FIXTURES, "alias", "model.pt2")) as m:
            o = m(a, b)
            self.assertIs(o[0], a)
            self.assertIs(o[3], o[4])
            for i in (1, 2):
                self.assertTrue(np.shares_memory(o[i], a))
            o[2][0, 0] = 7
            self.assertEqual(a[1, 0], 7)
            self.assertTrue(np.shares_memory(o[5], o[3]))
            np.testing.assert_array_equal(o[5], o[3].T)
            # Of an argument that cannot be viewed so, a copy that is right.
            o = m(np.asfortranarray(a), b)
            np.testing.assert_array_equal(o[0], a)
            o = m(a[::-1], b)
            np.testing.assert_array_equal(o[0], a[::-1])
            o = m(pt2box.tensor(a), b)
            np.testing.assert_array_equal(o[1], a.ravel())

    def test_written_arguments(self):
        x, y = np.ones((5, 7), np.float32), np.full((5, 7), 2, np.float32)
        with pt2box.load(os.path.join(FIXTURES, "inplace", "model.pt2")) as m:
            for a in (x.copy(), np.asfortranarray(x), x.copy()[::-1], pt2box.tensor(x)):
                np.testing.assert_array_equal(m(a, y), 6)
                np.testing.assert_array_equal(np.asarray(a), 3)
            a = bytes(x)
            m(memoryview(a).cast("f", (5, 7)), y)
            self.assertEqual(a, bytes(x))
            ro = x.copy()
            ro.flags.writeable = False
            m(ro, y)
            np.testing.assert_array_equal(ro, 1)
            box = [x.copy(), y]
            np.testing.assert_array_equal(m.boxed_run(box)[0], 6)
            self.assertEqual(box, [])

    def test_boxed_run_frees(self):
        class Array(np.ndarray):
            pass
        with pt2box.load(MLP) as m:
            x, y = mlp_case()
            box = [x.copy().view(Array)]
            gone = weakref.ref(box[0])
            out = m.boxed_run(box)
            self.assertIsNone(gone())
            np.testing.assert_allclose(out[0], y, 1e-4, 1e-5)
            with self.assertRaises(TypeError):
                m.boxed_run((x,))

    def test_bfloat16(self):
        f = Fixture("bf16")
        inputs, want = next(iter(f.cases()))
        with f.load() as m:
            t = m(inputs[0])
            self.assertEqual((t.dtype, t.shape, t.strides, t.ndim, t.size, t.itemsize, t.nbytes),
                             ("bfloat16", (4, 10), (10, 1), 2, 40, 2, 80))
            self.assertEqual(t.__dlpack_device__(), (1, 0))
            self.assertEqual(np.asarray(t).dtype, np.uint16)
            with self.assertRaises(pt2box.TensorError):
                m(np.asarray(inputs[0]))
            self.assert_close([m(memoryview_of(inputs[0]))], want, f.meta)
        with self.assertRaises(TypeError):
            pt2box.Tensor(np.zeros(3, np.uint8), "bfloat16")
        with self.assertRaises(TypeError):
            pt2box.Tensor(np.zeros(3, np.uint8), "float3")


def memoryview_of(t):
    """The same bits by another way."""
    return pt2box.Tensor(memoryview(t), t.dtype)


class Trees(TestCase):
    def nested(self, **changes):
        f = Fixture("nested")
        inputs, want = next(iter(f.cases()))
        i = inputs
        args = [Point(i[0], i[1]), {"b": i[2], "a": i[3]}, [(i[4],), i[5]], None, 3]
        kwargs = {"extra": (i[8], None, 7), "gain": {"g": i[7], "h": [i[6]]}}
        for k, v in changes.items():
            if k.isdigit() or k[0] == "_":
                args[int(k[1:])] = v
            else:
                kwargs[k] = v
        return f, args, kwargs, want

    def test_nested(self):
        f, args, kwargs, want = self.nested()
        with f.load() as m:
            r = m(*args, **kwargs)
            self.assertIsInstance(r["point"], Point)
            self.assertEqual(list(r), ["point", "list", "k", "shape", "none", "odd key"])
            self.assertIsInstance(r["list"][2], tuple)
            self.assertIsNone(r["none"])
            np.testing.assert_allclose(r["point"].x, want[0], 1e-4, 1e-5)
            # Keys in any order, constants of any value: they were fixed at export.
            args[1] = dict(reversed(args[1].items()))
            args[4] = 99
            np.testing.assert_allclose(m(*args, **kwargs)["point"].x, want[0], 1e-4, 1e-5)

    def test_structure(self):
        f, args, kwargs, want = self.nested()
        with f.load() as m:
            for changes, text in (({"_0": (1,)}, "tuple of 2"), ({"_1": {"b": 1}}, "dict of 2"), ({"_1": {"b": 1, "c": 2}}, "'a'"),
                                  ({"_2": ([1], 2)}, "list of 2"), ({"gain": 3}, "dict of 2"), ({"more": 1}, "keyword"),
                                  ({"_2": [(1, 2), 3]}, "tuple of 1")):
                _, a, k, _ = self.nested(**changes)
                with self.assertRaisesRegex(TypeError, text):
                    m(*a, **k)
            del kwargs["gain"]
            with self.assertRaisesRegex(TypeError, "'gain' is missing"):
                m(*args, **kwargs)

    def test_specs(self):
        from pt2box import _core, _pytree
        leaf = '{"type": null, "context": null, "children_spec": []}'

        def spec(kind, context, n=2):
            return '[1, {"type": "%s", "context": %s, "children_spec": [%s]}]' % (kind, context, ", ".join([leaf] * n))
        cases = [("collections.OrderedDict", r'"[\"b\", \"a\"]"', collections.OrderedDict(b=0, a=1)),
                 ("collections.deque", '"3"', collections.deque([0, 1], maxlen=3)),
                 ("collections.namedtuple", '"pt2box_test.Point"', Point(0, 1)),
                 ("builtins.dict", '"[3, [1, 2]]"', {3: 0, (1, 2): 1}),
                 ("collections.defaultdict", '{"default_factory_module": "builtins", "default_factory_name": "list", '
                                             '"dict_context": ["x", "y"]}', collections.defaultdict(list, x=0, y=1))]
        for kind, context, want in cases:
            kind_, keys, make, split, children = _pytree.decode(spec(kind, context))
            parts = {_pytree.DICT: lambda: dict(zip(keys, (0, 1))), _pytree.LIST: lambda: [0, 1], _pytree.TUPLE: lambda: (0, 1)}
            made = make(parts[kind_]()) if make else parts[kind_]()
            self.assertEqual(made, want)
            self.assertIs(type(made), type(want))
            self.assertEqual(getattr(made, "maxlen", None), getattr(want, "maxlen", None))
        for bad in ("", "[1]", "[2, %s]" % leaf, "[1, {}]", '[1, {"type": "builtins.dict", "context": "[1]", "children_spec": []}]',
                    "[" * 5000):
            with self.assertRaises(ValueError):
                _pytree.decode(bad)
        # A package names code to be called: not done.
        with self.assertRaises(_pytree.Unknown):
            _pytree.decode(spec("collections.defaultdict", '{"default_factory_module": "os", "default_factory_name": "getcwd", '
                                                           '"dict_context": ["x", "y"]}'))
        with self.assertRaisesRegex(_pytree.Unknown, "no.such"):
            _pytree.decode(spec("no.such", '"null"'))
        self.assertEqual(_core._json('{"a": [1, 2.5, null, true, "\\u00e4"]}'), {"a": [1, 2.5, None, True, "ä"]})

    def test_registered(self):
        from pt2box import _pytree

        class Pair:
            def __init__(self, a, b):
                self.a, self.b = a, b
        pt2box.register_pytree_node(Pair, lambda p: ([p.a, p.b], "c"), lambda parts, c: Pair(*parts), serialized_type_name="t.Pair")
        leaf = {"type": None, "context": None, "children_spec": []}
        _, _, make, split, _ = _pytree._node({"type": "t.Pair", "context": '"c"', "children_spec": [leaf, leaf]})
        self.assertEqual(make((1, 2)).b, 2)
        self.assertEqual(split(Pair(1, 2)), [1, 2])
        with self.assertRaises(TypeError):
            split((1, 2))

    def test_without_spec(self):
        with pt2box.load(hostile("benign")) as m:
            r = m(HARMLESS)
            self.assertIsInstance(r, list)
            np.testing.assert_array_equal(r[0], 2)


class Failures(TestCase):
    def test_files(self):
        with self.assertRaises(pt2box.PackageError) as e:
            pt2box.load("/nowhere/model.pt2")
        self.assertEqual(e.exception.status, "IO")
        self.assertIn("/nowhere/model.pt2", str(e.exception))
        for bad in (b"", b"PK\x03\x04 not a package", os.path.dirname(MLP), "/dev/null"):
            with self.assertRaises(pt2box.Error):
                pt2box.load(bad)
        with self.assertRaises(TypeError):
            pt2box.load(3.5)
        with self.assertRaises(pt2box.NotFoundError) as e:
            pt2box.load(os.path.join(FIXTURES, "twomodels", "model.pt2"), model="third")
        self.assertRegex(str(e.exception), "first.*second|second.*first")

    def test_sources(self):
        x, y = mlp_case()
        with open(MLP, "rb") as f:
            data = f.read()
            for source in (data, bytearray(data), io.BytesIO(data), f):
                with pt2box.load(source) as m:
                    np.testing.assert_allclose(m(x), y, 1e-4, 1e-5)

    def test_options(self):
        for bad in (dict(runners=0), dict(runners=65), dict(runners=2, single_threaded=True), dict(backend="cuda"),
                    dict(profile="lax"), dict(device=9999)):
            with self.assertRaises(pt2box.Error):
                pt2box.load(MLP, **bad)
        for bad in (dict(run_deadline=0), dict(deadline=-1), dict(load_deadline=float("nan"))):
            with self.assertRaises(ValueError):
                pt2box.load(MLP, **bad)
        with self.assertRaises(TypeError):
            pt2box.load(MLP, colour="red")
        with pt2box.load(MLP, runners=1, threads=1, single_threaded=True, profile="strict", backend="native", run_deadline=5,
                         load_deadline=30, memory=1 << 30, explain=False, deadline=3, retries=1) as m:
            self.assertEqual(m(mlp_case()[0]).shape, (4, 10))
            self.assertEqual(m.info["run_deadline_ms"], 5000)

    def test_crash(self):
        with pt2box.load(hostile("segfault")) as m:
            with self.assertRaises(pt2box.ModelCrashed) as e:
                m(ATTACK)
            self.assertEqual((e.exception.status, e.exception.signal), ("MODEL_CRASHED", signal.SIGSEGV))
            np.testing.assert_array_equal(m(HARMLESS)[0], 2)
            again = pickle.loads(pickle.dumps(e.exception))
            self.assertEqual((type(again), again.signal, str(again)), (pt2box.ModelCrashed, signal.SIGSEGV, str(e.exception)))
            self.assertIsInstance(copy.copy(e.exception), RuntimeError)
        with pt2box.load(hostile("execve")) as m:
            with self.assertRaises(pt2box.ModelKilled):
                m(ATTACK)
        with self.assertRaises(pt2box.ModelError):
            pt2box.load(hostile("exit7", 0))

    def test_deadlines(self):
        with pt2box.load(hostile("loop"), deadline=0.2) as m:
            began = time.monotonic()
            with self.assertRaises(pt2box.ModelTimeout):
                m(ATTACK)
            self.assertLess(time.monotonic() - began, 5)
            with self.assertRaises(pt2box.ModelTimeout):
                m.run([ATTACK], deadline=0.1)
            with self.assertRaises(ValueError):
                m.run([ATTACK], deadline=0)
            m.run([HARMLESS], deadline=float("inf"), retries=2)
        with pt2box.load(hostile("loop"), run_deadline=0.3) as m:
            with self.assertRaises(pt2box.ModelTimeout):
                m(ATTACK)
            np.testing.assert_array_equal(m(HARMLESS)[0], 2)

    def test_broker_lost(self):
        m = pt2box.load(MLP)
        broker = [int(p) for p in os.listdir("/proc") if p.isdigit() and child_of_mine(int(p))]
        for pid in broker:
            os.kill(pid, signal.SIGKILL)
        with self.assertRaises(pt2box.BrokerError):
            for _ in range(100):
                m(mlp_case()[0])
                time.sleep(0.02)
        m.close()
        del m
        with pt2box.load(MLP) as m:  # the shared connection is made anew
            self.assertEqual(m(mlp_case()[0]).shape, (4, 10))


def child_of_mine(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[1]) == os.getpid() and fields[0] != "Z"
    except OSError:
        return False


class Threads(TestCase):
    def test_parallel(self):
        x, y = mlp_case()
        with pt2box.load(MLP, runners=4) as m:
            bad = []

            def work(k):
                want = m(x + k)
                for _ in range(200):
                    if not np.array_equal(m(x + k), want):
                        bad.append(k)
            threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(bad, [])

    def test_the_interpreter_goes_on(self):
        with pt2box.load(hostile("loop"), deadline=1.0) as m:
            t = threading.Thread(target=lambda: self.assertRaises(pt2box.ModelTimeout, m, ATTACK))
            t.start()
            n = 0
            while t.is_alive():
                n += 1
                time.sleep(0.001)
            self.assertGreater(n, 100)

    def test_closed_while_running(self):
        m = pt2box.load(hostile("loop"), deadline=0.5)
        caught = []

        def work():
            try:
                m(ATTACK)
            except pt2box.Error as e:
                caught.append(e.status)
        t = threading.Thread(target=work)
        t.start()
        time.sleep(0.1)
        m.close()
        with self.assertRaisesRegex(pt2box.UsageError, "closed"):
            m(HARMLESS)
        t.join()
        self.assertEqual(caught, ["MODEL_TIMEOUT"])
        del m, t


class Async(TestCase):
    def test_many(self):
        x, y = mlp_case()

        async def go(m):
            return await asyncio.gather(*(m.run_async(x) for _ in range(50)), m.run_flat_async([x]))
        with pt2box.load(MLP, runners=2) as m:
            results = asyncio.run(go(m))
            for r in results[:-1]:
                np.testing.assert_allclose(r, y, 1e-4, 1e-5)
            np.testing.assert_allclose(results[-1][0], y, 1e-4, 1e-5)
            with self.assertRaises(TypeError):
                asyncio.run(m.run_async(x, x))

    def test_cancel(self):
        async def go(m):
            task = asyncio.ensure_future(m.run_async(ATTACK))
            await asyncio.sleep(0.1)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(m.run_async(ATTACK), 0.1)
            return await m.run_async(HARMLESS)
        with pt2box.load(hostile("loop")) as m:
            np.testing.assert_array_equal(asyncio.run(go(m))[0], 2)

    def test_error(self):
        with pt2box.load(hostile("segfault")) as m:
            with self.assertRaises(pt2box.ModelCrashed):
                asyncio.run(m.run_async(ATTACK))

    def test_dropped(self):
        m = pt2box.load(hostile("loop"))
        r = m._start(ATTACK)
        self.assertFalse(r.done())
        m.close()
        del r  # cancelled, and its end awaited
        gc.collect()
        self.assertTrue(m.closed)


class Processes(TestCase):
    def child(self, code, **options):
        env = dict(os.environ, PYTHONPATH=os.path.join(BUILD, "python"))
        return subprocess.Popen([sys.executable, "-c", code, MLP], env=env, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **options)

    def test_interrupt(self):
        with tempfile.NamedTemporaryFile(suffix=".pt2") as f:
            f.write(hostile("loop"))
            f.flush()
            code = ("import pt2box, sys\nm = pt2box.load(%r)\nprint('ready', flush=True)\n"
                    "try:\n    m(memoryview(__import__('array').array('f', [666.0] * 16)))\n"
                    "except KeyboardInterrupt:\n    print('interrupted', m(memoryview(__import__('array').array('f', [1.0] * 16)))"
                    "[0][0])\n" % f.name)
            p = self.child(code)
            self.assertEqual(p.stdout.readline(), "ready\n")
            time.sleep(0.3)
            began = time.monotonic()
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=20)
            self.assertEqual((out, err), ("interrupted 2.0\n", ""))
            self.assertLess(time.monotonic() - began, 5)

    def test_interrupt_loading(self):
        with tempfile.NamedTemporaryFile(suffix=".pt2") as f:
            f.write(hostile("loop", 0))
            f.flush()
            p = self.child("import pt2box, sys\npt2box.ps()\nprint('ready', flush=True)\n"
                           "try:\n    pt2box.load(%r)\nexcept KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
                           "print(pt2box.load(sys.argv[1]).n_inputs)" % f.name)
            self.assertEqual(p.stdout.readline(), "ready\n")
            time.sleep(0.3)
            began = time.monotonic()
            p.send_signal(signal.SIGINT)
            self.assertEqual(p.communicate(timeout=20), ("interrupted\n1\n", ""))
            self.assertLess(time.monotonic() - began, 5)

    def test_light(self):
        p = self.child("import pt2box, sys; print(sorted({'numpy', 'torch', 'json', 'asyncio', 'typing', 're', 'enum'} & set(sys.modules)))")
        out, err = p.communicate(timeout=20)
        self.assertEqual((out, err), ("[]\n", ""))

    def test_exit_without_closing(self):
        p = self.child("import pt2box, sys; m = pt2box.load(sys.argv[1]); print(pt2box.load_metadata(sys.argv[1])['AOTI_DEVICE_KEY'])")
        self.assertEqual(p.communicate(timeout=20), ("cpu\n", ""))
        self.assertEqual(p.returncode, 0)

    def test_fork(self):
        m = pt2box.load(MLP)
        x, y = mlp_case()
        kept = m(np.tile(x, (256, 1)))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                try:
                    m(x)
                except pt2box.UsageError:
                    code = 2
                np.testing.assert_allclose(kept[:4], y, 1e-4, 1e-5)
                with pt2box.load(MLP) as mine:
                    np.testing.assert_allclose(mine(x), y, 1e-4, 1e-5)
                del m, kept
                gc.collect()
                pt2box._close_all()
                code = 0 if code == 2 else code
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        np.testing.assert_allclose(m(x), y, 1e-4, 1e-5)
        m.close()

    def test_multiprocessing(self):
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            self.assertEqual(pool.map(in_pool, range(4)), [(4, 10)] * 4)
            pool.close()
            pool.join()


def in_pool(_):
    with pt2box.load(MLP) as m:
        return m(mlp_case()[0]).shape


class Life(TestCase):
    def test_closed(self):
        x = mlp_case()[0]
        m = pt2box.load(MLP)
        self.assertEqual(repr(m), "<pt2box.Model model>")
        m.close()
        m.close()
        for f in (lambda: m(x), lambda: m.run([x]), lambda: m.describe(), lambda: m.session(), lambda: m.stateful,
                  lambda: m.empty((1,)), lambda: m._start(x)):
            with self.assertRaisesRegex(pt2box.UsageError, "closed"):
                f()
        self.assertEqual(repr(m), "<pt2box.Model model, closed>")

    def test_connections(self):
        x = mlp_case()[0]
        with pt2box.connect() as c:
            with c.load(MLP) as m:
                self.assertEqual(m(x).shape, (4, 10))
                self.assertIs(m.connection, c)
            self.assertEqual(c.load_metadata(MLP), pt2box.load_metadata(MLP))
            self.assertIsInstance(c.doctor(), dict)
            m = c.load(MLP)
        self.assertTrue(c.closed)
        with self.assertRaises(pt2box.UsageError):
            m(x)
        with self.assertRaises(pt2box.UsageError):
            c.load(MLP)
        with self.assertRaises(pt2box.BrokerError):
            pt2box.connect("/nowhere/pt2box.sock")
        with self.assertRaises(pt2box.BrokerError):
            pt2box.load(MLP, socket="/nowhere/pt2box.sock")
        self.assertIs(pt2box._connection(None), pt2box._connection(None))

    def test_served(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "s")
            p = subprocess.Popen([os.path.join(BUILD, "pt2boxd"), "--socket", path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            try:
                for _ in range(200):
                    if os.path.exists(path):
                        break
                    time.sleep(0.02)
                with pt2box.load(MLP, socket=path) as m:
                    self.assertEqual(m(mlp_case()[0]).shape, (4, 10))
                with pt2box.connect(path) as c, c.load(open(MLP, "rb").read()) as m:
                    self.assertEqual(m(mlp_case()[0]).shape, (4, 10))
                pt2box._shared.pop(path).close()
            finally:
                p.terminate()
                p.wait()

    def test_what_it_is(self):
        with pt2box.load(MLP) as m:
            self.assertEqual((m.n_inputs, m.n_outputs, m.stateful, m.name), (1, 1, False, "model"))
            self.assertEqual(m.metadata, pt2box.load_metadata(MLP))
            self.assertEqual(m.metadata["AOTI_DEVICE_KEY"], "cpu")
            self.assertEqual(m.inputs[0]["dtype"], "float32")
            self.assertEqual(m.call_spec["in"]["tree"], {"tuple": [{"tuple": [0]}, {"dict": []}]})
            self.assertEqual(set(m.constant_fqns), {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"})
            k = m.constants[m.constant_fqns.index("fc1.weight")]
            self.assertEqual((k.name, k.dtype, k.shape, k.strides, k.nbytes, k.type, k.folded),
                             ("fc1_weight", "float32", (256, 64), (64, 1), 65536, "parameter", False))
        info = pt2box.inspect(MLP)
        self.assertEqual((info["state"], len(info["inputs"])), ("inspected", 1))
        with self.assertRaises(pt2box.NotFoundError):
            pt2box.load_metadata(MLP, "other")
        with self.assertRaises(pt2box.PackageError):
            pt2box.inspect(b"no zip")
        self.assertTrue(pt2box.__version__)
        self.assertIsInstance(pt2box.ps(), dict)
        self.assertIsInstance(pt2box.doctor(), dict)

    def test_sessions(self):
        f = Fixture("mutbuf")
        (x,), want = next(iter(f.cases()))
        with f.load() as m:
            self.assertTrue(m.stateful)
            with m.session() as s, m.session() as t:
                for n in (1, 2, 3):
                    np.testing.assert_array_equal(s(x)[1], n)
                np.testing.assert_array_equal(t(x)[1], 1)
                np.testing.assert_array_equal(m(x)[1], 1)
            np.testing.assert_array_equal(m(x)[1], 2)
            s = m.session()
            m.close()  # when the session is closed
            np.testing.assert_array_equal(s(x)[1], 1)
            s.close()


if __name__ == "__main__":
    main()
