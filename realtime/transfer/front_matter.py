"""Reads and writes the front matter of Markdown files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import yaml

MAX_CHARACTERS = 64 * 1024
MAX_DEPTH = 10
MARKER = "realtime"
"""The key that marks an exported file. Its value is the version of the format."""
FORMAT_VERSION = 1
KEYS = {
    "title": "title",
    "description": "description",
    "tags": "tags",
    "tag": "tags",
    "id": "id",
    "created": "created",
    "created_at": "created",
    "date created": "created",
    "date": "created",
    "updated": "updated",
    "updated_at": "updated",
    "date modified": "updated",
    "modified": "updated",
    "lastmod": "updated",
    "last_modified_at": "updated",
}
"""The keys for the fields of a note, in lower case. Of several keys for a field, the first one here is used."""

_YAML = re.compile(r"---[ \t]*\r?\n(.*?\n)??(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TOML = re.compile(r"\+\+\+[ \t]*\r?\n(.*?\n)??\+\+\+[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_OPENING = re.compile(r"---[ \t]*\r?\n")
_CLOSING = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|[ \t])#", re.MULTILINE)
_COMMENT_AFTER_QUOTES = re.compile(r"""^("[^"]*"|'[^']*')[ \t]+#.*$""")
_PAIR = {
    separator: re.compile(rf"([^\s:=#\[\]{{}}-][^:=]{{0,99}}?)[ \t]*{separator}(?:[ \t]+(.*))?") for separator in ":="
}
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+(.*))?")
_EXPORTED = ("id", "title", "description", "tags", "created", "updated")
_EXPORTED_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z")
_DATE = re.compile(
    r"([0-9]{4})[-/]([0-9]{2})[-/]([0-9]{2})"
    r"(?:[T ]+([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?)[ ]*(Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.IGNORECASE,
)
_TIMESTAMP = re.compile(r"[0-9]{10}(?:[0-9]{3})?")
_NULLS = {"", "~", "null", "Null", "NULL"}

Value = Any
"""A string, ``None`` for an empty value, a list of values, or a mapping of strings to values."""


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The parsed front matter of a file.

    Attributes:
        values: The values by key in lower case. For a duplicate key, this is the first value that is not empty.
        exact: Whether ``values`` represents the front matter completely, without comments, duplicate keys and lines
            that cannot be parsed.
        exported: Whether it was written by an export of this program.
        problems: Problems to report to the user.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    exact: bool = True
    exported: bool = False
    problems: tuple[str, ...] = ()

    def get(self, name: str) -> Value:
        """Return the value for a field of the note, or ``None`` if it is missing or empty."""
        keys = (key for key, field in KEYS.items() if field == name)
        return next((value for key in keys if (value := self.values.get(key)) is not None), None)


def dump(values: Mapping[str, Any]) -> str:
    """Return values as YAML, with one key per line and quotes around ambiguous strings."""
    dumped: str = yaml.dump(
        dict(values),
        Dumper=yaml.CSafeDumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        default_flow_style=False,
    )
    return dumped


def with_title(text: str, title: str) -> str:
    """Add a title to the front matter of a text, and create the front matter if there is none."""
    line = dump({"title": title})
    opening = _OPENING.match(text) if split(text)[1] != text else None
    if opening is None:
        return f"---\n{line}---\n{text}"
    return text[: opening.end()] + line + text[opening.end() :]


def split(text: str) -> tuple[FrontMatter, str]:
    """Split a text into its front matter and its body.

    If there is no front matter, or it cannot be parsed, the front matter is empty and the body is the whole text. TOML
    front matter is never ``exact``, so it stays in the content of the note.
    """
    for pattern, read in ((_YAML, _read_yaml), (_TOML, _read_toml)):
        match = pattern.match(text, 0, MAX_CHARACTERS)
        if match is None or (match.end() == MAX_CHARACTERS < len(text) and not match[0].endswith("\n")):
            continue
        matter = read(match[1] or "")
        if matter is not None:
            return matter, text[match.end() :]
    return _split_long(text) or (FrontMatter(), text)


def _split_long(text: str) -> tuple[FrontMatter, str] | None:
    """Parse the beginning of front matter that is longer than :data:`MAX_CHARACTERS`."""
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text, MAX_CHARACTERS) if opening else None
    matter = _read_lines(text[opening.end() : MAX_CHARACTERS], ":") if opening and closing else None
    if matter is None or closing is None:
        return None
    problem = f"front matter: is longer than {MAX_CHARACTERS} characters; only its beginning was read, line by line"
    return FrontMatter(matter.values, exact=False, problems=(problem,)), text[closing.end() :]


