/** The client: requests, subscriptions, and what a page sees of the connection. */
import type {
  Client, ClientEvents, Failure, Gap, Incoming, Line, Only, Options, Outbox, Outgoing, Pending, Placed,
  Position, Reason, RequestOptions, Status, SubscribeOptions, Subscription, SubscriptionEvents,
} from './api.js'
import type * as wire from './wire.js'
import {addressOf, makeConnection} from './connection.js'
import {claimsOf, scopeOf} from './scope.js'
import {askToken, delay} from './wait.js'

const TIMEOUT = 10_000
/** The most PoVs of one message (docs/protocol.md). */
const MOST = 200
/** What may be sent once more if the connection broke: it says how things are to be, or has an id. */
const REPEATABLE = /^(unsubscribe|ack|read|seen|unread|mutes?|history|presence|publish|amend|retract|ping)$/
/** Those of them that are in the log, where others of the caller may come before them: it says when it tries again. */
const STORED = /^(publish|amend|retract)$/
/** How many activities wait for `getState`; with more it is asked again. */
const WAITING = 1_000
/** What a subscription is refused for without being asked again; other errors pass. */
const FINAL = /^(forbidden|not_found|invalid|unknown)/

/** Why a request failed; see `Failure`. */
export class PovError extends Error implements Failure {
  override readonly name = 'PovError'
  declare readonly code: string
  declare readonly field?: string
  declare readonly detail?: string
  declare readonly retryAfter?: number
  declare readonly incident?: string
  declare readonly outcome?: string

  constructor(failure: Failure) {
    super(failure.message)
    Object.assign(this, failure)
  }
}

type Listeners<Events> = {[E in keyof Events]?: Set<(value: Events[E]) => void>}

/** Listeners by event. One that throws is reported as any uncaught error is, and stops nobody. */
function emitter<Events>() {
  const all: Listeners<Events> = {}
  return {
    on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void {
      const set = (all[event] ??= new Set())
      set.add(listener)
      return () => void set.delete(listener)
    },
    emit<E extends keyof Events>(event: E, value: Events[E]): void {
      for (const each of all[event] ?? []) {
        try {
          each(value)
        } catch (error) {
          queueMicrotask(() => { throw error })
        }
      }
    },
  }
}

/** An id nobody else makes: 128 random bits. `crypto.randomUUID` is missing on pages by plain http. */
export function makeId(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join('-')
}

/** Whether an activity is wanted. */
export function fits({type, action, userId}: wire.Activity, only: Only = {}): boolean {
  const {types, actions, users, notUsers} = only
  const has = (list: readonly string[] | undefined, value: string) => !list || list.includes(value)
  return has(types, type) && has(actions, action) && has(users, userId) && !notUsers?.includes(userId)
}

interface Request {
  message: Outgoing & {id: string}
  /** On this connection, or ever. */
  isOut?: boolean
  wasSent?: boolean
  /** Until when it is worth an answer, ms since 1970. */
  until: number
  done(answer: Incoming | undefined, failure?: Failure): void
}

/** A subscriber, and where it stands on the wire. */
interface Handle {
  povId: string
  options: SubscribeOptions
  state: Subscription['state']
  /** Up to where it has received; where it comes back from. */
  position?: Position
  /** It is behind until it has this offset. */
  target: number
  /** The place before a hole that asking again did not fill. */
  hole?: number
  /** Takes activities while `getState` loads. */
  waiting?: Placed[]
  join(): void
  answered(result: wire.Result): void
  refused(failure: Failure, isFinal?: boolean): void
  received(message: wire.ActivityMessage): void
  moved(message: wire.PositionMessage): void
}

/**
 * Connect, and stay so: see `Options`, `Client`. Throws a `TypeError` where `url` is no address; later nothing
 * is thrown, and `status` tells.
 */
