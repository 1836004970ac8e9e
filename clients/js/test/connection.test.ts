/** The connection against real sockets of a server that does as it is told, in fake time. */
import assert from 'node:assert/strict'
import {afterEach, beforeEach, mock, test} from 'node:test'
import type {Incoming, Line, Options, Status} from '../src/api.js'
import type * as wire from '../src/wire.js'
import {addressOf, makeConnection} from '../src/connection.js'
import {nodeSocket, Scripted, short, tokenOf, type Refusal} from './scripted.js'
import {fakeTime, realTime, step, tick, turn, until} from './time.js'

let server: Scripted
const lines: Watched[] = []

/** A line, and what it says. */
class Watched {
  readonly all: Status[] = []
  readonly messages: Incoming[] = []
  readonly welcomes: wire.Welcome[] = []
  asked: (string | undefined)[] = []
  token: () => string | null | Promise<string | null> = () => tokenOf({userId: 'ana', n: this.asked.length})
  readonly line: Line

  constructor(options: Partial<Options> = {}) {
    lines.push(this)
    this.line = makeConnection({
      url: server.url, WebSocket: nodeSocket,
      getToken: ({refused}) => { this.asked.push(refused); return this.token() },
      ...options,
    })
    this.line.start({
      opened: welcome => this.welcomes.push(welcome),
      message: each => this.messages.push(each),
      status: each => this.all.push(each),
    })
  }

  get status(): Status | undefined {
    return this.all.at(-1)
  }
  get states(): string[] {
    return this.all.map(short)
  }
  async opened(): Promise<void> {
    await until(() => this.line.isOpen)
  }
  /** Until it waits for its next attempt; how long that is, ms. */
  async waits(): Promise<number> {
    await until(() => this.status?.retryAt)
    return this.status!.retryAt! - Date.now()
  }
}

beforeEach(async () => {
  server = await Scripted.start()
  fakeTime()
})
afterEach(async () => {
  for (const each of lines.splice(0)) each.line.close('closed')
  realTime()
  mock.restoreAll()
  await server.stop()
})

test('it opens with the token as a subprotocol, and names the device', async () => {
  const {line, states} = await open({device: 'a b/ü'})
  assert.equal(line.isOpen, true)
  assert.equal(new URL(server.last.url, 'http://x').searchParams.get('device'), 'a b/ü')
  assert.ok(!server.last.url.includes('bearer') && !server.last.url.includes(server.last.token))
  assert.deepEqual(states, ['connecting', 'live'])
})

test('addresses: a path, ws for http, a slash at the end or none', () => {
  for (const [url, ws] of [
    ['https://rt.example', 'wss://rt.example/ws/'], ['http://rt.example/', 'ws://rt.example/ws/'],
    ['wss://rt.example/a/b/', 'wss://rt.example/a/b/ws/'], ['https://rt.example:8443/a', 'wss://rt.example:8443/a/ws/'],
  ]) assert.equal(addressOf({url, getToken: () => ''}).ws, ws)
  assert.equal(addressOf({url: 'ws://rt.example', getToken: () => ''}).http, 'http://rt.example/ws/')
})

async function open(options?: Partial<Options>): Promise<Watched> {
  const watched = new Watched(options)
  await watched.opened()
  return watched
}

const FINAL = {4500: 'ended', 4501: 'page_error', 4999: 'page_error', 1002: 'page_error', 1007: 'page_error', 1009: 'page_error'}
const PASSING = {
  1000: 'network', 1001: 'network', 1011: 'network', 1012: 'network', 1013: 'network', 3000: 'network',
  4000: 'restarting', 4001: 'token', 4002: 'slow', 4003: 'silent', 4004: 'gap', 4005: 'busy', 4499: 'network',
}
for (const [code, reason] of Object.entries(FINAL)) {
  test(`close code ${code} is final: ${reason}`, async () => {
    const watched = await open()
    server.last.socket.close(Number(code), 'because')
    await until(() => watched.status!.state === 'closed')
    assert.deepEqual([short(watched.status!), watched.status!.code, watched.status!.detail],
      [`closed ${reason}`, Number(code), 'because'])
    tick(100_000)
    watched.line.retry()
    await until(() => !server.open.length)
    assert.equal(server.attempts.length, 1)
  })
}
for (const [code, reason] of Object.entries(PASSING)) {
  test(`after close code ${code} it comes back: ${reason}`, async () => {
    const watched = await open()
    server.last.socket.close(Number(code))
    assert.ok(await watched.waits() <= 500)
    assert.equal(short(watched.status!), `offline ${reason}`)
    tick(500)
    await watched.opened()
    assert.equal(watched.welcomes.length, 2)
    // Of a token that was ended another is asked for; else the one that is good is used again.
    assert.equal(watched.asked.length, code === '4001' ? 2 : 1)
  })
}

