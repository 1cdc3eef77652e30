// Echoes through a URL with npm's `ws`. Argument: the URL.
const assert = require('assert');
const crypto = require('crypto');
const WebSocket = require('ws');

const url = process.argv[2];
const sizes = [0, 1, 125, 126, 127, 65535, 65536, 250000];

function one(number) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: number % 2 === 1, maxPayload: 0 });
    const due = sizes.map((size) => crypto.randomBytes(size));
    let at = 0;
    socket.on('open', () => {
      socket.ping('mine');
      socket.send(due[0]);
    });
    socket.on('message', (data) => {
      try {
        assert(due[at].equals(data), `echo of ${due[at].length} bytes`);
      } catch (error) {
        reject(error);
      }
      at += 1;
      if (at < due.length) {
        socket.send(due[at], { fin: false });
        return socket.send(Buffer.alloc(0), { fin: true });
      }
      return socket.close(4002, 'done');
    });
    socket.on('close', (code) => (code === 4002 ? resolve() : reject(new Error(`closed ${code}`))));
    socket.on('error', reject);
  });
}

Promise.all(Array.from({ length: 10 }, (_, number) => one(number)))
  .then(() => console.log('ok'))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
