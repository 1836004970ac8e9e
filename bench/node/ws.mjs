// The server that pov-rt replaces: every publication walks over all clients and encodes per client.
import { WebSocketServer } from 'ws'

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) })

server.on('connection', socket => {
  socket.subscriptions = new Set()
  socket.on('message', data => {
    let message
    try {
      message = JSON.parse(data)
    } catch {
      socket.send(JSON.stringify({ type: 'error', message: 'Invalid message format' }))
      return
    }
    switch (message.type) {
      case 'ping':
        socket.send(JSON.stringify({ type: 'pong' }))
        break
      case 'subscribe':
        socket.subscriptions.add(message.povId)
        socket.send(JSON.stringify({ type: 'subscribed', povId: message.povId }))
        break
      case 'publish':
        broadcast(message.data)
        break
      default:
        socket.send(JSON.stringify({ type: 'error', message: 'Unknown message type' }))
    }
  })
})

function broadcast(activity) {
  for (const client of server.clients) {
    if (client.readyState === client.OPEN && client.subscriptions.has(activity.povId)) {
      client.send(JSON.stringify({ type: 'activity', data: activity }))
    }
  }
}

setInterval(() => {
  for (const client of server.clients) client.ping()
}, 25_000)