test('a connection that is cut without a word comes back, too', async () => {
  const watched = await open()
  server.last.socket.terminate()
  await watched.waits()
  assert.equal(short(watched.status!), 'offline network')
  tick(500)
  await watched.opened()
})

test('what `closing` says counts, and for how long', async () => {
  const watched = await open()
  server.last.send({type: 'closing', code: 4005, reason: 'overloaded', retryAfter: 30})
  server.last.socket.close(1001)
  const ms = await watched.waits()
  assert.ok(ms >= 30_000 && ms <= 31_000, `${ms}`)
  assert.deepEqual([short(watched.status!), watched.status!.detail], ['offline busy', 'overloaded'])
  tick(29_999)
  assert.equal(server.attempts.length, 1)
  tick(1_001)
  await watched.opened()
  // It spoke of that connection only.
  server.last.socket.close(4000)
  assert.ok(await watched.waits() <= 1_000)
  assert.equal(short(watched.status!), 'offline restarting')
})

for (const retryAfter of [1e9, 3e6, -5]) {
  test(`to come back after ${retryAfter} s is no reason to come back at once, over and over`, async () => {
    server.refuse = () => ({status: 429, headers: {'retry-after': String(retryAfter)}})
    const watched = new Watched()
    await watched.waits()
    await until(() => server.attempts.length > 8 || watched.status!.retryAt! - Date.now() > 10_000, 100)
    const ms = await watched.waits()
    assert.ok(Date.now() - 1_800_000_000_000 >= 500 || ms > 10_000)
    assert.ok(ms < 2 ** 31)
  })
}

test('to come back after 0 s is within a second, however long it would be else', async () => {
  const fixed = mock.method(Math, 'random', () => 0.999)
  server.refuse = () => server.attempts.length > 6 ? {status: 503, body: {error: {code: 'unavailable', retryAfter: 0}}} : {status: 503}
  const watched = new Watched()
  for (let attempt = 1; attempt < 9; attempt++) {
    await until(() => watched.status?.retryAt && server.attempts.length === attempt)
    const ms = watched.status!.retryAt! - Date.now()
    assert.equal(Math.round(ms / 0.999), attempt > 6 ? 1_000 : Math.min(20_000, 500 * 2 ** (attempt - 1)))
    tick(ms)
  }
  fixed.mock.restore()
})

test('waiting is full jitter: up to a bound that doubles from 0.5 s to 20 s', async () => {
  for (const [random, bounds] of [
    [0.999, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]], [0, [0, 0, 0]],
  ] as const) {
    const fixed = mock.method(Math, 'random', () => random)
    server.refuse = () => ({status: 500})
    const watched = new Watched()
    for (const bound of bounds) {
      const ms = await watched.waits()
      assert.equal(Math.round(ms / 0.999), bound)
      const {length} = watched.all
      tick(ms + 1)
      await until(() => watched.all.length > length + 1)
    }
    watched.line.close('closed')
    fixed.mock.restore()
  }
})

test('the backoff begins anew only after a connection that lasted', async () => {
  mock.method(Math, 'random', () => 0.999)
  const watched = await open()
  const waits = []
  for (const lasted of [100, 100, 100, 10_001, 100]) {
    tick(lasted)
    server.last.socket.terminate()
    const ms = await watched.waits()
    waits.push(Math.round(ms / 0.999))
    tick(ms + 1)
    await watched.opened()
  }
  assert.deepEqual(waits, [500, 1_000, 2_000, 500, 1_000])
})

