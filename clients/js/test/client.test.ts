/** The client against real sockets of a server that does as it is told, in fake time. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import {afterEach, beforeEach, test} from 'node:test'
import fc from 'fast-check'
import type {
  Client, Gap, Options, Placed, Position, State, SubscribeOptions, Subscription,
} from '../src/api.js'
import {connect, PovError} from '../src/client.js'
import {openDatabase} from '../src/database.js'
import {nodeSocket, Scripted, short, tokenOf} from './scripted.js'
import {fakeTime, realTime, tick, turn, until} from './time.js'

let server: Scripted
const clients: Client[] = []

beforeEach(async () => {
  server = await Scripted.start()
  fakeTime()
})
afterEach(async () => {
  for (const each of clients.splice(0)) each.close()
  for (let i = 0; i < 5; i++) await turn()
  realTime()
  await server.stop()
})

function make(options: Partial<Options> = {}): {client: Client; states: string[]} {
  const client = connect({
    url: server.url, WebSocket: nodeSocket, tabs: false, getToken: () => tokenOf({userId: 'ana'}), ...options,
  })
  clients.push(client)
  const states: string[] = []
  client.on('status', status => states.push(short(status)))
  return {client, states}
}
async function live(options?: Partial<Options>): Promise<Client> {
  const {client} = make(options)
  await until(() => client.status.state === 'live')
  return client
}
/** Cut the connection, and wait for the next. */
async function again(client: Client, state: State = 'live'): Promise<void> {
  const {length} = server.accepted
  server.last.socket.terminate()
  await until(() => server.accepted.length > length && client.status.state === state, 50)
}

interface Heard {
  subscription: Subscription
  ids: string[]
  gaps: Gap[]
  states: unknown[]
  errors: string[]
  order: string[]
}
function follow(client: Client, povId = 'acme', options: SubscribeOptions = {}): Heard {
  const subscription = client.subscribe(povId, options)
  const heard: Heard = {subscription, ids: [], gaps: [], states: [], errors: [], order: []}
  subscription.on('activity', ({activity}: Placed) => {
    heard.ids.push(activity.id)
    heard.order.push(activity.id)
  })
  subscription.on('gap', gap => { heard.gaps.push(gap); heard.order.push('gap') })
  subscription.on('state', state => { heard.states.push(state); heard.order.push(`state ${state}`) })
  subscription.on('error', ({code, ended}) => heard.errors.push(`${code}${ended ? ' ended' : ''}`))
  return heard
}
const ending = (promise: Promise<unknown>) => {
  const end: {now: unknown} = {now: undefined}
  promise.then(value => { end.now = value ?? 'done' }, (error: PovError) => { end.now = error })
  return end
}

test('requests: the answer, an error of the server, a timeout, an abort, none twice', async () => {
  const client = await live()
  server.script = ({type, id}, peer) => {
    if (type === 'nothing') return true
    if (type === 'bad') peer.send({type: 'error', id, code: 'forbidden', message: 'no', field: 'povId'})
    else if (type === 'twice') peer.send({type: 'once', id}, {type: 'second', id})
    else return false
    return true
  }
  assert.equal((await client.request('ping', {})).type, 'pong')
  await assert.rejects(client.request('bad'), {name: 'PovError', code: 'forbidden', field: 'povId', message: 'no'})
  assert.equal((await client.request('twice')).type, 'once')
  const late = ending(client.request('nothing', {}, {timeout: 300}))
  const usual = ending(client.request('nothing'))
  const abort = new AbortController()
  const aborted = ending(client.request('nothing', {}, {signal: abort.signal}))
  abort.abort()
  await until(() => aborted.now)
  tick(299)
  await turn()
  assert.equal(late.now, undefined)
  tick(1)
  await until(() => late.now)
  tick(9_700)
  await until(() => usual.now)
  for (const [end, code] of [[late, 'timeout'], [usual, 'timeout'], [aborted, 'aborted']] as const) {
    assert.equal((end.now as PovError).code, code)
    assert.equal((end.now as PovError).outcome, 'unknown')
  }
  await assert.rejects(client.request('x', {}, {signal: AbortSignal.abort()}), {code: 'aborted'})
})

