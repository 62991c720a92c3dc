# SPDX-License-Identifier: Apache-2.0
"""Models and connections as users see them."""
from __future__ import annotations

import _thread
import os

from . import _core, _errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from . import Package

_INACTIVE, _FULL, _USER_MANAGED, _NAMES = 1, 2, 4, 8
_TYPES = ("unknown", "parameter", "buffer", "tensor constant", "folded")
_constant_info = None


def open_file(file: Package) -> tuple[int, bool]:
    """A descriptor of a path, of bytes or of an open file; and whether it is the caller's to close."""
    if isinstance(file, (str, os.PathLike)):
        try:
            # Non-blocking: a path may name a pipe that nobody writes.
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), True
        except OSError as e:
            raise _errors.make("IO", "%s: %s" % (os.fspath(file), e.strerror), e.errno or 0) from None
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _memory(file), True
    try:
        return file.fileno(), False
    except (AttributeError, OSError):
        pass
    if not hasattr(file, "read"):
        raise TypeError("a path, bytes or a file is needed, not %s" % type(file).__name__)
    if hasattr(file, "seek"):
        file.seek(0)
    return _memory(file.read()), True


def _memory(*parts) -> int:
    fd = os.memfd_create("pt2box-package", os.MFD_CLOEXEC)
    for data in parts:
        with memoryview(data) as m, m.cast("B") as b:
            at = 0
            while at < len(b):
                at += os.write(fd, b[at:at + (1 << 30)])
    return fd


_SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
                "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
                "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64"}


def safetensors(constants: Mapping[str, Any]) -> int:
    """A memory file of the safetensors format, from tensors of any kind."""
    import json
    header, at, data = {}, 0, []
    for name, value in constants.items():
        t = _core._tensor(value)
        if t.dtype not in _SAFETENSORS:
            raise _errors.make("BAD_TENSOR", "constant %s: safetensors have no %s" % (name, t.dtype))
        header[name] = {"dtype": _SAFETENSORS[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
        data.append(t)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return _memory(len(text).to_bytes(8, "little"), text, *(t for t in data if t.nbytes))


def milliseconds(seconds: float | None) -> int:
    """None: the default; infinity: no limit."""
    if seconds is None:
        return 0
    if seconds == float("inf"):
        return -1
    if not seconds > 0:
        raise ValueError("a deadline is a positive number of seconds, not %r" % (seconds,))
    return max(1, round(seconds * 1000))


def interruptible(f, *args):
    """f(*args) on a thread, so that Ctrl-C need not wait for its end: what it then returns is dropped."""
    if os.getpid() != _thread.get_native_id():
        return f(*args)  # only the main thread has signals
    result, ended = [], _thread.allocate_lock()

    def work():
        try:
            result.append((f(*args), None))
        except BaseException as e:
            result.append((None, e))
        ended.release()
    ended.acquire()
    _thread.start_new_thread(work, ())
    ended.acquire()
    value, error = result.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame
    return value


class Model(_core.Model):
    """A loaded package: call it as the model that was exported.

    Arguments and results are nested as the package's call spec says. Tensors may be numpy arrays, torch tensors, whatever has
    __dlpack__ or the buffer protocol, and numbers where the model takes a tensor. Results are torch tensors if an argument was
    one, else numpy arrays (bfloat16 and float8 only with ml_dtypes, else pt2box.Tensor). Several threads may call at once and
    use all runners. What the model writes into an argument is written; a result that is an argument, or a view of it, is so
    here too, unless the model writes its arguments.

    Results above 64 KiB lie where the worker wrote them: numpy arrays of them are readonly (copy_outputs=True: copies that are
    not), torch tensors are copies. A hostile worker could still change readonly ones: copy what is checked before it is used.
    """

    _metadata = _describe = None
    connection: Connection

    # ---- runs ----

    async def run_async(self, *args, **kwargs):
        """The same as a call, for asyncio. Cancelling the task cancels the run; it returns when the run has ended."""
        return await _wait(self._start(*args, **kwargs))

    async def run_flat_async(self, inputs):
        """The same as run(inputs)."""
        return await _wait(self._start_flat(inputs))

    def session(self) -> Model:
        """The same model with a state of its own and one worker of its own. Close it before the model."""
        s = interruptible(self._session)
        s.name = self.name
        s._prepare(self.connection, self._options)
        return s

    def empty(self, shape, dtype: str = "float32") -> _core.Tensor:
        """An uninitialised tensor in memory that the workers see: as an input it is not copied. Fill .numpy() of it."""
        return self._empty(str(dtype), tuple(shape))

    def _prepare(self, connection, options):
        self.connection, self._options = connection, options
        self._configure(*options)
        texts = self._spec_text()
        if not texts[0]:
            return
        from . import _pytree
        try:
            self._set_spec(*_pytree.decode_call(*texts), None)
        except (_pytree.Unknown, ValueError) as e:
            self._set_spec(None, None, str(e))

    # ---- what it is ----

    @property
    def info(self) -> dict:
        """What pt2box.inspect() says of it."""
        if self._describe is None:
            self._describe = self.describe()
        return self._describe

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.info["metadata"])

    @property
    def call_spec(self) -> dict:
        """{"in": {"text", "tree"}, "out": ...}: pytree specs as PyTorch writes them, and decoded."""
        return self.info["call_spec"]

    @property
    def inputs(self) -> list | None:
        """Name, dtype and sizes of each flat input, or None if the package does not say."""
        return self.info["inputs"]

    @property
    def constants(self) -> list:
        """Name, dtype and sizes of each constant, in the container's order."""
        global _constant_info
        if _constant_info is None:
            from collections import namedtuple
            _constant_info = namedtuple("ConstantInfo", "fqn name dtype shape strides nbytes type folded")
        return [_constant_info(*row[:6], _TYPES[row[6]] if row[6] < 5 else "unknown", bool(row[7])) for row in self._constants()]

    @property
    def constant_fqns(self) -> list[str]:
        """Fully qualified names of the constants, folded ones included."""
        return [row[0] for row in self._constants()]

    # ---- constants ----

    def load_constants(self, constants, *, inactive: bool = False, full: bool = False, user_managed: bool = False) -> None:
        """Replace constants by fully qualified name: from a mapping of tensors, or a safetensors file (path, bytes or file).

        Atomic: a run sees the old or the new ones. inactive: of the inactive buffer. full: every parameter must be given.
        user_managed: for compatibility; the values are read now all the same.
        """
        self._change(constants, inactive * _INACTIVE | full * _FULL | user_managed * _USER_MANAGED)

    def update_constants(self, constants, *, inactive: bool = False, full: bool = False, user_managed: bool = False) -> None:
        """The same, by the package's internal names ("fc1_weight") or fully qualified ones."""
        self._change(constants, inactive * _INACTIVE | full * _FULL | user_managed * _USER_MANAGED | _NAMES)

    def _change(self, constants, flags):
        if hasattr(constants, "items"):
            interruptible(self._load_constants, list(constants.items()), flags)
        else:
            interruptible(self._load_file, constants, flags)

    def _load_file(self, constants, flags):
        fd, ours = open_file(constants)
        try:
            self._load_constants_fd(fd, flags)
        finally:
            if ours:
                os.close(fd)

    def swap_constants(self) -> None:
        """Exchange the active and the inactive buffer."""
        interruptible(super().swap_constants)

    def fold_constants(self, inactive: bool = False) -> None:
        """Compute the folded constants of a buffer now; updates do so by themselves."""
        interruptible(self._fold_constants, inactive)

    def extract_constants(self, *, inactive: bool = False, outputs: str = "numpy") -> dict[str, Any]:
        """Copies of the constants as they are now, of a stateful model its state. outputs: "numpy", "torch" or "tensor"."""
        return interruptible(self._extract_constants, inactive, outputs)

    # ---- life ----

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        return "<pt2box.Model %s%s>" % (self.name, ", closed" if self.closed else "")


async def _wait(run):
    """The result of a started run. A task that is cancelled waits until the run no longer uses its inputs."""
    import asyncio
    loop = asyncio.get_running_loop()
    cancelled = None
    while not run.done():
        ended = loop.create_future()
        fd = run.fileno()
        loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))
        try:
            await ended
        except asyncio.CancelledError as e:
            cancelled = e
            run.cancel()
        finally:
            loop.remove_reader(fd)
    if cancelled is None:
        return run.result()
    try:
        run.result()
    except _errors.Error:
        pass
    raise cancelled