test('a refused token is replaced once; if the next one is refused too, it is over', async () => {
  server.refuse = () => ({status: 401, body: {error: {code: 'token_revoked', message: 'no'}}})
  const watched = new Watched()
  await until(() => watched.status?.state === 'closed')
  assert.equal(short(watched.status!), 'closed session_ended')
  assert.deepEqual(watched.asked, [undefined, 'token_revoked'])
  assert.equal(server.attempts.length, 2)
  assert.equal(server.probes.length, 2)
})

test('a network that fails in between does not make it forget that a token was refused', async () => {
  let count = 0
  server.refuse = () => count++ === 2 || count === 4 ? {status: 502} : {status: 401, body: {error: {code: 'token_invalid'}}}
  const watched = new Watched()
  await until(() => watched.status?.state === 'closed', 50)
  assert.equal(short(watched.status!), 'closed session_ended')
  assert.ok(watched.asked.length <= 2, `${watched.asked}`)
})

test('a refused token that is replaced by a good one is forgotten', async () => {
  server.refuse = token => token === tokenOf({userId: 'ana', n: 1}) ? {status: 401, body: {error: {code: 'token_expired'}}} : undefined
  const watched = await open()
  assert.deepEqual(watched.states, ['connecting', 'connecting token', 'live'])
  server.refuse = token => token === server.last.token ? {status: 401, body: {error: {code: 'token_expired'}}} : undefined
  server.last.socket.terminate()
  await until(() => watched.welcomes.length === 2, 50)
  assert.deepEqual(watched.asked, [undefined, 'token_expired', 'token_expired'])
})

const REFUSALS: [Refusal, string, boolean][] = [
  [{status: 403, body: {error: {code: 'forbidden', message: 'origin'}}}, 'refused', true],
  [{status: 421, body: {error: {code: 'host_unknown', message: 'host'}}}, 'refused', true],
  [{status: 403, headers: {'content-type': 'text/html'}}, 'network', false], // a gateway's own page
  [{status: 503, body: {error: {code: 'unavailable', retryAfter: 7}}}, 'busy', false],
  [{status: 429, headers: {'retry-after': '7'}}, 'busy', false],
  [{status: 401, headers: {'content-type': 'text/html'}}, 'network', false],
  [{status: 500}, 'network', false],
  [{status: 200}, 'network', false],
]
for (const [refusal, reason, isFinal] of REFUSALS) {
  test(`refused with ${refusal.status} ${JSON.stringify(refusal.body ?? refusal.headers ?? '')}: ${reason}`, async () => {
    server.refuse = () => refusal
    const watched = new Watched()
    await until(() => watched.status?.state === (isFinal ? 'closed' : 'offline'))
    assert.equal(watched.status!.reason, reason)
    if (reason === 'busy') assert.ok(await watched.waits() >= 7_000)
    assert.equal(server.attempts.length, 1)
    assert.equal(server.probes.length, refusal.status === 421 ? 2 : 1) // `fetch` itself asks once more
    assert.equal(watched.asked.length, 1)
  })
}

test('nobody is signed in: it ends; asking fails: it asks again, later each time', async () => {
  const none = new Watched({getToken: () => null})
  await until(() => none.status?.state === 'closed')
  assert.equal(short(none.status!), 'closed session_ended')

  const failing = new Watched()
  failing.token = () => { throw new Error('no route') }
  await failing.waits()
  assert.deepEqual([short(failing.status!), failing.status!.detail], ['offline token', 'Error: no route'])
  failing.token = () => tokenOf({userId: 'ana'})
  failing.line.retry()
  await failing.opened()
})

for (const left of [12, -Infinity]) {
  test(`a token that is nearly over is not used again (${left} s)`, async () => {
    const watched = new Watched()
    watched.token = () => tokenOf({userId: 'ana', exp: Math.max(0, Date.now() / 1000 + left)})
    await watched.opened()
    tick(3_000)
    server.last.socket.terminate()
    await until(() => watched.welcomes.length === 2, 50)
    assert.equal(watched.asked.length, 2)
  })
}

