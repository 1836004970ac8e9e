/** A server's logs and marks, and a `Client` of it whose messages come when the test says so. */
import type {
  Client, ClientEvents, Failure, Incoming, Only, Pending, Placed, Position, Status, SubscribeOptions, Subscription,
  SubscriptionEvents,
} from '../src/api.js'
import type * as wire from '../src/wire.js'
import {fits, PovError} from '../src/client.js'

const MAX_REPLAY = 1_000

/** A log: all that was ever in it, and what of it is still there; a user's marks on it. */
export class Log {
  epochs = 1
  entries: wire.Activity[] = []
  oldest = 1
  read = 0
  seen = 0
  floor = 0

  constructor(readonly povId: string) {}

  get epoch(): string { return `${this.povId}-${this.epochs}` }
  get top(): number { return this.entries.length }

  /** Keep only the newest. */
  retain(count: number): void {
    this.oldest = Math.max(this.oldest, this.top - count + 1)
  }

  /** The log is lost, and begins anew. */
  replace(): void {
    this.epochs++
    this.entries = []
    this.oldest = 1
    this.read = this.seen = this.floor = 0
  }

  /** As `Marked` of pov_rt/activities/cursors.py says it. */
  marks(): Omit<wire.MarksMessage, 'type'> {
    const read = Math.max(this.read, this.oldest - 1)
    const seen = Math.max(read, this.seen, this.read)
    const floor = this.floor && Math.max(this.floor, this.oldest) <= read ? Math.max(this.floor, this.oldest) : undefined
    const first = floor ?? read + 1
    return {
      povId: this.povId, epoch: this.epoch, readOffset: read, seenOffset: seen, unreadFrom: floor,
      unread: Math.max(0, this.top - first + 1), unseen: Math.max(0, this.top - seen),
    }
  }

  page({after, before, limit = 100, ...by}: Partial<wire.History>): wire.HistoryPage {
    const only: Only = {types: by.types, actions: by.actions, users: by.users}
    const all = this.entries.map((data, i) => ({data, offset: i + 1})).filter(each => each.offset >= this.oldest)
    const wanted = after !== undefined
      ? all.filter(each => each.offset > after) : all.filter(each => !before || each.offset < before).reverse()
    const activities: wire.Item[] = []
    let next: number | undefined
    let looked = 0
    for (const each of wanted) {
      if (activities.length === limit || looked++ === 300) break
      next = each.offset
      if (fits(each.data, only)) activities.push(each)
    }
    if (next === wanted.at(-1)?.offset) next = undefined
    return {type: 'history_page', povId: this.povId, epoch: this.epoch, offset: this.top, oldestOffset: this.oldest, activities, next}
  }
}

/** The server: logs by PoV, and the feed of all of them. Tells all clients of what happens. */
export class Server {
  readonly logs = new Map<string, Log>()
  readonly clients = new Set<ScriptedClient>()
  now = Date.parse('2026-03-01T09:00:00Z')
  #ids = 0

  log(povId: string): Log {
    if (!this.logs.has(povId)) this.logs.set(povId, new Log(povId))
    return this.logs.get(povId)!
  }

  publish(povId: string, fields: Partial<wire.Activity> = {}): wire.Activity {
    const activity: wire.Activity = {
      id: `a${++this.#ids}`, type: 'task', action: 'completed', povId, userId: 'ben', at: new Date(this.now).toISOString(), ...fields,
    }
    for (const name of [povId, '*']) {
      const log = this.log(name)
      log.entries.push(activity)
      for (const client of this.clients) client.published(name, log.epoch, log.top, activity)
    }
    return activity
  }

  /** Amend an activity, or without details retract it: it is another one in its place, and one tells of it. */
  change(povId: string, id: string, details?: Record<string, unknown>, fields: Partial<wire.Activity> = {}): wire.Activity {
    const offset = 1 + this.log(povId).entries.findIndex(each => each.id === id)
    const {details: _, ...head} = this.log(povId).entries[offset - 1]!
    const now = {...head, ...fields, ...details ? {details, amended: true} : {amended: undefined, retracted: true}}
    for (const name of [povId, '*']) {
      const {entries} = this.log(name)
      entries.forEach((each, i) => {
        if (each.povId !== povId) return
        if (each.id === id) entries[i] = now
        // Only the last one says what it is now.
        else if (each.original?.id === id) entries[i] = {...each, details: undefined}
      })
    }
    const original = {id, offset}
    return this.publish(povId, {...now, original, id: `a${++this.#ids}`, at: new Date(this.now).toISOString()})
  }

  /** A message that no one asked for, to all connections of the user. */
  tell(message: Incoming): void {
    for (const client of this.clients) client.queue(() => client.emit('message', message))
  }

