"""The list of all routers of the REST API. Their class is in :mod:`realtime.api.router`."""

from realtime.api.routes import account, account_deletion, admin, history, notes, sharing, tags, tokens, transfer, trash

routers = [
    module.router
    for module in (notes, history, tags, trash, transfer, sharing, account, tokens, admin, account_deletion)
]
