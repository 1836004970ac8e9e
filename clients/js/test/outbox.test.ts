/** The outbox: several tabs of it over one database, and a server that may fail in any way. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import {afterEach, beforeEach, mock, test} from 'node:test'
import fc from 'fast-check'
import {PovError} from '../src/client.js'
import {makeId} from '../src/client.js'
import {openDatabase} from '../src/database.js'
import {wipe} from '../src/wipe.js'
import {delay} from '../src/wait.js'
import {KNOWN_MS, MAX_BYTES, MAX_ITEMS, openOutbox, type OutboxLine} from '../src/outbox.js'
import type {Failure, Pending} from '../src/api.js'
import type * as wire from '../src/wire.js'
import {fakeTime, realTime, tick, turn, until} from './time.js'

/** Web Locks as far as they are used: first come first served, given up with `signal` and by a crash. */
class Locks {
  private held: object | undefined
  private queue: {owner: object; enter(): void}[] = []

  of(owner: object) {
    return {
      request: (_name: string, {signal}: {signal: AbortSignal}, work: () => Promise<void>): Promise<void> => {
        let entered!: () => void
        let refused!: (error: unknown) => void
        const turn = new Promise<void>((resolve, reject) => { entered = resolve; refused = reject })
        const place = {owner, enter: entered}
        signal.addEventListener('abort', () => {
          this.queue = this.queue.filter(each => each !== place)
          refused(signal.reason) // of no effect once it was entered
        })
        this.queue.push(place)
        this.next()
        return turn.then(work).finally(() => this.release(owner))
      },
    }
  }

  /** What the browser does when a tab is gone. */
  release(owner: object): void {
    this.queue = this.queue.filter(each => each.owner !== owner)
    if (this.held === owner) this.held = undefined
    this.next()
  }

  private next(): void {
    if (this.held) return
    const first = this.queue.shift()
    this.held = first?.owner
    first?.enter()
  }
}

const OUTCOMES = [
  'ok', 'lost', 'lost-after', 'timeout-after', 'unavailable', 'rate_limited', 'internal', 'forbidden',
] as const
type Outcome = typeof OUTCOMES[number]

/** What a server does with publishes. */
class Server {
  /** How long it knows ids, ms. */
  knows = 86_400_000
  readonly log: {id: string; at: number; details: unknown}[] = []
  outcomes: Outcome[] = []

  publish(activity: wire.NewActivity): wire.Published {
    const {id = '', povId, details} = activity
    const known = this.log.findIndex(each => each.id === id && Date.now() - each.at < this.knows)
    if (known < 0) this.log.push({id, at: Date.now(), details})
    const offset = (known < 0 ? this.log.length - 1 : known) + 1
    return {type: 'published', activityId: id, povId, epoch: 'e', offset, duplicate: known >= 0}
  }

  answer(activity: wire.NewActivity): wire.Published {
    const outcome = this.outcomes.shift() ?? 'ok'
    if (outcome === 'ok') return this.publish(activity)
    if (outcome.endsWith('-after')) this.publish(activity)
    const code = outcome.startsWith('lost') ? 'disconnected' : outcome.replace('-after', '')
    throw new PovError({code, message: outcome, ...(code === 'rate_limited' && {retryAfter: 30})})
  }
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn()
}

let scopes = 0
let inFlight = 0
let scope: string
let locks: Locks
let server: Server
const tabs = new Set<Tab>()

class Tab {
  outbox!: OutboxLine
  open: boolean
  dead = false
  /** How far its clock is ahead of the server's. */
  ahead = 0
  attempts: string[] = []
  seen: (readonly Pending[])[] = []
  flying: {reject(failure: Failure): void} | undefined
  channels: BroadcastChannel[] = []

  constructor(open: boolean) {
    this.open = open
    tabs.add(this)
  }

  static async of(open = true, ahead = 0): Promise<Tab> {
    const tab = new Tab(open)
    tab.ahead = ahead
    await tab.start()
    return tab
  }

