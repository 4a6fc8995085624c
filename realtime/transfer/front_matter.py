"""Front matter of Markdown files: split it from the text, read it, and write the front matter of an export."""

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
"""The key that marks a file of an export; its value is the version of the format."""
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
"""The keys that set a field of the note, in lower case. Of several keys for one field, the earliest here wins."""

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
_EPOCH = re.compile(r"[0-9]{10}(?:[0-9]{3})?")
_NULLS = {"", "~", "null", "Null", "NULL"}

Value = Any
"""A text, ``None`` for an empty value, a list of values, or a mapping of texts to values."""


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The parsed front matter of a file.

    Attributes:
        values: The values by key, in lower case. Of a key that appears twice, the first value that is not empty.
        exact: Whether ``values`` holds everything that is written there. It does not if there are comments, keys that
            appear twice or lines that cannot be read.
        exported: Whether it was written by an export of this program.
        problems: What a user should know about how it was read.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    exact: bool = True
    exported: bool = False
    problems: tuple[str, ...] = ()

    def get(self, name: str) -> Value:
        """Return the value for a field of the note; ``None`` where there is none or it is empty."""
        keys = (key for key, meant in KEYS.items() if meant == name)
        return next((value for key in keys if (value := self.values.get(key)) is not None), None)


def dump(values: Mapping[str, Any]) -> str:
    """Return YAML for values, one key a line, with what may be misread in quotes."""
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
    """Return a text with a title in its front matter, which has none yet."""
    line = dump({"title": title})
    opening = _OPENING.match(text) if split(text)[1] != text else None
    if opening is None:
        return f"---\n{line}---\n{text}"
    return text[: opening.end()] + line + text[opening.end() :]


