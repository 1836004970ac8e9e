/** Whatever happens, in any order: what a feed shows is the log, each activity once, but for what it says is missing. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import {afterEach, beforeEach, mock, test} from 'node:test'
import fc from 'fast-check'
import type {Feed, FeedOptions, Only, PovState, Row, Snapshot} from '../src/api.js'
import type {Kept} from '../src/feed-rows.js'
import type * as wire from '../src/wire.js'
import {fits} from '../src/client.js'
import {openDatabase, result} from '../src/database.js'
import {wipe} from '../src/scope.js'
import {createFeed} from '../src/feed.js'
import {ScriptedClient, Server, settled} from './feed-model.js'

const RUNS = Number(process.env.RUNS ?? 150)
const ME = 'ana'
const POVS = ['acme', 'constructor']
const USERS = [ME, 'ben', '__proto__']

interface World {
  server: Server
  scope: string
  povs: string[]
  options: FeedOptions
  tabs: Tab[]
  /** All that ever was in a log, by epoch. */
  past: Map<string, wire.Activity[]>
  /** The time of each row that was ever on this page, where rows cannot have been forgotten in between. */
  times?: Map<string, number>
  stored: Map<string, {epoch: string; to: number}>
  /** Keys of the rows that are stored. */
  kept: Set<string>
  /** What a listener found wrong. */
  fault?: unknown
}

class Tab {
  client!: ScriptedClient
  feed!: Feed
  paints: (() => Promise<void>)[] = []
  last?: Snapshot

  constructor(readonly world: World) {
    this.load()
  }

  /** Another page in the same browser. What was not painted was not written. */
  load(): void {
    this.feed?.close()
    this.client?.close()
    this.paints = []
    this.last = undefined
    const {times, kept} = this.world
    for (const key of times?.keys() ?? []) if (!kept.has(key)) times!.delete(key)
    this.client = new ScriptedClient(this.world.server, ME, this.world.scope)
    this.feed = createFeed(this.client, this.world.povs, this.world.options, {afterPaint: then => void this.paints.push(then)})
    this.feed.subscribe(() => {
      try {
        check(this)
      } catch (error) {
        this.world.fault ??= error
      }
    })
    this.client.open()
  }

  async paint(): Promise<void> {
    for (const each of this.paints.splice(0)) await each()
  }

  /** It may be refused: with a code. */
  try(promise: Promise<void>): void {
    promise.catch((error: {code?: string}) => {
      if (typeof error.code !== 'string') this.world.fault ??= error
    })
  }
}

const fit = (world: World, activity: wire.Activity) => fits(activity, world.options.only)