  async start(): Promise<void> {
    const channels = this.channels
    const real = Channel
    Object.defineProperty(globalThis, 'navigator', {value: {locks: locks.of(this)}, configurable: true})
    globalThis.BroadcastChannel = class extends real {
      constructor(name: string) {
        super(name)
        channels.push(this)
      }
    }
    this.outbox = await openOutbox({
      scope,
      makeId,
      delay,
      errorOf: failure => new PovError(failure),
      isOpen: () => this.open && !this.dead,
      publish: (activity, signal) => this.publish(activity, signal),
      changed: pending => void this.seen.push(pending),
      now: () => Date.now() + this.ahead,
    })
    globalThis.BroadcastChannel = real
  }

  async publish(activity: wire.NewActivity, signal: AbortSignal): Promise<wire.Published> {
    if (this.dead) return new Promise(() => {})
    assert.equal([...tabs].filter(each => each.flying && !each.dead).length, 0, 'two are sent at once')
    this.attempts.push(activity.id!)
    inFlight++
    return new Promise((resolve, reject) => {
      const flying = this.flying = {reject: (failure: Failure) => {
        if (this.flying === flying) this.flying = undefined
        if (!this.dead) reject(new PovError(failure))
      }}
      signal.onabort = () => flying.reject({code: 'aborted', message: 'aborted'})
      void turns(3).then(() => {
        inFlight--
        if (this.flying !== flying && !this.dead) return
        this.flying = undefined
        try {
          const published = server.answer(activity)
          if (!this.dead) resolve(published)
        } catch (error) {
          flying.reject(error as Failure)
          if (!this.dead) reject(error)
        }
      })
    })
  }

  line(open: boolean): void {
    this.open = open
    if (open) void this.outbox.flush()
    else this.flying?.reject({code: 'disconnected', message: 'cut'})
  }

  /** The tab is gone in the middle of whatever it does: nobody hears of it, and its lock is free. */
  crash(): void {
    this.dead = true
    this.silence()
    locks.release(this)
  }

  silence(): void {
    for (const each of this.channels) {
      each.onmessage = null
      each.postMessage = () => {}
      ;(each as unknown as {unref(): void}).unref()
    }
    tabs.delete(this)
  }

  close(): void {
    this.outbox.close()
    tabs.delete(this)
  }

  get states(): string[] {
    return this.outbox.pending.map(({id, state}) => `${id} ${state}`)
  }
}

const Channel = globalThis.BroadcastChannel
const activity = (id: string, details = {}) => ({id, povId: 'acme', type: 'task', action: 'created', details})
/** Its answer, or the code of what it is rejected with; pending while it is. */
function ending(promise: Promise<wire.Published>): {now: wire.Published | string | undefined} {
  const end: {now: wire.Published | string | undefined} = {now: undefined}
  promise.then(published => { end.now = published }, (error: PovError) => { end.now = error.code })
  return end
}
const logged = () => server.log.map(({id}) => id)

beforeEach(() => {
  fakeTime()
  scope = `test:${scopes++}`
  locks = new Locks()
  server = new Server()
})
afterEach(async () => {
  mock.restoreAll()
  for (const each of tabs) each.close()
  await turns(5)
  realTime()
})

test('what is published offline goes out in order with its ids once the line is open', async () => {
  const tab = await Tab.of(false)
  const ends = ['a', 'b', 'c'].map(id => ending(tab.outbox.add(activity(id))))
  await until(() => tab.outbox.pending.length === 3)
  assert.deepEqual(tab.states, ['a waiting', 'b waiting', 'c waiting'])
  assert.deepEqual(tab.attempts, [])
  tab.line(true)
  await until(() => ends.every(end => end.now))
  assert.deepEqual(ends.map(end => (end.now as wire.Published).offset), [1, 2, 3])
  assert.deepEqual(logged(), ['a', 'b', 'c'])
  assert.deepEqual(tab.outbox.pending, [])
  assert.deepEqual(tab.seen.at(-1), [])
  assert.equal(tab.outbox.stored, true)
})