  ask(type: string, fields: Record<string, unknown>, user: string): Incoming {
    const {povId, offset, epoch} = fields as {povId: string; offset: number; epoch?: string}
    if (type === 'mutes') return {type, mutes: []}
    if (type === 'mute') return {...fields, type: 'muted'}
    const log = this.log(povId)
    if (type === 'presence') return {type: 'present', povId, users: [], more: 0}
    if (type === 'history') return {...log.page(fields)}
    if (epoch !== undefined && epoch !== log.epoch) throw new PovError({code: 'epoch_changed', message: 'Subscribe again'})
    if (type === 'read') {
      const moves = offset > log.read
      log.read = Math.max(log.read, offset)
      const hadFloor = log.floor && log.floor <= offset
      if (hadFloor) log.floor = offset + 1 > log.read ? 0 : offset + 1
      const told = {type: 'receipts', povId, read: {[user]: log.read}}
      if (moves) this.tell(told)
      if (hadFloor) this.tell({type: 'marks', ...log.marks()})
      return told
    }
    if (type === 'seen') log.seen = Math.max(log.seen, offset)
    else if (type === 'unread') log.floor = offset <= log.read ? Math.max(1, offset) : 0
    else throw new PovError({code: 'unknown_type', message: type})
    const told = {type: 'marks', ...log.marks()}
    this.tell(told)
    return told
  }
}

interface Joined {
  how: SubscribeOptions
  povId: string
  position?: Position
  target: number
  state: Subscription['state']
  emit<E extends keyof SubscriptionEvents>(event: E, value: SubscriptionEvents[E]): void
}

type Refusal = (type: string, fields: Record<string, unknown>) => Failure | undefined

/** A client of the server. What it is sent waits in `waiting` until `deliver`; a drop loses it. */
export class ScriptedClient implements Client {
  pending: readonly Pending[] = []
  status: Status = {state: 'connecting', since: 0}
  welcome: wire.Welcome | undefined
  readonly scope: Promise<string>
  readonly waiting: (() => void)[] = []
  readonly subscriptions = new Set<Joined>()
  readonly requests: {type: string; [field: string]: unknown}[] = []
  /** Has requests fail. */
  refuse: Refusal = () => undefined
  /** Fails subscriptions to these. */
  readonly forbidden = new Set<string>()
  isOpen = false
  readonly #listeners = new Map<string, Set<(value: never) => void>>()

  constructor(readonly server: Server, readonly user: string, scope = 'pov-rt:test') {
    this.scope = Promise.resolve(scope)
    server.clients.add(this)
  }

  on<E extends keyof ClientEvents>(event: E, listener: (value: ClientEvents[E]) => void): () => void {
    const set = this.#listeners.get(event) ?? new Set()
    this.#listeners.set(event, set)
    set.add(listener)
    return () => void set.delete(listener)
  }

  emit<E extends keyof ClientEvents>(event: E, value: ClientEvents[E]): void {
    for (const each of this.#listeners.get(event) ?? []) each(value as never)
  }

  queue(act: () => void): void {
    if (this.isOpen) this.waiting.push(act)
  }

  /** Have this many of the messages come that wait; all, and those that they bring about, without a number. */
  deliver(count = Infinity): void {
    for (let i = 0; i < count && this.waiting.length; i++) this.waiting.shift()!()
  }

  open(): void {
    this.isOpen = true
    this.welcome = {type: 'welcome', connectionId: 'c', userId: this.user, device: 'default', expiresAt: '', pingInterval: 25, version: '1'}
    this.emit('welcome', this.welcome)
    for (const each of this.subscriptions) this.#join(each)
    this.#show('live')
  }

  drop(): void {
    this.isOpen = false
    this.waiting.length = 0
    for (const each of this.subscriptions) if (each.state !== 'ended') each.state = 'joining'
    this.#show('offline')
  }

  #show(state: Status['state']): void {
    this.status = {state, since: this.server.now}
    this.emit('status', this.status)
  }

  subscribe<S = unknown>(povId: string, how: SubscribeOptions<S> = {}): Subscription<S> {
    const listeners = new Map<string, Set<(value: never) => void>>()
    const joined: Joined = {
      how: how as SubscribeOptions, povId, target: 0, state: 'joining',
      emit: (event, value) => { for (const each of listeners.get(event) ?? []) each(value as never) },
    }
    this.subscriptions.add(joined)
    if (this.isOpen) this.#join(joined)
    return {
      povId,
      get position() { return joined.position },
      get state() { return joined.state },
      ready: Promise.resolve(),
      on(event, listener) {
        const set = listeners.get(event) ?? new Set()
        listeners.set(event, set)
        set.add(listener as (value: never) => void)
        return () => void set.delete(listener as (value: never) => void)
      },
      close: () => {
        joined.state = 'ended'
        this.subscriptions.delete(joined)
      },
    }
  }