def _read_yaml(source: str) -> FrontMatter | None:
    try:
        _check_shape(source)
        node = yaml.compose(source, Loader=yaml.CBaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return _read_lines(source, ":")
    if node is None:
        return FrontMatter(exact=not source.strip())
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        return None
    pairs = [(key.value, _value_of(value)) for key, value in node.value]
    values, duplicates = _first_of_each(pairs)
    exported = _is_exported([key for key, _ in pairs], values)
    exact = not duplicates and (not _COMMENT.search(source) or (exported and _is_as_dumped(values, source)))
    return FrontMatter(values, exact, exported, duplicates)


def _check_shape(source: str) -> None:
    """Raise ``ValueError`` for deep nesting and aliases, which could exhaust CPU time or memory."""
    depth = 0
    for event in yaml.parse(source, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("nesting is too deep, or there are aliases")


def _value_of(node: yaml.Node) -> Value:
    if isinstance(node, yaml.SequenceNode):
        return [_value_of(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value_of(value) for key, value in node.value}
    # Every other scalar is a string: a title of 2026 is not a number.
    assert isinstance(node, yaml.ScalarNode)
    return None if not node.style and node.value in _NULLS else node.value


def _first_of_each(pairs: list[tuple[str, Value]]) -> tuple[dict[str, Value], tuple[str, ...]]:
    values: dict[str, Value] = {}
    duplicates: dict[str, None] = {}
    for key, value in pairs:
        folded = key.strip().lower()
        if folded in values:
            duplicates[folded] = None
        if values.get(folded) in (None, ""):
            values[folded] = value
    return values, tuple(
        f"front matter: has {_quoted(key)} twice; the first value that is not empty was used" for key in duplicates
    )


def _quoted(key: str) -> str:
    return f"'{key}'" if len(key) <= 30 else f"'{key[:29]}…'"


def _is_exported(keys: list[str], values: Mapping[str, Value]) -> bool:
    marker = values.get(MARKER)
    if isinstance(marker, str):
        return re.fullmatch(r"[1-9][0-9]{0,8}", marker) is not None
    # Old exports have no marker, but exactly these keys in this order, with dates in this format.
    dates = (values.get("created"), values.get("updated"))
    return tuple(keys) == _EXPORTED and all(isinstance(date, str) and _EXPORTED_DATE.fullmatch(date) for date in dates)


def _is_as_dumped(values: Mapping[str, Value], source: str) -> bool:
    numbers = {
        key: int(value) for key in (MARKER, "id") if (value := values.get(key)) and re.fullmatch("[0-9]{1,16}", value)
    }
    return dump({**values, **numbers}) == source.replace("\r\n", "\n")


def _read_toml(source: str) -> FrontMatter | None:
    try:
        values = {key.lower(): _plain_toml(value) for key, value in tomllib.loads(source).items()}
    except (tomllib.TOMLDecodeError, RecursionError):
        matter = _read_lines(source, "=")
        return FrontMatter({} if matter is None else matter.values, exact=False)
    taxonomies = values.get("taxonomies")  # the tags of Zola
    if isinstance(taxonomies, dict):
        values = {**taxonomies, **values}
    return FrontMatter(values, exact=False)


def _plain_toml(value: Any) -> Value:
    """Convert a TOML value to the form of YAML values, with strings as scalars."""
    if isinstance(value, dict):
        return {key.lower(): _plain_toml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_toml(item) for item in value]
    text = value.isoformat() if isinstance(value, date) else str(value)
    return text or None


def _read_lines(source: str, separator: str) -> FrontMatter | None:
    """Parse front matter that is not valid YAML line by line: keys with values, and lists below keys.

    Returns:
        The front matter, or ``None`` if it has no known key.
    """
    pairs: list[tuple[str, Value]] = []
    for line in source.replace("\r\n", "\n").split("\n"):
        if match := _PAIR[separator].fullmatch(line):
            pairs.append((match[1].strip("'\""), _scalar_or_list(match[2] or "")))
        elif (match := _ITEM.fullmatch(line)) and pairs:
            key, value = pairs[-1]
            items = [] if value is None else value
            if isinstance(items, list):
                pairs[-1] = key, [*items, _unquoted(match[1] or "")] if len(items) < 1000 else items
        elif not pairs and line.strip() and not line.startswith("#"):
            return None
    values, duplicates = _first_of_each(pairs)
    if not KEYS.keys() & values.keys():
        return None
    return FrontMatter(
        values,
        False,
        False,
        ("front matter: is not valid YAML and was read line by line; it stays in the content", *duplicates),
    )


def _scalar_or_list(source: str) -> Value:
    source = source.strip()
    if source in _NULLS:
        return None
    if source.startswith("[") and source.endswith("]"):
        return [_unquoted(item) for item in source[1:-1].split(",") if item.strip()]
    # The first characters of mappings, multi-line lists, block scalars, aliases and tags in YAML.
    return {} if source[0] in "{[|>*&!" else _unquoted(source)


def _unquoted(source: str) -> str:
    source = _COMMENT_AFTER_QUOTES.sub(r"\1", source.strip())
    if len(source) > 1 and source[0] == source[-1] and source[0] in "'\"":
        inner = source[1:-1]
        return inner.replace("''", "'") if source[0] == "'" else inner.replace('\\"', '"').replace("\\\\", "\\")
    return source


def date_of(value: Value) -> datetime | None:
    """Parse a date, and return it in UTC, truncated to milliseconds.

    A date without a time means midnight, a time without a zone is in UTC, and a number of 10 or 13 digits is a Unix
    timestamp in seconds or milliseconds.

    Returns:
        The date, or ``None`` if the value is not a date from 1970 to 9999.
    """
    if not isinstance(value, str):
        return None
    try:
        moment = _moment_of(value.strip())
    except (ValueError, OverflowError):
        return None
    if moment is None or not 1970 <= moment.year <= 9999:
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _moment_of(source: str) -> datetime | None:
    if _TIMESTAMP.fullmatch(source):
        seconds, milliseconds = int(source[:10]), int(source[10:] or 0)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    match = _DATE.fullmatch(source)
    if match is None:
        return None
    year, month, day, time, zone = match.groups()
    zone = (zone or "Z").upper().replace("UTC", "Z").replace("GMT", "Z")
    return datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00'}{zone}").astimezone(UTC)
