# SPDX-License-Identifier: Apache-2.0
"""Many inputs through one model: pt2box.batch() over an iterator, pt2box.batch_table() over rows of Arrow and Parquet.

The runs are those of `pt2box batch`: as many in hand as keep the workers busy, repeated when a worker was killed, ended when
two died of one input. Files, with a journal that outlives everything, are the command's business. (This is no module named
batch: the function is pt2box.batch.)
"""
from __future__ import annotations

import collections
import os
import select

from . import _errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# Of a run that failed: the input, or what the model did with it. Anything else ends the batch.
OWN_FAULT = (_errors.TensorError, _errors.ModelError, _errors.ModelCrashed, _errors.ModelExited, _errors.ModelKilled,
             _errors.ModelTimeout, _errors.ModelOutOfMemory, _errors.OperatorError, _errors.LimitError)
RETRIES = 16


class Failed:
    """In the place of the result of an input that failed: .error, .index and the input itself, .item."""

    def __init__(self, index: int, item: Any, error: Exception):
        self.index, self.item, self.error = index, item, error

    def __repr__(self):
        return "<pt2box.Failed %d: %s>" % (self.index, self.error)


def _usable_cpus():
    return min(64, len(os.sched_getaffinity(0)))


def _open(model, workers, options):
    """A model, and whether it is ours to close. Of a path, a broker of its own: nobody else's batch is in the way."""
    import pt2box
    if isinstance(model, pt2box.Model):
        if options or workers:
            raise TypeError("a model that is loaded has its workers and options")
        return model, False, None
    connection = pt2box.connect(options.pop("socket", None) or os.environ.get("PT2BOX_SOCKET") or None)
    try:
        return connection.load(model, runners=workers or _usable_cpus(), retries=options.pop("retries", RETRIES),
                               **options), True, connection
    except BaseException:
        connection.close()
        raise


def _start(model, item):
    if isinstance(item, tuple):
        return model._start(*item)
    if isinstance(item, dict):
        return model._start(**item)
    return model._start(item)


class _Window:
    """Runs in hand, and what has ended and was not given out."""

    def __init__(self, model, ordered, size):
        self.model, self.ordered, self.size = model, ordered, size
        self.runs = collections.deque()  # (index, item, Run or what became of it)
        self.poll = None if ordered else select.poll()

    def add(self, index, item):
        try:
            run = _start(self.model, item)
        except OWN_FAULT as e:
            run = Failed(index, item, e)
        self.runs.append((index, item, run))
        if self.poll and not isinstance(run, Failed):
            self.poll.register(run.fileno(), select.POLLIN)

    def _first(self):
        """The place of one that is to be given out next: the oldest, or any that has ended."""
        if self.ordered:
            return 0
        while True:
            for i, (_, _, run) in enumerate(self.runs):
                if isinstance(run, Failed) or run.done():
                    return i
            self.poll.poll()

    def take(self):
        i = self._first()
        index, item, run = self.runs[i]
        del self.runs[i]
        if isinstance(run, Failed):
            return index, run
        if self.poll:
            self.poll.unregister(run.fileno())
        try:
            return index, run.result()
        except OWN_FAULT as e:
            return index, Failed(index, item, e)

    def drop(self):
        runs = [run for _, _, run in self.runs if not isinstance(run, Failed)]
        self.runs.clear()
        for run in runs:
            run.cancel()
        for run in runs:
            try:
                run.result()
            except _errors.Error:
                pass


def batch(model, inputs: Iterable[Any], *, ordered: bool = True, workers: int | None = None, max_failures: int | None = None,
          with_index: bool = False, **options) -> Iterator[Any]:
    """Run a model over inputs, and yield what comes out.

    model: a package, as pt2box.load() takes it, with options of load(); or a loaded Model
    inputs: any iterable. A tuple is the arguments of a call, a dict its keywords, anything else its one argument
    ordered: results in the order of the inputs; else as they come
    workers: worker processes; default: as many as there are usable CPUs
    max_failures: an input that failed (a crash, a deadline, a wrong shape) yields a Failed, and the rest goes on; after more
        than max_failures of them the error is raised
    with_index: yield (index, result)

    Inputs are taken as workers become free: memory is bounded, also for an endless iterable. A run whose worker was killed
    from outside is repeated (retries=16); an input of which two workers died is not tried again. A model with state is
    refused, since results would depend on who came before.
    """
    m, ours, connection = _open(model, workers, options)
    window, failures, source = None, 0, enumerate(inputs)
    try:
        if m.stateful:
            raise _errors.make("UNSUPPORTED", "the package keeps a state from run to run: run it in a loop, or with sessions")
        n = workers or (_usable_cpus() if ours else 16)
        window = _Window(m, ordered, 2 * n + 2)
        more = True
        while more or window.runs:
            while more and len(window.runs) < window.size:
                try:
                    index, item = next(source)
                except StopIteration:
                    more = False
                    break
                window.add(index, item)
                del item
            if not window.runs:
                break
            index, result = window.take()
            if isinstance(result, Failed):
                failures += 1
                if max_failures is not None and failures > max_failures:
                    raise result.error
            yield (index, result) if with_index else result
    finally:
        if window:
            window.drop()
        if ours:
            m.close()
            connection.close()


# ---- tables ----

