"""One server message to all: a server and its clients in one process, around a proxy. Run as a
child by the suite; prints one line of JSON for each order read from standard input."""

import json
import select
import socket
import ssl
import sys
import threading
import time

PAYLOAD = 120
ANSWER = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
ASK = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
       b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def until_head(sock):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        if not part:
            raise OSError("closed inside a head")
        head += part
    return head


def serve(listener, wanted, mode, accepted):
    while len(accepted) < wanted:
        sock, _ = listener.accept()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if mode != "l4":
                until_head(sock)
                sock.sendall(ANSWER)
            sock.setblocking(False)
            accepted.append(sock)
        except OSError:             # the suite knocks once to see that the port is open
            sock.close()


def join(port, mode, number):
    sock = socket.socket()
    sock.bind((f"127.0.1.{number % 16}", 0))
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if mode == "wss":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    if mode != "l4":
        sock.sendall(ASK)
        if not until_head(sock).startswith(b"HTTP/1.1 101"):
            raise OSError("upgrade refused")
    sock.setblocking(False)
    return sock


def receive(sock):
    """How many bytes there were."""
    total = 0
    while True:
        try:
            part = sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return total
        if not part:
            raise OSError("closed in the middle")
        total += len(part)


def main():
    mode, server_port, port, count, seconds, every = sys.argv[1], *map(float, sys.argv[2:7])
    listener = socket.create_server(("127.0.0.1", int(server_port)), backlog=4096)
    accepted = []
    thread = threading.Thread(target=serve, args=(listener, int(count), mode, accepted))
    thread.start()
    print(json.dumps({"listening": True}), flush=True)
    sys.stdin.readline()
    clients = [join(int(port), mode, number) for number in range(int(count))]
    thread.join()
    poll = select.epoll()
    index = {}
    for sock in clients:
        index[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    frame = bytes([0x82, PAYLOAD]) + bytes(PAYLOAD)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    took, late, begin, due = [], 0, time.monotonic(), time.monotonic()
    while due < begin + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.monotonic()
        for sock in accepted:
            sock.send(frame)
        missing = len(frame) * len(clients)
        while missing:
            events = poll.poll(5.0)
            if not events:
                raise SystemExit(f"{missing} bytes never came")
            for fileno, _ in events:
                missing -= receive(index[fileno])
        took.append(time.monotonic() - start)
        due += every
        late += time.monotonic() > due
    took.sort()
    print(json.dumps({"rounds": len(took), "messages": len(took) * len(clients), "late": late,
                      "median_ms": took[len(took) // 2] * 1e3, "worst_ms": took[-1] * 1e3}),
          flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
