// socket.io with a room per PoV; only WebSockets, as its users with many clients run it.
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const server = new Server({ transports: ['websocket'], pingInterval: 25_000, pingTimeout: 600_000 })

server.on('connection', socket => {
  socket.on('ping', () => socket.emit('pong', {}))
  socket.on('subscribe', ({ povId }) => {
    socket.join(povId)
    socket.emit('subscribed', { povId })
  })
  socket.on('publish', data => server.to(data.povId).emit('activity', data))
})

server.attach(createServer().listen(Number(process.argv[2]), '127.0.0.1'))