for (const claims of [{userId: 'bob', teamId: 'red'}, {userId: 'ana', teamId: 'blue'}, {userId: 'ana'}]) {
  test(`ana of team red is not whom the token ${JSON.stringify(claims)} is for`, async () => {
    const watched = new Watched({user: 'ana', team: 'red', getToken: () => tokenOf(claims)})
    await until(() => watched.status?.state === 'closed' || server.attempts.length > 0, 50)
    assert.equal(short(watched.status!), 'closed session_ended')
    assert.equal(server.attempts.length, 0)
  })
}

test('it does not go on as somebody else when the page gives the token of another user', async () => {
  const watched = await open()
  watched.token = () => tokenOf({userId: 'bob'})
  server.last.socket.close(4001)
  await until(() => watched.status!.state === 'closed' || server.accepted.length > 1, 50)
  assert.equal(short(watched.status!), 'closed session_ended')
  assert.equal(server.attempts.length, 1)
})

test('the token is renewed in place, ahead of its end', async () => {
  const watched = await open()
  server.last.send({type: 'token_expiring', expiresAt: '2030-01-01T00:00:00Z'})
  await until(() => watched.messages.some(each => each.type === 'refreshed'))
  assert.equal(server.accepted.length, 1)
  assert.equal(server.last.of('refresh')[0]!.token, tokenOf({userId: 'ana', n: 2}))
  // And it is this one that the next connection uses.
  server.last.socket.terminate()
  await until(() => watched.welcomes.length === 2, 50)
  assert.equal(server.last.token, tokenOf({userId: 'ana', n: 2}))
})

test('a new token that is refused in place: one more, then it is over', async () => {
  const watched = await open()
  server.script = ({type, id}, peer) =>
    type === 'refresh' && (peer.send({type: 'error', id, code: 'token_invalid', message: 'no'}), true)
  server.last.send({type: 'token_expiring', expiresAt: '2030-01-01T00:00:00Z'})
  await until(() => watched.status!.state === 'closed', 20)
  assert.equal(short(watched.status!), 'closed session_ended')
  assert.equal(server.last.of('refresh').length, 2)
  assert.deepEqual(watched.asked, [undefined, undefined, 'token_invalid'])
})

test('a token that was refused in place is not what the next connection begins with', async () => {
  const watched = await open()
  server.script = ({type, id}, peer) =>
    type === 'refresh' && (peer.send({type: 'error', id, code: 'token_invalid', message: 'no'}), true)
  server.last.send({type: 'token_expiring', expiresAt: '2030-01-01T00:00:00Z'})
  const [first] = server.accepted
  await until(() => first!.of('refresh').length === 1)
  const bad = first!.of('refresh')[0]!.token
  server.refuse = token => token === bad ? {status: 401, body: {error: {code: 'token_invalid'}}} : undefined
  first!.socket.close(4001)
  await until(() => watched.welcomes.length === 2 || watched.status!.state === 'closed', 50)
  assert.equal(short(watched.status!), 'live')
})

test('a renewal that fails for other reasons is tried again, later each time', async () => {
  const watched = await open()
  server.script = ({type, id}, peer) =>
    type === 'refresh' && (peer.send({type: 'error', id, code: 'invalid_message', message: 'no'}), true)
  server.last.send({type: 'token_expiring', expiresAt: '2030-01-01T00:00:00Z'})
  const from = Date.now()
  await until(() => Date.now() - from > 60_000 || watched.asked.length > 40, 20)
  assert.ok(watched.asked.length <= 20, `${watched.asked.length} in a minute`)
  assert.equal(watched.line.isOpen, true)
})

test('after silence it pings; a word of any kind is enough, none is the end', async () => {
  server.pingInterval = 25
  const watched = await open()
  tick(24_999)
  await turn()
  assert.equal(server.last.received.length, 0)
  tick(1)
  await until(() => server.last.of('ping').length === 1)
  await until(() => watched.line.isOpen)
  // Answered: nothing happens until the next silence.
  for (let i = 0; i < 4; i++) {
    tick(9_000)
    const [peer] = server.open
    peer!.send({type: 'typing', povId: 'x', users: []})
    const {length} = watched.messages
    await until(() => watched.messages.length > length)
  }
  assert.equal(watched.line.isOpen, true)
  server.script = () => true
  const {length} = server.last.of('ping')
  await until(() => server.last.of('ping').length > length, 500)
  const asked = Date.now()
  await until(() => !watched.line.isOpen, 500)
  assert.equal(short(watched.status!), 'offline silent')
  assert.ok(Date.now() - asked <= 11_500)
})

