"""What stays open: the feed, and the rooms in which people write together."""

from __future__ import annotations

from realtime.sockets import feed, sync

routers = (feed.router, sync.router)
