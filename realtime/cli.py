"""The command line: parses and calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from realtime import __version__
from realtime.errors import RealtimeError
from realtime.models import describe
from realtime.settings import Settings

if TYPE_CHECKING:
    from realtime.transfer import Progress, Tell

app = typer.Typer(
    name="realtime",
    help="A real-time notes server: write notes over REST, see them live everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Url = Annotated[str, typer.Option(help="Address of the server.", envvar="REALTIME_URL")]


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
        _fail(describe(error.errors()))
    from realtime.server import serve as run

    try:
        run(settings, output.print)
    except RealtimeError as error:
        _fail(error.detail)
    except OSError as error:
        _fail(str(error))


@app.command()
def watch(
    url: Url = "http://127.0.0.1:8000",
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


@contextlib.contextmanager
def _bars() -> Iterator[Tell]:
    """Shows a progress bar for each step that is told of, on standard error."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with ProgressBars(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step)
            bars.update(tasks[progress.step], completed=progress.done, total=progress.total)

        yield tell


@app.command("export")
def export_(
    target: Annotated[Path, typer.Argument(help="A .zip file, or a folder.", metavar="DIR|ZIP")],
    url: Url = "http://127.0.0.1:8000",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Save all notes of a server as Markdown files with YAML front matter."""
    from realtime.transfer import export_notes

    try:
        with _bars() as tell:
            count = export_notes(url, target, tell, overwrite=overwrite)
    except RealtimeError as error:
        _fail(error.detail)
    output.print(f"{count} notes in {escape(str(target))}")


@app.command("import")
def import_(
    sources: Annotated[list[Path], typer.Argument(help="Markdown files, folders of them, or .zip archives.")],
    url: Url = "http://127.0.0.1:8000",
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep the ids that the files name.")] = False,
) -> None:
    """Make notes of Markdown files: of an export, or of other origin. All are checked before the first is made."""
    from realtime.transfer import import_notes

    try:
        with _bars() as tell:
            answer = import_notes(url, sources, tell, keep_ids=keep_ids)
    except RealtimeError as error:
        _fail(error.detail)
    output.print(f"{answer['imported']} notes imported")
    for name in answer["skipped"]:
        errors.print(f"skipped, no Markdown: {escape(name)}", style="dim")