test('asking again and again does not put off the end of a dead connection', async () => {
  const watched = await open()
  server.script = () => true
  tick(1)
  const from = Date.now()
  while (watched.line.isOpen && Date.now() - from < 60_000) {
    watched.line.retry()
    tick(1_000)
    await turn()
  }
  assert.equal(watched.line.isOpen, false)
  assert.ok(Date.now() - from <= 6_000)
})

test('after the machine slept, the connection is asked and not trusted', async () => {
  const watched = await open()
  server.script = () => true
  step(3_600_000)
  tick(25_000)
  await until(() => server.last.of('ping').length === 1)
  tick(5_000)
  assert.equal(short(watched.status!), 'offline silent')
})

test('a server that accepts and says nothing is left after 10 s', async () => {
  server.welcomes = false
  const watched = new Watched()
  await until(() => server.accepted.length === 1)
  await turn()
  tick(10_000)
  assert.equal(short(watched.status!), 'offline network')
  await until(() => !server.accepted[0]!.isOpen)
})

test('where WebSockets are stopped it tries without, and with one again if that fails', async () => {
  server.refuse = () => ({status: 426, body: {error: {code: 'upgrade_required', message: 'stopped'}}})
  const watched = new Watched()
  await watched.waits()
  assert.equal(watched.status!.detail, 'stopped')
  assert.deepEqual(server.paths, ['/ws/'])
  await until(() => server.paths.includes('/api/session'), 200)
  const sockets = server.attempts.length
  server.refuse = undefined
  await until(() => watched.line.isOpen, 200)
  assert.equal(server.open.length, 1)
  assert.equal(server.attempts.length, sockets + 1)
})

test('a server that is gone for a while: tries until it is back, one at a time', async () => {
  const watched = await open()
  await server.kill()
  await until(() => watched.all.filter(each => each.retryAt).length > 5, 200)
  await server.back()
  await until(() => watched.line.isOpen, 200)
  assert.equal(server.open.length, 1)
})

test('suspended, it holds no socket and tries nothing; resumed, it is back at once', async () => {
  const watched = await open()
  watched.line.suspend()
  await until(() => !server.open.length)
  assert.equal(server.accepted[0]!.code, 1000)
  watched.line.retry()
  tick(100_000)
  assert.equal(server.attempts.length, 1)
  watched.line.resume()
  await watched.opened()
  assert.deepEqual(watched.states, ['connecting', 'live', 'suspended', 'connecting', 'live'])
})

test('closed or suspended in the middle of anything, it stays so', async () => {
  for (const how of ['close', 'suspend'] as const) {
    let give!: (token: string) => void
    const asking = new Watched()
    asking.token = () => new Promise(resolve => { give = resolve })
    await until(() => asking.asked.length)
    asking.line[how]('closed')
    give(tokenOf({userId: 'ana'}))
    const opening = new Watched()
    await until(() => opening.asked.length)
    opening.line[how]('closed')
    const waiting = new Watched({url: 'http://127.0.0.1:9'})
    await waiting.waits()
    waiting.line[how]('closed')
    await turn()
    tick(100_000)
    for (let i = 0; i < 50; i++) await turn()
    const state = how === 'close' ? 'closed' : 'suspended'
    assert.deepEqual([asking, opening, waiting].map(each => each.status!.state), [state, state, state])
    assert.equal(server.open.length, 0)
  }
})

test('to retry while an attempt is under way makes no second one', async () => {
  const watched = new Watched()
  for (let i = 0; i < 20; i++) {
    watched.line.retry()
    await Promise.resolve()
  }
  await watched.opened()
  server.last.socket.terminate()
  await watched.waits()
  for (let i = 0; i < 20; i++) watched.line.retry()
  await watched.opened()
  assert.equal(server.attempts.length, 2)
})
