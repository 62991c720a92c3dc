# SPDX-License-Identifier: Apache-2.0
"""PyTorch's package loader, in confined processes: replace the import.

    from pt2box.torch_compat import aoti_load_package            # torch._inductor.aoti_load_package
    from pt2box.torch_compat import load_package                 # torch._inductor.package.load_package
    from pt2box.torch_compat import AOTIModelPackageLoader       # torch._C._aoti.AOTIModelPackageLoader

Names, arguments, defaults and results are those of torch 2.13.0; errors are RuntimeError (pt2box.Error), as there, and
TypeError for arguments of a wrong type. Needs torch, which is imported when the first tensor comes.

Stricter than PyTorch, where it reads or writes out of bounds, or computes with wrong numbers, without an error:
 - inputs of another dtype, rank or size than the package was compiled for are refused
 - constants of another dtype or shape than declared are refused
 - load_constants() and update_constant_buffer() refuse names that the package lacks (the latter ignores them in PyTorch), and
   are refused where the package does not describe its constants
 - a run with constants missing altogether (package without weights, nothing loaded) is an error, not a crash
 - packages without a .so (C++ only) are refused; PyTorch compiles them with flags that stand in the package
 - packages that need an operator which neither the native runtime nor an installed PyTorch has are refused when they are loaded
 - a directory in place of a file is refused
Different from PyTorch:
 - inputs and constants in other strides than compiled for are right (PyTorch reads them as if they had the compiled ones);
   with user_managed=True such constants are refused
 - a package without weights starts its workers when the last of its constants has been loaded
 - user_managed=True takes the values: later changes of the tensors are not seen
 - where the model writes its inputs, an output that is such an input is a copy of it (the input itself is written, too)
 - boxed_run(): what the model writes into an input that only the list held cannot be seen through other views of it
 - AOTICompiledModel also takes numpy arrays
"""
from __future__ import annotations

import os

import pt2box

from . import _errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import torch

__all__ = ["AOTICompiledModel", "AOTIModelPackageLoader", "aoti_load_package", "load_package"]


def _raise_as(e: pt2box.Error, text: str):
    """The same error in PyTorch's words."""
    raise type(e)(text, e.code, e.signal, e.errno) from None


def _load_error(e: pt2box.Error, path, model_name: str, what: str):
    if e.status == "IO":
        _raise_as(e, "Failed to initialize zip archive: file open failed (%s)" % e)
    if e.status == "NOT_FOUND":
        _raise_as(e, "Failed to find %s for model '%s' in the zip archive. %s\n\nTo load a specific model, please provide its name "
                     "using the `model_name` parameter when calling AOTIModelPackageLoader() or "
                     "torch._inductor.package.load_package." % (what, model_name, e))
    if e.status == "PKG_REJECTED":
        _raise_as(e, "Failed to initialize zip archive: %s" % e)
    raise e


