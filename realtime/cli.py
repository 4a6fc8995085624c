"""The command line: parses and calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from realtime import __version__
from realtime.errors import RealtimeError
from realtime.settings import Settings

app = typer.Typer(
    name="realtime",
    help="A real-time notes server: write notes over REST, see them live everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    errors.print(f"[bold red]realtime:[/] {escape(message)}")
    raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        output.print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A real-time notes server: write notes over REST, see them live everywhere."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  \\[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.  \\[default: 8000]")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.  \\[default: 1]")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the embedded servers.  \\[default: data]")] = None,
    mongo_url: Annotated[str | None, typer.Option(help="MongoDB replica set, instead of the embedded one.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis, instead of the embedded one.")] = None,
) -> None:
    """Serve notes. Without URLs it brings its own MongoDB and Redis-compatible server.

    Each option is also an environment variable, REALTIME_PORT for example; the README lists all settings.
    """
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "data": data,
        "mongo_url": mongo_url,
        "redis_url": redis_url,
    }
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        _fail("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    from realtime.server import serve as run

    try:
        run(settings, output.print)
    except RealtimeError as error:
        _fail(error.detail)
    except OSError as error:
        _fail(str(error))


@app.command()
def watch(
    url: Annotated[str, typer.Option(help="Address of the server.", envvar="REALTIME_URL")] = "http://127.0.0.1:8000",
    since: Annotated[str | None, typer.Option(help="Resume after this cursor.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the frames as they come, one JSON object a line.")
    ] = False,
) -> None:
    """Follow the notes of a server, live. Comes back by itself, resumes, and says so if something was missed."""
    from realtime.watch import describe, follow

    async def run() -> None:
        async with contextlib.aclosing(
            follow(url, since, lambda text: errors.print(escape(text), style="dim"))
        ) as frames:
            async for frame in frames:
                line = json.dumps(frame) if as_json else describe(frame)
                if line is not None:
                    typer.echo(line)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run())
    except RealtimeError as error:
        _fail(error.detail)
