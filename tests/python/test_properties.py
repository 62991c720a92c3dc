#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drawn shapes, strides and dtypes, of inputs and of constants: wrong ones are refused, right ones give what numpy computes."""
import datetime

from harness import Fixture, TestCase, main, np, pt2box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

quick = settings(max_examples=300, deadline=datetime.timedelta(seconds=20), derandomize=True, database=None,
                 suppress_health_check=list(HealthCheck))
DTYPES = ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
SHAPES = {"fc1.weight": (256, 64), "fc1.bias": (256,), "fc2.weight": (10, 256), "fc2.bias": (10,)}


def numbers(shape, dtype, seed):
    a = np.asarray(np.random.default_rng(seed).standard_normal(shape) * 2)
    return np.abs(a).astype(dtype) if np.dtype(dtype).kind in "u?" else a.astype(dtype)


@st.composite
def laid_out(draw, shape, dtype):
    """An array of a shape in any layout: a slice with steps (some negative) of a larger one, axes in any order, or broadcast."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in shape]
    pads = [draw(st.integers(0, 2)) for _ in shape]
    a = numbers([n * abs(s) + p for n, s, p in zip(shape, steps, pads)], dtype, draw(st.integers(0, 99)))
    stored = a.transpose(order).copy("C").transpose(np.argsort(order) if order else order)
    view = stored[tuple(slice(0, n * s, s) if s > 0 or n == 0 else slice(n * -s - 1, None, s) for n, s in zip(shape, steps))]
    view = np.asarray(view)
    if len(shape) > 1 and shape[0] and draw(st.integers(0, 9)) == 0:
        view = np.broadcast_to(view[:1], shape)
    assert view.shape == tuple(shape)
    return view


class Capsule:
    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)


def as_is(a):
    return a


def as_tensor(a):
    return pt2box.tensor(a)


def as_memory(a):
    return memoryview(a) if a.dtype.kind != "c" else a


def as_capsule(a):
    return Capsule(np.ascontiguousarray(a)) if a.flags.writeable and a.dtype != bool else a


ways = st.sampled_from([as_is, as_is, as_tensor, as_memory, as_capsule])
batches = st.one_of(st.integers(1, 12), st.sampled_from([0, 1, 1024, 1025]))


@st.composite
def mlp_input(draw):
    dtype = draw(st.sampled_from(["f4"] * 6 + DTYPES))
    shape = draw(st.one_of(*[st.tuples(batches, st.just(64))] * 4, st.tuples(batches, st.integers(0, 70)),
                           st.lists(st.integers(0, 4), max_size=6).map(tuple)))
    return draw(laid_out(shape, dtype))


def mlp(x, k):
    return np.maximum(x @ k["fc1.weight"].T + k["fc1.bias"], 0) @ k["fc2.weight"].T + k["fc2.bias"]


@st.composite
def mlp_constants(draw):
    """Some constants by name; most are right."""
    ret = {}
    for name in draw(st.lists(st.sampled_from(sorted(SHAPES)), unique=True, max_size=4)):
        dtype = draw(st.sampled_from(["f4"] * 15 + DTYPES))
        shape = draw(st.sampled_from([SHAPES[name]] * 15 + list(SHAPES.values()) + [SHAPES[name][::-1], SHAPES[name] + (1,), ()]))
        ret[name] = draw(laid_out(shape, dtype)) / 8 if dtype == "f4" else draw(laid_out(shape, dtype))
    if draw(st.integers(0, 15)) == 0:
        ret["fc3.bias"] = np.zeros(3, "f4")
    return ret


class Properties(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = Fixture("mlp").load()
        cls.constants = cls.model.extract_constants()

    @classmethod
    def tearDownClass(cls):
        cls.model.close()
        del cls.model

    def test_inputs(self):
        m, k, right = self.model, self.constants, [0, 0]

        @quick
        @given(mlp_input(), ways)
        def one(x, way):
            if x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == 64 and 1 <= x.shape[0] <= 1024:
                before = x.copy()
                np.testing.assert_allclose(m(way(x)), mlp(x, k), 1e-3, 1e-3)
                np.testing.assert_array_equal(x, before)
                right[0] += 1
                return
            with self.assertRaises(pt2box.TensorError) as e:
                m(way(x))
            self.assertEqual(e.exception.status, "BAD_TENSOR")
            right[1] += 1
        one()
        self.assertTrue(all(n > 50 for n in right), right)

    def test_constants(self):
        current, right = dict(self.constants), [0, 0]
        x = numbers((4, 64), "f4", 1)
        with Fixture("mlp").load() as m:
            @quick
            @given(mlp_constants(), st.booleans(), st.booleans())
            def one(given_, full, internal):
                unknown = set(given_) - set(SHAPES)
                bad = [n for n, a in given_.items() if n in SHAPES and (a.dtype != np.float32 or a.shape != SHAPES[n])]
                missing = set(SHAPES) - set(given_) if full else ()
                names = {n.replace(".", "_") if internal else n: a for n, a in given_.items()}
                load = m.update_constants if internal else m.load_constants
                if unknown or bad or missing:
                    with self.assertRaises(pt2box.Error) as e:
                        load(names, full=full)
                    allowed = {"NOT_FOUND"} if not bad else {"NOT_FOUND", "BAD_TENSOR"} if unknown or missing else {"BAD_TENSOR"}
                    self.assertIn(e.exception.status, allowed)
                    right[1] += 1
                else:
                    load(names, full=full)
                    current.update({n: a.copy() for n, a in given_.items()})
                    right[0] += 1
                np.testing.assert_allclose(m(x), mlp(x, current), 1e-3, 1e-3)
            one()
        self.assertTrue(all(n > 30 for n in right), right)

    def test_each_dtype(self):
        f = Fixture("dtypes")
        inputs, want = next(iter(f.cases()))
        with f.load() as m:
            @quick
            @given(st.integers(0, 9), st.sampled_from(DTYPES), st.integers(6, 8))
            def one(i, dtype, n):
                changed = list(inputs)
                changed[i] = np.resize(np.asarray(inputs[i]), n).astype(dtype)
                if n == 7 and str(changed[i].dtype) == str(inputs[i].dtype):
                    self.assertEqual(len(m.run(changed)), len(want))
                    return
                with self.assertRaises(pt2box.TensorError):
                    m.run(changed)
            one()

    def test_any_layout_is_right(self):
        """An elementwise package whose input is declared transposed."""
        f = Fixture("strided")
        with f.load() as m:
            @quick
            @given(laid_out((5, 8), "f4"), ways)
            def one(x, way):
                double, total = m(way(x))
                np.testing.assert_allclose(double, x * 2 + 1, 1e-5, 1e-5)
                np.testing.assert_allclose(total, x.sum(0), 1e-4, 1e-4)
            one()

    def test_tensors(self):
        @quick
        @given(st.lists(st.integers(0, 4), max_size=7).map(tuple).flatmap(
            lambda s: st.sampled_from(DTYPES).flatmap(lambda d: laid_out(s, d))))
        def one(a):
            t = pt2box.tensor(a)
            self.assertEqual((t.shape, t.dtype, t.size, t.ndim), (a.shape, str(a.dtype), a.size, a.ndim))
            np.testing.assert_array_equal(t.numpy(), a)
            np.testing.assert_array_equal(np.asarray(t), a)
            if a.dtype != bool:
                np.testing.assert_array_equal(np.from_dlpack(t), a)
            positive = all(s >= 0 for s, n in zip(a.strides, a.shape) if n > 1)
            if positive:
                shared = pt2box.Tensor(a)
                np.testing.assert_array_equal(shared.copy().numpy(), a)
                if a.size:
                    self.assertTrue(np.shares_memory(shared.numpy(), a))
            elif a.size:
                with self.assertRaises(ValueError):
                    pt2box.Tensor(a)
        one()


if __name__ == "__main__":
    main()