REPO = "repo:"  # in the place of a path: a model that the broker offers by name


class Connection(_core.Connection):
    """A connection to a broker: pt2box.connect()."""

    def load(self, path: Package, *, model: str = "model", runners: int = 1, threads: int = 0, backend: str = "auto",
             profile: str = "default", single_threaded: bool = False, device: int = -1, constants=None,
             ops=None, run_deadline: float | None = None, load_deadline: float | None = None, memory: int | None = None,
             explain: bool = False, deadline: float | None = None, retries: int = 0, outputs: str = "auto",
             copy_outputs: bool = False, isolate: str | None = None) -> Model:
        """As pt2box.load()."""
        options = (milliseconds(deadline), retries, outputs, copy_outputs)
        if isolate not in (None, "none", "request"):
            raise ValueError(f'isolate must be "request" or None, not {isolate!r}')
        named = path[len(REPO):] if isinstance(path, str) and path.startswith(REPO) else None
        m = interruptible(self._load, (None if named is not None else path, constants, ops), (
            model, backend, profile, runners, threads, single_threaded, device, milliseconds(load_deadline),
            milliseconds(run_deadline), explain), memory or 0, named, isolate == "request")
        m.name = model
        m._prepare(self, options)
        return m

    def _load(self, files, options, memory, named=None, isolate=False):
        fds = []
        try:
            for file in files:
                if file is None:
                    fds.append((-1, False))
                elif hasattr(file, "items"):
                    fds.append((safetensors(file), True))
                else:
                    fds.append(open_file(file))
            return Model(self, fds[0][0], *options, fds[1][0], memory, fds[2][0], named, isolate)
        finally:
            for fd, ours in fds:
                if ours:
                    os.close(fd)

    def inspect(self, path: Package, model: str = "model") -> dict:
        """As pt2box.inspect()."""
        return self._ask(path, model, False)

    def load_metadata(self, path: Package, model: str = "model") -> dict[str, str]:
        """As pt2box.load_metadata()."""
        return self._ask(path, model, True)["metadata"]

    def _ask(self, path, model, only_metadata):
        fd, ours = open_file(path)
        try:
            return self._inspect(fd, model, only_metadata)
        finally:
            if ours:
                os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