/** What holds at any time. */
function check(tab: Tab): void {
  const {world, feed} = tab
  const now = feed.getSnapshot()
  assert.equal(feed.getSnapshot(), now)
  assert.ok(Object.isFrozen(now) && now.rows.every(Object.isFrozen) && now.groups.every(Object.isFrozen))
  const before = tab.last
  tab.last = now
  if (before === now) return

  const rows = now.rows as readonly Kept[]
  assert.equal(new Set(rows.map(row => row.key)).size, rows.length, 'a row twice')
  const once = rows.map(row => JSON.stringify([row.povId, row.epoch.split('-').at(-1), row.activity.id]))
  assert.equal(new Set(once).size, rows.length, 'an activity twice')
  rows.forEach((row, i) => {
    const next = rows[i + 1]
    if (next) assert.ok(row.at > next.at || row.at === next.at && (row.topic !== next.topic || row.offset > next.offset), 'order')
    assert.deepEqual(row.activity, world.past.get(row.epoch)![row.offset - 1])
    assert.equal(row.povId, row.activity.povId)
    assert.equal(row.own, row.activity.userId === ME)
    assert.ok(fit(world, row.activity))
    world.times?.set(row.key, world.times.get(row.key) ?? row.at)
    if (world.times) assert.equal(row.at, world.times.get(row.key), 'a time that changed')
  })

  for (const state of now.povs.values()) {
    const {povId, position} = state
    if (!position) continue
    const log = world.past.get(position.epoch)!
    const own = rows.filter(row => row.topic === povId)
    assert.ok(own.every(row => row.epoch === position.epoch), 'rows of another log')
    const got = new Set(own.map(row => row.offset))
    own.forEach((row, i) => assert.ok(!i || row.offset < own[i - 1]!.offset, 'order of the log'))
    const gaps = now.gaps.filter(gap => gap.povId === povId && gap.from?.epoch === position.epoch)
    for (let offset = own.at(-1)?.offset ?? Infinity; offset <= position.offset; offset++) {
      const activity = log[offset - 1]!
      const isMissing = gaps.some(gap => gap.from!.offset < offset && offset <= gap.to.offset)
      const isWanted = fit(world, activity) && !(povId === '*' && world.povs.includes(activity.povId))
      assert.equal(got.has(offset), isWanted && !isMissing, `${povId} ${offset} of ${position.offset} ${isMissing ? 'in a gap' : ''}`)
    }
    const complete = Math.max(0, ...gaps.map(gap => gap.to.offset))
    const since = own.findLast(row => row.offset > complete)
    if (since && state.completeSince !== undefined && povId !== '*') assert.equal(state.completeSince, since.at)
  }

  assert.deepEqual(now.groups.flatMap(group => group.rows), rows)
  now.groups.forEach((group, i) => {
    assert.equal(group.key, group.rows.at(-1)!.key)
    const has = (state: Row['state']) => group.rows.some(row => row.state === state)
    assert.equal(group.state, has('new') ? 'new' : has('seen') ? 'seen' : 'read')
    group.rows.forEach((row, j) => assert.ok(!j || together(world, now, group.rows[j - 1] as Kept, row as Kept), 'do not belong together'))
    const above = now.groups[i - 1]?.rows.at(-1)
    if (above) assert.ok(!together(world, now, above as Kept, group.rows[0] as Kept), 'belong together')
  })
  if (before) keepsWhatIsSame(before, now)
}

function together(world: World, {gaps}: Snapshot, newer: Kept, older: Kept): boolean {
  const {type, action, userId} = newer.activity
  return newer.topic === older.topic && newer.povId === older.povId && userId === older.activity.userId
    && type === older.activity.type && action === older.activity.action
    && newer.at - older.at <= (world.options.groupWithin ?? 600_000) && newer.epoch === older.epoch
    && !gaps.some(gap => gap.povId === newer.topic && gap.from?.epoch === newer.epoch
      && gap.from.offset >= older.offset && gap.to.offset < newer.offset)
}

function keepsWhatIsSame(before: Snapshot, now: Snapshot): void {
  const rows = new Map(before.rows.map(row => [row.key, row]))
  for (const row of now.rows) {
    const old = rows.get(row.key)
    if (old && old.state === row.state && old.own === row.own) assert.equal(row, old, 'a row that is another object')
  }
  const groups = new Map(before.groups.map(group => [group.key, group]))
  for (const group of now.groups) {
    const old = groups.get(group.key)
    if (old?.rows.length === group.rows.length && old.rows.every((row, i) => row === group.rows[i])) assert.equal(group, old)
  }
  for (const [povId, state] of now.povs) {
    const old = before.povs.get(povId)!
    const isSame = (Object.keys(state) as (keyof PovState)[]).every(name => old[name] === state[name])
    if (isSame) assert.equal(state, old)
  }
  const parts = ['rows', 'groups', 'gaps', 'povs', 'connection', 'pending', 'storage', 'unread', 'unseen'] as const
  assert.ok(parts.some(part => before[part] !== now[part]), 'a snapshot without a change')
}

