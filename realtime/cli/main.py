"""The command line: parses and calls."""

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
    from realtime.cli.transfer import ImportReport, Tell, TransferProgress

T = TypeVar("T")


class Commands(TyperGroup):
    """The commands, for terminals and environments of every kind."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command. Failures of the system end it with a message; a reader that has gone ends it silently."""
        prepare()
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            discard_output()
            errors.print(f"[bold red]realtime:[/] {escape(printable(str(error)))}")
            sys.exit(1)


app = typer.Typer(
    cls=Commands,
    name="realtime",
    help="A real-time notes server: write notes over REST, see them live everywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

users = typer.Typer(help="Who has an account. Works with the server running or not.", no_args_is_help=True)
app.add_typer(users, name="user")

Url = Annotated[str, typer.Option(help="Address of the server.", envvar="REALTIME_URL")]


def _checked_token(token: str | None) -> str | None:
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise typer.BadParameter("a token has ASCII letters, digits and punctuation only")
    return token


Token = Annotated[
    str | None,
    typer.Option(
        help="API token, where there are accounts.",
        envvar="REALTIME_TOKEN",
        show_envvar=True,
        callback=_checked_token,
    ),
]
Data = Annotated[Path | None, typer.Option(help="Folder of the embedded servers.  \\[default: data]")]
MongoUrl = Annotated[str | None, typer.Option(help="MongoDB of the server, instead of the embedded one.")]
Database = Annotated[str | None, typer.Option(help="Database in MongoDB.  \\[default: realtime]")]
Name = Annotated[str, typer.Argument(help="2–32 of a–z, 0–9, '.', '_', '-'.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def _fail(message: str) -> NoReturn:
    errors.print(f"[bold red]realtime:[/] {escape(message)}")
    raise typer.Exit(1)


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        _fail(describe(error.errors()))


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
    auth: Annotated[
        str | None,
        typer.Option(help="accounts: users sign in and own their notes.  \\[default: open]"),
    ] = None,
    allow_public: Annotated[
        bool,
        typer.Option(
            "--allow-public",
            "--open",
            help="Without accounts: serve other machines, proxied requests, and a database that has accounts.",
        ),
    ] = False,
) -> None:
    """Serve notes. Without URLs it brings its own MongoDB and Redis-compatible server.

    Each option is also an environment variable, for example REALTIME_PORT. See docs/reference/settings.md.
    """
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "data": data,
        "mongo_url": mongo_url,
        "redis_url": redis_url,
        "auth": auth,
        "allow_public": allow_public or None,
    }
    settings = _settings(given)
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the frames as they come, one JSON object a line.")
    ] = False,
) -> None:
    """Follow the notes of a server, live. Comes back by itself, resumes, and says so if something was missed."""
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
def _bars() -> Iterator[Tell]:
    """Shows a progress bar for each step that is told of, on standard error."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with ProgressBars(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(progress: TransferProgress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step)
            bars.update(tasks[progress.step], completed=progress.done, total=progress.total)

        yield tell


@app.command("export")
def export_(
    target: Annotated[Path, typer.Argument(help="A .zip file, or a folder.", metavar="DIR|ZIP")],
    url: Url = "http://127.0.0.1:8000",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    token: Token = None,
) -> None:
    """Save all notes of a server as Markdown files with YAML front matter."""
    from realtime.cli.transfer import export_notes

    try:
        with _bars() as tell:
            count = export_notes(url, target, tell, overwrite=overwrite, token=token)
    except RealtimeError as error:
        _fail(error.detail)
    output.print(f"{count} notes in {escape(str(target))}")


@app.command("import")
def import_(
    sources: Annotated[
        list[Path], typer.Argument(help="Markdown files, folders of them, or .zip archives.", readable=False)
    ],
    url: Url = "http://127.0.0.1:8000",
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep the ids that the files name.")] = False,
    token: Token = None,
) -> None:
    """Make notes of Markdown files: of an export, or of any other program.

    Files are adapted where possible and skipped otherwise; both are listed with the reason.
    """
    from realtime.cli.transfer import ImportReport, import_notes

    report = ImportReport()
    try:
        with _bars() as tell:
            count = import_notes(url, sources, tell, report, keep_ids=keep_ids, token=token)
    except RealtimeError as error:
        _show(report)
        _fail(printable(error.detail))
    _show(report)
    output.print(f"{count} {'note' if count == 1 else 'notes'} imported")


def _show(report: ImportReport) -> None:
    """Print every file that an import skipped or changed, and how many there are."""
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


def _act(do: Callable[[Accounts], Awaitable[T]], data: Path | None, mongo_url: str | None, database: str | None) -> T:
    from realtime.cli.users import act

    settings = _settings({"data": data, "mongo_url": mongo_url, "database": database})
    try:
        return asyncio.run(act(settings, do))
    except RealtimeError as error:
        _fail(error.detail)


def _named(name: str) -> str:
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
        _fail("the password is not text in the encoding of this terminal; use UTF-8")
    return password


@users.command("add")
def add(
    name: Name,
    admin: Annotated[
        bool, typer.Option("--admin", help="May see and disable users. The first user always may.")
    ] = False,
    password_stdin: FromInput = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Add a user. The password is asked for: at least 15 characters."""
    name, password = _named(name), _password(password_stdin)
    person = _act(lambda accounts: accounts.users.add(name, password, admin=admin), data, mongo_url, database)
    output.print(f"{person.name} was added{', as an admin' if person.admin else ''}")


