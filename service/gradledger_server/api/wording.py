"""What pydantic found wrong with a field, in words of JSON: what was got, what is expected, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from gradledger_server.optim.expansion import as_json
from gradledger_server.wire import strict

Found = Mapping[str, Any]  # one of ValidationError.errors()

WORKER_NAME = "1 to 128 ASCII letters, digits, '.', '_', ':' or '-', beginning with a letter or digit"

_EXPECTED = {
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} tensor",
    "too_long": "at most {max_length} items",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": WORKER_NAME,  # the only pattern there is
}


def path_of(found: Found, where: str = "") -> str:
    """Where the field is, such as `groups[0].match`; `where` is the path to what was read."""
    path = where
    for part in found["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{str(part)[:80]}"
    return path.removeprefix(".")


def detail_of(found: Found, path: str) -> str:
    """What is wrong with the field, what was got and what is expected."""
    if found["type"] == "missing":
        return f"{path} is missing"
    told = _EXPECTED.get(found["type"])
    expected = str(found["msg"]) if told is None else told.format(**found.get("ctx", {}))
    return f"{path or 'the body'} is {_shown(found['input'])}; expected {expected}"


def hint_of(found: Found, path: str, schema: type[BaseModel]) -> str:
    """The next move: the field as it could be, if its declaration has an example."""
    name = str(found["loc"][0]) if len(found["loc"]) == 1 else ""
    if name in schema.model_fields and (examples := schema.model_fields[name].examples):
        return f'Give "{name}": {json.dumps(examples[0])}.'
    return f"Give {path}." if found["type"] == "missing" else ""


def _shown(value: object) -> str:
    return strict.shown(value) if isinstance(value, str) else as_json(value)
