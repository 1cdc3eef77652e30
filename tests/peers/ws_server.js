// An echo server on npm's `ws`, with compression. Argument: its port.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(process.argv[2]), perMessageDeflate: true, maxPayload: 0,
});
server.on('listening', () => console.log('ready'));
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});