@users.command("list")
def list_(data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """List the users."""
    for person in _act(lambda accounts: accounts.users.all(), data, mongo_url, database):
        marks = [word for word, true in (("admin", person.admin), ("disabled", person.disabled)) if true]
        output.print(" ".join([person.name, *marks]))


@users.command("disable")
def disable(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Disable a user: all sessions and tokens end, and what is open is closed within a second."""
    person = _act(lambda accounts: accounts.users.set_disabled(_named(name), True), data, mongo_url, database)
    output.print(f"{person.name} is disabled")


@users.command("enable")
def enable(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Enable a user again."""
    person = _act(lambda accounts: accounts.users.set_disabled(_named(name), False), data, mongo_url, database)
    output.print(f"{person.name} is enabled")


@users.command("reset")
def reset(
    name: Name,
    password_stdin: FromInput = False,
    keep_tokens: Annotated[bool, typer.Option("--keep-tokens", help="Leave the API tokens of the user valid.")] = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Set another password: all sessions and API tokens of the user end."""
    name, password = _named(name), _password(password_stdin)
    _act(lambda accounts: accounts.users.reset(name, password, keep_tokens=keep_tokens), data, mongo_url, database)
    tokens = "The API tokens stay valid" if keep_tokens else "All API tokens are revoked"
    output.print(f"{name} has a new password, and is signed out everywhere. {tokens}")


@users.command("promote")
def promote(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Make a user an administrator, also in everything that the user has open."""
    person = _act(lambda accounts: accounts.users.set_admin(_named(name), True), data, mongo_url, database)
    output.print(f"{person.name} is an administrator")


@users.command("demote")
def demote(name: Name, data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """Take the administrator role from a user. The last administrator keeps it."""
    person = _act(lambda accounts: accounts.users.set_admin(_named(name), False), data, mongo_url, database)
    output.print(f"{person.name} is no longer an administrator")


@users.command("delete")
def delete(
    name: Name,
    transfer_to: Annotated[
        str | None,
        typer.Option(
            help="User who gets the notes. Without one, shared notes go to the administrators, others into the trash."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation.")] = False,
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Delete an account for good: sessions and API tokens end, and nobody can take the name again."""
    name, heir = _named(name), None if transfer_to is None else _named(transfer_to)
    if not yes:
        typer.confirm(f"Delete the account {name} for good?", abort=True, err=True)
    _act(lambda accounts: accounts.users.delete(name, heir), data, mongo_url, database)
    output.print(f"{name} is deleted. The server settles the notes within seconds, or when it starts")


@users.command("invites")
def invites(data: Data = None, mongo_url: MongoUrl = None, database: Database = None) -> None:
    """List the invites that can still be used: id, administrator, and expiry."""
    for one in _act(lambda accounts: accounts.users.invites(), data, mongo_url, database):
        output.print(f"{one.id} by {one.by} until {one.expires_date:%Y-%m-%d %H:%M} UTC")


@users.command("revoke-invite")
def revoke_invite(
    id: Annotated[str, typer.Argument(help="Id of the invite, as `realtime user invites` lists it.")],
    data: Data = None,
    mongo_url: MongoUrl = None,
    database: Database = None,
) -> None:
    """Revoke an invite."""
    _act(lambda accounts: accounts.users.revoke_invite(id), data, mongo_url, database)
    output.print("The invite is revoked")