test('a change has an id, its own or the one it was given, and is sent again with it', async () => {
  const client = await live()
  server.script = ({type, id}, peer) => type === 'amend' || type === 'retract'
    ? (server.accepted.length > 1 && peer.send({type: 'changed', id, povId: 'acme'}), true) : false
  const sent = [['amend', {}], ['retract', {changeId: undefined}], ['amend', {changeId: 'mine'}]] as const
  const all = sent.map(([type, more]) => ending(client.request(type as string, {povId: 'acme', activityId: 'a1', ...more})))
  const ids = () => [...server.last.of('amend'), ...server.last.of('retract')].map(each => each.changeId)
  await until(() => ids().length === 3)
  const before = ids()
  assert.equal(new Set(before).size, 3)
  assert.ok(before.every(id => typeof id === 'string') && before.includes('mine'))
  await again(client)
  await until(() => all.every(each => each.now))
  assert.deepEqual(ids(), before)
  assert.deepEqual(all.map(each => (each.now as {type: string}).type), ['changed', 'changed', 'changed'])
})

test('a request waits for the connection; what was sent is sent again only if that can do no harm', async () => {
  const {client} = make()
  const early = ending(client.request('history', {povId: 'acme'}))
  server.script = ({type}) => type !== 'ping' && type !== 'subscribe'
  await until(() => server.accepted.length && server.last.of('history').length === 1)
  const once = ending(client.request('charge'))
  await until(() => server.last.of('charge').length === 1)
  await again(client)
  await until(() => once.now && server.last.of('history').length === 1)
  assert.equal((once.now as PovError).code, 'disconnected')
  assert.equal((once.now as PovError).outcome, 'unknown')
  assert.equal(server.last.of('charge').length, 0)
  assert.equal(early.now, undefined)
  client.close()
  await until(() => early.now)
  assert.equal((early.now as unknown as PovError).code, 'closed')
  await assert.rejects(client.request('ping', {}), {code: 'closed'})
})

test('publishes have an id, and the same when sent again', async () => {
  const client = await live()
  server.script = ({type}) => type === 'publish'
  const end = ending(client.publish({povId: 'acme', type: 'task', action: 'created'}))
  await until(() => server.last.of('publish').length)
  const [first] = server.last.of('publish')
  await again(client)
  await until(() => server.last.of('publish').length)
  assert.equal(server.last.of('publish')[0]!.data.id, first!.data.id)
  assert.match(first!.data.id, /^\d+(-\d+){3}$/)
  server.last.send({type: 'published', id: server.last.of('publish')[0]!.id, duplicate: true})
  await until(() => end.now)
})

test('a subscription goes on from its position after every drop', async () => {
  const client = await live()
  const {ids, gaps, subscription} = follow(client)
  await subscription.ready
  server.happen('acme', 'a')
  await until(() => ids.length === 1)
  server.happen('acme', 'b', false)
  await again(client)
  server.happen('acme', 'c')
  await until(() => ids.length === 3)
  assert.deepEqual(ids, ['a', 'b', 'c'])
  assert.deepEqual(gaps, [])
  assert.deepEqual(subscription.position, {epoch: 'e1', offset: 3})
  assert.deepEqual(server.last.of('subscribe')[0]!.since, {epoch: 'e1', offset: 1})
})

test('what comes twice is given once, and a hole is filled by asking from before it', async () => {
  const client = await live()
  const {ids, gaps, subscription} = follow(client)
  await subscription.ready
  const {data} = server.log('acme')
  server.happen('acme', 'a')
  server.last.send({type: 'activity', data: data[0], offset: 1})
  server.happen('acme', 'b', false)
  server.happen('acme', 'c')
  await until(() => ids.length === 3)
  assert.deepEqual(ids, ['a', 'b', 'c'])
  assert.deepEqual(gaps, [])
  assert.equal(server.accepted.length, 1)
})

test('a hole that asking does not fill is a gap, told once, and it goes on', async () => {
  const client = await live()
  const {order, gaps, subscription} = follow(client)
  await subscription.ready
  server.script = ({type, id}, peer) => {
    if (type !== 'subscribe') return false
    const {data} = server.log('acme')
    peer.send({type: 'subscribed', id, povId: 'acme', epoch: 'e1', offset: data.length, recovered: true, after: 1})
    peer.send({type: 'activity', data: data[2], offset: 3})
    return true
  }
  server.happen('acme', 'a')
  server.happen('acme', 'b', false)
  server.happen('acme', 'c')
  await until(() => order.includes('c'))
  server.happen('acme', 'd')
  await until(() => order.includes('d'))
  assert.deepEqual(order, ['a', 'gap', 'c', 'd'])
  assert.deepEqual(gaps[0], {povId: 'acme', from: {epoch: 'e1', offset: 1}, to: {epoch: 'e1', offset: 2}, missed: 1})
})

