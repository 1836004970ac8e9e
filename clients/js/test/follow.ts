/**
 * A client on Node of a real server, for tests/test_js_server.py: says what it is told, line by line,
 * publishes as many activities as each line that it reads says, and tries to connect at once.
 */
import {createInterface} from 'node:readline'
import {WebSocket} from 'ws'
import {connect} from '../src/client.js'
import type {Options} from '../src/api.js'

const {POV_URL: url, POV_TOKEN: token = ''} = process.env
const say = (...what: unknown[]) => console.log(JSON.stringify(what))

const client = connect({
  url, getToken: () => token, outbox: true, WebSocket: WebSocket as unknown as Options['WebSocket'],
})
client.on('status', ({state, reason}) => say('status', state, reason))
client.on('pending', pending => say('pending', pending.length))
const subscription = client.subscribe('acme', {since: {last: 1000}})
subscription.on('activity', ({activity, offset}) => say('activity', activity.id, offset))
subscription.on('gap', gap => say('gap', gap))
subscription.on('error', failure => say('error', failure))

let made = 0
for await (const line of createInterface({input: process.stdin})) {
  client.retry()
  for (let left = Number(line); left > 0; left--) {
    const id = `own-${++made}`
    client.publish({id, povId: 'acme', type: 'task', action: 'created'})
      .then(({offset}) => say('published', id, offset), error => say('refused', id, error.code))
  }
}
client.close()
