/**
 * Publishes made offline: kept in the user's database, sent in order once the line is back.
 *
 * What is kept leaves the store only after the server's `published`. Whatever happens in between, it is
 * sent again with the same id, and the server tells a retry: once in the log. All tabs share the store;
 * whichever holds the lock sends, for all of them.
 */
import type {Failure, Outbox, Pending} from './api.js'
import type * as wire from './wire.js'
import {completed, openDatabase} from './database.js'

/** At most this many are kept, those that failed or are stale included. */
export const MAX_ITEMS = 200
/** At most this many bytes of JSON are kept in all. */
export const MAX_BYTES = 1 << 20
/** How long the server knows ids, ms: its 24 h less a minute, for what is on its way. */
export const KNOWN_MS = 24 * 3_600_000 - 60_000

/** When to look again at what was sent but cannot be deleted. */
const STUCK_MS = 20_000
/** What may pass: all else is the server's last word on this activity. */
const PASSING = ['disconnected', 'closed', 'aborted', 'timeout', 'unavailable', 'rate_limited', 'internal']

export interface OutboxOptions {
  /** See `scopeOf`: the database, the lock and the channel are the user's own. */
  scope: string
  /** Whether there is any sense in trying. */
  isOpen(): boolean
  /** One attempt over the line. Rejects with a `Failure`, and as soon as `signal` aborts. */
  publish(activity: wire.NewActivity, signal: AbortSignal): Promise<wire.Published>
  /** Called with what is kept at first, and after each change by any tab. Must not throw. */
  changed(pending: readonly Pending[]): void
  /**
   * What the core has: imported from here, it would have to be a file of its own, and one more to wait for.
   */
  makeId(): string
  errorOf(failure: Failure): Error
  delay(attempt: number, retryAfter?: number): number
  /** ms since 1970, for tests. */
  now?(): number
}

/**
 * The outbox as the client holds it. Rejects with `PovError`s.
 *
 * To end it, `close()`; at sign-out `close()` in all tabs, then `wipe(scope)`.
 */
export interface OutboxLine extends Outbox {
  /** Whether all that is kept survives a reload; false where storage is denied, full or taken away. */
  readonly stored: boolean
  /**
   * Keep an activity (which has its id), and send it in its turn. Resolves when any tab has sent it, or
   * with the answer for an equal one that is kept already. Rejects
   *
   * - with `outbox_full`: nothing was kept;
   * - with the server's code: it stays, as `failed`;
   * - with `discarded`: by `discard()` in any tab;
   * - with `closed`: it stays, and is sent in another tab or next time.
   */
  add(activity: wire.NewActivity & {id: string}): Promise<wire.Published>
  /** Send what waits; to be called whenever the line opens. Never rejects. */
  flush(): Promise<void>
  close(): void
}

/** What the store has of one publish. */
interface Item {
  /** The key; the store gives it, in the order in which all tabs put them. */
  order?: number
  /** Names it, between the tabs and for whoever waits. */
  key: string
  activity: wire.NewActivity & {id: string}
  bytes: number
  /** When it was made. */
  at: number
  /** From when on the server may know its id: when it was made, or the user wanted it sent again. */
  since: number
  /** It was found to be older than `KNOWN_MS`, and only the user says what becomes of it. */
  isStale?: boolean
  tries: number
  /** Not to be tried within `ms` after `at`. */
  wait?: {at: number; ms: number}
  failure?: Failure
}

interface Waiter {
  promise: Promise<wire.Published>
  resolve(published: wire.Published): void
  reject(error: Error): void
}

/** What tabs tell each other: how one ended, or (without `key`) that something changed. */
interface Told {
  key?: string
  published?: wire.Published
  failure?: Failure
}

type Store = {put(item: Item): unknown; delete(item: Item): unknown}

/** Why what was being read is not there. */
const LEFT = 'left'
const CLOSED: Failure = {code: 'closed', message: 'The client was closed', outcome: 'unknown'}
const DISCARDED: Failure = {code: 'discarded', message: 'It was discarded', outcome: 'unknown'}

/** The plain fields of what `publish` rejected with, for the store and the other tabs. */
function failureOf(error: unknown): Failure {
  const {code = 'unknown', message, field, detail, retryAfter, incident, outcome} = error as Failure
  return {code, message, field, detail, retryAfter, incident, outcome}
}

/** Whether that is what we put there: what a bug, a tool or another version left is not sent. */
function isItem(value: unknown): value is Item {
  const {order, key, activity, bytes, at, since, tries, wait, failure} = (value ?? {}) as Item
  return [order, bytes, at, since, tries, ...(wait ? [wait.at, wait.ms] : [])].every(Number.isFinite)
    && typeof key === 'string' && typeof activity === 'object' && !!activity
    && typeof (failure ?? {code: ''}).code === 'string'
}

