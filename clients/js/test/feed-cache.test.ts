/** What is stored of a feed: for reloads, by several tabs, by other programs, and not at all. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import {beforeEach, test} from 'node:test'
import type {Feed, FeedOptions} from '../src/api.js'
import type {Written} from '../src/feed-cache.js'
import {completed, openDatabase, result} from '../src/database.js'
import {wipe} from '../src/wipe.js'
import {openCache} from '../src/feed-cache.js'
import {createFeed} from '../src/feed.js'
import {rowOf} from '../src/feed-rows.js'
import {ScriptedClient, Server, settled} from './feed-model.js'

// Loaded when it is first needed: here before that, so that a turn is a turn.
await Promise.all([import('../src/feed-pages.js'), import('../src/feed-people.js'), import('../src/feed-store.js')])

const SCOPE = 'pov-rt:stored'
const DAY = 86_400_000
const offsets = (feed: Feed) => feed.getSnapshot().rows.map(row => row.offset)

beforeEach(() => wipe(SCOPE))

interface Page {
  client: ScriptedClient
  feed: Feed
  paints: (() => Promise<void>)[]
  /** Everything arrives, and is painted and written. */
  goOn(): Promise<void>
}

function open(server: Server, povs = ['acme'], options: FeedOptions = {}): Page {
  const client = new ScriptedClient(server, 'ana', SCOPE)
  const paints: (() => Promise<void>)[] = []
  const feed = createFeed(client, povs, options, {afterPaint: then => void paints.push(then), gather: 0})
  const goOn = async () => {
    for (let i = 0; i < 4; i++) {
      await settled()
      client.deliver()
      await settled()
      for (const each of paints.splice(0)) await each()
    }
  }
  return {client, feed, paints, goOn}
}

async function all(name: 'rows' | 'positions'): Promise<Record<string, unknown>[]> {
  const database = await openDatabase(SCOPE)
  const found = await result(database.transaction(name).objectStore(name).getAll()) as Record<string, unknown>[]
  database.close()
  return found
}

async function change(act: (rows: IDBObjectStore, positions: IDBObjectStore) => void): Promise<void> {
  const database = await openDatabase(SCOPE)
  const transaction = database.transaction(['rows', 'positions'], 'readwrite')
  act(transaction.objectStore('rows'), transaction.objectStore('positions'))
  await completed(transaction)
  database.close()
}

function written(topic: string, epoch: string, from: number, to: number, toldAt = 1, at = 0): Written {
  const rows = Array.from({length: to - from}, (_, i) => rowOf('acme', epoch, from + i + 1, at || 1000 + from + i,
    {id: `a${from + i + 1}`, type: 't', action: 'a', povId: 'acme', userId: 'ben'}))
  return {topic, epoch, from, to, toldAt, rows}
}

test('what was changed is stored as it is now, and nothing is left of what it was', async () => {
  const server = new Server()
  for (let i = 0; i < 3; i++) server.publish('acme', {details: {text: `secret ${i}`}})
  const first = open(server)
  first.client.open()
  await first.goOn()
  const second = open(server)
  second.client.open()
  await second.goOn()
  server.change('acme', 'a1', {text: 'the'})
  server.change('acme', 'a2')
  await second.goOn()
  await first.goOn()
  const shown = (feed: Feed) => feed.getSnapshot().rows.map(({activity: {details, amended, retracted}}) => [details?.text, amended, retracted])
  const now = [['secret 2', undefined, undefined], [undefined, undefined, true], ['the', true, undefined]]
  for (const each of [first, second]) assert.deepEqual(shown(each.feed), now)
  assert.doesNotMatch(JSON.stringify(await all('rows')), /secret [01]/)
  const later = open(server)
  await later.goOn()
  assert.deepEqual(shown(later.feed), now)
  for (const each of [first, second, later]) each.feed.close()
})

test('a row that another tab stored before it changed is as what tells of it says', async () => {
  const server = new Server()
  server.publish('acme', {details: {text: 'old'}})
  const stale = server.log('acme').entries[0]!
  server.change('acme', 'a1', {text: 'new'})
  const first = open(server)
  first.client.open()
  await first.goOn()
  first.feed.close()
  const [stored] = await all('rows')
  await change(rows => void rows.put({...stored, activity: stale}))
  const later = open(server)
  await later.goOn()
  assert.deepEqual(later.feed.getSnapshot().rows.map(row => row.activity.details), [{text: 'new'}])
  later.feed.close()
})