export function connect(options: Options): Client {
  const {http} = addressOf(options)
  const {on, emit} = emitter<ClientEvents>()
  const handles = new Set<Handle>()
  const requests = new Map<string, Request>()
  const joining = new Set<Handle>()
  let line: Line | undefined
  let lineStatus: Status = {state: 'connecting', since: Date.now()}
  let status = lineStatus
  let welcome: wire.Welcome | undefined
  let {user, team} = options
  let ids = 0
  let attempt = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  let forgotten: Promise<void> | undefined
  let isAsleep = false
  let pending: readonly Pending[] = []
  const life = new AbortController()
  let isHeld = false
  let box: Promise<import('./outbox.js').OutboxLine> | undefined
  let scope = ''
  /** For the first connection. One after the page slept asks again: the user may have signed out. */
  let token: string | null | undefined
  let named!: (scope: string) => void
  let unnamed!: (error: PovError) => void
  const whose = new Promise<string>((resolve, reject) => { named = resolve; unnamed = reject })
  whose.catch(() => {}) // who asks learns it

  // ---- the line ----

  /** Begin: which socket is shared depends on who the token is for. */
  async function start(): Promise<void> {
    const isClosed = () => lineStatus.state === 'closed'
    if (lineStatus.retryAt) took({...lineStatus, retryAt: undefined})
    let made: Line
    let shared = ''
    try {
      // While the page is asked for a token.
      const sharing = options.tabs !== false && globalThis.document && navigator.locks
        ? import('./tabs.js').catch(() => undefined) : undefined
      if (!user) token = await askToken(options, life.signal)
      if (isClosed()) return
      if (token === null) return over('session_ended')
      if (token) {
        const {userId, teamId, povs, can, role} = claimsOf(token)
        user = userId
        team = teamId
        // A tab whose token covers less, or more, cannot do with the answers to another's.
        shared = JSON.stringify([povs, can, role])
      }
      named(scope = scopeOf(http, user, team))
      const make = () => makeConnection({...options, user, team}, token ?? undefined)
      const tabs = await sharing
      if (isClosed()) return
      line = made = tabs ? tabs.makeTabLine({scope: scopeOf(scope, shared), connect: make}) : make()
    } catch (error) {
      const ms = delay(attempt++)
      timer = setTimeout(() => void start(), ms)
      const since = Date.now()
      return took({state: 'offline', reason: 'token', detail: String(error), since, retryAt: since + ms})
    }
    made.start({opened, message, status: took})
    if (isHeld) made.suspend()
    if (options.outbox) withOutbox(() => {})
  }

  function opened(who: wire.Welcome): void {
    welcome = who
    emit('welcome', who)
    for (const each of handles) each.join()
    // One that the last connection took with it must not end what is joined now.
    for (const each of requests.values()) if (!each.isOut && each.message.type === 'unsubscribe') transmit(each)
    joinAll()
    for (const each of requests.values()) if (!each.isOut) transmit(each)
    if (options.outbox) withOutbox(each => each.flush())
  }

  function took(next: Status): void {
    const wasOpen = lineStatus.state === 'live'
    if (next.state === lineStatus.state) next = {...next, since: lineStatus.since}
    lineStatus = isAsleep && next.state === 'suspended' ? {...next, reason: 'frozen'} : next
    if (wasOpen && next.state !== 'live') {
      for (const each of handles) each.state = 'joining'
      for (const each of requests.values()) {
        if (each.isOut && !REPEATABLE.test(each.message.type)) fail(each, 'disconnected', 'Disconnected')
        each.isOut = false
      }
    }
    if (next.state === 'closed') {
      clearTimeout(timer)
      life.abort()
      const failure = {code: 'closed', message: `The client is closed: ${next.reason}`}
      for (const each of requests.values()) each.done(undefined, failure)
      for (const each of handles) each.refused(failure, true)
      unnamed(new PovError(failure))
      const shut = box && withOutbox(each => each.close())
      // In all tabs: who learns it first wipes, and a tab that still held the copies lets go of them.
      if (next.reason === 'signed_out') forgotten ??= forget(shut)
    }
    show()
  }

  /** It ends before there is a line. */
  function over(reason: Reason): void {
    took({state: 'closed', reason, since: Date.now()})
  }

  async function forget(shut?: Promise<unknown>): Promise<void> {
    emit('signedOut', undefined)
    await shut
    // Offline it may be out of reach: then the browser deletes, once no tab holds what is stored.
    await import('./wipe.js').then(({wipe}) => wipe(scope), () => void indexedDB.deleteDatabase(scope))
  }

  /** Tell of the state if it changed: a line that is open is not live before all have what they missed. */
  function show(): void {
    const isBehind = [...handles].some(each => each.state !== 'live')
    const state = lineStatus.state === 'live' && isBehind ? 'catching-up' : lineStatus.state
    // What broke the connection is still why there is something to catch up.
    const {reason, code} = state === 'catching-up' && status.state !== 'live' ? status : lineStatus
    if (state === status.state && state !== 'offline' && reason === status.reason) return
    const since = state === 'offline' ? lineStatus.since : state === status.state ? status.since : Date.now()
    status = {...lineStatus, state, reason, code, since}
    emit('status', status)
  }

  function message(each: Incoming): void {
    if (each.id !== undefined) {
      const request = requests.get(String(each.id))
      if (request) {
        const failure = each.type === 'error' ? each as wire.ErrorMessage : undefined
        const {message: {type}, until} = request
        const ms = failure?.code === 'rate_limited' && REPEATABLE.test(type) && !STORED.test(type)
          ? delay(0, failure.retryAfter) : Infinity
        // In this turn: the next message may be what the answer is about.
        if (Date.now() + ms > until) request.done(failure ? undefined : each, failure)
        else setTimeout(() => requests.has(request.message.id) && transmit(request), ms)
        return
      }
    }
    route(each as wire.ServerMessage)
    emit('message', each)
  }

  function route(each: wire.ServerMessage): void {
    switch (each.type) {
      case 'activity':
        return of(each.feed ?? each.data.povId, handle => handle.received(each))
      case 'position':
        return of(each.povId, handle => handle.moved(each))
      case 'unsubscribed':
        return of(each.povId, handle => each.code && handle.refused(each as Failure))
      case 'token_expiring':
        return emit('token', {expiresAt: each.expiresAt, renewed: false})
      case 'refreshed':
        emit('token', {expiresAt: each.expiresAt, renewed: true})
        for (const povId of each.lost) {
          of(povId, handle => handle.refused({code: 'forbidden', message: 'Not granted'}))
        }
    }
  }

  function of(povId: string, act: (handle: Handle) => void): void {
    for (const each of handles) if (each.povId === povId) act(each)
  }

  // ---- requests ----

  function transmit(request: Request): void {
    if (!line?.isOpen) return
    request.isOut = request.wasSent = true
    line.send(request.message)
  }

  function fail(request: Request, code: string, message: string): void {
    request.done(undefined, {code, message, ...(request.wasSent && {outcome: 'unknown'})})
  }

  /** Send, and call `done` once: in the turn in which the answer comes, or with why none does. */
  function ask(type: string, fields: object, done: Request['done'], {signal, timeout}: RequestOptions = {}): void {
    const id = `${++ids}`
    const ms = timeout ?? options.timeout ?? TIMEOUT
    const request: Request = {
      message: {type, ...fields, id},
      until: Date.now() + ms,
      done(answer, failure) {
        clearTimeout(limit)
        signal?.removeEventListener('abort', abort)
        if (requests.delete(id)) done(answer, failure)
      },
    }
    const abort = () => fail(request, 'aborted', 'Aborted')
    const limit = setTimeout(() => fail(request, 'timeout', 'No answer in time'), ms)
    requests.set(id, request)
    signal?.addEventListener('abort', abort)
    if (status.state === 'closed') fail(request, 'closed', `The client is closed: ${status.reason}`)
    else if (signal?.aborted) abort()
    else transmit(request)
  }

  function request(type: string, fields: object = {}, how?: RequestOptions): Promise<Incoming> {
    if (/^(amend|retract)$/.test(type)) fields = {...fields, changeId: (fields as wire.Retract).changeId ?? makeId()}
    return new Promise((resolve, reject) => {
      ask(type, fields, (answer, failure) => answer ? resolve(answer) : reject(new PovError(failure!)), how)
    })
  }

  // ---- subscriptions ----

  /** Send what is to be joined in as few messages as can be: each has a PoV once, and one filter. */
  function joinAll(): void {
    if (!line?.isOpen) return
    const batches = new Map<string, [object, Map<string, Handle>]>()
    for (const handle of joining) {
      const {povId, options: {since, only, durable}} = handle
      // Filters that differ would replace each other: then all is sent, and filtered here.
      const isAlone = [...handles].every(each =>
        each.povId !== povId || JSON.stringify(each.options.only) === JSON.stringify(only))
      const isBack = !!handle.position
      const fields = {only: isAlone ? only : undefined, durable, since: isBack ? undefined : since}
      for (let part = 0; ; part++) {
        const key = JSON.stringify([fields, isBack, part])
        const [, batch] = batches.get(key) ?? batches.set(key, [fields, new Map()]).get(key)!
        if (batch.size === MOST || batch.has(povId)) continue
        batch.set(povId, handle)
        break
      }
    }
    joining.clear()
    for (const [fields, batch] of batches.values()) join(fields, batch)
  }

  function join(fields: object, batch: Map<string, Handle>): void {
    const povIds = [...batch.keys()]
    const places = povIds.map(povId => batch.get(povId)!.position)
    const message = povIds.length > 1
      ? {...fields, povIds, positions: places[0] && Object.fromEntries(povIds.map((povId, i) => [povId, places[i]]))}
      : {...fields, povId: povIds[0], ...(places[0] && {since: places[0]})}
    ask('subscribe', message, (answer, failure) => {
      const results = (answer as wire.Subscribed | undefined)?.results ?? [answer as wire.Result]
      for (const [index, [povId, handle]] of [...batch].entries()) {
        const result = results[index]
        const reason = failure ?? (result!.code ? result as Failure : undefined)
        if (handles.has(handle) && handle.state === 'joining') {
          if (reason) handle.refused(reason)
          else handle.answered(result!)
        }
        // The log was replaced: what others of this PoV were told is void.
        if (!reason) of(povId, each => each.state !== 'joining' && each.position!.epoch !== result!.epoch && each.join())
      }
      joinAll()
      show()
    })
  }

  function subscribe<S>(povId: string, how: SubscribeOptions<S> = {}): Subscription<S> {
    const events = emitter<SubscriptionEvents<S>>()
    let given: Position | undefined
    let loading: AbortController | undefined
    let attempts = 0
    let again: ReturnType<typeof setTimeout> | undefined
    let isReady!: () => void
    let isNot!: (error: PovError) => void
    const ready = new Promise<void>((resolve, reject) => { isReady = resolve; isNot = reject })
    ready.catch(() => {}) // who does not ask need not handle it: `error` says so, too

    function give(placed: Placed): void {
      if (handle.state === 'ended') return
      given = {epoch: placed.epoch, offset: placed.offset}
      if (fits(placed.activity, how.only)) events.emit('activity', placed)
    }

    /** Load the app's state, while activities wait; then give both. */
    async function load(gap?: Gap): Promise<void> {
      loading?.abort()
      const {signal} = (loading = new AbortController())
      handle.waiting = []
      for (let tries = 0; ; tries++) {
        try {
          const state = await how.getState!({signal, gap})
          if (signal.aborted) return
          events.emit('state', state)
          break
        } catch (error) {
          if (signal.aborted) return
          events.emit('error', {code: 'state', message: String(error), ended: false})
          await new Promise(resolve => setTimeout(resolve, delay(tries + 1)))
          if (signal.aborted) return
        }
      }
      const waited = handle.waiting
      handle.waiting = undefined
      for (const each of waited) give(each)
      given = handle.position
      if (handle.state !== 'joining') settle()
    }

    function settle(): void {
      const isThere = handle.position!.offset >= handle.target && !handle.waiting
      const next = isThere ? 'live' : 'catching-up'
      if (handle.state === next) return
      handle.state = next
      show()
    }

    const handle: Handle = {
      povId,
      options: how as SubscribeOptions,
      state: 'joining',
      target: 0,
      join() {
        handle.state = 'joining'
        joining.add(handle)
      },
      answered(result) {
        const {epoch, offset, after, recovered, missed, digest, filtered} = result as wire.Result & Position
        const before = handle.position
        const {since} = how
        const asked = before ?? (typeof since === 'object' && 'epoch' in since ? since as Position : undefined)
        const gap: Gap | undefined = !recovered && (asked || since === 'cursor')
          ? {povId, from: asked, to: {epoch, offset}, missed, digest} : undefined
        handle.position = {epoch, offset: recovered ? after! : offset}
        // Of what is filtered not every offset comes.
        handle.target = filtered || how.only ? -1 : offset
        attempts = 0
        clearTimeout(again)
        handle.state = 'joining'
        events.emit('subscribed', result as wire.Result & Position)
        if (gap) events.emit('gap', gap)
        if (how.getState && (gap || !before)) void load(gap)
        else if (!handle.waiting) given = handle.position
        settle()
        isReady()
      },
      received({offset, data}) {
        const position = handle.position
        if (handle.state === 'joining' || !position || offset <= position.offset) return
        if (offset > position.offset + 1 && !how.only) {
          if (handle.hole !== position.offset) {
            handle.hole = position.offset
            handle.join()
            return joinAll()
          }
          const to = {epoch: position.epoch, offset: offset - 1}
          const gap = {povId, from: position, to, missed: to.offset - position.offset}
          events.emit('gap', gap)
          if (how.getState) void load(gap)
        }
        handle.position = {epoch: position.epoch, offset}
        const placed = {epoch: position.epoch, offset, activity: data}
        if (!handle.waiting) give(placed)
        else if (handle.waiting.push(placed) > WAITING) void load() // the state will have them
        settle()
      },
      moved({offset, epoch}) {
        const position = handle.position
        // A new epoch of the log is told of with the place where one is.
        if (handle.state === 'joining' || !position || offset < position.offset) return
        handle.position = {epoch: epoch ?? position.epoch, offset}
        if (!handle.waiting) given = handle.position
        events.emit('position', handle.position)
        settle()
      },
      refused(failure, isFinal = FINAL.test(failure.code)) {
        if (handle.state === 'ended') return
        // A line that broke asks anew by itself when it is open again.
        if (failure.code === 'disconnected') return
        if (isFinal) {
          end()
          isNot(new PovError(failure))
          if (failure.code === 'closed') return
        } else {
          handle.state = 'joining'
          clearTimeout(again)
          again = setTimeout(() => { handle.join(); joinAll() }, delay(attempts++, failure.retryAfter))
        }
        events.emit('error', {...failure, ended: isFinal})
        show()
      },
    }

    function end(): void {
      handle.state = 'ended'
      loading?.abort()
      clearTimeout(again)
      handles.delete(handle)
      joining.delete(handle)
    }

    handles.add(handle)
    if (status.state === 'closed') queueMicrotask(() => handle.refused({code: 'closed', message: 'The client is closed'}, true))
    else {
      handle.join()
      queueMicrotask(joinAll) // several of one turn go out as one message
    }
    return {
      povId,
      get position() { return given },
      get state() { return handle.state },
      on: events.on,
      ready,
      close() {
        if (handle.state === 'ended') return
        end()
        if ([...handles].some(each => each.povId === povId)) return
        // Nobody here wants it any more. If the line is not open, the next one does not know of it.
        if (line?.isOpen) ask('unsubscribe', {povId}, () => {})
        show()
      },
    }
  }

  // ---- the outbox ----

  function outbox(): Promise<import('./outbox.js').OutboxLine> {
    if (box) return box
    if (status.state === 'closed') return Promise.reject(new PovError({code: 'closed', message: 'The client is closed'}))
    box = Promise.all([import('./outbox.js'), whose]).then(([{openOutbox}, scope]) => openOutbox({
      scope,
      isOpen: () => !!line?.isOpen,
      publish: (data, signal) => request('publish', {data}, {signal}) as Promise<wire.Published>,
      changed: all => emit('pending', pending = all),
      makeId,
      errorOf: failure => new PovError(failure),
      delay,
    }))
    box.catch(() => { box = undefined }) // what could not be loaded is asked for again
    return box
  }

  /** Without it, it is the next connection's matter. */
  function withOutbox(act: (each: import('./outbox.js').OutboxLine) => unknown): Promise<unknown> {
    return outbox().then(act, () => {})
  }

  // ---- the page ----

  // A page that is frozen, or kept for the back button, must hold no socket and no lock.
  function sleep(): void {
    if (lineStatus.state === 'suspended') return
    isAsleep = true
    line?.suspend()
  }
  function wake(): void {
    if (isAsleep) token = undefined
    if (isAsleep && !isHeld) line?.resume()
    isAsleep = false
  }
  // Whoever is seen asks, though another tab may have the socket: that one may be hidden for hours.
  function doubt(): void {
    if (!globalThis.document?.hidden) retry()
  }
  function retry(): void {
    if (line) return line.retry()
    if (!lineStatus.retryAt) return // the page is being asked for a token
    clearTimeout(timer)
    void start()
  }
  const heard = {
    online: doubt, offline: doubt, visibilitychange: doubt,
    pagehide: sleep, freeze: sleep, pageshow: wake, resume: wake,
  }
  for (const [type, act] of Object.entries(heard)) {
    // Capturing, for some of them are the document's and do not bubble.
    globalThis.addEventListener?.(type, act, {capture: true, signal: life.signal})
  }

  void start()
  return {
    get status() { return status },
    get welcome() { return welcome },
    get user() { return user },
    get pending() { return pending },
    scope: whose,
    on,
    subscribe,
    request: request as Client['request'],
    send(type, fields = {}) {
      if (line?.isOpen) line.send({type, ...fields})
    },
    async publish(activity, how) {
      const sent = {id: makeId(), ...activity}
      if (options.outbox) return (await outbox()).add(sent as typeof sent & wire.NewActivity)
      return request('publish', {data: sent}, how) as Promise<wire.Published>
    },
    outbox: outbox as () => Promise<Outbox>,
    retry,
    suspend() {
      isHeld = true
      line?.suspend()
    },
    resume() {
      isHeld = false
      line?.resume()
    },
    close() {
      if (line) line.close('closed')
      else over('closed')
    },
    async signOut() {
      if (line) line.close('signed_out')
      else over('signed_out')
      // Of a client that had ended before the copies are still there.
      await (forgotten ??= forget())
    },
  }
}