test('it survives a reload, and is sent by the page that comes then', async () => {
  const before = await Tab.of(false)
  const end = ending(before.outbox.add(activity('a', {n: 1})))
  await until(() => before.outbox.pending.length === 1)
  before.close()
  await until(() => end.now === 'closed')
  const after = await Tab.of(true)
  assert.deepEqual(after.seen[0]!.map(({id, activity: {details}}) => [id, details]), [['a', {n: 1}]])
  await until(() => !after.outbox.pending.length)
  assert.deepEqual(logged(), ['a'])
})

test('a crash between the log and the store sends it again, and it is in the log once', async () => {
  const before = await Tab.of(true)
  void before.outbox.add(activity('a')).catch(() => {})
  await until(() => Boolean(before.flying))
  before.crash()
  await until(() => logged().length === 1)
  const after = await Tab.of(true)
  await until(() => !after.outbox.pending.length)
  assert.deepEqual(after.attempts, ['a'])
  assert.deepEqual(logged(), ['a'])
})

test('another tab goes on at once when the one that sends is gone', async () => {
  const first = await Tab.of(true)
  const second = await Tab.of(true)
  void first.outbox.add(activity('a')).catch(() => {})
  const end = ending(second.outbox.add(activity('b')))
  await until(() => Boolean(first.flying))
  assert.deepEqual(second.attempts, [])
  first.crash()
  await until(() => Boolean(end.now))
  assert.deepEqual(second.attempts, ['a', 'b'])
  assert.deepEqual(logged(), ['a', 'b'])
})

test('a page that goes to sleep gives up the lock though its publish hangs', async () => {
  const page = new EventTarget()
  Object.assign(globalThis, {
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
  })
  const first = await Tab.of(true)
  Object.assign(globalThis, {addEventListener: undefined, removeEventListener: undefined})
  const second = await Tab.of(true)
  void first.outbox.add(activity('a')).catch(() => {})
  await until(() => Boolean(first.flying))
  page.dispatchEvent(new Event('pagehide'))
  await until(() => second.attempts.length === 1)
  await until(() => !second.outbox.pending.length)
  assert.deepEqual(logged(), ['a'])
})

test('who made it learns that another tab has sent it', async () => {
  const offline = await Tab.of(false)
  const online = await Tab.of(true)
  server.outcomes = ['ok', 'forbidden']
  const ends = ['a', 'b'].map(id => ending(offline.outbox.add(activity(id))))
  await until(() => ends.every(end => end.now))
  assert.deepEqual(online.attempts, ['a', 'b'])
  assert.equal((ends[0]!.now as wire.Published).offset, 1)
  assert.equal(ends[1]!.now, 'forbidden')
  await until(() => String(offline.states) === 'b failed')
})

test('what is refused for good stays as failed, rejects, and holds up nobody', async () => {
  const tab = await Tab.of(true)
  server.outcomes = ['forbidden']
  const ends = ['a', 'b'].map(id => ending(tab.outbox.add(activity(id))))
  await until(() => ends.every(end => end.now))
  assert.equal(ends[0]!.now, 'forbidden')
  assert.deepEqual(logged(), ['b'])
  assert.deepEqual(tab.states, ['a failed'])
  assert.equal(tab.outbox.pending[0]!.failure!.code, 'forbidden')
  await tab.outbox.resend('a')
  await until(() => !tab.outbox.pending.length)
  assert.deepEqual(logged(), ['b', 'a'])
})