test('a place of which nothing is left is passed over, and is no hole', async () => {
  const client = await live()
  const {order, gaps, subscription} = follow(client)
  await subscription.ready
  server.happen('acme', 'a')
  await until(() => order.includes('a'))
  server.happen('acme', 'erased', false)
  server.last.send({type: 'position', povId: 'acme', offset: 2})
  server.happen('acme', 'c')
  await until(() => order.includes('c'))
  assert.deepEqual(order, ['a', 'c'])
  assert.deepEqual(gaps, [])
  assert.deepEqual(subscription.position, {epoch: 'e1', offset: 3})
})

test('a log that has another epoch goes on where it was, and the client with it', async () => {
  const client = await live()
  const {order, gaps, subscription} = follow(client)
  await subscription.ready
  server.happen('acme', 'a')
  await until(() => order.includes('a'))
  server.last.send({type: 'position', povId: 'acme', epoch: 'e2', offset: 1})
  await until(() => subscription.position?.epoch === 'e2')
  assert.deepEqual(subscription.position, {epoch: 'e2', offset: 1})
  server.last.send({type: 'position', povId: 'acme', epoch: 'e1', offset: 0})
  server.happen('acme', 'b')
  await until(() => order.includes('b'))
  assert.deepEqual(subscription.position, {epoch: 'e2', offset: 2})
  assert.deepEqual([order, gaps], [['a', 'b'], []])
})

test('after a hole that asking does not fill the state is loaded anew', async () => {
  const client = await live()
  let asked = 0
  const {order, subscription} = follow(client, 'acme', {getState: () => `s${++asked}`})
  await subscription.ready
  await until(() => order.length === 1)
  server.script = ({type, id}, peer) => {
    if (type !== 'subscribe') return false
    peer.send({type: 'subscribed', id, povId: 'acme', epoch: 'e1', offset: 2, recovered: true, after: 0})
    peer.send({type: 'activity', data: server.log('acme').data[1], offset: 2})
    return true
  }
  server.happen('acme', 'a', false)
  server.happen('acme', 'b')
  await until(() => order.includes('b'))
  assert.deepEqual(order, ['state s1', 'gap', 'state s2', 'b'])
})

test('another epoch is a gap, and nothing of the old log is mixed with the new', async () => {
  const client = await live()
  const {order, gaps, subscription} = follow(client)
  await subscription.ready
  server.happen('acme', 'a')
  await until(() => order.length === 1)
  server.logs.set('acme', {epoch: 'e2', data: []})
  server.happen('acme', 'x', false)
  await again(client)
  server.happen('acme', 'y')
  await until(() => order.includes('y'))
  assert.deepEqual(order, ['a', 'gap', 'y'])
  assert.deepEqual(gaps[0], {
    povId: 'acme', from: {epoch: 'e1', offset: 1}, to: {epoch: 'e2', offset: 1}, missed: 1, digest: undefined,
  })
})

test('the state is loaded at the position, activities of meanwhile wait, then follow', async () => {
  const client = await live()
  let loaded!: (state: string) => void
  let asked = 0
  const {order, subscription} = follow(client, 'acme', {getState: () => {
    asked++
    return new Promise(resolve => { loaded = resolve })
  }})
  await subscription.ready
  server.happen('acme', 'a')
  await again(client, 'catching-up') // the connection breaks while it loads: no second load
  server.happen('acme', 'b')
  await until(() => server.last.received.length)
  await client.request('ping', {})
  assert.deepEqual(order, [])
  assert.equal(subscription.position, undefined)
  loaded('one')
  await until(() => order.length === 3)
  assert.deepEqual(order, ['state one', 'a', 'b'])
  assert.equal(asked, 1)
  server.logs.set('acme', {epoch: 'e2', data: []})
  await again(client, 'catching-up')
  await until(() => asked === 2)
  loaded('two')
  server.happen('acme', 'c')
  await until(() => order.length === 6)
  assert.deepEqual(order, ['state one', 'a', 'b', 'gap', 'state two', 'c'])
})

