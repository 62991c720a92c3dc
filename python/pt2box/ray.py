# SPDX-License-Identifier: Apache-2.0
"""Ray Data: a class for Dataset.map_batches() that runs a package in confined workers.

    import ray, pt2box.ray
    ds = ray.data.read_parquet("in/")
    ds = ds.map_batches(pt2box.ray.Predictor, fn_constructor_args=("model.pt2",), fn_constructor_kwargs={"columns": ["x"]},
                        **pt2box.ray.actors(4))

Each actor opens the host's broker ($PT2BOX_SOCKET, or socket=), so that all actors of a host share one copy of the constants
and the host's limits; without one it starts a private broker. Nodes declare how many workers they run as a custom resource:

    ray start --address=HEAD --resources='{"pt2box_slots": 8}'

Native crashes are the worker's, not the actor's: the actor lives on, the run is repeated if its worker was killed, and a
block that failed is, with on_error="null", cut in halves until the bad rows are found. A broker that is gone is opened again.
Ray repeats a block whose actor or node died (max_restarts, max_task_retries: actors() sets them); a block is computed from its
rows alone, so no row is lost or doubled.
"""
from __future__ import annotations

import collections
import os
import time

from . import _batch, _errors

SLOTS = "pt2box_slots"


def actors(n, *, workers: int = 1):
    """Arguments of map_batches(): n actors, each of which takes as many slots as it has workers, and is started again."""
    return {"concurrency": n, "num_cpus": 0, "resources": {SLOTS: workers}, "max_restarts": -1, "max_task_retries": -1}


class Predictor:
    """package: a path on every node, or the bytes of the package.

    columns: those that are the model's arguments, in order; default: all in the order of the batch
    outputs: names of the result's columns; default: out0, out1, ...
    keep: columns that are handed through
    workers: of this actor; batch_size: rows of a run, default as the package was compiled, else 32
    on_error: "raise"; "null": rows that failed are NaN, or 0 where there is none, and "error" has the reason in a column of its own
    """

    def __init__(self, package, *, columns=None, outputs=None, keep=(), workers: int = 1, batch_size: int | None = None,
                 on_error: str = "raise", socket=None, **options):
        self.package, self.columns, self.outputs, self.keep = package, columns, outputs, list(keep)
        self.workers, self.wanted, self.on_error = workers, batch_size, on_error
        self.socket = socket or os.environ.get("PT2BOX_SOCKET") or None
        self.options = dict({"retries": _batch.RETRIES}, **options)
        self.connection = self.model = None
        self._open()

    def _open(self):
        import pt2box
        self.close()
        self.connection = pt2box.connect(self.socket)
        self.model = self.connection.load(self.package, runners=self.workers, outputs="numpy", **self.options)
        if self.model.stateful:
            raise _errors.make("UNSUPPORTED", "the package keeps a state from run to run")
        self.rows = _batch._rows_in(self.model, self.wanted)

    def close(self):
        if self.model is not None:
            self.model.close()
        if self.connection is not None:
            self.connection.close()
        self.model = self.connection = None

    def __call__(self, batch):
        columns = self.columns or list(batch)
        arrays = [_dense(batch[c]) for c in columns]
        n = len(arrays[0])
        spans = [(i, min(i + self.rows, n)) for i in range(0, n, self.rows)]
        results, errors = {}, {}
        while spans:
            spans = self._sort(list(self._runs(arrays, spans)), results, errors)
        return self._table(batch, n, results, errors)

    def _runs(self, arrays, spans, attempts=20):
        """(span, result) of each; a broker that is gone is opened again, for what is left."""
        left = collections.deque(spans)
        while left:
            try:
                for result in _batch.batch(self.model, [self._fill(arrays, s) for s in left]):
                    yield left.popleft(), result
            except _errors.BrokerError:
                attempts = self._reopen(attempts)

    def _reopen(self, attempts):
        """How many are left. The host's broker takes a moment to be started again."""
        while True:
            attempts -= 1
            try:
                self._open()
                return attempts
            except _errors.Error:
                if attempts <= 0:
                    raise
                time.sleep(0.5)

    def _fill(self, arrays, span):
        import numpy as np
        begin, end = span
        missing = self.rows - (end - begin)
        return tuple(np.concatenate([a[begin:end], np.repeat(a[end - 1:end], missing, 0)]) if missing else a[begin:end]
                     for a in arrays)

    def _sort(self, runs, results, errors):
        """What is to be run again: the halves of what failed, until the bad rows are found."""
        again = []
        for (begin, end), result in runs:
            if not isinstance(result, _batch.Failed):
                results[begin, end] = [t[:end - begin].copy() for t in _batch._outputs(result, self.rows)]
            elif self.on_error == "raise":
                raise result.error
            elif end - begin == 1:
                errors[begin] = "%s: %s" % (result.error.status, result.error)
            else:
                middle = (begin + end) // 2
                again += [(begin, middle), (middle, end)]
        return again

    def _table(self, batch, n, results, errors):
        import numpy as np
        out = {c: batch[c] for c in self.keep}
        examples = next(iter(results.values())) if results else [np.zeros(1, np.float32)] * self.model.n_outputs
        for i, example in enumerate(examples):
            column = np.zeros((n,) + example.shape[1:], example.dtype)
            if column.dtype.kind in "fc":
                column[list(errors)] = np.nan
            for (begin, end), r in results.items():
                column[begin:end] = r[i]
            out[self.outputs[i] if self.outputs else "out%d" % i] = column
        if self.on_error != "raise":
            out["error"] = np.array([errors.get(i, "") for i in range(n)], dtype=object)
        return out


def _dense(column):
    """Ray gives lists of one length as an array of objects, or as one array."""
    import numpy as np
    a = np.asarray(column)
    return np.ascontiguousarray(np.stack(list(a)) if a.dtype == object else a)
