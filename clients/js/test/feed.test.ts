import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import {test} from 'node:test'
import type {FeedOptions, Snapshot} from '../src/api.js'
import {createFeed} from '../src/feed.js'
import {ScriptedClient, Server, settled} from './feed-model.js'

const offsets = (snapshot: Snapshot, povId?: string) =>
  snapshot.rows.filter(row => !povId || row.povId === povId).map(row => row.offset)

function setUp(povs: string[], options: FeedOptions = {stored: false}, user = 'ana') {
  const server = new Server()
  const client = new ScriptedClient(server, user)
  const feed = createFeed(client, povs, options, {gather: 0})
  return {server, client, feed}
}

// Loaded when it is first needed: here before that, so that a turn is a turn.
await Promise.all([import('../src/feed-pages.js'), import('../src/feed-people.js'), import('../src/feed-store.js')])

async function quiet(...clients: ScriptedClient[]): Promise<void> {
  for (let i = 0; i < 6; i++) {
    for (const each of clients) each.deliver()
    await settled(3)
  }
}

test('the newest page comes first, then what happens, newest on top', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 3})
  for (let i = 0; i < 5; i++) server.publish('acme')
  client.open()
  await quiet(client)
  assert.deepEqual(offsets(feed.getSnapshot()), [5, 4, 3])
  assert.equal(feed.getSnapshot().povs.get('acme')!.hasEarlier, true)
  server.publish('acme')
  await quiet(client)
  assert.deepEqual(offsets(feed.getSnapshot()), [6, 5, 4, 3])
  await Promise.all([feed.loadEarlier('acme'), quiet(client)])
  assert.deepEqual(offsets(feed.getSnapshot()), [6, 5, 4, 3, 2, 1])
  assert.equal(feed.getSnapshot().povs.get('acme')!.hasEarlier, false)
})

test('a page is no more than the server sends', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 5000, limit: 0})
  for (let i = 0; i < 1200; i++) server.publish('acme')
  client.open()
  await quiet(client)
  assert.deepEqual([...client.subscriptions][0]!.how.since, {last: 1000})
  await Promise.all([feed.loadEarlier(), quiet(client)])
  assert.equal(client.requests.at(-1)!.limit, 1000)
  assert.deepEqual(offsets(feed.getSnapshot()), range(1200, 0))
})

test('1,000 that are recovered are few notifications, and nothing changes without one', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 1000})
  for (let i = 0; i < 1000; i++) server.publish('acme')
  let told = 0
  feed.subscribe(() => told++)
  client.open()
  while (client.waiting.length) {
    client.deliver(1)
    await Promise.resolve()
  }
  await settled()
  assert.ok(told < 60, `${told}`)
  const before = feed.getSnapshot()
  assert.equal(before.rows.length, 1000)
  await settled()
  assert.equal(feed.getSnapshot(), before)
  assert.ok(Object.isFrozen(before) && Object.isFrozen(before.rows[0]))
})

test('what comes alone is told at once, what comes with others together with them', async t => {
  const server = new Server()
  const client = new ScriptedClient(server, 'ana')
  const feed = createFeed(client, ['acme'], {stored: false})
  t.mock.timers.enable({apis: ['setTimeout']})
  client.open()
  await quiet(client)
  t.mock.timers.tick(16)
  const told: number[] = []
  feed.subscribe(() => told.push(feed.getSnapshot().rows.length))
  for (let i = 0; i < 3; i++) {
    server.publish('acme')
    await quiet(client)
  }
  assert.deepEqual(told, [1])
  assert.equal(feed.getSnapshot().rows.length, 3, 'whoever asks has all')
  t.mock.timers.tick(16)
  await quiet(client)
  assert.deepEqual(told, [1, 3])
  t.mock.timers.tick(16)
  server.publish('acme')
  await quiet(client)
  assert.deepEqual(told, [1, 3, 4])
})