/** What holds when everything came that was on its way. */
function checkQuiet(tab: Tab): void {
  const {world, feed} = tab
  check(tab)
  const now = feed.getSnapshot()
  let unread = 0
  for (const state of now.povs.values()) {
    const {povId} = state
    const log = world.server.log(povId)
    assert.deepEqual(state.position, {epoch: log.epoch, offset: log.top}, `${povId} has come here`)
    assert.equal(state.state, 'live')
    unread += state.unread
    if (povId === '*') continue
    const marks = log.marks()
    assert.deepEqual(
      [state.readOffset, state.seenOffset, state.unreadFrom], [marks.readOffset, marks.seenOffset, marks.unreadFrom])
    const rows = now.rows.filter(row => (row as Kept).topic === povId)
    for (const [count, first] of [
      [state.unread, marks.unreadFrom ?? marks.readOffset + 1], [state.unseen, marks.seenOffset + 1]] as const) {
      const after = log.entries.slice(first - 1)
      const others = after.filter(each => each.userId !== ME).length
      const ownHere = rows.filter(row => row.own && row.offset >= first).length
      assert.ok(others <= count && count <= after.length - ownHere, `${count} of ${after.length}, ${others} by others`)
    }
    for (const row of rows) {
      const first = marks.unreadFrom ?? marks.readOffset + 1
      assert.equal(row.state, row.own || row.offset < first ? 'read' : row.offset > marks.seenOffset ? 'new' : 'seen', `row ${row.offset}`)
    }
    if (!world.options.limit) assert.ok(rows.length || !log.entries.slice(log.oldest - 1).some(each => fit(world, each)) || world.options.only)
  }
  assert.equal(now.unread, unread)
}

/** What is stored has no hole, never goes back, and is bounded. */
async function checkStored(world: World): Promise<void> {
  const database = await openDatabase(world.scope)
  const transaction = database.transaction(['rows', 'positions'])
  const positions = await result(transaction.objectStore('positions').getAll()) as {topic: string; epoch: string; from: number; to: number}[]
  const rows = await result(transaction.objectStore('rows').getAll()) as {topic: string; epoch: string; offset: number}[]
  database.close()
  world.kept = new Set(rows.map(({topic, epoch, offset}) => JSON.stringify([JSON.parse(topic)[0], epoch, offset])))
  for (const {topic, epoch, from, to} of positions) {
    const before = world.stored.get(topic)
    if (before?.epoch === epoch) assert.ok(to >= before.to, 'a position that goes back')
    world.stored.set(topic, {epoch, to})
    const wanted = world.past.get(epoch)!.flatMap((each, i) => i + 1 > from && i + 1 <= to && fit(world, each) ? [i + 1] : [])
    const got = rows.filter(row => row.topic === topic)
    assert.deepEqual(got.map(row => row.offset), wanted)
    assert.ok(got.length <= 200 && got.every(row => row.epoch === epoch))
  }
}

type Step = (world: World) => Promise<void> | void
const tabs = fc.nat({max: 1})
const povs = fc.constantFrom(...POVS)
const tabOf = (world: World, number: number) => world.tabs[number % world.tabs.length]!

function rowOf(tab: Tab, place: number): Row | undefined {
  const {rows} = tab.feed.getSnapshot()
  return rows[Math.floor(place * rows.length)]
}

function publish(world: World, povId: string, count: number, userId: string, type: string, step: number): void {
  for (let i = 0; i < count; i++) {
    world.server.now += step
    world.server.publish(povId, {userId, type})
    for (const name of [povId, '*']) {
      const log = world.server.log(name)
      world.past.set(log.epoch, log.entries)
    }
  }
}

