// Follows a PoV with nothing but the first block of the contract; prints each activity as a line.
import WebSocket from 'ws'

const [url, pov, count] = process.argv.slice(2)
const socket = new WebSocket(url)
let left = Number(count)
socket.on('open', () => socket.send(JSON.stringify({type: 'subscribe', povId: pov})))
socket.on('message', data => {
  const message = JSON.parse(data)
  if (message.type === 'subscribed') console.error('following')
  if (message.type !== 'activity') return
  console.log(JSON.stringify({...message.data, offset: message.offset}))
  left -= 1
  if (left === 0) socket.close()
})
socket.on('error', error => {
  console.error(String(error))
  process.exitCode = 1
})