test('an amended row changes in its place and a retracted one says so; what tells of it is no row, and not unread', async () => {
  const {server, client, feed} = setUp(['acme'])
  server.publish('acme', {details: {text: 'teh'}})
  server.publish('acme', {details: {text: 'secret'}})
  client.open()
  await quiet(client)
  const before = feed.getSnapshot()
  assert.deepEqual([before.unread, before.unseen], [2, 2])
  server.change('acme', 'a1', {text: 'the'}, {by: 'cem', reason: 'a typo'})
  await quiet(client)
  const amended = feed.getSnapshot()
  assert.deepEqual(offsets(amended), [2, 1])
  const [second, first] = amended.rows
  assert.deepEqual(
    [first!.activity.details, first!.activity.amended, first!.activity.by, first!.activity.reason, first!.activity.original],
    [{text: 'the'}, true, 'cem', 'a typo', undefined])
  assert.equal(first!.key, before.rows[1]!.key)
  assert.equal(second, before.rows[0], 'what was not amended is the same object')
  server.change('acme', 'a1', {text: 'THE'})
  server.change('acme', 'a2')
  await quiet(client)
  const now = feed.getSnapshot()
  assert.deepEqual(now.rows.map(row => [row.activity.details, row.activity.amended, row.activity.retracted]),
    [[undefined, undefined, true], [{text: 'THE'}, true, undefined]])
  assert.deepEqual([now.unread, now.unseen], [2, 2])
  assert.deepEqual(now.groups.map(group => group.rows.length), [1, 1], 'what was retracted is in no group with others')
  server.publish('acme')
  await quiet(client)
  assert.deepEqual(offsets(feed.getSnapshot()), [6, 2, 1])
  assert.equal(feed.getSnapshot().unread, 3)
  assert.deepEqual(feed.getSnapshot().rows.slice(1), now.rows)
})

test('where the newest pages only tell of changes, rows of those before come by themselves', async () => {
  for (const [changes, asked] of [[2, 0], [3, 1], [6, 2]] as const) {
    const {server, client, feed} = setUp(['acme'], {stored: false, page: 3})
    for (let i = 0; i < 3; i++) server.publish('acme')
    for (let i = 0; i < changes; i++) server.change('acme', 'a3', {i})
    client.open()
    await quiet(client)
    const {rows} = feed.getSnapshot()
    assert.equal(rows[0]!.activity.details!.i, changes - 1)
    assert.equal(client.requests.filter(each => each.type === 'history').length, asked)
  }
})

test('what was changed while one was away is as it is now, in pages too, and by the feed of all', async () => {
  const {server, client, feed} = setUp(['*', 'acme'], {stored: false, page: 2})
  for (let i = 0; i < 4; i++) server.publish('acme', {details: {n: i}})
  for (let i = 0; i < 2; i++) server.publish('zeta', {details: {n: i}})
  client.open()
  await quiet(client)
  client.drop()
  server.change('acme', 'a4', {n: 40})
  server.change('acme', 'a1', {n: 10})
  server.change('zeta', 'a6')
  client.open()
  await quiet(client)
  await Promise.all([feed.loadEarlier('acme'), quiet(client)])
  const of = (povId: string) => feed.getSnapshot().rows.filter(row => row.povId === povId).map(row => row.activity.details?.n)
  assert.deepEqual(of('acme'), [40, 2, 1, 10])
  assert.deepEqual(of('zeta'), [undefined, 0])
  server.change('zeta', 'a5', {n: 50})
  await quiet(client)
  assert.deepEqual(of('zeta'), [undefined, 50])
})

test('20,000 that come one by one stay fluid', async () => {
  const {server, client, feed} = setUp(['acme', 'zeta'], {stored: false})
  client.open()
  await quiet(client)
  let seen = 0
  feed.subscribe(() => { seen = Math.max(seen, feed.getSnapshot().rows[0]!.offset) })
  const offsets = new Map([['acme', 0], ['zeta', 0]])
  const subscriptions = new Map([...client.subscriptions].map(each => [each.povId, each]))
  const before = process.cpuUsage()
  for (let i = 0; i < 20_000; i++) {
    const povId = i % 3 ? 'acme' : 'zeta'
    const offset = offsets.get(povId)! + 1
    offsets.set(povId, offset)
    const at = new Date(server.now + 500 * i).toISOString()
    const activity = {id: `a${i}`, type: i % 5 ? 'task' : 'file', action: 'done', povId, userId: `u${i % 11 >> 2}`, at}
    subscriptions.get(povId)!.emit('activity', {epoch: `${povId}-1`, offset, activity})
    await Promise.resolve()
  }
  const {user, system} = process.cpuUsage(before)
  const {rows, groups, unread} = feed.getSnapshot()
  assert.equal(rows.length, 1000)
  assert.equal(groups.flatMap(group => group.rows).length, 1000)
  assert.equal(unread, 20_000)
  assert.equal(seen, offsets.get('acme'))
  assert.ok((user + system) / 1e6 < 2, `${(user + system) / 1e6} s`)
})

