"""kvmnet puts KVM/libvirt guests on the network, safely and provably."""

import sys
from _thread import allocate_lock
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


class _Later(ModuleType):
    """A module that is loaded when somebody wants something of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the machinery of imports looks for
            raise AttributeError(name)
        return getattr(_loaded(self.__name__), name)


_lock = allocate_lock()


def _loaded(name: str) -> ModuleType:
    with _lock:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]
    return import_module(name)


def _put_off() -> None:
    """`import msgspec` loads all that it has, and takes half again as long for what describes types
    (JSON Schema) and for formats that kvmnet never reads: a tenth of a command's loading.
    """
    if "msgspec" in sys.modules:
        return
    for name in ("inspect", "_json_schema", "toml", "yaml"):
        sys.modules[f"msgspec.{name}"] = _Later(f"msgspec.{name}")
    schemas = sys.modules["msgspec._json_schema"]
    for name in ("schema", "schema_components"):  # msgspec.json takes these by name
        setattr(schemas, name, _called_later(name))


def _called_later(name: str) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        return getattr(_loaded("msgspec._json_schema"), name)(*args, **options)

    return call


_put_off()
