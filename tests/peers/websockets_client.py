"""Echoes through a URL with PyPI's `websockets`: texts, binaries, fragments, pings, compression."""
import asyncio
import random
import sys

from websockets.asyncio.client import connect

URL = sys.argv[1]
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 200_000]


async def one(number):
    chance = random.Random(SEED * 1000 + number)
    compression = "deflate" if number % 2 else None
    async with connect(URL, compression=compression, max_size=None) as socket:
        for size in SIZES:
            data = chance.randbytes(size)
            await socket.send(data)
            assert await socket.recv() == data, f"binary of {size}"
            text = "é" * (size // 2)
            await socket.send(text)
            assert await socket.recv() == text, f"text of {size}"
        parts = [chance.randbytes(chance.randrange(5000)) for _ in range(5)]
        await socket.send(parts)
        assert await socket.recv() == b"".join(parts), "fragments"
        pong = await socket.ping(b"ours alone")
        await asyncio.wait_for(pong, 10)
        await socket.close(4001, "done here")
        assert socket.close_code == 4001, socket.close_code


async def main():
    await asyncio.gather(*(one(number) for number in range(10)))
    print("ok", flush=True)


asyncio.run(main())