test('one person, type, action and PoV within ten minutes is a group; a gap or another row ends it', async () => {
  const {server, client, feed} = setUp(['acme', 'zeta'])
  client.open()
  await quiet(client)
  const publish = async (povId: string, minutes: number, fields = {}) => {
    server.now += minutes * 60_000
    server.publish(povId, fields)
    await quiet(client)
  }
  const shape = () => feed.getSnapshot().groups.map(group => group.rows.map(row => `${row.povId}${row.offset}`).join(' '))
  await publish('acme', 0)
  await publish('acme', 9)
  const [first] = feed.getSnapshot().groups
  await publish('acme', 10)
  const [grown] = feed.getSnapshot().groups
  assert.equal(grown!.key, first!.key)
  await publish('acme', 11)
  await publish('acme', 0, {userId: 'mei'})
  await publish('acme', 0)
  await publish('zeta', 1)
  await publish('acme', 1)
  assert.deepEqual(shape(), ['acme7', 'zeta1', 'acme6', 'acme5', 'acme4', 'acme3 acme2 acme1'])
  assert.equal(feed.getSnapshot().groups.at(-1), grown)
  await Promise.all([feed.read(grown!.rows[1]!), quiet(client)])
  assert.deepEqual(feed.getSnapshot().groups.at(-1)!.rows.map(row => row.state), ['new', 'read', 'read'])
  assert.equal(feed.getSnapshot().groups.at(-1)!.state, 'new')
  feed.seen([grown!.rows[0]!])
  await quiet(client)
  assert.equal(feed.getSnapshot().groups.at(-1)!.state, 'seen')
  feed.close()
})

test('what was missed is a gap below the newest page, and is loaded up to the rows behind it', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 10, limit: 20})
  for (let i = 0; i < 3; i++) server.publish('acme')
  client.open()
  await quiet(client)
  client.drop()
  for (let i = 0; i < 1500; i++) server.publish('acme')
  client.open()
  await quiet(client)
  let {gaps} = feed.getSnapshot()
  assert.deepEqual(offsets(feed.getSnapshot()), [...range(1503, 1493), 3, 2, 1])
  assert.deepEqual([gaps[0]!.from!.offset, gaps[0]!.to.offset, gaps[0]!.missed, gaps[0]!.state], [3, 1493, 1490, 'open'])
  assert.equal(feed.getSnapshot().povs.get('acme')!.completeSince, feed.getSnapshot().rows[9]!.at)
  assert.deepEqual(feed.getSnapshot().groups.map(group => group.rows.length), [10, 3])

  let asked = 0
  client.refuse = type => type === 'history' && asked++ === 1 ? {code: 'unavailable', message: 'no'} : undefined
  const failing = assert.rejects(feed.load(gaps[0]!), {code: 'unavailable'})
  await settled(2)
  assert.equal(feed.getSnapshot().gaps[0]!.state, 'loading')
  await Promise.all([failing, quiet(client)])
  ;({gaps} = feed.getSnapshot())
  assert.equal(gaps[0]!.state, 'open')
  assert.ok(gaps[0]!.from!.offset > 3 && gaps[0]!.from!.offset < 1493)
  const loading = feed.load(gaps[0]!)
  for (let i = 0; i < 3; i++) await quiet(client)
  await loading
  assert.deepEqual(feed.getSnapshot().gaps, [])
  assert.deepEqual(offsets(feed.getSnapshot()), range(1503, 0), 'what was asked for may exceed the limit')
})

test('what the log has no longer makes the rest of a gap gone', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 5})
  server.publish('acme')
  client.open()
  await quiet(client)
  client.drop()
  for (let i = 0; i < 1200; i++) server.publish('acme')
  client.open()
  await quiet(client)
  server.log('acme').retain(100)
  const loading = feed.load(feed.getSnapshot().gaps[0]!)
  await quiet(client)
  await loading
  const {gaps} = feed.getSnapshot()
  assert.deepEqual(gaps.map(({from, to, state}) => [from!.offset, to.offset, state]), [[1, 1101, 'gone']])
  assert.deepEqual(offsets(feed.getSnapshot()), [...range(1201, 1101), 1])
  assert.equal(feed.getSnapshot().povs.get('acme')!.completeSince, feed.getSnapshot().rows[99]!.at)
  await feed.load(gaps[0]!)
  assert.deepEqual(feed.getSnapshot().gaps, gaps)
})

