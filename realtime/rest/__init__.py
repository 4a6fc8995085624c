"""The routes: parse, one action or read, public model."""

from realtime.rest import auth, history, notes, people, tags, tokens, transfer, trash

routers = [module.router for module in (notes, history, tags, trash, transfer, auth, tokens, people)]
