/** A session over HTTP is to the connection what a WebSocket is: against a real server of the test's own. */
import assert from 'node:assert/strict'
import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http'
import {once} from 'node:events'
import type {AddressInfo} from 'node:net'
import {afterEach, beforeEach, test} from 'node:test'
import {Session} from '../src/session.js'

let server: Server
let url: string
/** The answer that has the events, and what came for it. */
let events: ServerResponse | undefined
let posts: {token: string; connection: string; messages: {type: string; n?: number}[]}[]
/** What is answered to the next requests; then 204. */
let answers: (number | (() => Promise<number>))[]
let sessions: number[]
/** The requests that fetch, by where they are; what they are answered, and which of them waits. */
let fetches: string[]
let fetched: (number | string)[]
let waiting: ServerResponse | undefined
/** What a proxy holds back of events. */
let holds: 'nothing' | 'all'
const stored = new Map<string, string>()
Object.assign(globalThis, {sessionStorage: {
  getItem: (name: string) => stored.get(name) ?? null,
  setItem: (name: string, value: string) => void stored.set(name, value),
}})

/** Answer the request that waits, or the next one. */
function give(answer: number | string): void {
  fetched.push(answer)
  if (waiting) fetch_(waiting)
}

function fetch_(response: ServerResponse): void {
  const next = fetched.shift()
  waiting = next === undefined ? response : undefined
  if (typeof next === 'number') response.writeHead(next, {'Retry-After': '0'}).end()
  else if (next === '') response.destroy()
  else if (next) response.writeHead(200).end(next)
}

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const token = String(request.headers.authorization).replace('Bearer ', '')
  if (request.url === '/at/api/session?live=long-poll&device=phone') {
    fetches.push(`${String(request.headers['last-event-id'] ?? 'new')} ${token}`)
    return fetch_(response)
  }
  if (request.url === '/at/api/session?device=phone') {
    if (holds === 'all') return void response.writeHead(200).flushHeaders()
    const status = sessions.shift() ?? 200
    response.writeHead(status, {'Content-Type': 'text/event-stream'})
    if (status !== 200) return void response.end()
    events = response
    response.write('data:{"type":"welcome","connectionId":"c-1"}\n\n')
    return
  }
  assert.equal(request.url, '/at/api/messages?device=phone')
  let text = ''
  for await (const piece of request) text += String(piece)
  const next = answers.shift() ?? 204
  const status = typeof next === 'number' ? next : await next()
  posts.push({token, connection: String(request.headers['pov-rt-connection']), messages: JSON.parse(text)})
  response.writeHead(status, {'Retry-After': '0.01'}).end()
}

/** How many requests that brought messages were answered, and that is known. */
let answered = 0
const {fetch: realFetch, setTimeout: realTimeout} = globalThis
globalThis.fetch = async (...given) => {
  const answer = await realFetch(...given)
  if (String(given[0]).includes('/messages')) setImmediate(() => { answered++ })
  return answer
}

/** Have the session wait for a moment where it would for a second or more. Others use timers, too. */
function hurry(): void {
  globalThis.setTimeout = ((run: () => void, ms: number, ...more: []) =>
    realTimeout(run, ms === 1_000 || ms === 4_000 ? 10 : ms, ...more)) as typeof setTimeout
}