test('a log that goes on under another epoch keeps its rows, which can still be marked', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 5})
  for (let i = 0; i < 3; i++) server.publish('acme')
  client.open()
  await quiet(client)
  const before = feed.getSnapshot()
  const [subscription] = client.subscriptions
  subscription!.emit('position', {epoch: 'acme-2', offset: 3})
  await quiet(client)
  assert.deepEqual(feed.getSnapshot().rows, before.rows)
  assert.deepEqual(feed.getSnapshot().povs.get('acme')!.position, {epoch: 'acme-2', offset: 3})
  const activity = {id: 'next', type: 'task', action: 'done', povId: 'acme', userId: 'ben', at: new Date(server.now).toISOString()}
  subscription!.emit('activity', {epoch: 'acme-2', offset: 4, activity})
  await quiet(client)
  const {rows, gaps} = feed.getSnapshot()
  assert.deepEqual(rows.map(each => JSON.parse(each.key)[1]), ['acme-2', 'acme-1', 'acme-1', 'acme-1'])
  assert.deepEqual(gaps, [])
  const asked = client.requests.length
  void feed.read(rows[2]!)
  assert.deepEqual(client.requests.slice(asked).map(({type, epoch, offset}) => [type, epoch, offset]), [['read', 'acme-2', 2]])
})

test('another epoch is another log: its newest page, and what was before is gone', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 5})
  for (let i = 0; i < 3; i++) server.publish('acme')
  client.open()
  await quiet(client)
  const [row] = feed.getSnapshot().rows
  client.drop()
  server.log('acme').replace()
  for (let i = 0; i < 8; i++) server.publish('acme')
  client.open()
  await quiet(client)
  const {rows, gaps, povs} = feed.getSnapshot()
  assert.deepEqual(rows.map(each => each.key), range(8, 3).map(each => JSON.stringify(['acme', 'acme-2', each])))
  assert.deepEqual(gaps.map(({from, to, state}) => [from, to, state]), [[{epoch: 'acme-1', offset: 3}, {epoch: 'acme-2', offset: 8}, 'gone']])
  assert.equal(povs.get('acme')!.unread, 8)
  const asked = client.requests.length
  await feed.read(row)
  feed.seen([row!])
  assert.equal(client.requests.length, asked, 'marks of another log are not moved')
})

test('a page of the log of before that is still on its way keeps nobody from the newest one of this log', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 5})
  for (let i = 0; i < 20; i++) server.publish('acme')
  client.open()
  await quiet(client)
  const asking = assert.rejects(feed.loadEarlier('acme'), {code: 'epoch_changed'})
  await settled()
  const late = client.waiting.splice(0)
  server.log('acme').replace()
  for (let i = 0; i < 8; i++) server.publish('acme')
  client.open()
  await quiet(client)
  assert.deepEqual(offsets(feed.getSnapshot()), range(8, 3))
  const more = feed.loadEarlier('acme')
  for (const each of late) each()
  await asking
  await Promise.all([more, quiet(client)])
  assert.deepEqual(offsets(feed.getSnapshot()), range(8, 0))
})

test('with a filter the page is filled from before, however rare it is', async () => {
  const {server, client, feed} = setUp(['acme'], {stored: false, page: 4, only: {types: ['file'], notUsers: ['mei']}})
  for (let i = 0; i < 900; i++) server.publish('acme', {type: i % 100 ? 'task' : 'file', userId: i % 300 ? 'ben' : 'mei'})
  client.open()
  for (let i = 0; i < 3; i++) await quiet(client)
  assert.deepEqual(offsets(feed.getSnapshot()), [801, 701, 501, 401])
  await Promise.all([feed.loadEarlier('acme'), quiet(client)])
  assert.deepEqual(offsets(feed.getSnapshot()), [801, 701, 501, 401, 201, 101])
  assert.equal(feed.getSnapshot().povs.get('acme')!.hasEarlier, false)
})