/** Open the outbox of a user. Never rejects: where storage is denied, it works in memory. */
export async function openOutbox(options: OutboxOptions): Promise<OutboxLine> {
  const {scope, isOpen, publish, makeId, errorOf, delay} = options
  const now = options.now ?? Date.now
  const name = scope + ':outbox'
  const waiters = new Map<string, Waiter>()
  /** What the disk did not take, behind all that it has. */
  const memory = new Map<number, Item>()
  let lastOrder = 2 ** 52 // far from those of the database
  let pending: readonly Pending[] = []
  let shown: string | undefined
  let closed = false
  let running = false
  let again = false
  let timer: ReturnType<typeof setTimeout> | undefined
  /** Aborted when this page has to let go of the lock, or of its place in the queue for it. */
  let leaving = new AbortController()
  /** What is being read, and how to read no further. */
  const reading = new Map<IDBTransaction, () => void>()

  const database = await openDatabase(scope).catch(() => undefined)
  let stored = Boolean(database)
  const locks = database && globalThis.navigator?.locks
  let channel: BroadcastChannel | undefined

  /**
   * Read what is kept, in order, and change it, in one transaction. Where the disk fails, `change` is
   * called again without what is there: what it puts anew is then kept in memory.
   */
  async function edit<T>(
    change: (items: Item[], store: Store) => T, mode: IDBTransactionMode = 'readwrite',
  ): Promise<T> {
    const volatile: Store = {
      put: item => memory.set(item.order ??= ++lastOrder, item),
      delete: item => memory.delete(item.order!),
    }
    if (database) {
      try {
        const transaction = database.transaction('outbox', mode)
        const disk = transaction.objectStore('outbox')
        const all = disk.getAll()
        let answer!: T
        all.onsuccess = () => {
          answer = change([...all.result.filter(isItem), ...memory.values()], {
            // A new one does not go to the disk while others are in memory: it would get before them.
            put: item => ((item.order ? memory.has(item.order) : memory.size) ? volatile : disk).put(item),
            delete: item => volatile.delete(item) || disk.delete(item.order!),
          })
        }
        const left = new Promise<never>((_, reject) => {
          if (mode === 'readonly') reading.set(transaction, () => reject(LEFT))
        })
        await Promise.race([completed(transaction), left]).finally(() => reading.delete(transaction))
        stored = !memory.size
        return answer
      } catch (error) {
        if (error === LEFT) throw error
        stored = false // what is on the disk waits for another tab, or for the next time
      }
    }
    return change([...memory.values()], volatile)
  }

  function change(key: string, work: (item: Item, store: Store) => unknown): Promise<void> {
    return edit((items, store) => {
      const item = items.find(each => each.key === key) // it may have been discarded meanwhile
      if (item) work(item, store)
    })
  }

  /** As if nothing had happened yet. That the server may have known its id for long is forgotten. */
  function renewed({failure: _, wait: __, isStale: ___, ...item}: Item): Item {
    return {...item, tries: 0, since: now() - item.since < KNOWN_MS ? item.since : now()}
  }

  function waiterOf(key: string): Waiter {
    let waiter = waiters.get(key)
    if (!waiter) {
      waiter = {} as Waiter
      waiter.promise = new Promise((resolve, reject) => Object.assign(waiter!, {resolve, reject}))
      waiter.promise.catch(() => {}) // it may end before `add` has handed it on
      waiters.set(key, waiter)
    }
    return waiter
  }

  function stateOf(item: Item): Pending['state'] {
    return item.failure ? 'failed' : item.isStale ? 'stale' : 'waiting'
  }

  /** Whether its time is to be put right. */
  function isDated({since, isStale}: Item): boolean {
    return since > now() || (now() - since >= KNOWN_MS && !isStale)
  }

  /** All that is kept; nothing where the page is left meanwhile: it reads again when it wakes. */
  async function read(): Promise<Item[]> {
    let items: Item[]
    try {
      // What writes has the store for itself, and may be a tab that is frozen in the middle: few do.
      items = await edit(all => all, 'readonly')
    } catch {
      return []
    }
    if (items.some(isDated)) {
      items = await edit((all, store) => {
        for (const item of all.filter(isDated)) {
          if (item.since > now()) {
            item.since = now() // the clock went back: for all that is known, it is made now
            item.at = Math.min(item.at, item.since)
          } else item.isStale = true // for good: the clock may go back
          store.put(item)
        }
        return all
      })
    }
    const seen = items.map(item => item.key + stateOf(item) + item.failure?.code).join()
    if (seen !== shown && !closed) {
      shown = seen
      pending = items.map(item => {
        const {activity, at, failure} = item
        return {id: activity.id, activity, at, state: stateOf(item), failure}
      })
      options.changed(pending)
    }
    return items
  }

  function tell(told: Told): void {
    if (!closed) channel?.postMessage(told)
  }

  function settle({key, published, failure}: Told): void {
    const waiter = waiters.get(key!)
    waiters.delete(key!)
    if (published) waiter?.resolve(published)
    else waiter?.reject(errorOf(failure!))
  }

  function later(ms: number): void {
    clearTimeout(timer)
    if (!closed) timer = setTimeout(flush, ms)
  }

  /** Something changed: tell the other tabs, and see what is to be done here. */
  function changedHere(): void {
    tell({})
    wake()
  }

  function wake(): void {
    if (running) void read() // it may be another tab's turn for long
    void flush()
  }

  /** Send one after the other, until none may be sent now. */
  async function drain(signal: AbortSignal): Promise<void> {
    let last: Told | undefined
    for (;;) {
      const next = (await read()).find(item => stateOf(item) === 'waiting')
      if (last) settle(last) // now that `pending` shows it
      if (!next || closed || signal.aborted || !isOpen()) return
      const {key, wait} = next
      if (key === last?.key) return later(STUCK_MS)
      const left = wait ? wait.at + wait.ms - now() : 0
      // A `wait` that begins in the future was written before the clock went back.
      if (left > 0 && wait!.at <= now()) return later(left)
      let published: wire.Published | undefined
      let failure: Failure | undefined
      try {
        published = await publish(next.activity, signal)
      } catch (error) {
        failure = failureOf(error)
      }
      if (closed) return
      if (failure && PASSING.includes(failure.code)) {
        // Without a line there is nothing to write down: `flush` comes with the next one. And a page that
        // is being frozen gets no further than this: the lock is free at once.
        if (signal.aborted || !isOpen()) return
        const ms = delay(next.tries, failure.retryAfter)
        await change(key, (item, store) => store.put({...item, tries: item.tries + 1, wait: {at: now(), ms}}))
        tell({})
        return later(ms)
      }
      // Told first: nobody else would, if this tab ended before the rest is done.
      last = {key, published, failure}
      tell(last)
      await change(key, (item, store) => published ? store.delete(item) : store.put({...item, failure}))
      tell({})
    }
  }

  async function flush(): Promise<void> {
    again = true
    if (database && !closed && !channel && globalThis.BroadcastChannel) {
      channel = new BroadcastChannel(name)
      channel.onmessage = ({data}: MessageEvent<Told>) => data.key ? settle(data) : wake()
    }
    if (running) return
    running = true
    clearTimeout(timer)
    while (again && !closed) {
      again = false
      const {signal} = leaving = new AbortController()
      try {
        if (!isOpen()) await read() // not `drain`: the line may open meanwhile, and the lock is not held
        else if (locks) await locks.request(name, {signal}, () => drain(signal))
        else await drain(signal)
      } catch (error) {
        if (!signal.aborted) throw error
      }
    }
    running = false
  }

  /** A page that sleeps holds no lock and does not queue for it, and does not wake for what others say. */
  function leave(): void {
    again = false
    leaving.abort()
    // Until it is over nobody can write, and its end does not come to a page that is frozen.
    for (const [each, drop] of reading) {
      each.abort()
      drop()
    }
    channel?.close()
    channel = undefined
  }

  const life = new AbortController()
  for (const [event, act] of [['freeze', leave], ['pagehide', leave], ['resume', flush], ['pageshow', flush]] as const) {
    globalThis.addEventListener?.(event, () => void act(), {capture: true, signal: life.signal})
  }
  await read()
  void flush()

  return {
    get stored() {
      return stored
    },
    get pending() {
      return pending
    },
    flush,

    async add(activity) {
      if (closed) throw errorOf(CLOSED)
      const text = JSON.stringify(activity)
      const made: Item = {
        key: makeId(), activity: JSON.parse(text) as Item['activity'],
        bytes: new TextEncoder().encode(text).length, at: now(), since: now(), tries: 0,
      }
      const waiter = await edit((items, store) => {
        const same = items.find(item => JSON.stringify(item.activity) === text)
        const bytes = items.reduce((sum, item) => sum + item.bytes, made.bytes)
        if (!same && (items.length >= MAX_ITEMS || bytes > MAX_BYTES)) return undefined
        if (!same) store.put(made)
        else if (stateOf(same) !== 'waiting') store.put(renewed(same))
        return waiterOf((same ?? made).key)
      })
      if (!waiter) throw errorOf({code: 'outbox_full', message: 'Too much waits to be sent'})
      if (closed) throw errorOf(CLOSED)
      changedHere()
      return waiter.promise
    },

    async resend(id) {
      const found = await edit((items, store) => items
        .filter(item => item.activity.id === id)
        .map(item => store.put(renewed(item))))
      if (!found.length) throw errorOf({code: 'not_found', message: 'No such publish waits'})
      changedHere()
    },

    async discard(id) {
      const gone = await edit((items, store) => {
        const named = items.filter(item => item.activity.id === id)
        named.forEach(store.delete)
        return named
      })
      for (const {key} of gone) {
        const told = {key, failure: DISCARDED}
        tell(told)
        settle(told)
      }
      changedHere()
    },

    close() {
      tell({}) // whoever stands in the queue goes on
      closed = true
      clearTimeout(timer)
      leave()
      life.abort()
      database?.close()
      for (const key of waiters.keys()) settle({key, failure: CLOSED})
    },
  }
}