for (const type of ['seen', 'read', 'unread'] as const) {
  test(`a mark that was shown before the server took it (${type}) is stored once it has`, async () => {
    const server = new Server()
    for (let i = 0; i < 3; i++) server.publish('acme')
    if (type === 'unread') server.ask('read', {povId: 'acme', offset: 3}, 'ana')
    const first = open(server)
    first.client.open()
    await first.goOn()
    const [newest] = first.feed.getSnapshot().rows
    if (type === 'seen') first.feed.seen([newest!])
    else void (type === 'read' ? first.feed.read(newest) : first.feed.markUnread(newest!))
    await settled()
    for (const each of first.paints.splice(0)) await each()
    const states = (feed: Feed) => feed.getSnapshot().rows.map(row => row.state)
    const hoped = states(first.feed)
    await first.goOn()
    assert.deepEqual(states(first.feed), hoped)
    assert.equal(first.client.waiting.length, 0)
    first.feed.close()
    const later = open(server)
    await later.goOn()
    assert.deepEqual(states(later.feed), hoped)
    later.feed.close()
  })
}

test('a reload shows what was there at once, without a connection, and goes on from there', async () => {
  const server = new Server()
  for (let i = 0; i < 5; i++) server.publish('acme')
  const first = open(server)
  assert.equal(first.feed.getSnapshot().storage, 'loading')
  first.client.open()
  await first.goOn()
  assert.equal(first.feed.getSnapshot().storage, 'stored')
  server.ask('read', {povId: 'acme', offset: 2}, 'ana')
  await first.goOn()
  const before = first.feed.getSnapshot().rows
  first.feed.close()
  first.client.close()
  server.publish('acme')
  const second = open(server)
  await settled()
  assert.deepEqual(second.feed.getSnapshot().rows, before)
  assert.deepEqual([second.feed.getSnapshot().unread, second.feed.getSnapshot().povs.get('acme')!.completeSince], [3, undefined])
  second.client.open()
  await second.goOn()
  assert.deepEqual(offsets(second.feed), [6, 5, 4, 3, 2, 1])
  assert.deepEqual([...second.client.subscriptions][0]!.how.since, {epoch: 'acme-1', offset: 5})
})

test('what was not painted is not stored', async () => {
  const server = new Server()
  const page = open(server)
  page.client.open()
  await settled()
  server.publish('acme')
  page.client.deliver()
  await settled()
  assert.equal(page.paints.length, 1)
  server.publish('acme')
  page.client.deliver() // it is here, but nobody was told of it yet
  await page.paints.shift()!()
  assert.deepEqual((await all('rows')).map(row => row.offset), [1])
  assert.deepEqual((await all('positions')).map(each => each.to), [1])
  await page.goOn()
  assert.deepEqual((await all('positions')).map(each => each.to), [2])
})

test('a range is made longer, replaced by a newer one, and never goes back', async () => {
  const cache = await openCache(SCOPE)
  const state = async () => {
    const [position] = await all('positions')
    return [position!.epoch, position!.from, position!.to, (await all('rows')).map(row => row.offset).join()]
  }
  await cache.write([written('t', 'e', 3, 5)])
  await cache.write([written('t', 'e', 4, 7)])
  assert.deepEqual(await state(), ['e', 3, 7, '4,5,6,7'])
  await cache.write([written('t', 'e', 1, 3)])
  assert.deepEqual(await state(), ['e', 1, 7, '2,3,4,5,6,7'])
  await cache.write([written('t', 'e', 4, 6, 1, 9999)])
  assert.deepEqual(await state(), ['e', 1, 7, '2,3,4,5,6,7'])
  assert.ok((await all('rows')).every(row => row.at !== 9999), 'a time once given is kept')
  await cache.write([written('t', 'e', 20, 22)])
  assert.deepEqual(await state(), ['e', 20, 22, '21,22'])
  await cache.write([written('t', 'e', 7, 9)])
  assert.deepEqual(await state(), ['e', 20, 22, '21,22'])
  await cache.write([written('t', 'other', 0, 1, 0)])
  assert.deepEqual(await state(), ['e', 20, 22, '21,22'])
  await cache.write([written('t', 'other', 0, 1, 2)])
  assert.deepEqual(await state(), ['other', 0, 1, '1'])
  cache.close()
})

test('of a topic 200 rows are kept, of 200 topics, for 30 days', async t => {
  let now = 100 * DAY
  t.mock.method(Date, 'now', () => now)
  let cache = await openCache(SCOPE)
  await cache.write([written('acme', 'e', 0, 150)])
  await cache.write([written('acme', 'e', 150, 390)])
  const rows = await all('rows')
  assert.deepEqual([rows.length, rows[0]!.offset, (await all('positions'))[0]!.from], [200, 191, 190])
  assert.equal((await cache.read('acme', 'acme', false))!.rows.length, 200)
  now += 29 * DAY
  for (let i = 0; i < 210; i++) {
    now++
    await cache.write([written(`topic ${i}`, 'e', 0, 1)])
  }
  cache.close()
  cache = await openCache(SCOPE)
  await cache.write([written('newest', 'e', 0, 1)])
  assert.equal((await all('positions')).length, 200)
  assert.equal((await all('rows')).length, 200)
  assert.equal(await cache.read('topic 10', 'acme', false), undefined)
  assert.equal((await cache.read('topic 11', 'acme', false))!.to, 1)
  now += 31 * DAY
  assert.equal(await cache.read('newest', 'acme', false), undefined)
  cache.close()
  cache = await openCache(SCOPE)
  await cache.write([written('later', 'e', 0, 1)])
  assert.deepEqual((await all('positions')).map(each => each.topic), ['later'])
  cache.close()
})

