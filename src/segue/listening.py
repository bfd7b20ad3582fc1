"""Opens sockets to listen on, and stops a server of asyncio without losing a connection that has just been accepted.

Not here: what becomes of the connections.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress

#: How many connections may wait until they are accepted.
BACKLOG = 1024
_NO_SUCH_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


async def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listen on every address that the host stands for, and return the sockets.

    If `shared`, other sockets can listen on the same port, and the kernel spreads connections over all of them.

    Raises:
        OSError: an address cannot be listened on; none is then.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    fault: OSError | None = None
    for family, *_, address in dict.fromkeys(found):
        try:
            sockets.append(socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shared))
        except OSError as error:
            fault = error
            if error.errno not in _NO_SUCH_FAMILY:  # a machine without IPv6 has no ::1, whatever its resolver says
                break
    if fault is not None and (not sockets or fault.errno not in _NO_SUCH_FAMILY):
        for one in sockets:
            one.close()
        raise fault
    for one in sockets:
        one.settimeout(0)
    return sockets


async def stop_listening(server: asyncio.AbstractServer) -> None:
    """Close the ports of a server. Its connections stay, and every accepted one has reached its protocol by then.

    asyncio accepts a connection in one step of the loop, and gives it a transport in the next. If the server is closed
    between the two, no transport can be made, and the socket is left open until it is collected:
    https://github.com/python/cpython/issues/109564. So the loop stops accepting first. A server of uvloop has no such
    gap.
    """
    if isinstance(server, asyncio.Server):
        loop = server.get_loop()
        for listening in server.sockets:
            with suppress(NotImplementedError):  # a loop without readers accepts otherwise
                loop.remove_reader(listening)
        for _ in range(2):  # the transport is made, and tells its protocol
            await asyncio.sleep(0)
    server.close()
