"""Render the generated pages of ``docs/reference/`` from the server's schemas. ``--check`` only compares them.

Run it with ``make docs``. ``make check`` fails if the pages are out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from realtime import create_app
from realtime.cli.main import app
from realtime.feed.asyncapi import asyncapi
from realtime.settings import RENAMED, Settings

FOLDER = Path(__file__).parent / "reference"
Json = dict[str, Any]
SETTINGS = {
    "Server": "host port workers proxies root_path origins drain_seconds security_contact secrets",
    "Storage": "data mongo_url redis_url database write_timeout read_timeout history_days trash_days",
    "Accounts": "auth allow_public sign_up secret password_memory",
    "Feed and co-editing": "publish_wait heartbeat log_entries log_bytes client_queue_bytes client_stall_seconds"
    " room_idle",
    "Limits": "max_body max_import max_connects_per_second max_writes_per_second user_notes user_bytes"
    " max_connections_per_user max_connections_per_network",
    "Logs and tests": "log_level log_format failpoint",
}
"""The settings by the sections of their page."""


def main(check: bool) -> int:
    """Write or compare the pages, and return the exit code."""
    openapi = create_app(Settings()).openapi()
    pages = {
        "rest-routes.md": rest(openapi),
        "feed-messages.md": feed(asyncapi()),
        "command-line.md": command_line(get_command(app)),
        "settings.md": settings(),
    }
    stale = 0
    for name, lines in pages.items():
        text = "\n".join(lines).rstrip() + "\n"
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale += 1
            print(f"docs/reference/{name} is out of date: run make docs", file=sys.stderr)
    return 1 if stale else 0


def rest(openapi: Json) -> Iterator[str]:
    """Yield the lines of the page of routes, grouped by tag."""
    yield "# REST routes and schemas"
    yield from (
        "",
        "`make docs` renders this page from `/openapi.json`. Every path works with and without a trailing slash.",
        "[REST API](rest.md) has an overview.",
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
        yield from ("| parameter | in | type | meaning |", "|---|---|---|---|")
        for parameter in parameters:
            kind = _kind(openapi, parameter["schema"])
            told = _cell(parameter.get("description") or parameter["schema"].get("description", ""))
            yield f"| `{parameter['name']}` | {parameter['in']} | {kind} | {told} |"
        yield ""
    for type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body: `{type}`, {_kind(openapi, content['schema'])}", "")
        examples = [one["value"] for one in content.get("examples", {}).values()] or _examples(openapi, content)
        yield from _code(*examples)
    yield from ("| answer | meaning |", "|---|---|")
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
        yield from ("| field | type | meaning |", "|---|---|---|")
        required = schema.get("required", [])
        for field, kind in properties.items():
            told = _cell(kind.get("description", ""))
            yield f"| `{field}`{'' if field in required else ' (optional)'} | {_kind(openapi, kind)} | {told} |"
        yield ""


def feed(description: Json) -> Iterator[str]:
    """Yield the lines of the page of feed messages."""
    channel = description["channels"]["feed"]
    yield from ("# Feed messages", "", "`make docs` renders this page from `/asyncapi.json` (AsyncAPI 3).")
    yield from ("[Feed](feed.md) has an overview.", "")
    yield from (description["info"]["description"], "", f"## `{channel['address']}`", "", channel["description"], "")
    query = channel["bindings"]["ws"]["query"]["properties"]
    yield from ("| query | type | meaning |", "|---|---|---|")
    for name, schema in query.items():
        yield f"| `{name}` | {_kind(description, schema)} | {_cell(schema.get('description', ''))} |"
    for operation in description["operations"].values():
        yield from ("", f"## {operation['summary']}", "")
        for reference in operation["messages"]:
            name = reference["$ref"].rpartition("/")[2]
            message = description["components"]["messages"][name]
            schema = description["components"]["schemas"][name]
            yield from (
                f"### `{message['name']}`",
                "",
                message["summary"],
                "",
                "| field | type | meaning |",
                "|---|---|---|",
            )
            for field, kind in schema["properties"].items():
                yield f"| `{field}` | {_kind(description, kind)} | {_cell(kind.get('description', ''))} |"
            yield ""
            yield from _code(*(example["payload"] for example in message["examples"]))
    yield from ("## Close codes", "", "| code | reason | reconnect |", "|---|---|---|")
    for code, meaning in sorted(channel["x-close-codes"].items()):
        yield f"| {code} | {meaning['reason']} | {'yes' if meaning['comeBack'] else 'no'} |"


def command_line(group: Any, words: tuple[str, ...] = ("realtime",)) -> Iterator[str]:
    """Yield the lines of the page of commands.

    Args:
        group: The Click group of the program, or of a subcommand.
        words: The words that call it.
    """
    if len(words) == 1:
        yield from ("# Command line", "", "`make docs` renders this page from the help of the program.", "")
        yield from (_line(group.help), "", "`realtime --version` prints the version.", "")
    else:
        yield from (f"## `{' '.join(words)}`", "", _line(group.help), "")
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from command_line(command, (*words, name))
        else:
            yield from _command(command, (*words, name))


def _command(command: Any, words: tuple[str, ...]) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    names = [
        (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "") for argument in arguments
    ]
    yield from (f"{'#' * len(words)} `{' '.join(words)}`", "")
    for paragraph in command.help.split("\n\n"):
        yield from (_line(paragraph), "")
    yield from ("```", " ".join([*words, "[OPTIONS]", *names]), "```", "")
    rows = [
        (f"`{name}`".replace("|", "` or `"), argument.help or "")
        for name, argument in zip(names, arguments, strict=True)
    ]
    for option in options:
        usage = ", ".join(option.opts) + ("" if option.is_flag else f" {option.name.upper()}")
        default = option.default
        text = re.sub(r"\\?\[default: (.*)\]", r"Default: `\1`.", option.help or "")
        if isinstance(default, str):
            text += f" Default: `{default}`."
        if option.envvar:
            text += f" Environment variable: `{option.envvar}`."
        rows.append((f"`{usage}`", text))
    if rows:
        yield from ("| argument or option | meaning |", "|---|---|")
        yield from (f"| {usage} | {_cell(text)} |" for usage, text in rows)
        yield ""


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


def settings() -> Iterator[str]:
    """Yield the lines of the page of settings, which lists each of them once."""
    fields = dict(Settings.model_fields)
    yield from (
        "# Settings",
        "",
        "`make docs` renders this page from `realtime/settings.py`.",
        "",
        "Every setting is an environment variable. The most common ones are also options of [`realtime",
        "serve`](command-line.md#realtime-serve). Options take precedence over the environment, and the environment",
        "over the files in `REALTIME_SECRETS`. An empty variable counts as not set. Times are in seconds.",
        "",
    )
    for section, names in SETTINGS.items():
        yield from (f"## {section}", "", "| variable | default | meaning |", "|---|---|---|")
        for name in names.split():
            field = fields.pop(name)
            default = "" if field.default in (None, "") else f"`{field.default}`"
            yield f"| `REALTIME_{name.upper()}` | {default} | {_cell(field.description or '')} |"
        yield ""
    if fields:
        raise ValueError(f"settings without a section in SETTINGS: {', '.join(fields)}")
    yield from ("## Renamed settings", "", "The old names work until the next release, with a warning.", "")
    for old, new in RENAMED.items():
        yield f"- `REALTIME_{old.upper()}` is now `REALTIME_{new.upper()}`."


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