const place = fc.double({min: 0, max: 0.999, noNaN: true})
const steps: fc.Arbitrary<{name: string; run: Step}> = fc.oneof(
  {weight: 8, arbitrary: fc.tuple(povs, fc.constantFrom(1, 1, 2, 3, 9, 40), fc.constantFrom(...USERS), fc.constantFrom('task', 'file'), fc.constantFrom(0, 0, 1000, 400_000, -3000, -900_000))
    .map(([povId, count, user, type, step]) => ({name: `publish ${povId} ${count} ${user} ${type} ${step}`, run: (world: World) => publish(world, povId, count, user, type, step)}))},
  {weight: 1, arbitrary: povs.map(povId => ({name: `publish too many on ${povId}`, run: (world: World) => publish(world, povId, 1100, 'ben', 'task', 10)}))},
  {weight: 8, arbitrary: fc.tuple(tabs, fc.nat({max: 60})).map(([tab, count]) => ({name: `deliver ${tab} ${count}`, run: (world: World) => tabOf(world, tab).client.deliver(count)}))},
  {weight: 5, arbitrary: tabs.map(tab => ({name: `settle ${tab}`, run: async (world: World) => {
    for (let i = 0; i < 3; i++) {
      tabOf(world, tab).client.deliver()
      await settled(2)
    }
  }}))},
  {weight: 4, arbitrary: tabs.map(tab => ({name: `drop ${tab}`, run: (world: World) => tabOf(world, tab).client.drop()}))},
  {weight: 5, arbitrary: tabs.map(tab => ({name: `open ${tab}`, run: (world: World) => {
    const {client} = tabOf(world, tab)
    if (!client.isOpen) client.open()
  }}))},
  {weight: 6, arbitrary: tabs.map(tab => ({name: `paint ${tab}`, run: (world: World) => tabOf(world, tab).paint()}))},
  {weight: 2, arbitrary: tabs.map(tab => ({name: `crash in the transaction ${tab}`, run: (world: World) => {
    void tabOf(world, tab).paint()
    tabOf(world, tab).load()
  }}))},
  {weight: 3, arbitrary: tabs.map(tab => ({name: `reload ${tab}`, run: async (world: World) => {
    tabOf(world, tab).load()
    await settled()
  }}))},
  {weight: 1, arbitrary: fc.tuple(povs, fc.constantFrom(0, 3, 30)).map(([povId, count]) => ({name: `retain ${povId} ${count}`, run: (world: World) => {
    world.server.log(povId).retain(count)
    world.server.log('*').retain(count)
  }}))},
  {weight: 1, arbitrary: fc.constantFrom(...POVS, '*').map(povId => ({name: `replace ${povId}`, run: (world: World) => {
    // Clients of a log that is replaced are closed.
    for (const {client} of world.tabs) if (client.isOpen) client.drop()
    world.server.log(povId).replace()
    world.past.set(world.server.log(povId).epoch, world.server.log(povId).entries)
  }}))},
  {weight: 3, arbitrary: fc.tuple(tabs, place).map(([tab, at]) => ({name: `again ${tab}`, run: (world: World) => {
    const row = rowOf(tabOf(world, tab), at) as Kept | undefined
    if (!row) return
    for (const each of tabOf(world, tab).client.subscriptions)
      if (each.povId === row.topic) each.emit('activity', {epoch: row.epoch, offset: row.offset, activity: row.activity})
  }}))},
  {weight: 4, arbitrary: fc.tuple(tabs, fc.option(povs)).map(([tab, povId]) => ({name: `earlier ${tab} ${povId}`, run: (world: World) => {
    tabOf(world, tab).try(tabOf(world, tab).feed.loadEarlier(povId ?? undefined))
  }}))},
  {weight: 4, arbitrary: fc.tuple(tabs, place).map(([tab, at]) => ({name: `load ${tab}`, run: (world: World) => {
    const {gaps} = tabOf(world, tab).feed.getSnapshot()
    const gap = gaps[Math.floor(at * gaps.length)]
    if (gap) tabOf(world, tab).try(tabOf(world, tab).feed.load(gap))
  }}))},
  {weight: 6, arbitrary: fc.tuple(tabs, fc.constantFrom('seen', 'read', 'all', 'unread'), place).map(([tab, what, at]) => ({name: `${what} ${tab} ${at}`, run: (world: World) => {
    const {feed} = tabOf(world, tab)
    const row = rowOf(tabOf(world, tab), at)
    if (what === 'all') tabOf(world, tab).try(feed.read())
    else if (!row) return
    else if (what === 'seen') feed.seen([row])
    else tabOf(world, tab).try(what === 'read' ? feed.read(row) : feed.markUnread(row))
  }}))},
  {weight: 3, arbitrary: fc.tuple(povs, fc.constantFrom('seen', 'read', 'unread'), place).map(([povId, type, at]) => ({name: `${type} elsewhere ${povId} ${at}`, run: (world: World) => {
    const log = world.server.log(povId)
    if (log.top) world.server.ask(type, {povId, offset: 1 + Math.floor(at * log.top)}, ME)
  }}))},
  {weight: 2, arbitrary: fc.tuple(tabs, fc.constantFrom('seen', 'read', 'unread', 'history')).map(([tab, type]) => ({name: `refuse ${tab} ${type}`, run: (world: World) => {
    const {client} = tabOf(world, tab)
    client.refuse = asked => {
      if (asked !== type) return
      client.refuse = () => undefined
      return {code: 'unavailable', message: 'no'}
    }
  }}))},
  {weight: 4, arbitrary: fc.constantFrom(20, 1000).map(ms => ({name: `tick ${ms}`, run: () => mock.timers.tick(ms)}))},
  {weight: 2, arbitrary: fc.constantFrom(-3_600_000, 3_600_000).map(ms => ({name: `clock ${ms}`, run: () => void (clock += ms)}))},
)