test('who is there: the answer and all changes, those before it, too; nobody without the grant or a connection', async () => {
  const {client, feed, server} = setUp(['constructor', '__proto__'])
  const ask = server.ask.bind(server)
  const user = (userId: string) => ({userId, devices: ['laptop'], since: '', state: 'active' as const})
  server.ask = (type, fields, me) => type === 'presence'
    ? {type: 'present', povId: fields.povId, users: [user('ben'), user('toString')], more: 0} : ask(type, fields, me)
  client.refuse = (type, {povId}) => type === 'presence' && povId === '__proto__' ? {code: 'forbidden', message: 'no'} : undefined
  const present = (povId: string) => feed.getSnapshot().povs.get(povId)!.present.map(each => each.userId)
  client.open()
  client.deliver(2)
  await Promise.resolve()
  client.emit('message', {type: 'presence_diff', povId: 'constructor', joined: [user('mei')], left: ['toString'], changed: []})
  await quiet(client)
  assert.deepEqual(present('constructor'), ['ben', 'mei'])
  assert.deepEqual(present('__proto__'), [])
  client.emit('message', {type: 'presence_diff', povId: 'constructor', joined: [], left: ['ben'], changed: [{...user('mei'), state: 'away'}]})
  assert.deepEqual(feed.getSnapshot().povs.get('constructor')!.present, [{...user('mei'), state: 'away'}])
  client.emit('message', {type: 'error', code: 'forbidden', message: 'no', detail: 'constructor'})
  assert.deepEqual(present('constructor'), [])
  client.drop()
  client.open()
  await quiet(client)
  assert.deepEqual(present('constructor'), ['ben', 'toString'])
  client.drop()
  assert.deepEqual(present('constructor'), [])
  feed.close()
})

test('who writes is forgotten after 8 s, and one does not see oneself', async t => {
  const {client, feed} = setUp(['acme'])
  t.mock.timers.enable({apis: ['setTimeout']})
  client.open()
  await quiet(client)
  const typing = () => feed.getSnapshot().povs.get('acme')!.typing.map(each => each.userId)
  client.emit('message', {type: 'typing', povId: 'acme', users: [{userId: 'ana'}, {userId: 'ben', where: 'comment'}], more: 0})
  assert.deepEqual(typing(), ['ben'])
  t.mock.timers.tick(7999)
  assert.deepEqual(typing(), ['ben'])
  client.emit('message', {type: 'typing', povId: 'acme', users: [{userId: 'mei'}], more: 0})
  t.mock.timers.tick(7999)
  assert.deepEqual(typing(), ['mei'])
  t.mock.timers.tick(1)
  assert.deepEqual(typing(), [])
  feed.typing('acme', true, 'comment')
  assert.deepEqual(client.requests.at(-1), {type: 'typing', povId: 'acme', active: true, where: 'comment'})
})

test('receipts are kept by user, and one\'s own move the mark', async () => {
  const {server, client, feed} = setUp(['acme'])
  for (let i = 0; i < 5; i++) server.publish('acme')
  client.open()
  await quiet(client)
  client.emit('message', {type: 'receipts', povId: 'acme', read: {ben: 4, constructor: 2}})
  client.emit('message', {type: 'receipts', povId: 'acme', read: {ben: 3}})
  const state = () => feed.getSnapshot().povs.get('acme')!
  assert.deepEqual([...state().receipts], [['ben', 4], ['constructor', 2]])
  const before = state().receipts
  client.emit('message', {type: 'receipts', povId: 'acme', read: {ana: 3}})
  assert.deepEqual([state().readOffset, state().unread, state().unseen, before.size], [3, 2, 2, 2])
})