class AOTIModelPackageLoader:
    """torch._C._aoti.AOTIModelPackageLoader. num_runners workers; calls from many threads use all of them."""

    def __init__(self, model_package_path: str, model_name: str = "model", run_single_threaded: bool = False,
                 num_runners: int = 1, device_index: int = -1) -> None:
        if not isinstance(model_package_path, str) or not isinstance(model_name, str):
            raise TypeError("__init__(): incompatible function arguments: the path and the model's name must be str")
        if run_single_threaded and num_runners != 1:
            raise _errors.make("USAGE", "num_runners must be 1 when run_single_threaded is true")
        if num_runners < 0 or not -1 << 63 <= device_index < 1 << 63:
            raise TypeError("__init__(): incompatible constructor arguments")
        if num_runners < 1:
            raise _errors.make("USAGE", "num_runners must be >=1 when run_single_threaded is false")
        self._package = model_package_path, dict(model=model_name, runners=num_runners, device=device_index,
                                                 single_threaded=run_single_threaded, outputs="torch")
        self._given: dict[str, Any] = {}  # constants of a package without, until all are there
        self._loaded: pt2box.Model | None = None
        try:
            self._loaded = self._load(None)
        except pt2box.Error as e:
            self._info = self._inspect_external(e)
            if self._info is None:
                _load_error(e, model_package_path, model_name, "a generated cpp file or so file")

    def _load(self, constants):
        return pt2box.load(self._package[0], constants=constants, **self._package[1])

    def _inspect_external(self, e):
        """What the package is, if it could not be loaded for want of constants; PyTorch takes these later."""
        if e.status != "NOT_FOUND":
            return None
        try:
            info = pt2box.inspect(self._package[0], self._package[1]["model"])
        except pt2box.Error:
            return None
        return info if info["constants"]["source"] == "external" else None

    @property
    def _model(self) -> pt2box.Model:
        if self._loaded is None:
            missing = [n for n in self.get_constant_fqns() if n not in self._given]
            raise _errors.make("NOT_FOUND", "the package has no constants inside, and these have not been loaded: " + ", ".join(missing))
        return self._loaded

    def _load_first(self, constants, full):
        """Constants of a package without: kept until they are all there."""
        names = {n for k in self._info["constants"]["list"] if not k["folded"] for n in (k["fqn"],)}
        missing = names - set(constants)
        if full and missing:
            raise _errors.make("NOT_FOUND", "Cannot find constants %s in constants_map!" % ", ".join(sorted(missing)))
        self._given.update((n, t.detach().clone()) for n, t in constants.items())
        if names <= set(self._given):
            self._loaded = self._load({n: self._given[n] for n in names})
            self._given = {}

    def run(self, inputs: Sequence[torch.Tensor], stream_handle=None) -> list[torch.Tensor]:
        return self._model.run(self._check("run", inputs, stream_handle))

    def boxed_run(self, inputs: list, stream_handle=None) -> list:
        """As run(), but empties the list, and frees what nobody else holds before the model starts."""
        if not isinstance(inputs, list):
            raise TypeError("boxed_run(): incompatible function arguments: inputs must be a list")
        self._check("boxed_run", inputs, stream_handle)
        return self._model.boxed_run(inputs)

    def _check(self, name, inputs, stream_handle):
        from torch import Tensor
        if isinstance(inputs, (Tensor, str, bytes)) or not all(isinstance(x, Tensor) for x in inputs):
            raise TypeError("%s(): incompatible function arguments: inputs must be a sequence of torch.Tensor" % name)
        if stream_handle is not None and type(stream_handle).__name__ != "PyCapsule":
            raise TypeError("%s(): incompatible function arguments: stream_handle must be a capsule" % name)
        n = self._model.n_inputs
        if len(inputs) != n:
            raise _errors.make("BAD_TENSOR", "expected inputs vector size to be %d, but got %d" % (n, len(inputs)))
        return inputs

    def get_metadata(self) -> dict[str, str]:
        return dict(self._info["metadata"]) if self._loaded is None else self._loaded.metadata

    @staticmethod
    def load_metadata_from_package(model_package_path: str, model_name: str) -> dict[str, str]:
        """Without starting a worker."""
        try:
            return pt2box.load_metadata(model_package_path, model_name)
        except pt2box.Error as e:
            _load_error(e, model_package_path, model_name, "wrapper metadata")

    def get_call_spec(self) -> list[str]:
        if self._loaded is None:
            return [self._info["call_spec"][side]["text"] or "" for side in ("in", "out")]
        return list(self._loaded._spec_text())

    def get_constant_fqns(self) -> list[str]:
        if self._loaded is None:
            return [k["fqn"] for k in self._info["constants"]["list"]]
        return self._loaded.constant_fqns

    def get_custom_objs(self) -> dict:
        return {}

    def load_constants(self, constants_map: Mapping[str, torch.Tensor], use_inactive: bool, check_full_update: bool,
                       user_managed: bool = False, allow_h2d_copy: bool = False) -> None:
        """By fully qualified name."""
        if user_managed and allow_h2d_copy:
            raise _errors.make("USAGE", "load_constants: allow_h2d_copy is not supported with user_managed")
        self._check_map("load_constants", constants_map)
        known = set(self.get_constant_fqns())
        for name in constants_map:
            if name not in known:
                raise _errors.make("NOT_FOUND", "Constant not found: %s" % name)
        if self._loaded is None and not use_inactive:
            self._load_first(constants_map, check_full_update)
            return
        self._model.load_constants(constants_map, inactive=use_inactive, full=check_full_update, user_managed=user_managed)

    def update_constant_buffer(self, tensor_map: Mapping[str, torch.Tensor], use_inactive: bool, validate_full_updates: bool,
                               user_managed: bool = False) -> None:
        """By the package's internal name ("fc1_weight"), or the fully qualified one."""
        self._check_map("update_constant_buffer", tensor_map)
        if self._loaded is None and not use_inactive:
            fqns = {k["name"]: k["fqn"] for k in self._info["constants"]["list"]}
            self._load_first({fqns.get(n, n): t for n, t in tensor_map.items()}, validate_full_updates)
            return
        self._model.update_constants(tensor_map, inactive=use_inactive, full=validate_full_updates, user_managed=user_managed)

    @staticmethod
    def _check_map(name, constants):
        from torch import Tensor
        if not hasattr(constants, "items") or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in constants.items()):
            raise TypeError("%s(): incompatible function arguments: a mapping of str to torch.Tensor is needed" % name)