test('an answer that tells to wait is waited for, in all tabs, and nothing overtakes', async () => {
  const tab = await Tab.of(true)
  const other = await Tab.of(true)
  server.outcomes = ['rate_limited']
  void tab.outbox.add(activity('a')).catch(() => {})
  const end = ending(tab.outbox.add(activity('b')))
  const attempts = () => [...tab.attempts, ...other.attempts]
  await until(() => attempts().length === 1)
  await turns(50)
  tick(29_999)
  await turns(50)
  assert.deepEqual(attempts(), ['a'])
  tick(1_001)
  await until(() => Boolean(end.now))
  assert.deepEqual(attempts(), ['a', 'a', 'b'])
  assert.deepEqual(logged(), ['a', 'b'])
})

test('tries that fail come later and later, at most 20 s apart', async () => {
  const random = mock.method(Math, 'random', () => 0.999)
  const tab = await Tab.of(true)
  server.outcomes = Array<Outcome>(9).fill('internal')
  void tab.outbox.add(activity('a')).catch(() => {})
  const waits = []
  for (let count = 1; count <= 9; count++) {
    await until(() => tab.attempts.length === count && !tab.flying)
    await turns(20)
    const from = Date.now()
    await until(() => tab.attempts.length > count, 50)
    waits.push(Math.round((Date.now() - from) / 500) / 2)
  }
  random.mock.restore()
  assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 16, 20, 20, 20])
})

test('too many or too much is refused, and nothing of it is kept', async () => {
  const tab = await Tab.of(false)
  const ends = Array.from({length: MAX_ITEMS + 1}, (_, n) => ending(tab.outbox.add(activity(`${n}`))))
  await until(() => Boolean(ends.at(-1)!.now))
  assert.equal(ends.at(-1)!.now, 'outbox_full')
  assert.equal(ends.filter(end => end.now).length, 1)
  await until(() => tab.outbox.pending.length === MAX_ITEMS)

  scope += ':bytes'
  const big = await Tab.of(false)
  const empty = JSON.stringify(activity('x', {text: ''})).length
  void big.outbox.add(activity('x', {text: 'ä'.repeat((MAX_BYTES - empty) / 2)})).catch(() => {})
  await until(() => big.outbox.pending.length === 1)
  await assert.rejects(big.outbox.add(activity('y')), {code: 'outbox_full'})
})

test('the bound holds for all tabs together', async () => {
  const pair = [await Tab.of(false), await Tab.of(false)]
  const ids = Array.from({length: MAX_ITEMS + 10}, (_, n) => `${n}`)
  const ends = ids.map((id, n) => ending(pair[n % 2]!.outbox.add(activity(id))))
  await until(() => ends.filter(end => end.now === 'outbox_full').length === 10)
  await until(() => pair.every(tab => tab.outbox.pending.length === MAX_ITEMS))
})

test('what is older than the server knows ids is asked about, and does not hold up what is not', async () => {
  const before = await Tab.of(false)
  void before.outbox.add(activity('old')).catch(() => {})
  void before.outbox.add(activity('older')).catch(() => {})
  await until(() => before.outbox.pending.length === 2)
  before.close()
  tick(KNOWN_MS)
  const tab = await Tab.of(true)
  const end = ending(tab.outbox.add(activity('new')))
  await until(() => Boolean(end.now))
  assert.deepEqual(logged(), ['new'])
  assert.deepEqual(tab.states, ['old stale', 'older stale'])
  await tab.outbox.resend('old')
  await tab.outbox.discard('older')
  await until(() => !tab.outbox.pending.length)
  assert.deepEqual(logged(), ['new', 'old'])
  await assert.rejects(tab.outbox.resend('older'), {code: 'not_found'})
})

test('once stale it is not sent unasked, wherever the clock goes', async () => {
  const tab = await Tab.of(false)
  void tab.outbox.add(activity('a')).catch(() => {})
  await until(() => tab.outbox.pending.length === 1)
  tick(KNOWN_MS)
  await tab.outbox.flush()
  assert.deepEqual(tab.states, ['a stale'])
  tab.ahead = -3_600_000
  tab.line(true)
  await turns(30)
  assert.deepEqual(tab.states, ['a stale'])
  assert.deepEqual(tab.attempts, [])
})

