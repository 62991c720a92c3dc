# SPDX-License-Identifier: Apache-2.0
"""Call specs: PyTorch's text for nested arguments, to the tuples from which _core builds its trees.

A node is (kind, keys, make, split, children): kind leaf, tuple, list or dict; make(plain) -> object and split(object) -> parts
where it is another type. The text is the package author's, so no module is imported and no class looked up by a name that
stands in it, only in the registry here, and in that of torch if torch is imported anyway.
"""
import sys

from . import _core

LEAF, TUPLE, LIST, DICT = range(4)
_DEFAULT_FACTORIES = {"list": list, "dict": dict, "int": int, "float": float, "tuple": tuple, "set": set, "str": str, "bool": bool}
_registry = {}  # serialized type name -> (flatten, unflatten, from_dumpable_context)


class Unknown(Exception):
    """A type that nobody registered."""


def register_pytree_node(cls, flatten_fn, unflatten_fn, *, serialized_type_name=None, from_dumpable_context=None, **ignored):
    """Let packages have a type of yours in their arguments and results; before they are loaded.

    Takes what torch.utils._pytree.register_pytree_node() takes: flatten_fn(object) -> (parts, context),
    unflatten_fn(parts, context) -> object, and the name that the exporting program registered it under (default: module and
    name of the class). What was registered with torch in this process need not be registered again.
    """
    name = serialized_type_name or "%s.%s" % (cls.__module__, cls.__qualname__)
    _registry[name] = (cls, flatten_fn, unflatten_fn, from_dumpable_context)


def register_namedtuple(cls, *, serialized_type_name=None):
    """The same for a named tuple."""
    register_pytree_node(cls, lambda t: (list(t), None), lambda parts, context: cls(*parts),
                         serialized_type_name=serialized_type_name)


def register_dataclass(cls, *, serialized_type_name=None):
    """The same for a dataclass, as torch.export.register_dataclass() does."""
    names = list(cls.__dataclass_fields__)

    def flatten(d):
        given = [n for n in names if getattr(d, n) is not None]
        return [getattr(d, n) for n in given], [given, [n for n in names if getattr(d, n) is None]]

    def unflatten(parts, context):
        return cls(**dict(zip(context[0], parts)), **dict.fromkeys(context[1]))
    register_pytree_node(cls, flatten, unflatten, serialized_type_name=serialized_type_name)


def _from_torch(name):
    tree = sys.modules.get("torch.utils._pytree")
    cls = tree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name) if tree else None
    if cls is None:
        return None
    node = tree.SUPPORTED_NODES[cls]
    return cls, node.flatten_fn, node.unflatten_fn, tree.SUPPORTED_SERIALIZED_TYPES[cls].from_dumpable_context


def _look_up(name):
    entry = _registry.get(name) or _from_torch(name)
    if entry is None:
        raise Unknown("the package's call spec has the type %s: pt2box.register_pytree_node() it before loading" % name)
    return entry


def _key(k):
    """Dictionary keys that JSON made into lists were tuples."""
    return tuple(map(_key, k)) if isinstance(k, list) else k


def _keys(names, n):
    keys = tuple(map(_key, names))
    if len(keys) != n:
        raise ValueError("a dict of %d keys with %d values" % (len(keys), n))
    return keys


def _parse(context):
    return _core._json(context) if isinstance(context, str) else context


def _ordered_dict(context, children):
    from collections import OrderedDict
    return DICT, _keys(_parse(context), len(children)), OrderedDict, None, children


def _default_dict(context, children):
    from collections import defaultdict
    c = _parse(context)
    name = c["default_factory_name"]
    if c["default_factory_module"] != "builtins" or name not in _DEFAULT_FACTORIES:
        raise Unknown("the package's call spec wants %s.%s called" % (c["default_factory_module"], name))
    factory = _DEFAULT_FACTORIES[name]
    return DICT, _keys(c["dict_context"], len(children)), lambda d: defaultdict(factory, d), None, children


def _deque(context, children):
    from collections import deque
    size = _parse(context)
    return LIST, None, lambda parts: deque(parts, maxlen=size), list, children


def _named_tuple(context, children):
    cls = _look_up(context)[0]
    return TUPLE, None, lambda parts: cls(*parts), None, children


_BUILDERS = {
    "builtins.tuple": lambda context, children: (TUPLE, None, None, None, children),
    "builtins.list": lambda context, children: (LIST, None, None, None, children),
    "builtins.dict": lambda context, children: (DICT, _keys(_parse(context), len(children)), None, None, children),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _deque,
    "collections.namedtuple": _named_tuple,
}


def _registered(name, context, children):
    cls, flatten, unflatten, from_dumpable = _look_up(name)
    value = from_dumpable(context) if from_dumpable else _parse(context)

    def split(o):
        if not isinstance(o, cls):
            raise TypeError("the package takes a %s, not %s" % (name, type(o).__name__))
        parts, found = flatten(o)[:2]
        if found != value:
            raise TypeError("this %s has not the structure that the package was exported with" % name)
        return parts
    return TUPLE, None, lambda parts: unflatten(list(parts), value), split, children


def _node(spec):
    name = spec["type"]
    children = tuple(map(_node, spec["children_spec"]))
    if name is None:
        return LEAF, None, None, None, ()
    build = _BUILDERS.get(name)
    return build(spec["context"], children) if build else _registered(name, spec["context"], children)


def decode(text):
    """A node from the text of a spec. Unknown: it has a type that nobody registered; ValueError: it is malformed."""
    try:
        protocol, spec = _core._json(text)
        if protocol != 1:
            raise ValueError("protocol %r" % (protocol,))
        return _node(spec)
    except (KeyError, TypeError, RecursionError) as e:
        raise ValueError("the call spec is malformed: %s" % e) from None


def decode_call(in_text, out_text):
    """Both specs of a model; that of its inputs is (args, kwargs)."""
    i, o = decode(in_text), decode(out_text)
    if i[0] != TUPLE or len(i[4]) != 2 or i[4][0][0] != TUPLE or i[4][1][0] != DICT or i[4][0][2] or i[4][1][2]:
        raise ValueError("the call spec's inputs are not (args, kwargs)")
    return i, o
