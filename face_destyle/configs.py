"""Config dataclasses <-> the plain values of JSON and YAML, with every mistake named."""

import dataclasses
import math
import typing
from typing import Any, cast

from face_destyle.errors import WeightsError


def config_from_dict(config_class: type[Any], fields: dict[str, Any], where: str) -> Any:
    """Build a config dataclass from JSON or YAML values.

    Raises:
        WeightsError: an unknown key, or a value of the wrong type; names it and `where`.
    """
    hints = typing.get_type_hints(config_class)
    unknown = sorted(map(str, set(fields) - set(hints)))  # YAML has keys that are no text
    if unknown:
        raise WeightsError(
            f"{where}: unknown key {', '.join(unknown)}; {config_class.__name__} has "
            f"{', '.join(hints)}"
        )
    values = {key: _decode(value, hints[key], f"{where}: {key}") for key, value in fields.items()}
    try:
        return config_class(**values)
    except ValueError as error:
        raise WeightsError(f"{where}: {error}") from error


def _decode(value: Any, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return config_from_dict(cast(type[Any], hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_decode(item, arguments[0], where) for item in value)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and (number := _number(value)) is not None:
        return number
    if isinstance(hint, type) and type(value) is hint:
        return value
    if origin is typing.Literal:
        raise WeightsError(f"{where} is {value!r}; use {', '.join(map(str, arguments))}")
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise WeightsError(f"{where} is {value!r}, which is no {expected}")


def _number(value: Any) -> float | None:
    """The float that a value stands for, or None. YAML 1.1 takes 1e-4, without a point, as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if not isinstance(value, str) or math.isfinite(number) else None