test('mutes are asked for at each welcome, pushed, and end when they end', async t => {
  const {client, feed, server} = setUp(['acme'])
  t.mock.timers.enable({apis: ['setTimeout', 'Date'], now: 1_000_000})
  const ask = server.ask.bind(server)
  server.ask = (type, fields, me) => type === 'mutes' ? {type, mutes: [{povId: 'acme', level: 'feed'}]} : ask(type, fields, me)
  const level = () => [feed.getSnapshot().povs.get('acme')!.level, feed.getSnapshot().povs.get('acme')!.mutedUntil]
  assert.deepEqual(level(), ['sound', undefined])
  client.open()
  await quiet(client)
  assert.deepEqual(level(), ['feed', undefined])
  assert.equal(client.requests.filter(each => each.type === 'mutes').length, 1)
  const until = new Date(1_060_000)
  await Promise.all([feed.mute('acme', 'off', until), quiet(client)])
  assert.deepEqual(level(), ['off', until.toISOString()])
  t.mock.timers.tick(60_001)
  await quiet(client)
  assert.deepEqual(level(), ['sound', undefined])
  client.emit('message', {type: 'muted', povId: 'acme', level: 'toast'})
  assert.deepEqual(level(), ['toast', undefined])
  const next = new Date(1_200_000).toISOString()
  client.emit('message', {type: 'muted', povId: 'acme', level: 'off', until: next, then: 'toast'})
  assert.deepEqual(level(), ['off', next])
  t.mock.timers.tick(200_000)
  await quiet(client)
  assert.deepEqual(level(), ['toast', undefined], 'as it was for good')
})

test('seen is said at most once a second, and not at all of what is seen', async t => {
  const {server, client, feed} = setUp(['acme'])
  t.mock.timers.enable({apis: ['setTimeout']})
  for (let i = 0; i < 9; i++) server.publish('acme')
  client.open()
  await quiet(client)
  const row = (offset: number) => feed.getSnapshot().rows.find(each => each.offset === offset)!
  const said = () => client.requests.filter(each => each.type === 'seen').map(each => each.offset)
  feed.seen([row(2), row(1)])
  feed.seen([row(4)])
  feed.seen([row(3), row(5)])
  assert.deepEqual(range(9, 0).map(each => row(each).state), [...Array<string>(4).fill('new'), ...Array<string>(5).fill('seen')])
  await quiet(client)
  assert.deepEqual(said(), [2])
  t.mock.timers.tick(1000)
  await quiet(client)
  assert.deepEqual(said(), [2, 5])
  feed.seen([row(5)])
  t.mock.timers.tick(1000)
  assert.deepEqual(said(), [2, 5])
  client.refuse = type => type === 'seen' ? {code: 'unavailable', message: 'no'} : undefined
  feed.seen([row(9)])
  assert.equal(feed.getSnapshot().unseen, 0)
  await quiet(client)
  assert.equal(feed.getSnapshot().unseen, 4)
  assert.equal(row(9).state, 'new')
})

test('marks are hoped for at once, and what the server said stands if it fails', async () => {
  const {server, client, feed} = setUp(['acme', 'zeta'])
  for (let i = 0; i < 6; i++) server.publish('acme', {userId: i === 4 ? 'ana' : 'ben'})
  server.publish('zeta')
  client.open()
  await quiet(client)
  const row = (offset: number) => feed.getSnapshot().rows.find(each => each.offset === offset && each.povId === 'acme')!
  const counts = () => [feed.getSnapshot().unread, feed.getSnapshot().unseen]
  assert.deepEqual(counts(), [6, 6])
  assert.equal(row(5).state, 'read', 'one\'s own')
  const done = feed.read(row(3))
  assert.deepEqual(counts(), [3, 3])
  await Promise.all([done, quiet(client)])
  assert.deepEqual(counts(), [3, 3])
  await Promise.all([feed.markUnread(row(2)), quiet(client)])
  assert.deepEqual([feed.getSnapshot().povs.get('acme')!.unreadFrom, ...counts()], [2, 5, 3])
  assert.deepEqual(range(6, 0).map(each => row(each).state), ['new', 'read', 'new', 'seen', 'seen', 'read'])
  const upTo = feed.read(row(2))
  assert.equal(feed.getSnapshot().povs.get('acme')!.unreadFrom, 3, 'before the answer')
  await Promise.all([upTo, quiet(client)])
  assert.deepEqual([feed.getSnapshot().povs.get('acme')!.unreadFrom, ...counts()], [3, 4, 3])
  await Promise.all([feed.markUnread(row(2)), quiet(client)])
  client.refuse = () => ({code: 'unavailable', message: 'no'})
  const failing = assert.rejects(feed.read(), {code: 'unavailable'})
  assert.deepEqual(counts(), [0, 0])
  await Promise.all([failing, quiet(client)])
  assert.deepEqual(counts(), [5, 3])
  client.refuse = () => undefined
  await Promise.all([feed.read(), quiet(client)])
  assert.deepEqual(counts(), [0, 0])
  server.ask('unread', {povId: 'acme', offset: 6}, 'ana')
  await quiet(client)
  assert.deepEqual(counts(), [1, 0], 'on another device')
})

