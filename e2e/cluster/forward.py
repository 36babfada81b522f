"""Lets the host reach one address inside a network namespace.

usage: forward.py PID PORT_FILE HOST PORT

Listens on a free port of 127.0.0.1 of the host, then moves into the network namespace of PID and connects from there:
a socket stays in the namespace it was made in. PORT_FILE appears when connections are taken.
"""

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def main(listener, port_file, host, port):
    async def connection(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(connection, sock=listener)
    with open(port_file + ".partial", "w") as file:
        file.write(str(listener.getsockname()[1]))
    os.rename(port_file + ".partial", port_file)
    await server.serve_forever()


pid, port_file, host, port = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
# Before the namespace changes: the loop's own sockets belong to the host.
loop = asyncio.new_event_loop()
namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
    sys.exit("cannot enter the network namespace")
loop.run_until_complete(main(listener, port_file, host, port))
