# SPDX-License-Identifier: Apache-2.0
"""Exceptions, by families of statuses. All are RuntimeError, which is what PyTorch's loader raises."""
from . import _core


class Error(RuntimeError):
    """What pt2box raises. str() is one sentence.

    status: name of the status, "MODEL_CRASHED" (the list is in pt2box.h)
    code: its number, also the exit code of the command
    signal: number of the signal that ended the model, or 0
    errno: of the system call that failed, or 0
    """

    def __init__(self, text="", code=1, signal=0, errno=0):
        super().__init__(text)
        self.code, self.signal, self.errno = code, signal, errno

    @property
    def status(self):
        return _core._status_names.get(self.code, "?")

    def __reduce__(self):
        return type(self), (str(self), self.code, self.signal, self.errno)


class UsageError(Error):
    """USAGE: an argument is wrong, or the object is closed."""


class TensorError(Error):
    """BAD_TENSOR: a tensor does not fit the package: count, dtype, shape, stride or extent."""


class PackageError(Error):
    """PKG_REJECTED, UNSUPPORTED, IO: the package cannot be loaded here."""


class NotFoundError(Error):
    """NOT_FOUND: no such model or name."""


class LimitError(Error):
    """LIMIT: a limit or quota was reached."""


class DeniedError(Error):
    """DENIED: not permitted."""


class BrokerError(Error):
    """BROKER_LOST, PROTOCOL, LAYER_MISSING: the broker cannot serve."""


class Cancelled(Error):
    """CANCELLED: the run was cancelled."""


class ModelError(Error):
    """MODEL_ERROR with the model's own message, and, below, all other ways in which a model fails."""


class ModelKilled(ModelError):
    """MODEL_KILLED: it made a system call that its policy forbids."""


class ModelCrashed(ModelError):
    """MODEL_CRASHED: it died by .signal."""


class ModelExited(ModelError):
    """MODEL_EXITED: it ended its process."""


class ModelTimeout(ModelError):
    """MODEL_TIMEOUT: it overran its deadline."""


class ModelOutOfMemory(ModelError):
    """MODEL_OOM: it ran out of its memory."""


class StateLost(ModelError):
    """STATE_LOST: a stateful model lost its state; its next run begins with a fresh one."""


class OperatorError(ModelError):
    """OP_DENIED, OP_TIMEOUT, OP_CRASHED: a fallback operator failed."""


_CLASSES = {
    "USAGE": UsageError, "BAD_TENSOR": TensorError, "PKG_REJECTED": PackageError, "UNSUPPORTED": PackageError,
    "IO": PackageError, "NOT_FOUND": NotFoundError, "LIMIT": LimitError, "DENIED": DeniedError, "BROKER_LOST": BrokerError,
    "PROTOCOL": BrokerError, "LAYER_MISSING": BrokerError, "CANCELLED": Cancelled, "MODEL_ERROR": ModelError,
    "MODEL_KILLED": ModelKilled, "MODEL_CRASHED": ModelCrashed, "MODEL_EXITED": ModelExited, "MODEL_TIMEOUT": ModelTimeout,
    "MODEL_OOM": ModelOutOfMemory, "MODEL_PROTOCOL": ModelError, "STATE_LOST": StateLost, "OP_DENIED": OperatorError,
    "OP_TIMEOUT": OperatorError, "OP_CRASHED": OperatorError,
}
_CODES = {name: code for code, name in _core._status_names.items()}
_core._set_errors(Error, {_CODES[name]: cls for name, cls in _CLASSES.items()})


def make(status, text, errno=0):
    """The exception of a status."""
    return _CLASSES.get(status, Error)(text, _CODES[status], 0, errno)