class AOTICompiledModel:
    """torch.export.pt2_archive._package.AOTICompiledModel: what aoti_load_package() returns."""

    def __init__(self, loader: AOTIModelPackageLoader) -> None:
        self.loader = loader
        self._call = loader._loaded

    def __call__(self, *args, **kwargs):
        if self._call is None:
            self._call = self.loader._model
        try:
            return self._call(*args, **kwargs)
        except TypeError:
            pass  # nested otherwise than exported, which PyTorch does not look at
        return self._call_any(args, kwargs)

    def _call_any(self, args, kwargs):
        """As PyTorch does it: tensors in the order in which they come, whatever they are nested in."""
        import torch
        from torch.utils import _pytree as pytree
        specs = self.loader.get_call_spec()
        in_spec, out_spec = pytree.treespec_loads(specs[0]), pytree.treespec_loads(specs[1])
        names = in_spec.child(1).context
        if set(kwargs) != set(names):
            raise ValueError("Ran into a kwarg keyword mismatch: Got the following keywords %s but expected %s" %
                             (list(kwargs), names))
        flat = pytree.tree_flatten((args, {k: kwargs[k] for k in names}))[0]
        outputs = self.loader.run([x for x in flat if isinstance(x, torch.Tensor)])
        return pytree.tree_unflatten(outputs, out_spec)

    def get_metadata(self) -> dict[str, str]:
        return self.loader.get_metadata()

    def load_constants(self, constants_map: Mapping[str, torch.Tensor], *, check_full_update: bool, user_managed: bool = False,
                       allow_h2d_copy: bool = False) -> None:
        self.loader.load_constants(constants_map, False, check_full_update, user_managed, allow_h2d_copy)

    def get_constant_fqns(self) -> list[str]:
        return self.loader.get_constant_fqns()

    def __deepcopy__(self, memo: dict[Any, Any] | None) -> AOTICompiledModel:
        return AOTICompiledModel(self.loader)


def load_package(path, model_name: str = "model", run_single_threaded: bool = False, num_runners: int = 1,
                 device_index: int = -1) -> AOTICompiledModel:
    """torch._inductor.package.load_package(). path: a path or a file."""
    if hasattr(path, "read"):
        import tempfile
        with tempfile.NamedTemporaryFile(suffix=".pt2") as f:
            path.seek(0)
            f.write(path.read())
            f.flush()
            return AOTICompiledModel(AOTIModelPackageLoader(f.name, model_name, run_single_threaded, num_runners, device_index))
    return AOTICompiledModel(AOTIModelPackageLoader(os.fspath(path), model_name, run_single_threaded, num_runners, device_index))


def aoti_load_package(path, run_single_threaded: bool = False, device_index: int = -1) -> AOTICompiledModel:
    """torch._inductor.aoti_load_package(). path: a path or a file."""
    return load_package(path, run_single_threaded=run_single_threaded, device_index=device_index)
