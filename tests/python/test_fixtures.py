#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every fixture through pt2box.load(), flat and nested, against the committed results."""
import os
import unittest

from harness import BUILD, FIXTURES, Fixture, TestCase, flat, main, nest, pt2box

# What runs with a plugin only.
REFUSED = {"customop": "UNSUPPORTED", "opkinds": "UNSUPPORTED"}


def fixtures():
    for name in sorted(os.listdir(FIXTURES)):
        if os.path.exists(os.path.join(FIXTURES, name, "meta.json")):
            for model in Fixture(name).meta.get("models", [None]):
                yield name, model


class EveryFixture(TestCase):
    def one(self, name, model):
        f, options = Fixture(name, model), {}
        if name in REFUSED:
            with self.assertRaises(pt2box.Error) as e:
                f.load()
            self.assertEqual(e.exception.status, REFUSED[name])
            options["ops"] = os.path.join(BUILD, "tests", "plugins", "example.so")
        with f.load(**options) as m:
            for inputs, want in f.cases():
                self.assert_close(m.run(inputs), want, f.meta, name + " flat")
        # A new one, whose state is new.
        with f.load(**options) as m:
            tree = m.call_spec["in"]["tree"]
            for inputs, want in f.cases():
                leaves = f.meta.get("leaves_in") or ["tensor"] * len(inputs)
                it = iter(inputs)
                args, kwargs = nest(tree, [next(it) if k == "tensor" else k for k in leaves])
                self.assert_close(flat(m(*args, **kwargs)), want, f.meta, name + " nested")


for _name, _model in fixtures():
    _test = "test_" + "_".join(filter(None, (_name, _model)))
    setattr(EveryFixture, _test, lambda self, a=_name, b=_model: self.one(a, b))

if __name__ == "__main__":
    main()