test('a state that cannot be loaded is asked for again, and one that is late by a gap is not given', async () => {
  const client = await live()
  const answers: ((state: string) => void)[] = []
  let fails = 2
  const heard = follow(client, 'acme', {getState: ({signal}) => {
    if (fails-- > 0) throw new Error('down')
    return new Promise((resolve, reject) => {
      answers.push(resolve)
      signal.addEventListener('abort', () => reject(signal.reason))
    })
  }})
  await until(() => answers.length === 1, 100)
  assert.deepEqual(heard.errors, ['state', 'state'])
  server.logs.set('acme', {epoch: 'e2', data: []})
  await again(client, 'catching-up')
  await until(() => answers.length === 2)
  answers[0]!('old')
  answers[1]!('new')
  await until(() => heard.states.length)
  for (let i = 0; i < 10; i++) await turn()
  assert.deepEqual(heard.states, ['new'])
})

test('nothing is given after `close()`, not even of what waited for the state', async () => {
  const client = await live()
  let loaded!: (state: string) => void
  const {order, subscription} = follow(client, 'acme', {getState: () => new Promise(resolve => { loaded = resolve })})
  subscription.on('activity', () => subscription.close())
  await subscription.ready
  server.happen('acme', 'a')
  server.happen('acme', 'b')
  await client.request('ping', {})
  loaded('s')
  for (let i = 0; i < 10; i++) await turn()
  assert.deepEqual(order, ['state s', 'a'])
})

test('from a cursor at which nothing was missed it is live at once', async () => {
  const client = await live()
  server.script = ({type, id}, peer) =>
    type === 'subscribe' && (peer.send({type: 'subscribed', id, povId: 'acme', epoch: 'e1', offset: 7, recovered: true, after: 7}), true)
  const {subscription} = follow(client, 'acme', {since: 'cursor'})
  await subscription.ready
  assert.equal(subscription.state, 'live')
  assert.equal(client.status.state, 'live')
})

test('what others on the PoV have sent again is not behind the cursor', async () => {
  const client = await live()
  for (const id of ['a', 'b', 'c']) server.happen('acme', id)
  server.cursor = 2
  const {subscription, ids} = follow(client, 'acme', {since: 'cursor'})
  await subscription.ready
  await until(() => ids.length > 0)
  assert.deepEqual(subscription.position, {epoch: 'e1', offset: 3})
  const all = follow(client, 'acme', {since: {last: 9}})
  await until(() => all.ids.length === 3)
  assert.deepEqual([ids, all.ids], [['c'], ['a', 'b', 'c']])
})

test('a request that comes too fast is sent again when it may be, if that is within its time', async () => {
  const client = await live()
  let times = 0
  server.script = ({type, id}, peer) => {
    if (type === 'pong') return true
    times++
    if (times > 2) peer.send({type: 'present', id, povId: 'acme', users: [], more: 0})
    else peer.send({type: 'error', id, code: 'rate_limited', message: 'slowly', retryAfter: 2})
    return true
  }
  const asked = ending(client.request('presence', {povId: 'acme'}))
  await until(() => times === 1)
  tick(1_999)
  for (let i = 0; i < 5; i++) await turn()
  assert.equal(times, 1)
  await until(() => !!asked.now, 200)
  assert.deepEqual([(asked.now as {type: string}).type, times], ['present', 3])
  // What would come too late, and publications, are the caller's.
  for (const [type, timeout] of [['presence', 1_500], ['publish', 9_000], ['amend', 9_000]] as const) {
    times = 0
    const refused = ending(client.request(type as string, {}, {timeout}))
    await until(() => !!refused.now)
    assert.equal((refused.now as PovError).code, 'rate_limited')
  }
})

test('a subscription that is refused ends; one that cannot be had now is asked for again', async () => {
  const client = await live()
  let busy = 2
  server.script = ({type, id, povId}, peer) => {
    if (type !== 'subscribe') return false
    if (povId === 'secret') peer.send({type: 'error', id, code: 'forbidden', message: 'no'})
    else if (busy-- > 0) peer.send({type: 'error', id, code: 'unavailable', message: 'later', retryAfter: 3})
    else return false
    return true
  }
  const refused = follow(client, 'secret')
  await assert.rejects(refused.subscription.ready, {code: 'forbidden'})
  assert.equal(refused.subscription.state, 'ended')
  const later = follow(client, 'acme')
  const ready = ending(later.subscription.ready)
  await until(() => later.errors.length === 1)
  const from = Date.now()
  await until(() => ready.now, 100)
  assert.ok(Date.now() - from >= 6_000)
  assert.deepEqual([refused.errors, later.errors], [['forbidden ended'], ['unavailable', 'unavailable']])
  server.last.send({type: 'unsubscribed', povId: 'acme', code: 'unavailable', message: 'nobody can say'})
  await until(() => later.subscription.state === 'joining')
  await until(() => later.subscription.state === 'live', 50)
  server.last.send({type: 'unsubscribed', povId: 'acme', code: 'forbidden', message: 'not any more'})
  await until(() => later.subscription.state === 'ended')
})