test('what does not have the shape is as if it was not there, and what is before it', async () => {
  const good = {topic: 't', epoch: 'e', from: 0, to: 3, toldAt: 1, at: Date.now()}
  const rows = written('t', 'e', 0, 3).rows.map(({offset, at, activity}) => ({topic: 't', epoch: 'e', offset, at, activity}))
  const read = async (position: unknown, given: object[]) => {
    await change((store, positions) => {
      store.clear()
      positions.clear()
      positions.put(position)
      for (const row of given) store.put(row)
    })
    const cache = await openCache(SCOPE)
    const found = await cache.read('t', 'acme', false)
    cache.close()
    return found && [found.from, found.rows.map(row => row.offset).join(), found.marks]
  }
  assert.deepEqual(await read(good, rows), [0, '1,2,3', undefined])
  assert.deepEqual(await read({...good, marks: {read: 1, seen: 2, top: 3}}, rows), [0, '1,2,3', {read: 1, seen: 2, top: 3}])
  assert.deepEqual(await read({...good, marks: {read: '1'}}, rows), [0, '1,2,3', undefined])
  for (const bad of [{from: -1}, {to: 1.5}, {to: '3'}, {from: 4}, {epoch: 7}, {toldAt: NaN}, {at: null}])
    assert.equal(await read({...good, ...bad}, rows), undefined, JSON.stringify(bad))
  for (const bad of [{at: '1'}, {activity: null}, {activity: 'x'}, {activity: {...rows[1]!.activity, id: 5}}, {activity: {...rows[1]!.activity, povId: 'other'}}])
    assert.deepEqual(await read(good, [rows[0]!, {...rows[1]!, ...bad}, rows[2]!]), [2, '3', undefined], JSON.stringify(bad))
  assert.deepEqual(await read(good, [rows[0]!, rows[2]!]), [2, '3', undefined], 'a hole')
  assert.equal(await read(good, rows.slice(0, 2)), undefined, 'the newest is missing')
  assert.equal(await read(good, [...rows, {...rows[0]!, epoch: 'z', offset: 9}]), undefined)
  assert.equal(await read(good, []), undefined)
})

test('bad entries do not break a feed', async () => {
  const server = new Server()
  server.publish('acme')
  const topic = JSON.stringify(['acme', false])
  await change((rows, positions) => {
    positions.put({topic, epoch: ['x'], from: 'y'})
    positions.put({topic: 5, at: {}})
    rows.put({topic, epoch: 'acme-1', offset: 1, activity: {constructor: 1}})
    rows.put({topic, epoch: '', offset: -7})
  })
  const page = open(server)
  page.client.open()
  await page.goOn()
  assert.deepEqual(offsets(page.feed), [1])
  assert.deepEqual((await all('rows')).map(row => [row.epoch, row.offset]), [['acme-1', 1]])
  assert.equal(page.feed.getSnapshot().storage, 'stored')
})

test('times that went back in another tab are put right', async () => {
  const cache = await openCache(SCOPE)
  await cache.write([written(JSON.stringify(['acme', false]), 'acme-1', 0, 2, 1, 9000)])
  await cache.write([written(JSON.stringify(['acme', false]), 'acme-1', 2, 4, 1, 5000)])
  cache.close()
  const page = open(new Server())
  await settled()
  assert.deepEqual(page.feed.getSnapshot().rows.map(row => [row.offset, row.at]), [[4, 9000], [3, 9000], [2, 9000], [1, 9000]])
})

test('each filter has its own copies', async () => {
  const server = new Server()
  for (const type of ['file', 'task', 'file']) server.publish('acme', {type})
  const page = open(server, ['acme'], {only: {types: ['file']}})
  page.client.open()
  await page.goOn()
  page.feed.close()
  const whole = open(server)
  await settled()
  assert.deepEqual(offsets(whole.feed), [])
  const again = open(server, ['acme'], {only: {types: ['file']}})
  await settled()
  assert.deepEqual(offsets(again.feed), [3, 1])
})

