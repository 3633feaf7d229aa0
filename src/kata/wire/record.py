"""Frozen records without the import cost of ``dataclasses`` (it pulls ``inspect`` and ``re``).

The one rule: type checkers see a frozen dataclass (``dataclass_transform``), the interpreter
sees six small functions shared by all records.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[T]) -> type[T]:
        """Make ``cls`` a frozen record of its annotated fields."""
        raise NotImplementedError

else:

    def record(cls: Any) -> Any:
        """Make ``cls`` a frozen record of its annotated fields (and those of its bases, first).

        Gives it ``__init__`` (positional or keyword), ``__eq__``, ``__hash__`` and ``__repr__``.
        Defaults are shared, so those that can be changed are refused.
        """
        inherited = getattr(cls, "_record_fields", ())
        named = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - not those of the bases
        own = tuple(name for name in named if name not in inherited)
        cls._record_fields = inherited + own
        cls._record_defaults = {n: getattr(cls, n) for n in cls._record_fields if hasattr(cls, n)}
        for name, value in cls._record_defaults.items():
            if isinstance(value, (list, dict, set, bytearray)):
                raise TypeError(f"{cls.__name__}: the default of {name!r} can be changed")
        cls.__init__ = _init
        cls.__eq__ = _eq
        cls.__hash__ = _hash
        cls.__repr__ = _repr
        cls.__setattr__ = _frozen
        cls.__delattr__ = _frozen
        return cls

    def _init(self: Any, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        names = cls._record_fields
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes {len(names)} fields, got {len(args)}")
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names or name in values:
                raise TypeError(f"{cls.__name__}: unexpected or repeated field {name!r}")
            values[name] = value
        if len(values) < len(names):
            for name in names:
                if name not in values:
                    if name not in cls._record_defaults:
                        raise TypeError(f"{cls.__name__}: field {name!r} is missing")
                    values[name] = cls._record_defaults[name]
        self.__dict__.update(values)

    def _eq(self: Any, other: Any) -> Any:
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def _hash(self: Any) -> int:
        return hash((type(self), *(self.__dict__[n] for n in self._record_fields)))

    def _repr(self: Any) -> str:
        inner = ", ".join(f"{n}={self.__dict__[n]!r}" for n in self._record_fields)
        return f"{type(self).__name__}({inner})"

    def _frozen(self: Any, *_: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")


def replace(value: T, **changes: Any) -> T:
    """A copy of a record with some fields changed."""
    return type(value)(**{**value.__dict__, **changes})


def fields(value: Any) -> dict[str, Any]:
    """The fields of a record as a new dictionary, in order."""
    return {name: value.__dict__[name] for name in value._record_fields}
