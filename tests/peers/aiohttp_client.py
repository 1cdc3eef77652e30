"""Pages, uploads by length and by chunks, and WebSockets with PyPI's `aiohttp`. Argument: base URL."""
import asyncio
import random
import sys

import aiohttp

BASE = sys.argv[1]
PAGES = "--pages" in sys.argv


async def pages(session):
    for _ in range(20):
        async with session.get(BASE + "/") as answer:
            assert answer.status == 200
            await answer.text()


async def uploads(session):
    data = random.Random(1).randbytes(3_000_000)

    async def in_parts():
        for start in range(0, len(data), 70_000):
            yield data[start:start + 70_000]

    for body in (data, in_parts()):
        async with session.post(BASE + "/upload", data=body) as answer:
            assert await answer.read() == data


async def sockets(session):
    async def one(number):
        chance = random.Random(number)
        path = "/ws" if PAGES else "/"
        async with session.ws_connect(BASE + path, compress=15 if number % 2 else 0, max_msg_size=0) as socket:
            for size in (0, 1, 125, 126, 65535, 65536, 300_000):
                data = chance.randbytes(size)
                await socket.send_bytes(data)
                assert (await socket.receive_bytes()) == data
            await socket.send_str("grüße")
            assert (await socket.receive_str()) == "grüße"

    await asyncio.gather(*(one(number) for number in range(10)))


async def main():
    async with aiohttp.ClientSession() as session:
        if PAGES:
            await pages(session)
            await uploads(session)
        await sockets(session)
    print("ok", flush=True)


asyncio.run(main())
