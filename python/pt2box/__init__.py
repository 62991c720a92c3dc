# SPDX-License-Identifier: Apache-2.0
"""Run PyTorch AOTInductor packages (.pt2) in confined processes, without torch.

    import pt2box
    model = pt2box.load("model.pt2")
    y = model(x)                        # nested as exported; numpy arrays, torch tensors, DLPack, buffers

load() starts a private broker for this process, once, or talks to the one that socket or $PT2BOX_SOCKET names. Everything
else: Model, Connection, Tensor, Error; batch() for many inputs. For code written for torch: pt2box.torch_compat.

A forked child must load its own models: those of its parent raise UsageError there.
"""
from __future__ import annotations

import _thread
import atexit
import os

from . import _core
from ._core import Tensor
from ._errors import (BrokerError, Cancelled, DeniedError, Error, LimitError, ModelCrashed, ModelError, ModelExited, ModelKilled,
                      ModelOutOfMemory, ModelTimeout, NotFoundError, OperatorError, PackageError, StateLost, TensorError,
                      UsageError)
from ._model import Connection, Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Union
    Package = Union[str, os.PathLike, bytes, bytearray, memoryview, IO[bytes]]
    from ._batch import Failed, batch, batch_table
    from ._pytree import register_dataclass, register_namedtuple, register_pytree_node

__version__ = _core.version
__all__ = ["BrokerError", "Cancelled", "Connection", "DeniedError", "Error", "Failed", "LimitError", "Model", "ModelCrashed", "ModelError",
           "ModelExited", "ModelKilled", "ModelOutOfMemory", "ModelTimeout", "NotFoundError", "OperatorError", "PackageError",
           "StateLost", "Tensor", "TensorError", "UsageError", "batch", "batch_table", "connect", "doctor", "inspect", "load", "load_metadata", "ps",
           "register_dataclass", "register_namedtuple", "register_pytree_node", "tensor"]

_lock = _thread.allocate_lock()
_shared: dict[str | None, Connection] = {}  # by socket; None: the private broker


def _close_all() -> None:
    for c in list(_shared.values()):
        c.close()
    _shared.clear()


def _in_child() -> None:
    """The connections are the parent's: only forgotten here."""
    global _lock
    _lock = _thread.allocate_lock()
    _shared.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_in_child)


def connect(socket: str | os.PathLike | None = None) -> Connection:
    """A connection of one's own: to the broker at socket, or to a private one that ends with it."""
    return Connection(socket)


def _connection(socket: str | os.PathLike | None) -> Connection:
    """The shared connection; a new one if its broker has gone."""
    key = os.fspath(socket) if socket is not None else os.environ.get("PT2BOX_SOCKET") or None
    with _lock:
        c = _shared.get(key)
        if c is not None and c.lost:
            c.close()
        if c is None or c.closed:
            c = _shared[key] = Connection(key)
        return c


def _ask(socket, f):
    """f(connection), once more if the shared connection's broker is found gone."""
    c = _connection(socket)
    try:
        return f(c)
    except BrokerError:
        if not c.lost:
            raise
    return f(_connection(socket))


def load(path: Package, *, model: str = "model", runners: int = 1, threads: int = 0, backend: str = "auto",
         profile: str = "default", single_threaded: bool = False, device: int = -1, socket: str | os.PathLike | None = None,
         constants=None, ops=None, run_deadline: float | None = None, load_deadline: float | None = None, memory: int | None = None,
         explain: bool = False, deadline: float | None = None, retries: int = 0, outputs: str = "auto",
         copy_outputs: bool = False, isolate: str | None = None) -> Model:
    """Load a package: a path, its bytes, or an open file; or "repo:NAME", which the operator of the broker offers.

    model: name inside the package
    runners: workers, 1 to 64; threads: of each, 0: one
    backend: "auto", "native" or "torch"; profile: "default" or "strict"
    single_threaded: as PyTorch's run_single_threaded, with one runner
    constants: for packages without: a safetensors file, or a mapping of names to tensors
    ops: operators that the package calls by name, a plugin in C (pt2box_op.h), a library made for PyTorch, or a file in Python
        (pt2box.ops): a path, its bytes, or an open file
    run_deadline, load_deadline: seconds, kept by the broker; None: its default; infinity: none (of runs)
    memory: bytes of each worker; None: the broker's default
    explain: name the system call of a model that its filter kills (slower)
    deadline: seconds that a call waits; retries: how often a run is repeated after its worker died
    outputs: "auto" (torch if an argument was torch's, else numpy), "numpy", "torch", "tensor" (pt2box.Tensor)
    copy_outputs: no array is readonly: large results are copied
    isolate: "request": every run in a fresh fork of the loaded model, which ends with it

    Raises PackageError, NotFoundError (it lists the models there are), ModelError if the package's own code failed.
    """
    return _ask(socket, lambda c: c.load(
        path, model=model, runners=runners, threads=threads, backend=backend, profile=profile, single_threaded=single_threaded,
        device=device, constants=constants, ops=ops, run_deadline=run_deadline, load_deadline=load_deadline, memory=memory,
        explain=explain, deadline=deadline, retries=retries, outputs=outputs, copy_outputs=copy_outputs,
        isolate=isolate))


def load_metadata(path: Package, model: str = "model", *, socket: str | os.PathLike | None = None) -> dict[str, str]:
    """A package's metadata, without running anything of it."""
    return _ask(socket, lambda c: c.load_metadata(path, model))


def inspect(path: Package, model: str = "model", *, socket: str | os.PathLike | None = None) -> dict:
    """What a package is, without running anything of it: models, inputs, call spec, constants, imports (see pt2box.h)."""
    return _ask(socket, lambda c: c.inspect(path, model))


def doctor(*, socket: str | os.PathLike | None = None) -> dict:
    """What this machine can enforce."""
    return _ask(socket, Connection.doctor)


def ps(*, socket: str | os.PathLike | None = None) -> dict:
    """Models, their health and last cause of death, workers and memory."""
    return _ask(socket, Connection.ps)


def tensor(object) -> Tensor:
    """A copy of any tensor, array, buffer or number as pt2box.Tensor."""
    return _core._tensor(object)


def __getattr__(name):
    if name in ("register_dataclass", "register_namedtuple", "register_pytree_node"):
        from . import _pytree
        return getattr(_pytree, name)
    if name in ("batch", "batch_table", "Failed"):
        from . import _batch
        return getattr(_batch, name)
    raise AttributeError("module 'pt2box' has no attribute %r" % name)
