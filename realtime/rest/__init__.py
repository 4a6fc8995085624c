"""The routes: parse, one action or read, public model."""

from realtime.rest import history, notes, tags, transfer, trash

routers = [notes.router, history.router, tags.router, trash.router, transfer.router]
