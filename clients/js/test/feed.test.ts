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
  const feed = createFeed(client, povs, options)
  return {server, client, feed}
}

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
