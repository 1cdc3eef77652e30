"""An echo server on PyPI's `websockets`. Argument: its port."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
        print("ready", flush=True)
        await server.serve_forever()


asyncio.run(main())