def split(text: str) -> tuple[FrontMatter, str]:
    """Split a text into its front matter and what follows it.

    The front matter is empty, and all of the text follows, where there is none or where it cannot be read at all.
    TOML front matter is read for its title, tags and dates only; it is never ``exact``.
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
    """Read the beginning of front matter that is longer than it may be."""
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text, MAX_CHARACTERS) if opening else None
    matter = _read_lines(text[opening.end() : MAX_CHARACTERS], ":") if opening and closing else None
    if matter is None or closing is None:
        return None
    problem = f"front matter: is longer than {MAX_CHARACTERS} characters; its beginning was read line by line"
    return FrontMatter(matter.values, exact=False, problems=(problem,)), text[closing.end() :]


def _read_yaml(written: str) -> FrontMatter | None:
    try:
        _check_shape(written)
        node = yaml.compose(written, Loader=yaml.CBaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return _read_lines(written, ":")
    if node is None:
        return FrontMatter(exact=not written.strip())
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        return None
    pairs = [(key.value, _value_of(value)) for key, value in node.value]
    values, twice = _first_of_each(pairs)
    exported = _is_exported([key for key, _ in pairs], values)
    exact = not twice and (not _COMMENT.search(written) or (exported and _is_as_dumped(values, written)))
    return FrontMatter(values, exact, exported, twice)


def _check_shape(written: str) -> None:
    """Refuse nesting that is too deep, and aliases, before anything is built: both could take all time or memory."""
    depth = 0
    for event in yaml.parse(written, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it is too deep, or refers to itself")


def _value_of(node: yaml.Node) -> Value:
    if isinstance(node, yaml.SequenceNode):
        return [_value_of(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value_of(value) for key, value in node.value}
    # Every other scalar is a text: a title of 2026 is no number.
    assert isinstance(node, yaml.ScalarNode)
    return None if not node.style and node.value in _NULLS else node.value


def _first_of_each(pairs: list[tuple[str, Value]]) -> tuple[dict[str, Value], tuple[str, ...]]:
    values: dict[str, Value] = {}
    twice: dict[str, None] = {}
    for key, value in pairs:
        folded = key.strip().lower()
        if folded in values:
            twice[folded] = None
        if values.get(folded) in (None, ""):
            values[folded] = value
    return values, tuple(
        f"front matter: has {_shown(key)} twice; the first value that is not empty was used" for key in twice
    )


def _shown(key: str) -> str:
    return f"'{key}'" if len(key) <= 30 else f"'{key[:29]}…'"


def _is_exported(keys: list[str], values: Mapping[str, Value]) -> bool:
    marker = values.get(MARKER)
    if isinstance(marker, str):
        return re.fullmatch(r"[1-9][0-9]{0,8}", marker) is not None
    # Exports had no marker at first: they have just these keys, in this order, with dates in this form.
    dates = (values.get("created"), values.get("updated"))
    return tuple(keys) == _EXPORTED and all(isinstance(date, str) and _EXPORTED_DATE.fullmatch(date) for date in dates)


def _is_as_dumped(values: Mapping[str, Value], written: str) -> bool:
    numbers = {
        key: int(value) for key in (MARKER, "id") if (value := values.get(key)) and re.fullmatch("[0-9]{1,16}", value)
    }
    return dump({**values, **numbers}) == written.replace("\r\n", "\n")


def _read_toml(written: str) -> FrontMatter | None:
    try:
        values = {key.lower(): _plain(value) for key, value in tomllib.loads(written).items()}
    except (tomllib.TOMLDecodeError, RecursionError):
        matter = _read_lines(written, "=")
        return FrontMatter({} if matter is None else matter.values, exact=False)
    taxonomies = values.get("taxonomies")  # as Zola has its tags
    if isinstance(taxonomies, dict):
        values = {**taxonomies, **values}
    return FrontMatter(values, exact=False)


def _plain(value: Any) -> Value:
    """Return a value of TOML as one of YAML is read: every scalar is a text."""
    if isinstance(value, dict):
        return {key.lower(): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    text = value.isoformat() if isinstance(value, date) else str(value)
    return text or None


def _read_lines(written: str, separator: str) -> FrontMatter | None:
    """Read what one can of front matter that is not valid YAML: a key and its value in a line, and lists below a key.

    Returns ``None`` if it does not look like front matter: none of its keys is one that we know.
    """
    pairs: list[tuple[str, Value]] = []
    for line in written.replace("\r\n", "\n").split("\n"):
        if match := _PAIR[separator].fullmatch(line):
            pairs.append((match[1].strip("'\""), _plain_value(match[2] or "")))
        elif (match := _ITEM.fullmatch(line)) and pairs:
            key, value = pairs[-1]
            items = [] if value is None else value
            if isinstance(items, list):
                pairs[-1] = key, [*items, _unquoted(match[1] or "")] if len(items) < 1000 else items
        elif not pairs and line.strip() and not line.startswith("#"):
            return None
    values, twice = _first_of_each(pairs)
    if not KEYS.keys() & values.keys():
        return None
    return FrontMatter(
        values,
        False,
        False,
        ("front matter: is not valid YAML, and was read line by line; it stays in the content", *twice),
    )


def _plain_value(written: str) -> Value:
    written = written.strip()
    if written in _NULLS:
        return None
    if written.startswith("[") and written.endswith("]"):
        return [_unquoted(item) for item in written[1:-1].split(",") if item.strip()]
    # The beginnings of mappings, lists over several lines, blocks of text, aliases and tags of YAML.
    return {} if written[0] in "{[|>*&!" else _unquoted(written)


def _unquoted(written: str) -> str:
    written = _COMMENT_AFTER_QUOTES.sub(r"\1", written.strip())
    if len(written) > 1 and written[0] == written[-1] and written[0] in "'\"":
        inner = written[1:-1]
        return inner.replace("''", "'") if written[0] == "'" else inner.replace('\\"', '"').replace("\\\\", "\\")
    return written


def date_of(value: Value) -> datetime | None:
    """Return the moment that a value names, in UTC and milliseconds; ``None`` if it is no date from 1970 to 9999.

    A date without a time is its first moment, a time without a zone is in UTC, and a number of 10 or 13 digits counts
    seconds or milliseconds since 1970.
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


def _moment_of(written: str) -> datetime | None:
    if _EPOCH.fullmatch(written):
        seconds, milliseconds = int(written[:10]), int(written[10:] or 0)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    match = _DATE.fullmatch(written)
    if match is None:
        return None
    year, month, day, time, zone = match.groups()
    zone = (zone or "Z").upper().replace("UTC", "Z").replace("GMT", "Z")
    return datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00'}{zone}").astimezone(UTC)
