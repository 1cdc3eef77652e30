// socket.io clients that begin by polling and upgrade, are cut, and come back. Polling works over
// several servers only if every request of a session finds the same one. Arguments: URL, clients.
const assert = require('assert');
const { io } = require('socket.io-client');

const [url, count] = [process.argv[2], Number(process.argv[3] || 9)];
const RECONNECTS = 3;

function one(number) {
  return new Promise((resolve, reject) => {
    const names = [];
    let upgraded = 0;
    const socket = io(url, {
      transports: ['polling', 'websocket'], withCredentials: true, reconnectionDelay: 50,
      reconnectionDelayMax: 100, forceNew: true,
    });
    const late = setTimeout(() => reject(new Error(`client ${number} is late: ${names}`)), 30000);
    socket.on('name', (name) => names.push(name));
    socket.on('connect_error', (error) => reject(error));
    // The engine opens by polling, before there is a session that could be upgraded.
    const watch = () => {
      socket.io.engine.once('upgrade', async () => {
        upgraded += 1;
        for (let n = 0; n < 10; n += 1) {
          const value = 'x'.repeat(n * 100);
          assert.strictEqual(await socket.emitWithAck('echo', value), value);
        }
        if (upgraded <= RECONNECTS) {
          socket.io.engine.close();
          return;
        }
        clearTimeout(late);
        socket.close();
        try {
          // The library's cookie jar lives as long as one session, so a new one may go elsewhere;
          // within a session a request that strayed would be refused as unknown.
          assert.strictEqual(names.length, RECONNECTS + 1);
          resolve(names);
        } catch (error) {
          reject(error);
        }
      });
    };
    socket.io.on('open', watch);
  });
}

Promise.all(Array.from({ length: count }, (_, number) => one(number)))
  .then((names) => {
    console.log('ok', [...new Set(names.flat())].sort().join(' '));
    process.exit(0);
  })
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