test('what was to be asked again is not, once a new connection has it', async () => {
  const client = await live()
  server.script = ({type, id}, peer) => type === 'subscribe' && server.accepted.length === 1 &&
    (peer.send({type: 'error', id, code: 'unavailable', message: 'later', retryAfter: 5}), true)
  const {subscription, errors} = follow(client)
  await until(() => errors.length)
  await again(client)
  await until(() => subscription.state === 'live')
  for (let i = 0; i < 100; i++) tick(100)
  await client.request('ping', {})
  assert.equal(server.last.of('subscribe').length, 1)
})

test('an unsubscribe that the connection took with it does not end the next subscription', async () => {
  const client = await live()
  const first = follow(client)
  await first.subscription.ready
  server.script = ({type}) => type === 'unsubscribe'
  first.subscription.close()
  await until(() => server.last.of('unsubscribe').length)
  server.last.socket.terminate()
  await until(() => client.status.state === 'offline')
  const second = follow(client)
  await until(() => client.status.state === 'live', 50)
  await second.subscription.ready
  await client.request('ping', {})
  const types = server.last.received.map(({type}) => type).filter(type => type !== 'ping')
  assert.ok(types.lastIndexOf('unsubscribe') < types.lastIndexOf('subscribe'), String(types))
})

test('two subscribers of a PoV each get all from their own place, once', async () => {
  for (const id of ['a', 'b', 'c']) server.happen('acme', id)
  const client = await live()
  const now = follow(client)
  await now.subscription.ready
  const before = follow(client, 'acme', {since: {epoch: 'e1', offset: 1}})
  const last = follow(client, 'acme', {since: {last: 1}})
  await Promise.all([before, last].map(each => each.subscription.ready))
  server.happen('acme', 'd')
  await until(() => [now, before, last].every(each => each.ids.includes('d')))
  await again(client)
  server.happen('acme', 'e')
  await until(() => [now, before, last].every(each => each.ids.includes('e')))
  assert.deepEqual([now.ids, before.ids, last.ids], [['d', 'e'], ['b', 'c', 'd', 'e'], ['c', 'd', 'e']])
  now.subscription.close()
  last.subscription.close()
  assert.equal(server.last.of('unsubscribe').length, 0)
  before.subscription.close()
  await until(() => server.last.of('unsubscribe').length === 1)
})

test('300 subscriptions are two messages, and so they are after a drop', async () => {
  const client = await live()
  const all = Array.from({length: 300}, (_, n) => follow(client, `p${n}`))
  await Promise.all(all.map(each => each.subscription.ready))
  assert.equal(server.last.of('subscribe').length, 2)
  server.happen('p299', 'a', false)
  await again(client)
  await until(() => all[299]!.ids.length)
  assert.equal(server.last.of('subscribe').length, 2)
})

test('to retry while the page is still asked for a token makes no second connection', async () => {
  let give!: (token: string) => void
  const token = new Promise<string>(resolve => { give = resolve })
  const {client} = make({outbox: true, getToken: () => token})
  client.retry()
  client.retry()
  give(tokenOf({userId: 'ana'}))
  await until(() => client.status.state === 'live')
  for (let i = 0; i < 20; i++) await turn()
  assert.equal(server.accepted.length, 1)
})

test('a listener that throws is reported, and stops nobody', async () => {
  const client = await live()
  const {subscription, ids} = follow(client)
  await subscription.ready
  const real = globalThis.queueMicrotask
  let thrown: unknown
  globalThis.queueMicrotask = run => real(() => { try { run() } catch (error) { thrown = error } })
  subscription.on('activity', () => { throw new Error('of the page') })
  let after = 0
  subscription.on('activity', () => after++)
  server.happen('acme', 'a')
  await until(() => thrown)
  globalThis.queueMicrotask = real
  assert.equal((thrown as Error).message, 'of the page')
  assert.deepEqual([ids, after], [['a'], 1])
})

test('the states it says are those that last', async () => {
  const {client, states} = make()
  await follow(client).subscription.ready
  server.happen('acme', 'a')
  server.happen('acme', 'b', false)
  const {length} = server.accepted
  server.last.socket.close(4000)
  await until(() => server.accepted.length > length && client.status.state === 'live', 50)
  client.close()
  assert.deepEqual(states.filter((each, n) => each !== states[n - 1]), [
    'catching-up', 'live', 'offline restarting', 'catching-up restarting', 'live', 'closed closed',
  ])
})

