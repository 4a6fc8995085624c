"""The command line interface: parses arguments and calls the code that does the work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from typer.core import TyperGroup

from realtime.cli.terminal import discard_output, prepare, printable
from realtime.errors import RealtimeError
from realtime.notes.validation import describe
from realtime.settings import Settings
from realtime.version import __version__

if TYPE_CHECKING:
    from realtime.auth.accounts import Accounts
    from realtime.cli.transfer import ImportReport, ProgressCallback, TransferProgress

T = TypeVar("T")


class Commands(TyperGroup):
    """A group of commands that works with any terminal encoding and with closed standard streams."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command. Exit with a message on an operating system error, and silently on a closed output pipe."""
        prepare()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            discard_output()
            errors.print(f"[bold red]realtime:[/] {escape(printable(str(error)))}")
            sys.exit(1)


app = typer.Typer(
    cls=Commands,
    name="realtime",
    help="A real-time notes server: write notes over REST, and see changes on every client immediately.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

users = typer.Typer(help="Manage user accounts, whether or not the server is running.", no_args_is_help=True)
app.add_typer(users, name="user")

Url = Annotated[str, typer.Option(help="Address of the server.", envvar="REALTIME_URL")]


def _checked_token(token: str | None) -> str | None:
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise typer.BadParameter("a token can contain only ASCII letters, digits and punctuation")
    return token


Token = Annotated[
    str | None,
    typer.Option(
        help="API token, for servers with accounts.",
        envvar="REALTIME_TOKEN",
        show_envvar=True,
        callback=_checked_token,
    ),
]
Data = Annotated[Path | None, typer.Option(help="Data folder of the embedded databases.  \\[default: data]")]
MongoUrl = Annotated[str | None, typer.Option(help="URL of MongoDB, if the server does not use the embedded one.")]
Database = Annotated[str | None, typer.Option(help="Name of the MongoDB database.  \\[default: realtime]")]
Name = Annotated[str, typer.Argument(help="User name: 2–32 characters of a–z, 0–9, '.', '_', '-'.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def _fail(message: str) -> NoReturn:
    errors.print(f"[bold red]realtime:[/] {escape(message)}")
    raise typer.Exit(1)


def _settings(options: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        _fail(describe(error.errors()))


def _version(requested: bool) -> None:
    if requested:
        output.print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle the global options."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  \\[default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 selects a free port.  \\[default: 8000]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of server processes.  \\[default: 1]")] = None,
    data: Data = None,
    mongo_url: Annotated[
        str | None, typer.Option(help="URL of a MongoDB replica set, instead of the embedded MongoDB.")
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="URL of Redis, instead of the embedded Valkey.")] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            help="open: everyone can read and write all notes. accounts: users sign in and own their notes."
            "  \\[default: open]"
        ),
    ] = None,
    allow_public: Annotated[
        bool,
        typer.Option(
            "--allow-public",
            "--open",
            help="Without accounts: accept other machines, proxied requests, and a database that has accounts.",
        ),
    ] = False,
) -> None:
    """Start the server. Without database URLs, it starts an embedded MongoDB and Valkey.

    Each option is also an environment variable, such as REALTIME_PORT. The documentation lists all settings.
    """
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "data": data,
        "mongo_url": mongo_url,
        "redis_url": redis_url,
        "auth": auth,
        "allow_public": allow_public or None,
    }
    settings = _settings(options)
    from realtime.server.serve import serve as run

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
    token: Token = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each frame as a JSON object on a line.")] = False,
) -> None:
    """Print changes to notes as they happen. Reconnects and resumes automatically, and reports missed events."""
    from realtime.cli.watch import describe, follow

    async def run() -> None:
        async with contextlib.aclosing(
            follow(url, since, lambda text: errors.print(escape(text), style="dim"), token)
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
def _progress_bars() -> Iterator[ProgressCallback]:
    """Return a callback that shows a progress bar for each step on standard error."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with ProgressBars(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def update(progress: TransferProgress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step)
            bars.update(tasks[progress.step], completed=progress.done, total=progress.total)

        yield update


@app.command("export")
def export_(
    target: Annotated[Path, typer.Argument(help="A .zip file, or a folder.", metavar="DIR|ZIP")],
    url: Url = "http://127.0.0.1:8000",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    token: Token = None,
) -> None:
    """Export all notes of a server as Markdown files with YAML front matter."""
    from realtime.cli.transfer import export_notes

    try:
        with _progress_bars() as on_progress:
            count = export_notes(url, target, on_progress, overwrite=overwrite, token=token)
    except RealtimeError as error:
        _fail(error.detail)
    output.print(f"{count} {'note' if count == 1 else 'notes'} exported to {escape(str(target))}")


@app.command("import")
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Markdown files, folders with Markdown files, or .zip archives.", readable=False),
    ],
    url: Url = "http://127.0.0.1:8000",
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep the note ids in the files.")] = False,
    token: Token = None,
) -> None:
    """Create notes from Markdown files that were exported from a server or written by any other program.

    Changed and skipped files are listed with the reason.
    """
    from realtime.cli.transfer import ImportReport, import_notes

    report = ImportReport()
    try:
        with _progress_bars() as on_progress:
            count = import_notes(url, sources, on_progress, report, keep_ids=keep_ids, token=token)
    except RealtimeError as error:
        _show(report)
        _fail(printable(error.detail))
    _show(report)
    output.print(f"{count} {'note' if count == 1 else 'notes'} imported")


def _show(report: ImportReport) -> None:
    """Print each file that an import skipped or changed, then the totals."""
    for kind, remarks in (("skipped", report.skipped), ("changed", report.changed)):
        for file, reason in remarks:
            errors.print(escape(f"{kind}  {printable(file)}: {printable(reason)}"), style="dim")
    counts = [
        f"{len(remarks)} {'file' if len(remarks) == 1 else 'files'} {kind}"
        for kind, remarks in (("skipped", report.skipped), ("changed", report.changed))
        if remarks
    ]
    if counts:
        errors.print(", ".join(counts))


def _run(
    action: Callable[[Accounts], Awaitable[T]], data: Path | None, mongo_url: str | None, database: str | None
) -> T:
    from realtime.cli.users import run_action

    settings = _settings({"data": data, "mongo_url": mongo_url, "database": database})
    try:
        return asyncio.run(run_action(settings, action))
    except RealtimeError as error:
        _fail(error.detail)


def _checked_name(name: str) -> str:
    from realtime.auth.accounts import checked_name

    try:
        return checked_name(name)
    except ValueError as error:
        _fail(str(error))


def _password(from_input: bool) -> str:
    try:
        password: str = (
            sys.stdin.readline().rstrip("\r\n")
            if from_input
            else typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        )
        password.encode()
    except UnicodeError:
        _fail("the password is not valid in the encoding of this terminal; use UTF-8")
    return password


@users.command("add")
def add(
    name: Name,
    admin: Annotated[
        bool, typer.Option("--admin", help="Make the user an administrator. The first user always is.")
    ] = False,
    password_stdin: FromInput = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Add a user. Prompts for a password of at least 15 characters."""
    name, password = _checked_name(name), _password(password_stdin)
    user = _run(lambda accounts: accounts.users.add(name, password, admin=admin), data, mongo_url, database)
    output.print(f"{user.name} was added{' as an administrator' if user.admin else ''}")


@users.command("list")
def list_(data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """List the users."""
    for user in _run(lambda accounts: accounts.users.all(), data, mongo_url, database):
        marks = [word for word, true in (("admin", user.admin), ("disabled", user.disabled)) if true]
        output.print(" ".join([user.name, *marks]))


@users.command("disable")
def disable(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Disable a user. Ends all sessions and API tokens, and closes open connections within a second."""
    user = _run(lambda accounts: accounts.users.set_disabled(_checked_name(name), True), data, mongo_url, database)
    output.print(f"{user.name} is disabled")


@users.command("enable")
def enable(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Enable a user again."""
    user = _run(lambda accounts: accounts.users.set_disabled(_checked_name(name), False), data, mongo_url, database)
    output.print(f"{user.name} is enabled")


@users.command("reset")
def reset(
    name: Name,
    password_stdin: FromInput = False,
    keep_tokens: Annotated[bool, typer.Option("--keep-tokens", help="Keep the API tokens of the user valid.")] = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Set a new password. Ends all sessions and API tokens of the user."""
    name, password = _checked_name(name), _password(password_stdin)
    _run(lambda accounts: accounts.users.reset(name, password, keep_tokens=keep_tokens), data, mongo_url, database)
    tokens = "Their API tokens stay valid" if keep_tokens else "All their API tokens were revoked"
    output.print(f"{name} has a new password and was signed out everywhere. {tokens}")


@users.command("promote")
def promote(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Make a user an administrator. Takes effect within a second, including in open sessions."""
    user = _run(lambda accounts: accounts.users.set_admin(_checked_name(name), True), data, mongo_url, database)
    output.print(f"{user.name} is now an administrator")


@users.command("demote")
def demote(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Remove the administrator role from a user. The last administrator cannot be demoted."""
    user = _run(lambda accounts: accounts.users.set_admin(_checked_name(name), False), data, mongo_url, database)
    output.print(f"{user.name} is no longer an administrator")


@users.command("delete")
def delete(
    name: Name,
    transfer_to: Annotated[
        str | None,
        typer.Option(
            help="User who becomes the owner of the notes. By default, shared notes go to the administrators, and all"
            " other notes go to the trash."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Delete an account permanently. Ends all sessions and API tokens; the name cannot be used again."""
    name, heir = _checked_name(name), None if transfer_to is None else _checked_name(transfer_to)
    if not yes:
        typer.confirm(f"Delete the account {name} permanently?", abort=True, err=True)
    _run(lambda accounts: accounts.users.delete(name, heir), data, mongo_url, database)
    output.print(f"{name} was deleted. The server transfers the notes within seconds, or at its next start")


@users.command("invites")
def invites(data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """List the pending invites: id, administrator, and expiry."""
    for invite in _run(lambda accounts: accounts.users.invites(), data, mongo_url, database):
        output.print(f"{invite.id} by {invite.by} until {invite.expires_date:%Y-%m-%d %H:%M} UTC")


@users.command("revoke-invite")
def revoke_invite(
    id: Annotated[str, typer.Argument(help="Id of the invite, from `realtime user invites`.")],
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Revoke an invite."""
    _run(lambda accounts: accounts.users.revoke_invite(id), data, mongo_url, database)
    output.print("The invite was revoked")
