"""The JSON Schema of `casemate.toml`, for editors: made of the models, so that it cannot differ."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from casemate.config import shape
from casemate.config.configuration import Configuration

FILE_NAME = "casemate.schema.json"

_DEPENDENT = ("port", "client_certificates", "path")
"""What a listener needs, or has by default, depends on its kind; an editor would be told wrong."""


def schema_text() -> str:
    """Gives the schema as text, the same for the same version.

    It knows keys, types, choices and bounds. What two options say together is checked by
    `casemate config check` alone.

    Example:
        ```python
        import json

        from casemate.config import schema_text

        print(json.loads(schema_text())["properties"]["shards"]["maximum"])  # 256
        ```
    """
    made = Configuration.model_json_schema(schema_generator=_Generator)
    described = {"": made, **made["$defs"]}
    for name, model in shape.sections().items():
        table = described[model.__name__ if name else ""]
        table["description"] = (model.__doc__ or "").partition("\n")[0]
        for key, meaning in shape.meanings(model).items():
            # Beside a reference too, which Draft 2020-12 allows.
            table["properties"][key]["description"] = meaning.replace("`", "")
    for key in _DEPENDENT:
        made["$defs"]["Listener"]["properties"][key].pop("default", None)
    whole = {"$schema": GenerateJsonSchema.schema_dialect, **made, "title": "casemate.toml"}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Leaves out what TOML cannot say, null, and titles that repeat the keys."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - as in its base.
        return False
