"""A MongoDB server before there is a database: its URL, and the replica set of the embedded one."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pymongo
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from realtime.errors import EmbeddedError
from realtime.store.documents import Document


def check_url(url: str) -> None:
    """Raises ``ValueError`` with the reason when a MongoDB URL cannot be used."""
    try:
        pymongo.uri_parser.parse_uri(url, validate=True, warn=False)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        raise ValueError(f"the MongoDB URL cannot be used: {error}") from None


def ensure_replica_set(url: str, timeout: float = 60.0) -> None:
    """Makes the ``mongod`` at this URL the primary of a replica set of one.

    Its port may be another one than last time, which a plain restart would not survive: the set's own configuration
    names it. Raises :class:`EmbeddedError`.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    deadline = time.monotonic() + timeout
    with MongoClient[Document](url, serverSelectionTimeoutMS=int(timeout * 1000)) as client:
        try:
            config = {"_id": "realtime", "version": 1, "members": [{"_id": 0, "host": host}]}
            try:
                try:
                    client.admin.command("replSetInitiate", config)
                except AutoReconnect:
                    # It hangs up once it has found out that it is not where its configuration says, which takes it
                    # half a minute when somebody silent sits there now.
                    client.admin.command("replSetInitiate", config)
            except OperationFailure as error:
                if error.code != 23:  # AlreadyInitialized
                    raise
                known = client.local["system.replset"].find_one() or {}
                if [member["host"] for member in known["members"]] != [host]:
                    config["version"] = known["version"] + 1
                    client.admin.command("replSetReconfig", config, force=True)
            while not client.admin.command("hello")["isWritablePrimary"]:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"the embedded MongoDB did not become primary within {timeout:.0f} s")
                time.sleep(0.02)
        except PyMongoError as error:
            raise EmbeddedError(f"the embedded MongoDB does not answer: {error}") from error