def _column(array):
    """A column as numpy: numbers, or lists of one length, of any depth."""
    import numpy as np
    import pyarrow as pa
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise ValueError("a column has nulls")
    shape = [len(array)]
    if isinstance(array, pa.FixedShapeTensorArray):
        return array.to_numpy_ndarray()
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        flat = array.flatten()
        rows = len(array)
        if rows and len(flat) % rows:
            raise ValueError("lists of a column differ in length")
        if rows and not pa.types.is_fixed_size_list(array.type):
            if len(set(np.diff(array.offsets.to_numpy()).tolist())) > 1:
                raise ValueError("lists of a column differ in length")
        shape.append(len(flat) // rows if rows else 0)
        array = flat
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


def _arrow(values):
    """Rows of a tensor as a column: numbers, or fixed-size lists."""
    import numpy as np
    import pyarrow as pa
    a = np.ascontiguousarray(values)
    out = pa.array(a.reshape(-1))
    for size in reversed(a.shape[1:]):
        out = pa.FixedSizeListArray.from_arrays(out, size)
    return out


def _batches(source, columns, rows):
    """Record batches of that many rows; the last may have fewer."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    if isinstance(source, (str, os.PathLike)):
        source = pq.ParquetFile(os.fspath(source)).iter_batches(batch_size=rows, columns=columns)
    elif isinstance(source, pa.Table):
        source = source.select(columns).to_batches(rows) if columns else source.to_batches(rows)
    elif hasattr(source, "to_batches"):  # a dataset
        source = source.to_batches(columns=columns, batch_size=rows)
    held, n = [], 0
    for b in source:  # a RecordBatchReader, or any iterable of record batches
        if columns:
            b = b.select(columns)
        while b.num_rows:
            part = b.slice(0, rows - n)
            b = b.slice(part.num_rows)
            held.append(part)
            n += part.num_rows
            if n == rows:
                yield pa.Table.from_batches(held)
                held, n = [], 0
    if n:
        yield pa.Table.from_batches(held)


def _rows_in(model, batch_size):
    dims = (model.inputs or [{}])[0].get("dims") or [{}]
    low, high = dims[0].get("min") or 1, dims[0].get("max") or 1 << 32
    return batch_size or min(max(32, low), high)


def _outputs(result, rows):
    """The tensors of a result that has a row for each row of the input."""
    flat = result if isinstance(result, (list, tuple)) else [result]
    for i, t in enumerate(flat):
        if t.ndim < 1 or t.shape[0] != rows:
            raise _errors.make("UNSUPPORTED", "output %d has no row for each row of the input" % i)
    return flat


def _table_inputs(batches, rows, counts):
    import numpy as np
    for table in batches:
        counts.append(table.num_rows)
        arrays = [_column(c) for c in table.columns]
        missing = rows - table.num_rows
        if missing:
            arrays = [np.concatenate([a, np.repeat(a[-1:], missing, 0)]) for a in arrays]
        yield tuple(arrays)


def batch_table(model, source, *, columns: list[str] | None = None, batch_size: int | None = None, output=None,
                workers: int | None = None, max_failures: int | None = 0, **options):
    """Rows of a table through a model; columns are its arguments, the outputs are columns out0, out1, ...

    source: a Parquet file, a pyarrow Table, Dataset or RecordBatchReader, or an iterable of record batches
    columns: those that are the model's arguments, in order; default: all
    batch_size: rows of a run; default: as the package was compiled, else 32. The last is filled up, and cut
    output: a Parquet file to write, which appears whole or not at all; without it record batches are yielded
    max_failures: batches of rows that may fail. Their rows are null

    Columns hold numbers, or lists of one length (nested: more dimensions). Needs pyarrow.
    """
    m, ours, connection = _open(model, workers, options)
    made = _table(m, source, columns, _rows_in(m, batch_size), max_failures, workers or (_usable_cpus() if ours else 16))
    if output is None:
        return _closing(made, m, ours, connection)
    _write_parquet(_closing(made, m, ours, connection), os.fspath(output))
    return None


def _closing(made, m, ours, connection):
    try:
        yield from made
    finally:
        made.close()
        if ours:
            m.close()
            connection.close()


def _table(m, source, columns, rows, max_failures, workers):
    import pyarrow as pa
    counts, waiting, schema = collections.deque(), [], None
    runs = batch(m, _table_inputs(_batches(source, columns, rows), rows, counts), max_failures=max_failures)
    for result in runs:
        n = counts.popleft()
        if isinstance(result, Failed):
            if schema is None:
                waiting.append(n)  # its columns are not known yet
                continue
            yield _nulls(schema, n)
            continue
        flat = _outputs(result, rows)
        made = pa.RecordBatch.from_arrays([_arrow(t[:n]) for t in flat], ["out%d" % i for i in range(len(flat))])
        schema = made.schema
        for k in waiting:
            yield _nulls(schema, k)
        waiting.clear()
        yield made
    if waiting:
        raise _errors.make("MODEL_ERROR", "no batch of rows succeeded")


def _nulls(schema, n):
    import pyarrow as pa
    return pa.RecordBatch.from_arrays([pa.nulls(n, f.type) for f in schema], schema=schema)


def _write_parquet(batches, path):
    import pyarrow.parquet as pq
    temp = "%s.%d.tmp" % (path, os.getpid())
    writer = None
    try:
        for b in batches:
            if writer is None:
                writer = pq.ParquetWriter(temp, b.schema)
            writer.write_batch(b)
        if writer is None:
            raise ValueError("the table has no rows")
        writer.close()
        writer = None
        with open(temp, "rb") as f:
            os.fsync(f.fileno())
        os.rename(temp, path)
    finally:
        if writer is not None:
            writer.close()
        if os.path.exists(temp):
            os.unlink(temp)
