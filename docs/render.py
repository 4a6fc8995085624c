"""Writes ``rest.md`` and ``feed.md`` from the descriptions that the server gives of itself; ``--check`` compares only.

Run it with ``make docs``; ``make check`` fails when the files are stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from realtime import create_app
from realtime.feed.asyncapi import asyncapi
from realtime.settings import Settings

FOLDER = Path(__file__).parent
Json = dict[str, Any]


def main(check: bool) -> int:
    """Writes or compares the files, and tells the exit code."""
    openapi = create_app(Settings()).openapi()
    stale = 0
    for name, lines in {"rest.md": rest(openapi), "feed.md": feed(asyncapi())}.items():
        text = "\n".join(lines).rstrip() + "\n"
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale += 1
            print(f"docs/{name} is stale: run make docs", file=sys.stderr)
    return 1 if stale else 0


def rest(openapi: Json) -> Iterator[str]:
    """The routes, by tag."""
    yield "# The REST interface"
    yield from (
        "",
        "Rendered from `/openapi.json` by `make docs`. Every path works with and without trailing slash.",
        "",
    )
    by_tag: dict[str, list[tuple[str, str, Json]]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    for tag, routes in by_tag.items():
        yield from (f"## {tag.capitalize()}", "")
        for method, path, operation in routes:
            yield from _route(openapi, method, path, operation)
    yield from ("## Schemas", "")
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        yield from _schema(openapi, name, schema)


def _route(openapi: Json, method: str, path: str, operation: Json) -> Iterator[str]:
    summary = operation["summary"] + ("" if operation["summary"].endswith("?") else ".")
    yield from (f"### `{method} {path}`", "", f"**{summary}** {_line(operation.get('description', ''))}", "")
    parameters = operation.get("parameters", [])
    if parameters:
        yield from ("| parameter | in | | |", "|---|---|---|---|")
        for parameter in parameters:
            kind = _kind(openapi, parameter["schema"])
            told = _cell(parameter.get("description") or parameter["schema"].get("description", ""))
            yield f"| `{parameter['name']}` | {parameter['in']} | {kind} | {told} |"
        yield ""
    for type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body: `{type}`, {_kind(openapi, content['schema'])}", "")
        examples = [one["value"] for one in content.get("examples", {}).values()] or _examples(openapi, content)
        yield from _code(*examples)
    yield from ("| answer | |", "|---|---|")
    for status, response in operation["responses"].items():
        yield f"| {status} | {_cell(response.get('description', ''))} |"
    yield ""
    for status, response in operation["responses"].items():
        for type, content in response.get("content", {}).items():
            if status.startswith("2"):
                examples = _examples(openapi, content)
                if examples:
                    yield from (f"{status}, `{type}`:", "")
                    yield from _code(*examples[:1])


def _schema(openapi: Json, name: str, schema: Json) -> Iterator[str]:
    yield from (f"### {name}", "", _line(schema.get("description", "")), "")
    if properties := schema.get("properties"):
        yield from ("| field | | |", "|---|---|---|")
        required = schema.get("required", [])
        for field, kind in properties.items():
            told = _cell(kind.get("description", ""))
            yield f"| `{field}`{'' if field in required else ' (optional)'} | {_kind(openapi, kind)} | {told} |"
        yield ""


def feed(description: Json) -> Iterator[str]:
    """The messages of the feed, and its close codes."""
    channel = description["channels"]["feed"]
    yield from ("# The feed", "", "Rendered from `/asyncapi.json` (AsyncAPI 3) by `make docs`.", "")
    yield from (description["info"]["description"], "", f"## `{channel['address']}`", "", channel["description"], "")
    query = channel["bindings"]["ws"]["query"]["properties"]
    yield from ("| query | | |", "|---|---|---|")
    for name, schema in query.items():
        yield f"| `{name}` | {_kind(description, schema)} | {_cell(schema.get('description', ''))} |"
    for operation in description["operations"].values():
        yield from ("", f"## {operation['summary']}", "")
        for reference in operation["messages"]:
            name = reference["$ref"].rpartition("/")[2]
            message = description["components"]["messages"][name]
            schema = description["components"]["schemas"][name]
            yield from (f"### `{message['name']}`", "", message["summary"], "", "| field | | |", "|---|---|---|")
            for field, kind in schema["properties"].items():
                yield f"| `{field}` | {_kind(description, kind)} | {_cell(kind.get('description', ''))} |"
            yield ""
            yield from _code(*(example["payload"] for example in message["examples"]))
    yield from ("## Close codes", "", "| code | why | come back? |", "|---|---|---|")
    for code, meaning in sorted(channel["x-close-codes"].items()):
        yield f"| {code} | {meaning['reason']} | {'yes' if meaning['comeBack'] else 'no'} |"


def _examples(document: Json, content: Json) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    schema = content.get("schema", {})
    if schema.get("type") == "array":
        return [found[:1] for found in [_examples(document, {"schema": schema["items"]})] if found]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("examples", []))


def _code(*examples: Any) -> Iterator[str]:
    for example in examples:
        text = example.strip("\n") if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
        yield from ("```" if isinstance(example, str) else "```json", text, "```", "")


def _kind(document: Json, schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if "paths" in document else name
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_kind(document, one) for one in schema[word]))
    kind = schema.get("type", "anything")
    if kind == "array":
        kind = f"list of {_kind(document, schema.get('items', {}))}"
    bounds = {
        "minimum": "from {}",
        "maximum": "to {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {}",
        "maxItems": "at most {}",
    }
    told = [text.format(schema[name]) for name, text in bounds.items() if name in schema]
    if schema.get("default") not in (None, "", []):
        told.append(f"by default `{json.dumps(schema['default'])}`")
    return ", ".join([kind, *told])


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
