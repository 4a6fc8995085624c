"""Prepare the MongoDB of ``compose.yaml``: ``python -m realtime.store.prepare``.

Makes the server a replica set of one member if it belongs to none, and creates the user that ``REALTIME_MONGO_URL``
names, with its password. Running it again changes nothing but the password, if the URL has a new one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from realtime.errors import EmbeddedError, RealtimeError
from realtime.settings import Settings
from realtime.store.bootstrap import ensure_replica_set, ensure_user


def prepare(settings: Settings, key: str) -> None:
    """Prepare the MongoDB that the settings name.

    Args:
        settings: Settings with a URL of one host, a user and a password.
        key: The content of MongoDB's key file, which is the password of its own user ``__system``.

    Raises:
        RealtimeError: The URL lacks a part, or MongoDB refuses.
    """
    url = urlsplit(settings.mongo_url or "")
    if not (url.username and url.password and url.hostname):
        raise RealtimeError("REALTIME_MONGO_URL must name a user, a password and a host")
    host = url.netloc.rpartition("@")[2]
    system = f"mongodb://__system:{key}@{host}/?directConnection=true&authSource=local"
    ensure_replica_set(system, follow_host=False)
    ensure_user(system, unquote(url.username), unquote(url.password), settings.database)


def main() -> None:
    """Prepare MongoDB. The key is in the file that the first argument names."""
    try:
        prepare(Settings(), Path(sys.argv[1]).read_text().strip())
    except (EmbeddedError, RealtimeError, OSError) as error:
        sys.exit(f"MongoDB cannot be prepared: {error}")


if __name__ == "__main__":
    main()