test('it is not stale a moment before', async () => {
  const before = await Tab.of(false)
  void before.outbox.add(activity('a')).catch(() => {})
  await until(() => before.outbox.pending.length === 1)
  before.close()
  tick(KNOWN_MS - 1_000)
  const tab = await Tab.of(true)
  await until(() => !tab.outbox.pending.length)
  assert.deepEqual(logged(), ['a'])
})

test('what a clock that ran ahead has written counts as made now', async () => {
  const ahead = await Tab.of(false, 30 * 86_400_000)
  void ahead.outbox.add(activity('a')).catch(() => {})
  await until(() => ahead.outbox.pending.length === 1)
  ahead.close()
  const tab = await Tab.of(false)
  assert.deepEqual(tab.outbox.pending.map(({at, state}) => [at, state]), [[Date.now(), 'waiting']])
  tick(KNOWN_MS)
  tab.line(true)
  await until(() => tab.outbox.pending[0]!.state === 'stale')
  assert.deepEqual(logged(), [])
})

test('a time to wait for that a clock which ran ahead has written is not waited for', async () => {
  const ahead = await Tab.of(true, 30 * 86_400_000)
  server.outcomes = ['rate_limited']
  void ahead.outbox.add(activity('a')).catch(() => {})
  await until(() => ahead.attempts.length === 1 && !ahead.flying)
  await turns(20)
  ahead.close()
  const tab = await Tab.of(true)
  await until(() => !tab.outbox.pending.length)
  assert.deepEqual(logged(), ['a'])
})

test('discarded in any tab, it is rejected where it was made', async () => {
  const maker = await Tab.of(false)
  const other = await Tab.of(false)
  const end = ending(maker.outbox.add(activity('a')))
  await until(() => other.outbox.pending.length === 1)
  await other.outbox.discard('a')
  await until(() => end.now === 'discarded' && !maker.outbox.pending.length)
  maker.line(true)
  await turns(30)
  assert.deepEqual(logged(), [])
})

test('the same publish once more is the same; another with its id is for the server to judge', async () => {
  const tab = await Tab.of(false)
  const other = await Tab.of(false)
  const ends = [
    ending(tab.outbox.add(activity('a', {n: 1}))), ending(other.outbox.add(activity('a', {n: 1}))),
    ending(tab.outbox.add(activity('a', {n: 2}))),
  ]
  await until(() => tab.outbox.pending.length === 2)
  server.outcomes = ['ok', 'forbidden']
  tab.line(true)
  await until(() => ends.every(end => end.now))
  assert.deepEqual(ends.map(({now}) => typeof now === 'object' ? now.offset : now), [1, 1, 'forbidden'])
})

test('what is not ours in the store is left alone', async () => {
  const database = await openDatabase(scope)
  const store = database.transaction('outbox', 'readwrite').objectStore('outbox')
  for (const junk of [{}, {key: 'k'}, {key: 'k', activity: 5, bytes: 1, at: 1, since: 1, tries: 0},
    {key: 'k', activity: {id: 'x', povId: 'y'}, bytes: NaN, at: 1, since: 1, tries: 0},
    {key: 'k', activity: null, bytes: 1, at: 1, since: 1, tries: 0},
    {key: 'k', activity: {}, bytes: 1, at: 1, since: 1, tries: 0, wait: 'long'}]) store.put(junk)
  database.close()
  const tab = await Tab.of(true)
  const end = ending(tab.outbox.add(activity('a')))
  await until(() => Boolean(end.now))
  assert.deepEqual(tab.attempts, ['a'])
  assert.deepEqual(tab.outbox.pending, [])
})