beforeEach(async () => {
  globalThis.setTimeout = realTimeout
  answered = 0
  posts = []
  answers = []
  sessions = []
  events = undefined
  fetches = []
  fetched = []
  waiting = undefined
  holds = 'nothing'
  stored.clear()
  server = createServer((request, response) => void handle(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/at/ws/?device=phone`
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

/** A session, and what it says. */
class Watched {
  readonly messages: {type: string}[] = []
  readonly closes: number[] = []
  readonly socket = new Session(url, ['pov-rt.v1', 'bearer.one'])
  #heard: () => void = () => {}

  constructor() {
    this.socket.onmessage = ({data}) => { this.messages.push(JSON.parse(data)); this.#heard() }
    this.socket.onclose = ({code}) => { this.closes.push(code); this.#heard() }
  }

  async until(holds: () => unknown): Promise<void> {
    while (!holds()) await new Promise<void>(done => { this.#heard = done; setTimeout(done, 5) })
  }
  async opened(): Promise<this> {
    await this.until(() => this.messages.length)
    return this
  }
}

const sent = () => posts.flatMap(each => each.messages.map(({n}) => n))

test('it brings messages, however they are cut into pieces, and passes comments over', async () => {
  const watched = await new Watched().opened()
  for (const piece of [':\n\n', 'data:{"type":"a', 'é"}\n', '\ndata:{"type":"b"}\n\n']) {
    events!.write(piece)
    await new Promise(setImmediate)
  }
  await watched.until(() => watched.messages.length === 3)
  assert.deepEqual(watched.messages.map(each => each.type), ['welcome', 'aé', 'b'])
  watched.socket.close()
})

test('what is sent goes in order, one request after the other, with all that came meanwhile', async () => {
  const watched = await new Watched().opened()
  let go: (status: number) => void
  answers = [() => new Promise(done => { go = done })]
  watched.socket.send('{"type":"x","n":0}')
  await watched.until(() => !answers.length)
  for (let n = 1; n < 40; n++) watched.socket.send(`{"type":"x","n":${n}}`)
  assert.equal(posts.length, 0)
  go!(204)
  await watched.until(() => sent().length === 40)
  assert.deepEqual(sent(), [...Array(40).keys()])
  assert.deepEqual(posts.map(each => each.messages.length), [1, 32, 7])
  assert.ok(posts.every(each => each.connection === 'c-1' && each.token === 'one'))
  watched.socket.close()
})

test('what the server has no room for is sent again, and nothing twice', async () => {
  const watched = await new Watched().opened()
  answers = [429, 429]
  watched.socket.send('{"type":"x","n":0}')
  watched.socket.send('{"type":"x","n":1}')
  await watched.until(() => posts.length === 3)
  assert.deepEqual(posts.at(-1)!.messages.map(({n}) => n), [0, 1])
  watched.socket.send('{"type":"x","n":2}')
  await watched.until(() => posts.length === 4)
  assert.deepEqual(posts.at(-1)!.messages.map(({n}) => n), [2])
  watched.socket.close()
})

test('after a new token requests have that one', async () => {
  const watched = await new Watched().opened()
  watched.socket.send('{"type":"refresh","token":"two","n":0}')
  await watched.until(() => sent().length === 1)
  watched.socket.send('{"type":"x","n":1}')
  await watched.until(() => sent().length === 2)
  assert.deepEqual(posts.map(each => each.token), ['one', 'two'])
  watched.socket.close()
})

for (const [what, how] of Object.entries<(watched: Watched) => void>({
  'the server ends it': () => void events!.end(),
  'the network does': () => void events!.destroy(),
  'its session is gone': ({socket}) => { answers = [404]; socket.send('{"type":"x"}') },
})) {
  test(`it ends once when ${what}`, async () => {
    const watched = await new Watched().opened()
    how(watched)
    await watched.until(() => watched.closes.length)
    watched.socket.send('{"type":"x"}')
    await new Promise(setImmediate)
    assert.deepEqual(watched.closes, [1006])
  })
}

const WELCOME = 'data:{"type":"welcome","connectionId":"c-1"}\n\nid:c_1\n\n'

test('events that are held back are fetched, and the next session begins so', async () => {
  holds = 'all'
  hurry()
  fetched = [WELCOME]
  const watched = await new Watched().opened()
  await watched.until(() => waiting)
  watched.socket.send('{"type":"x","n":0}')
  give('data:{"type":"a"}\n\ndata:{"type":"é"}\n\nid:c_3\n\n')
  await watched.until(() => watched.messages.length === 3 && waiting && posts.length)
  assert.deepEqual(watched.messages.map(each => each.type), ['welcome', 'a', 'é'])
  assert.equal(posts[0]!.connection, 'c-1')
  watched.socket.close()
  holds = 'nothing'
  fetched = [WELCOME]
  const next = await new Watched().opened()
  await next.until(() => fetches.length === 5)
  assert.deepEqual(fetches, ['new one', 'c_1 one', 'c_3 one', 'new one', 'c_1 one'])
  assert.equal(events, undefined)
  next.socket.close()
})

/** A session that is fetched. */
async function fetching(): Promise<Watched> {
  hurry()
  stored.set('pov-rt', 'fetched')
  fetched.unshift(WELCOME)
  return new Watched().opened()
}

test('what did not arrive is fetched again from the same place, and a new token is used', async () => {
  fetched = [502, '', 429, 429, 429, 429]
  const watched = await fetching()
  await watched.until(() => waiting)
  assert.deepEqual(new Set(fetches.slice(1)), new Set(['c_1 one']))
  watched.socket.send('{"type":"refresh","token":"two"}')
  await watched.until(() => posts.length)
  give('data:{"type":"a"}\n\nid:c_2\n\n')
  await watched.until(() => fetches.includes('c_2 two'))
  assert.deepEqual(watched.closes, [])
  watched.socket.close()
})

for (const [what, answers] of Object.entries({
  'the server has it no more': [404], 'nothing arrives any more': [500, 502, ''],
})) {
  test(`one that is fetched ends once when ${what}`, async () => {
    fetched = [...answers]
    const watched = await fetching()
    await watched.until(() => watched.closes.length)
    assert.deepEqual([watched.closes, fetches.length], [[1006], 1 + answers.length])
  })
}

test('one that is refused when it is fetched first ends at once', async () => {
  stored.set('pov-rt', 'fetched')
  fetched = [429]
  const watched = new Watched()
  await watched.until(() => watched.closes.length)
  assert.deepEqual([watched.closes, fetches.length], [[1006], 1])
})

for (const [what, how] of Object.entries({'taken and not answered': 'fetched', 'answered': 'events', 'not taken': 'events'})) {
  test(`a ping that is ${what}, when it is given up: the next session has ${how}`, async () => {
    const watched = await new Watched().opened()
    const now = performance.now
    if (what === 'not taken') answers = [() => new Promise(() => {})]
    watched.socket.send('{"type":"ping","id":"~"}')
    await watched.until(() => what === 'not taken' ? !answers.length : answered)
    if (what === 'answered') {
      events!.write('data:{"type":"pong"}\n\n')
      await watched.until(() => watched.messages.length === 2)
    }
    performance.now = () => now.call(performance) + 5_000
    try {
      watched.socket.close()
    } finally {
      performance.now = now
    }
    assert.equal(stored.get('pov-rt'), how)
  })
}

test('one that is refused ends', async () => {
  sessions = [401]
  const watched = new Watched()
  await watched.until(() => watched.closes.length)
  assert.deepEqual([watched.closes, watched.messages], [[1006], []])
})

test('one that the page closes says nothing more', async () => {
  const watched = await new Watched().opened()
  watched.socket.close()
  events!.write('data:{"type":"late"}\n\n')
  await new Promise(setImmediate)
  assert.deepEqual([watched.closes, watched.messages.length], [[], 1])
})
