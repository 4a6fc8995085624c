"""The routes: parse, one action or read, public model."""

from realtime.rest import access, auth, deletion, history, notes, people, tags, tokens, transfer, trash

routers = [module.router for module in (notes, history, tags, trash, transfer, access, auth, tokens, people, deletion)]