test('where storage is denied it works in memory, and says so', async () => {
  const real = globalThis.indexedDB
  Object.defineProperty(globalThis, 'indexedDB', {value: undefined, configurable: true, writable: true})
  const tab = await Tab.of(false)
  globalThis.indexedDB = real
  assert.equal(tab.outbox.stored, false)
  const ends = ['a', 'b'].map(id => ending(tab.outbox.add(activity(id))))
  await until(() => tab.outbox.pending.length === 2)
  tab.line(true)
  await until(() => ends.every(end => end.now))
  assert.deepEqual(logged(), ['a', 'b'])
})

test('when the disk is full it goes on in memory, behind what is on the disk', async () => {
  const tab = await Tab.of(false)
  const ends = [ending(tab.outbox.add(activity('a')))]
  await until(() => tab.outbox.pending.length === 1)
  const full = mock.method(IDBObjectStore.prototype, 'put', function (this: IDBObjectStore) {
    this.transaction.abort()
  })
  ends.push(ending(tab.outbox.add(activity('b'))))
  await until(() => tab.outbox.pending.length === 2)
  full.mock.restore()
  assert.equal(tab.outbox.stored, false)
  ends.push(ending(tab.outbox.add(activity('c'))))
  tab.line(true)
  await until(() => ends.every(end => end.now))
  assert.deepEqual(logged(), ['a', 'b', 'c'])
  ends.push(ending(tab.outbox.add(activity('d'))))
  await until(() => Boolean(ends[3]!.now))
  assert.equal(tab.outbox.stored, true)
})

test('what was sent but cannot be deleted is not sent over and over', async () => {
  const tab = await Tab.of(true)
  const stuck = mock.method(IDBObjectStore.prototype, 'delete', function (this: IDBObjectStore) {
    this.transaction.abort()
  })
  const end = ending(tab.outbox.add(activity('a')))
  await until(() => end.now)
  await turns(50)
  assert.deepEqual(tab.attempts, ['a'])
  stuck.mock.restore()
  await until(() => !tab.outbox.pending.length, 500)
  assert.deepEqual(tab.attempts, ['a', 'a'])
  assert.deepEqual(logged(), ['a'])
})

test('when the database is taken away it goes on in memory', async () => {
  const tab = await Tab.of(false)
  await wipe(scope)
  const end = ending(tab.outbox.add(activity('a')))
  await until(() => tab.outbox.pending.length === 1)
  assert.equal(tab.outbox.stored, false)
  tab.line(true)
  await until(() => Boolean(end.now))
  assert.deepEqual(logged(), ['a'])
})

test('closed, it does and says nothing more', async () => {
  const tab = await Tab.of(true)
  server.outcomes = ['unavailable']
  const end = ending(tab.outbox.add(activity('a')))
  await until(() => tab.attempts.length === 1 && !tab.flying)
  tab.close()
  const {length} = tab.seen
  await until(() => end.now === 'closed')
  tick(100_000)
  await turns(20)
  assert.deepEqual(tab.attempts, ['a'])
  assert.equal(tab.seen.length, length)
  await assert.rejects(tab.outbox.add(activity('b')), {code: 'closed'})
})

const tabNumber = fc.nat(1)
const {record, constant: just} = fc
const step = fc.oneof(
  {weight: 6, arbitrary: record({do: just('add' as const), tab: tabNumber})},
  {weight: 4, arbitrary: record({do: just('turns' as const), count: fc.nat(40)})},
  {weight: 3, arbitrary: record({do: just('line' as const), tab: tabNumber, open: fc.boolean()})},
  {weight: 2, arbitrary: record({do: just('crash' as const), tab: tabNumber, open: fc.boolean()})},
  {weight: 1, arbitrary: record({do: just('close' as const), tab: tabNumber, open: fc.boolean()})},
  {weight: 2, arbitrary: record({do: just('tick' as const),
    ms: fc.constantFrom(200, 5_000, 60_000, KNOWN_MS)})},
  {weight: 1, arbitrary: record({do: just('clock' as const),
    ms: fc.constantFrom(-3_600_000, 3_600_000)})},
  {weight: 1, arbitrary: record({do: just('resend' as const), tab: tabNumber})},
  {weight: 1, arbitrary: record({do: just('discard' as const), tab: tabNumber})},
  {weight: 3, arbitrary: record({
    do: just('outcomes' as const),
    list: fc.array(fc.constantFrom<Outcome>(...OUTCOMES), {minLength: 1, maxLength: 4}),
  })},
)

