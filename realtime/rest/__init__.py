"""The routes: parse, one action or read, public model."""

from realtime.rest import access, auth, history, notes, people, tags, transfer, trash

routers = [
    notes.router,
    history.router,
    tags.router,
    trash.router,
    transfer.router,
    auth.router,
    people.router,
    access.router,
]
