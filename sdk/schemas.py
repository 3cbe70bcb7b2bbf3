"""JSON schemas, made ready to hold a model's answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..encoders.errors import OptionError

__all__ = ["WRITTEN", "bounded", "schema_text"]

#: How llguidance lets JSON be written: as Python's json writes it, and most texts that models were trained on.
WRITTEN: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def schema_text(schema: Any, name: str = "schema") -> str:
    """A schema as JSON, its objects closed where nothing else is said.

    Args:
        schema: a mapping, or a pydantic class.
        name: what it is, for errors.

    Raises:
        OptionError: it is neither, or no JSON.
    """
    found = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
    try:
        if not isinstance(found, Mapping):
            raise TypeError(type(found).__name__)
        # A definition may be one of several schemas of an object, which cannot be told from where it stands.
        text = json.dumps(found, allow_nan=False)
        return text if '"allOf"' in text else json.dumps(_closed(found))
    except (TypeError, ValueError, RecursionError) as error:
        expected = "a mapping, or a pydantic class"
        raise OptionError(f"{name} is no JSON schema.", given=str(error), expected=expected) from error


def _closed(schema: Any) -> Any:
    """Objects that list their properties have no others, unless the schema says so: a model would never stop adding.

    Where several schemas speak of one object, each would forbid what the others list: it stays open.
    """
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    for name in _NAMED & schema.keys():
        if isinstance(schema[name], Mapping):
            found[name] = {key: _closed(value) for key, value in schema[name].items()}
    for name in _SINGLE & schema.keys():
        found[name] = _closed(schema[name])
    if not _TOGETHER & schema.keys() and isinstance(schema.get("properties"), Mapping):
        found.setdefault("additionalProperties", False)
    elif "properties" not in schema:
        for name in _LISTED & schema.keys():
            found[name] = [_closed(value) for value in schema[name]]
    return found


_NAMED, _SINGLE, _LISTED = {"properties", "$defs", "definitions"}, {"items"}, {"anyOf", "oneOf", "prefixItems"}
_TOGETHER = {"allOf", "anyOf", "oneOf", "if", "$ref", "patternProperties", "unevaluatedProperties"}


def bounded(schema: Any, longest: int | None) -> Any:
    """A JSON schema whose texts have at most so many characters, where it does not bound them itself.

    Args:
        schema: a JSON schema, or a part of one.
        longest: characters; None leaves the schema as it is.
    """
    if longest is None:
        return schema
    if isinstance(schema, list):
        return [bounded(part, longest) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: value if key in _VALUES else bounded(value, longest) for key, value in schema.items()}
    if schema.get("type") == "string" and not _BOUNDS & schema.keys():
        found["maxLength"] = longest
    return found


_VALUES, _BOUNDS = {"enum", "const", "default", "examples"}, {"maxLength", "pattern", "format", "enum", "const"}