  /** The server's answer is made now, and comes in its turn; so does what was missed, before anything newer. */
  #join(joined: Joined): void {
    const log = this.server.log(joined.povId)
    const {epoch, top, oldest} = log
    const since = joined.position ?? joined.how.since as Position | {last: number} | undefined
    let from = top
    let recovered = false
    let missed: number | undefined
    if (since && 'last' in since) {
      from = Math.max(top - since.last, oldest - 1)
      recovered = true
    } else if (since?.epoch === epoch && since.offset <= top) {
      missed = top - since.offset
      recovered = since.offset >= oldest - 1 && missed <= MAX_REPLAY
      if (recovered) from = since.offset
    }
    const result = {
      povId: joined.povId, epoch, offset: top, oldestOffset: oldest, recovered, missed: recovered ? undefined : missed,
      filtered: joined.how.only && true, ...joined.povId !== '*' && log.marks(),
    }
    this.queue(() => {
      if (joined.state === 'ended') return
      if (this.forbidden.has(joined.povId)) {
        joined.state = 'ended'
        joined.emit('error', {code: 'forbidden', message: 'no', ended: true})
        return
      }
      joined.position = {epoch, offset: from}
      joined.target = top
      joined.emit('subscribed', result)
      if (!recovered && since && !('last' in since)) joined.emit('gap', {povId: joined.povId, from: since, to: joined.position, missed})
      joined.state = from < top ? 'catching-up' : 'live'
      this.#all()
    })
    for (let offset = from + 1; offset <= top; offset++) this.#send(joined, epoch, offset, log.entries[offset - 1]!)
    this.queue(() => this.#moved(joined, {epoch, offset: top}))
  }

  #all(): void {
    const state = [...this.subscriptions].some(each => each.state === 'catching-up') ? 'catching-up' : 'live'
    if (this.isOpen && state !== this.status.state) this.#show(state)
  }

  #moved(joined: Joined, position: Position): void {
    if (joined.how.only && joined.position && position.epoch === joined.position.epoch && position.offset > joined.position.offset) {
      joined.position = position
      joined.emit('position', position)
    }
    if (joined.state === 'catching-up' && joined.position!.offset >= joined.target) joined.state = 'live'
    this.#all()
  }

  #send(joined: Joined, epoch: string, offset: number, activity: wire.Activity): void {
    if (!fits(activity, joined.how.only)) return
    this.queue(() => {
      if (joined.state === 'ended' || joined.state === 'joining' || joined.position?.epoch !== epoch) return
      this.give(joined, {epoch, offset, activity})
    })
  }

  give(joined: Joined, placed: Placed): void {
    joined.position = {epoch: placed.epoch, offset: placed.offset}
    if (joined.position.offset >= joined.target) joined.state = 'live'
    joined.emit('activity', placed)
    this.#all()
  }

  published(povId: string, epoch: string, offset: number, activity: wire.Activity): void {
    for (const each of this.subscriptions) {
      if (each.povId !== povId) continue
      this.#send(each, epoch, offset, activity)
      if (each.how.only && offset % 7 === 0) this.queue(() => this.#moved(each, {epoch, offset}))
    }
  }

  readonly request = ((type: string, fields: Record<string, unknown> = {}) => this.#request(type, fields)) as Client['request']

  #request(type: string, fields: Record<string, unknown>): Promise<Incoming> {
    this.requests.push({type, ...fields})
    return new Promise((resolve, reject) => {
      if (!this.isOpen) return reject(new PovError({code: 'disconnected', message: 'no'}))
      // A drop rejects, as the client does with what it may not repeat.
      const off = this.on('status', ({state}) => {
        if (state === 'live' || state === 'catching-up') return
        off()
        reject(new PovError({code: 'disconnected', message: 'no'}))
      })
      const failure = this.refuse(type, fields)
      try {
        if (failure) throw new PovError(failure)
        const answer = this.server.ask(type, fields, this.user)
        this.waiting.push(() => resolve(answer))
      } catch (error) {
        this.waiting.push(() => reject(error as Error))
      }
    })
  }

  send(type: string, fields: Record<string, unknown> = {}): void {
    this.requests.push({type, ...fields})
  }
  publish(): Promise<wire.Published> { throw new Error('not here') }
  outbox(): Promise<never> { throw new Error('not here') }
  retry(): void {}
  suspend(): void {}
  resume(): void {}
  close(): void { this.server.clients.delete(this) }
  async signOut(): Promise<void> {
    this.drop()
    this.emit('signedOut', undefined)
  }
}

/** Let all promises and the database (which works by `setImmediate`) go on. */
export async function settled(turns = 12): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise(resolve => setImmediate(resolve))
}
