"""Pages, uploads and an echoing WebSocket on PyPI's `aiohttp`. Arguments: port, name."""
import sys

from aiohttp import WSMsgType, web

PORT, NAME = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "aiohttp"


async def page(_request):
    return web.Response(text=NAME)


async def upload(request):
    answer = web.StreamResponse(headers={"X-Name": NAME})
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    async for part in request.content.iter_any():
        await answer.write(part)
    await answer.write_eof()
    return answer


async def socket(request):
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def started(_app):
    print("ready", flush=True)


app = web.Application(client_max_size=1 << 40)
app.router.add_get("/", page)
app.router.add_post("/upload", upload)
app.router.add_get("/ws", socket)
app.on_startup.append(started)
web.run_app(app, host="127.0.0.1", port=PORT, print=None)