test('kept publishes: made before anybody knows for whom, sent when it is known', async () => {
  let give!: (token: string) => void
  const {client} = make({outbox: true, getToken: () => new Promise(resolve => { give ??= resolve })})
  const end = ending(client.publish({povId: 'acme', type: 'task', action: 'created'}))
  server.script = ({type, id, data}, peer) =>
    type === 'publish' && (peer.send({type: 'published', id, activityId: data.id}), true)
  for (let i = 0; i < 20; i++) await turn()
  give(tokenOf({userId: 'ana'}))
  await until(() => end.now)
  assert.ok(!(await indexedDB.databases()).some(({name}) => !name?.startsWith('pov-rt:')))
})

test('closed before anybody knew for whom: publishing is refused, and signing out comes to its end', async () => {
  for (const how of ['close', 'signOut'] as const) {
    const {client} = make({outbox: true, getToken: () => new Promise(() => {})})
    const end = ending(client.publish({povId: 'acme', type: 'task', action: 'created'}))
    const over = ending(Promise.resolve(client[how]()))
    await until(() => end.now && over.now)
    assert.equal((end.now as PovError).code, 'closed')
    assert.equal(over.now, 'done')
  }
})

test('signing out wipes what is stored, after the session ended, too', async () => {
  for (const ended of [false, true]) {
    const client = await live({outbox: true})
    const scope = await client.scope
    const names = async () => (await indexedDB.databases()).map(({name}) => name)
    await client.outbox()
    assert.ok((await names()).includes(scope))
    if (ended) {
      server.last.socket.close(4500)
      await until(() => client.status.state === 'closed')
    }
    let told = 0
    client.on('signedOut', () => told++)
    await client.signOut()
    assert.equal(told, 1)
    assert.ok(!(await names()).includes(scope), ended ? 'after the end' : 'while live')
  }
})

test('a database that somebody else opened does not keep it from signing out', async () => {
  const client = await live({outbox: true})
  const database = await openDatabase(await client.scope)
  await client.signOut()
  database.close()
  assert.ok(!(await indexedDB.databases()).some(({name}) => name === database.name))
})

const step = fc.oneof(
  {weight: 6, arbitrary: fc.constant('happen' as const)},
  {weight: 3, arbitrary: fc.constant('unsent' as const)},
  {weight: 2, arbitrary: fc.constant('twice' as const)},
  {weight: 2, arbitrary: fc.constant('cut' as const)},
  {weight: 2, arbitrary: fc.constant('turns' as const)},
  {weight: 1, arbitrary: fc.constant('join' as const)},
  {weight: 1, arbitrary: fc.constant('leave' as const)},
)

test('whatever the wire does: each subscriber gets each activity behind its place once, in order', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, {minLength: 5, maxLength: 40}), async steps => {
    server.logs.clear()
    const client = await live()
    const all: {heard: Heard; from: Position}[] = []
    const join = () => {
      const from = {epoch: 'e1', offset: server.log('acme').data.length}
      all.push({heard: follow(client, 'acme', {since: from}), from})
    }
    join()
    await all[0]!.heard.subscription.ready
    let count = 0
    const {data} = server.log('acme')
    for (const each of steps) {
      if (each === 'happen') server.happen('acme', `${++count}`)
      else if (each === 'unsent') server.happen('acme', `${++count}`, false)
      else if (each === 'twice') {
        for (const peer of server.open) {
          data.slice(-3).forEach((one, n, {length}) =>
            peer.send({type: 'activity', data: one, offset: data.length - length + n + 1}))
        }
      } else if (each === 'cut') server.last.socket.terminate()
      else if (each === 'join') join()
      else if (each === 'leave' && all.length > 1) all.pop()!.heard.subscription.close()
      else for (let i = 0; i < 5; i++) await turn()
    }
    await until(() => client.status.state === 'live', 50)
    server.happen('acme', 'last')
    await until(() => all.every(({heard}) => heard.ids.at(-1) === 'last'), 50)
    const log = (data as {id: string}[]).map(({id}) => id)
    for (const {heard, from} of all) {
      assert.deepEqual(heard.ids, log.slice(from.offset))
      assert.deepEqual(heard.gaps, [])
    }
    client.close()
    await until(() => !server.open.length)
  }), {numRuns: Number(process.env.RUNS ?? 60)})
})