test('whatever happens: each once, in the order made, or it is still there to be seen', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, {minLength: 5, maxLength: 40}), async steps => {
    scope = `test:${scopes++}`
    locks = new Locks()
    server = new Server()
    let ahead = 0
    const pair = [await Tab.of(true), await Tab.of(false)]
    const made: string[] = []
    const asked = new Set<string>()
    const discarded = new Set<string>()
    const ends: {id: string; end: ReturnType<typeof ending>; by: Tab}[] = []
    for (const each of steps) {
      switch (each.do) {
        case 'add': {
          const id = `${made.length}`
          made.push(id)
          ends.push({id, end: ending(pair[each.tab]!.outbox.add(activity(id))), by: pair[each.tab]!})
          break
        }
        case 'turns': await turns(each.count); break
        case 'line': pair[each.tab]!.line(each.open); break
        case 'crash':
        case 'close':
          pair[each.tab]![each.do]()
          pair[each.tab] = await Tab.of(each.open, ahead)
          break
        case 'tick':
          // Nothing is under way for a day.
          if (each.ms === KNOWN_MS) await until(() => !inFlight)
          tick(each.ms)
          break
        case 'clock':
          ahead += each.ms
          server.knows += Math.abs(each.ms) // nobody who has only this clock can tell
          for (const tab of pair) tab.ahead = ahead
          break
        case 'outcomes': server.outcomes.push(...each.list); break
        case 'resend': {
          const found = pair[each.tab]!.outbox.pending.find(({state}) => state !== 'waiting')
          if (!found) break
          asked.add(found.id)
          await pair[each.tab]!.outbox.resend(found.id)
            .catch(({code}: PovError) => assert.equal(code, 'not_found')) // its turn came meanwhile
          break
        }
        case 'discard': {
          const found = pair[each.tab]!.outbox.pending.at(-1)
          if (!found) break
          discarded.add(found.id)
          await pair[each.tab]!.outbox.discard(found.id)
        }
      }
    }
    for (const tab of pair) tab.line(true)
    const isIdle = () => pair.every(tab => !tab.outbox.pending.some(({state}) => state === 'waiting'))
    await turns(60) // what was added last is to be seen first
    await until(isIdle, 500)
    await turns(60)
    const kept = pair[0]!.outbox.pending.map(({id}) => id)
    assert.deepEqual(pair[1]!.outbox.pending.map(({id}) => id), kept, 'the tabs see the same')

    const log = logged()
    const twice = log.filter((id, index) => log.indexOf(id) !== index && !asked.has(id))
    assert.deepEqual(twice, [], 'in the log once')
    const inOrder = log.filter(id => !asked.has(id)).map(Number)
    assert.deepEqual(inOrder, [...inOrder].sort((one, two) => one - two), 'in the order made')
    for (const {id, end, by} of ends) {
      const {now} = end
      if (by.dead || now === 'closed') {
        // Its tab ended perhaps before it was on the disk; else it is as any other.
        continue
      }
      const where = [log.includes(id), kept.includes(id), discarded.has(id)]
      assert.ok(where.some(Boolean), `${id} is nowhere`)
      if (typeof now === 'object') assert.equal(log[now.offset - 1], id)
      else if (now === 'forbidden') assert.ok(kept.includes(id) || asked.has(id) || discarded.has(id))
      else if (now === undefined) assert.ok(kept.includes(id), `${id} hangs`)
      else assert.equal(now, 'discarded')
    }
  }).afterEach(async () => {
    for (const tab of tabs) tab.close()
    await turns(5)
  }), {numRuns: Number(process.env.RUNS ?? 60)})
})