test('what the team feed and a PoV have is shown once, as the PoV\'s; without the PoV as the feed\'s', async () => {
  const {server, client, feed} = setUp(['*', 'acme', 'secret'])
  client.forbidden.add('secret')
  for (const povId of ['acme', 'other', 'secret', 'acme']) server.publish(povId)
  client.open()
  await quiet(client)
  assert.deepEqual(feed.getSnapshot().rows.map(row => `${row.povId} ${row.offset}`), ['acme 2', 'acme 1', 'secret 3', 'other 2'])
  const state = feed.getSnapshot().povs.get('secret')!
  assert.deepEqual([state.state, state.failure!.code], ['ended', 'forbidden'])
  assert.deepEqual([feed.getSnapshot().unread, feed.getSnapshot().povs.get('*')!.hasEarlier], [2, false])
  await feed.read(feed.getSnapshot().rows[2])
  await feed.loadEarlier()
})

test('a clock that steps back reorders nothing', async () => {
  const {server, client, feed} = setUp(['acme', 'zeta'])
  client.open()
  for (const [povId, step] of [['acme', 0], ['zeta', 1000], ['acme', -60_000], ['zeta', 1000], ['acme', 61_000]] as const) {
    server.now += step
    server.publish(povId)
    await quiet(client)
  }
  const {rows} = feed.getSnapshot()
  assert.deepEqual(rows.map(row => `${row.povId} ${row.offset}`), ['acme 3', 'zeta 2', 'zeta 1', 'acme 2', 'acme 1'])
  assert.equal(rows[3]!.at, rows[4]!.at)
})

test('it is what useSyncExternalStore takes: functions without this, no change without a call, no call without a change', async () => {
  const {server, client, feed: {subscribe, getSnapshot}} = setUp(['acme', 'zeta'])
  // What React does: render what is there, and again when it is told of another one.
  let shown = getSnapshot()
  const rendered: string[][] = []
  const leave = subscribe(() => {
    const next = getSnapshot()
    assert.notEqual(next, shown)
    shown = next
    rendered.push(next.rows.map(row => row.key))
  })
  client.open()
  await quiet(client)
  server.publish('acme')
  server.publish('zeta')
  await quiet(client)
  assert.equal(getSnapshot(), shown)
  assert.equal(shown.rows.length, 2)
  const {rows, groups} = shown
  const zeta = shown.povs.get('zeta')
  const renders = rendered.length
  client.emit('message', {type: 'typing', povId: 'acme', users: [{userId: 'ben'}], more: 0})
  await quiet(client)
  assert.equal(rendered.length, renders + 1)
  assert.deepEqual([shown.rows === rows, shown.groups === groups, shown.povs.get('zeta') === zeta], [true, true, true])
  client.emit('message', {type: 'typing', povId: 'acme', users: [], more: 0})
  client.emit('message', {type: 'typing', povId: 'nobody', users: [], more: 0})
  await quiet(client)
  assert.equal(rendered.length, renders + 2)
  client.emit('message', {type: 'typing', povId: 'acme', users: [], more: 0})
  await quiet(client)
  assert.equal(rendered.length, renders + 2, 'told of nothing')
  leave()
  server.publish('acme')
  await quiet(client)
  assert.equal(rendered.length, renders + 2)
})

test('a listener that throws is reported and stops nobody; one that left hears nothing', async t => {
  const {server, client, feed} = setUp(['acme'])
  t.mock.timers.enable({apis: ['setTimeout']})
  client.open()
  await quiet(client)
  const told: string[] = []
  const off = feed.subscribe(() => told.push('left'))
  feed.subscribe(() => { throw new Error('a fault of the page') })
  feed.subscribe(() => told.push('stays'))
  off()
  server.publish('acme')
  await quiet(client)
  assert.deepEqual(told, ['stays'])
  assert.throws(() => t.mock.timers.tick(0), /a fault of the page/)
  feed.close()
  assert.equal(client.subscriptions.size, 0)
})

function range(from: number, to: number): number[] {
  return Array.from({length: from - to}, (_, i) => from - i)
}
