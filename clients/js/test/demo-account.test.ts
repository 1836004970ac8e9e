import assert from 'node:assert/strict'
import {test} from 'node:test'
import type {FeedGap, PovState, Row, Snapshot} from '../src/api.js'
import {createFeed} from '../src/feed.js'
import {countOf, sentOf} from '../src/demo/account.js'
import type {Positions} from '../src/demo/shared.js'
import {ScriptedClient, Server, settled} from './feed-model.js'

const EPOCH = 'e'
const at = (offset: number, epoch = EPOCH): Positions => new Map([['acme', {epoch, offset}]])

/** A page that says to have all of `acme` up to `reach`, and shows these rows: offsets, or offset and id. */
function page(reach: number, rows: readonly (number | [offset: number, id: string])[], more: Partial<PovState> = {}, gaps: FeedGap[] = []) {
  const shown = rows.map(each => {
    const [offset, id] = typeof each === 'number' ? [each, `id-${each}`] : each
    return {povId: 'acme', epoch: EPOCH, offset, activity: {id}} as Row
  })
  const state = {position: {epoch: EPOCH, offset: reach}, hasEarlier: false, ...more} as PovState
  return {rows: shown, gaps, povs: new Map([['acme', state]])} as unknown as Snapshot
}

test('what is there is shown, what the page has not come to is to come', () => {
  assert.equal(sentOf(at(2), at(7)), 5)
  assert.deepEqual(countOf(page(5, [1, 2, 3, 4, 5]), at(2), at(7)), {shown: 3, toCome: 2, lost: 0, twice: 0})
  assert.deepEqual(countOf(page(7, [3, 4, 5, 6, 7]), at(2), at(7)), {shown: 5, toCome: 0, lost: 0, twice: 0})
})

test('one that a page lacks below its own position is lost', () => {
  assert.deepEqual(countOf(page(7, [3, 4, 6, 7]), at(2), at(7)), {shown: 4, toCome: 0, lost: 1, twice: 0})
})

test('one that a page shows twice is counted, whatever place the second one has', () => {
  assert.deepEqual(countOf(page(4, [3, 4, 4]), at(2), at(4)), {shown: 2, toCome: 0, lost: 0, twice: 1})
  // In the place of another, which is lost.
  assert.deepEqual(countOf(page(5, [3, 4, [5, 'id-4']]), at(2), at(5)), {shown: 2, toCome: 0, lost: 1, twice: 1})
})

test('what a page says is missing, and can be loaded, is to come; what is gone is lost', () => {
  const gap = (state: FeedGap['state']): FeedGap =>
    ({povId: 'acme', from: {epoch: EPOCH, offset: 3}, to: {epoch: EPOCH, offset: 6}, state})
  assert.deepEqual(countOf(page(7, [3, 7], {}, [gap('open')]), at(2), at(7)), {shown: 2, toCome: 3, lost: 0, twice: 0})
  assert.deepEqual(countOf(page(7, [3, 5, 7], {}, [gap('loading')]), at(2), at(7)), {shown: 3, toCome: 2, lost: 0, twice: 0})
  assert.deepEqual(countOf(page(7, [3, 7], {}, [gap('gone')]), at(2), at(7)), {shown: 2, toCome: 0, lost: 3, twice: 0})
})

test('earlier pages are to come as long as there are some', () => {
  assert.deepEqual(countOf(page(9, [8, 9], {hasEarlier: true}), at(2), at(9)), {shown: 2, toCome: 5, lost: 0, twice: 0})
  assert.deepEqual(countOf(page(9, [8, 9]), at(2), at(9)), {shown: 2, toCome: 0, lost: 5, twice: 0})
})

test('a log that took the place of another counts from its start', () => {
  assert.equal(sentOf(at(40, 'before'), at(2)), 2)
  assert.deepEqual(countOf(page(2, [1, 2]), at(40, 'before'), at(2)), {shown: 2, toCome: 0, lost: 0, twice: 0})
  // The page does not know of it yet.
  assert.deepEqual(countOf(page(40, [40]), at(39), at(2, 'next')), {shown: 0, toCome: 2, lost: 0, twice: 0})
})

test('a real store is counted as it is, and a row that is taken from it is seen to be lost', async () => {
  const server = new Server()
  const client = new ScriptedClient(server, 'ana')
  const feed = createFeed(client, ['acme'], {stored: false, limit: 0})
  for (let i = 0; i < 5; i++) server.publish('acme')
  client.open()
  for (let i = 0; i < 6; i++) {
    client.deliver()
    await settled(3)
  }
  const snapshot = feed.getSnapshot()
  const {epoch, offset} = snapshot.povs.get('acme')!.position!
  assert.equal(offset, 5)
  assert.deepEqual(countOf(snapshot, at(0, epoch), at(5, epoch)), {shown: 5, toCome: 0, lost: 0, twice: 0})
  const planted = {...snapshot, rows: snapshot.rows.filter(row => row.offset !== 3)}
  assert.deepEqual(countOf(planted, at(0, epoch), at(5, epoch)), {shown: 4, toCome: 0, lost: 1, twice: 0})
  feed.close()
})
