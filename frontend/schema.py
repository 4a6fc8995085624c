"""Prints the JSON schemas that the page's types are made of: those of the routes, and those of the feed."""

from __future__ import annotations

import json
import sys
from typing import Any

from realtime import create_app
from realtime.feed.asyncapi import asyncapi
from realtime.settings import Settings

WANTED = (
    *("Note", "NoteListed", "NoteIn", "NotePatch", "Merged", "Trashed", "TagCount", "Revision", "RevisionText"),
    *(
        "Me",
        "FailedSignIns",
        "User",
        "SignIn",
        "SignUpIn",
        "Token",
        "NewToken",
        "UserListed",
        "Invite",
        "InviteListed",
        "Entry",
    ),
    *("AccessIn", "AccessOut", "Member", "LinkOut", "PasswordChange"),
    *("Imported", "FileRemark"),
)


def main() -> None:
    """Prints one schema that defines all of them."""
    rest = create_app(Settings()).openapi()["components"]["schemas"]
    feed = asyncapi()
    definitions = {**feed["components"]["schemas"], **rest}
    sent = [reference["$ref"].rpartition("/")[2] for reference in feed["operations"]["sendEvents"]["messages"]]
    schema = {
        "type": "object",
        "properties": {"ServerMessage": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in sent]}},
        "$defs": {
            name: definitions[name] for name in (*WANTED, *feed["components"]["schemas"], "DifferenceOut", "HunkOut")
        },
    }
    sys.stdout.write(json.dumps(_untitled(schema)).replace("#/components/schemas/", "#/$defs/"))


def _untitled(schema: Any) -> Any:
    """A schema without the titles of fields, each of which would become a type of its own."""
    if isinstance(schema, dict):
        return {
            name: _untitled(part)
            for name, part in schema.items()
            if not (name == "title" and isinstance(part, str)) and name != "examples"
        }
    return [_untitled(part) for part in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    main()