test('signed out: nothing is left in memory, nothing is written any more', async () => {
  const server = new Server()
  server.publish('acme')
  const page = open(server)
  page.client.open()
  await page.goOn()
  server.publish('acme')
  page.client.deliver()
  await settled()
  assert.equal(page.paints.length, 1)
  void page.client.signOut()
  await wipe(SCOPE)
  await page.goOn()
  const {rows, groups, unread, povs, storage} = page.feed.getSnapshot()
  assert.deepEqual([rows, groups, unread, povs.get('acme')!.position, storage], [[], [], 0, undefined, 'off'])
  page.client.open()
  server.publish('acme')
  await page.goOn()
  assert.deepEqual(offsets(page.feed), [])
  assert.deepEqual([await all('rows'), await all('positions')], [[], []])
})

test('signed out while the copies are being read: they are not shown', async () => {
  const server = new Server()
  server.publish('acme')
  const first = open(server)
  first.client.open()
  await first.goOn()
  first.feed.close()
  for (let turns = 0; turns < 12; turns++) {
    const page = open(server)
    await settled(turns)
    void page.client.signOut()
    await settled()
    assert.deepEqual(offsets(page.feed), [], `${turns}`)
    assert.equal(page.feed.getSnapshot().storage, 'off')
    page.feed.close()
  }
})

test('a database that another tab deletes is gone on without', async () => {
  const server = new Server()
  const page = open(server)
  page.client.open()
  await page.goOn()
  server.publish('acme')
  await page.goOn()
  await wipe(SCOPE)
  server.publish('acme')
  await page.goOn()
  assert.deepEqual(offsets(page.feed), [2, 1])
  assert.equal(page.feed.getSnapshot().storage, 'denied')
  assert.deepEqual(await all('rows'), [])
})

test('without storage, or with one that is denied or never opens, the feed works', async t => {
  const server = new Server()
  server.publish('acme')
  const works = async (storage: string) => {
    const page = open(server)
    page.client.open()
    await page.goOn()
    assert.deepEqual(offsets(page.feed), [1])
    assert.equal(page.feed.getSnapshot().storage, storage)
    page.feed.close()
  }
  const {indexedDB} = globalThis
  t.after(() => Object.assign(globalThis, {indexedDB}))
  Object.assign(globalThis, {indexedDB: undefined})
  await works('off')
  Object.assign(globalThis, {indexedDB: {open: () => { throw new DOMException('no', 'SecurityError') }}})
  await works('denied')
  Object.assign(globalThis, {indexedDB: {open: () => ({})}})
  t.mock.timers.enable({apis: ['setTimeout']})
  const page = open(server)
  page.client.open()
  await page.goOn()
  assert.equal(page.feed.getSnapshot().storage, 'loading')
  t.mock.timers.tick(3000)
  await page.goOn()
  assert.deepEqual(offsets(page.feed), [1])
  assert.equal(page.feed.getSnapshot().storage, 'denied')
})

test('a full disk is said, and tried again with what comes next', async t => {
  const server = new Server()
  const page = open(server)
  page.client.open()
  await page.goOn()
  let isFull = true
  const put = IDBObjectStore.prototype.put
  t.mock.method(IDBObjectStore.prototype, 'put', function (this: IDBObjectStore, value: unknown) {
    if (isFull && this.name === 'positions') throw new DOMException('full', 'QuotaExceededError')
    return put.call(this, value)
  })
  server.publish('acme')
  await page.goOn()
  assert.equal(page.feed.getSnapshot().storage, 'full')
  assert.deepEqual(await all('rows'), [], 'rows without their position')
  isFull = false
  server.publish('acme')
  await page.goOn()
  assert.equal(page.feed.getSnapshot().storage, 'stored')
  assert.deepEqual((await all('rows')).map(row => row.offset), [1, 2])
})

test('what the user may not see any more is dropped, and where it is stored', async () => {
  const server = new Server()
  server.publish('acme')
  const page = open(server)
  page.client.open()
  await page.goOn()
  assert.equal((await all('rows')).length, 1)
  page.client.forbidden.add('acme')
  page.client.drop()
  page.client.open()
  await page.goOn()
  assert.deepEqual(offsets(page.feed), [])
  assert.deepEqual([await all('rows'), await all('positions')], [[], []])
})

test('a tab that holds the stored rows, as one that is frozen while it writes, is not waited for', async () => {
  const server = new Server()
  for (let i = 0; i < 3; i++) server.publish('acme')
  const holder = await openDatabase(SCOPE)
  const rows = holder.transaction(['rows', 'positions'], 'readwrite').objectStore('rows')
  let isHeld = true
  const hold = () => {
    if (isHeld) rows.get(['x', 'y', 0]).onsuccess = hold
  }
  hold()
  const page = open(server)
  page.client.open()
  const end = performance.now() + 10_000
  while (page.feed.getSnapshot().rows.length < 3 && performance.now() < end) await page.goOn()
  isHeld = false
  holder.close()
  assert.deepEqual(offsets(page.feed), [3, 2, 1])
  assert.equal(page.feed.getSnapshot().storage, 'denied')
  page.feed.close()
})
