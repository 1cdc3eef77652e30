// A socket.io server that tells its name, echoes, and keeps no state another could have. Arguments:
// port, name.
const http = require('http');
const { Server } = require('socket.io');

const [port, name] = [Number(process.argv[2]), process.argv[3]];
const server = http.createServer();
const io = new Server(server, { pingInterval: 2000, pingTimeout: 5000 });

io.on('connection', (socket) => {
  socket.emit('name', name);
  socket.on('echo', (value, answer) => answer(value));
});
server.listen(port, '127.0.0.1', () => console.log('ready'));