let clock = 0
beforeEach(() => {
  clock = Date.parse('2026-03-01T09:00:00Z')
  mock.timers.enable({apis: ['setTimeout']})
  mock.method(Date, 'now', () => ++clock)
})
afterEach(() => {
  mock.timers.reset()
  mock.restoreAll()
})

let worlds = 0

async function live(given: string[], options: FeedOptions, tabCount: number, story: {name: string; run: Step}[]): Promise<void> {
  const world: World = {
    server: new Server(), scope: `pov-rt:${++worlds}`, povs: given, options, tabs: [], past: new Map(), stored: new Map(), kept: new Set(),
    // A second tab begins elsewhere in the log, and what left memory is dated anew.
    ...tabCount === 1 && options.stored !== false && {times: new Map<string, number>()},
  }
  for (const povId of [...POVS, '*']) world.past.set(world.server.log(povId).epoch, world.server.log(povId).entries)
  for (let i = 0; i < tabCount; i++) world.tabs.push(new Tab(world))
  await settled()
  for (const {run} of story) {
    await run(world)
    await Promise.resolve()
    for (const tab of world.tabs) check(tab)
    if (world.fault) throw world.fault
    if (options.stored !== false) await checkStored(world)
  }
  // All come back, and everything arrives.
  for (const {client} of world.tabs) client.drop()
  await settled()
  for (const {client} of world.tabs) client.open()
  for (let i = 0; i < 30; i++) {
    for (const tab of world.tabs) {
      tab.client.refuse = () => undefined
      tab.client.deliver()
    }
    mock.timers.tick(1000)
    await settled(3)
    for (const tab of world.tabs) await tab.paint()
  }
  if (world.fault) throw world.fault
  for (const tab of world.tabs) checkQuiet(tab)
  if (options.stored !== false) await checkStored(world)
  // What is not limited is the same in all tabs, and after a reload, as far as it is stored.
  for (const tab of world.tabs) {
    const shown = tab.feed.getSnapshot()
    tab.load()
    await settled()
    check(tab)
    const again = tab.feed.getSnapshot()
    const keys = new Set(again.rows.map(row => row.key))
    if (world.times) {
      assert.deepEqual(again.rows.map(row => row.key), shown.rows.filter(row => keys.has(row.key)).map(row => row.key), 'order after a reload')
      // Marks are stored with rows; with none behind a gap yet, those of before stand until the server is asked.
      if (!shown.gaps.length) assert.deepEqual(again.rows.map(row => row.state), shown.rows.filter(row => keys.has(row.key)).map(row => row.state))
    }
    tab.feed.close()
    tab.client.close()
  }
  await settled()
  await wipe(world.scope)
}

function property(name: string, given: string[], options: FeedOptions, tabCount: number): void {
  test(name, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps.map(step => ({...step, toString: () => step.name, [fc.toStringMethod]: () => step.name})), {maxLength: 45, size: 'max'}), async story => {
        await live(given, options, tabCount, story)
      }),
      {numRuns: RUNS, ...process.env.SEED && {seed: Number(process.env.SEED), path: process.env.PATH_ || undefined}},
    )
  })
}

const only: Only = {types: ['file'], notUsers: ['__proto__']}
property('two PoVs in one tab', POVS, {page: 10, limit: 0}, 1)
property('without storage', POVS, {page: 10, limit: 0, stored: false}, 1)
property('two tabs on one database', POVS, {page: 10, limit: 0}, 2)
property('no more than a few rows in memory', POVS, {page: 5, limit: 12}, 2)
property('with a filter', POVS, {page: 5, only, limit: 0}, 1)
property('the team feed beside a PoV', ['acme', '*'], {page: 10, limit: 0}, 1)
property('the team feed alone', ['*'], {page: 10, limit: 15}, 2)
