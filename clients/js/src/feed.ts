/** A headless store: what happens on PoVs, as rows and groups that a page only has to draw. */
import type {Client, Failure, Feed, FeedOptions, Incoming, Snapshot} from './api.js'
import type {Store} from './feed-store.js'
import type {Context, Topic} from './feed-topic.js'
import type * as wire from './wire.js'
import {fits, PovError} from './client.js'
import {mark, marked, restate, sendSeen, told, topicOf} from './feed-marks.js'
import {firstUnread, marksOf, moved, sameList} from './feed-rows.js'
import {admit, asMade, begin, hasEarlier, isLacking, learn, marksNow, missing, newTopic, reached, received} from './feed-topic.js'
import {createView} from './feed-view.js'

/** How long the news of what is being caught up, or comes together, may wait for more of it, ms. */
const GATHER = 16
/** How long what reads stored rows may take to load, ms. */
const PATIENCE = 2_000
/** The most that the server sends of what was last, or in a page (docs/protocol.md). */
const MOST = 1_000

/** What tests put in the place of the browser's. */
export interface Surroundings {
  /** Call when what was told of had its chance to be painted. */
  afterPaint(then: () => Promise<void>): void
  /** How long what comes waits for more that comes together with it, ms. */
  gather: number
}

/**
 * Follow PoVs, and `*` for the team feed: rows in order, each activity once, across drops and reloads.
 *
 * - `loadEarlier` and `load` may go beyond `limit`, by what they load. They reject with a `PovError`.
 * - Of a PoV that is followed itself the team feed's rows are not shown. The team feed has no marks: its
 *   rows are read, and `read`, `markUnread` and `seen` do nothing with them; nor can it be paged through.
 * - In a group each row is within `groupWithin` of the next one: however long it goes on, its key stays.
 * - `unread` and `unseen` are the server's numbers without the user's own activities that were here.
 * - A PoV that is not muted has the level `sound`.
 * - A PoV that the user may not see any more (`forbidden`) has no rows, here and where they were stored.
 */
export function createFeed(
  client: Client, povs: readonly string[], options: FeedOptions = {},
  {afterPaint = painted, gather = GATHER}: Partial<Surroundings> = {},
): Feed {
  const {limit = 1_000, groupWithin = 600_000} = options
  const page = Math.min(options.page ?? 50, MOST)
  const only = Object.values(options.only ?? {}).some(Boolean) ? options.only : undefined
  const lists = !!only && [only.types, only.actions, only.users, only.notUsers]
  const filter = lists && lists.map(each => each && [...each].sort())
  const topics = new Map(povs.map(id => [id, newTopic(id, JSON.stringify([id, filter]))]))
  const isStored = options.stored !== false && !!globalThis.indexedDB
  const context: Context = {
    client, topics, only, page, mutes: new Map(),
    user: client.user,
    pending: client.pending,
    storage: isStored ? 'loading' : 'off',
    fresh: [], isStale: true,
    admit, asMade, begin, fits, hasEarlier, learn, marked, moved, sameList,
    fail: failure => new PovError(failure),
    changed,
  }
  const view = createView(context, limit, groupWithin)
  let store: Store | undefined
  const loading = import('./feed-people.js')
  let part: Awaited<typeof loading> | undefined
  /** Do what has to do with people, in the order in which it came. Where that does not load, nobody is there. */
  function people(use: (part: Awaited<typeof loading>) => void): void {
    if (part) use(part)
    else void loading.then(loaded => { if (!context.isClosed) use(part = loaded) }, () => {})
  }
  const listeners = new Set<() => void>()
  const ends: (() => void)[] = []
  let isChanged = true
  let turn: 0 | 1 | 2 = 0
  let gathering: ReturnType<typeof setTimeout> | undefined
  let notified: Snapshot | undefined
  /** What was asked for last. */
  let snapshot: Snapshot

  // ---- what changed, and telling of it ----

  function changed(topic?: Topic, canWait = false): void {
    isChanged = true
    for (const each of topic ? [topic] : topics.values()) each.isTouched = true
    if (context.isClosed || turn === 2 || canWait && turn) return
    clearTimeout(gathering)
    turn = canWait ? 1 : 2
    // Nothing is painted in a page that is hidden, where a timer takes a second.
    if (canWait && !globalThis.document?.hidden) gathering = setTimeout(tell, gather)
    else queueMicrotask(tell)
  }

  function tell(): void {
    turn = 0
    if (context.isClosed) return
    if (getSnapshot() !== notified) notify()
    // What shows nothing new may be to be written all the same: the server took what was hoped of it.
    for (const each of topics.values()) each.shown = each.tip
    store?.save()
  }

  function notify(): void {
    notified = snapshot
    for (const listener of [...listeners]) {
      try {
        listener()
      } catch (error) {
        setTimeout(() => { throw error })
      }
    }
    context.isTold = gather > 0
    setTimeout(() => { context.isTold = false }, gather)
  }

  function getSnapshot(): Snapshot {
    if (!isChanged) return snapshot
    isChanged = false
    return snapshot = view()
  }

  // ---- following ----

  function follow(): void {
    for (const topic of topics.values()) {
      const {id, epoch, tip} = topic
      const since = epoch === undefined ? {last: page} : {epoch, offset: tip}
      const subscription = topic.subscription = client.subscribe(id, {since, ...only && {only}})
      ends.push(
        () => subscription.close(),
        subscription.on('subscribed', result => joined(topic, result)),
        subscription.on('gap', ({to, missed, digest}) => {
          missing(context, topic, to, missed, digest)
          changed(topic)
        }),
        subscription.on('activity', placed => {
          received(context, topic, placed)
          if (placed.offset === topic.head) complete(topic)
        }),
        subscription.on('position', ({offset, epoch}) => {
          // The log's from now on, with everything where it was: rows keep theirs.
          topic.epochs.add(topic.epoch = epoch)
          reached(context, topic, offset)
        }),
        subscription.on('error', failure => ended(topic, failure)),
      )
    }
  }

  /** Have what is stored first, if that comes in time. */
  async function restore(): Promise<void> {
    const timer = new Promise<never>((_, reject) => setTimeout(reject, PATIENCE))
    try {
      const {createStore} = await Promise.race([import('./feed-store.js'), timer])
      store = createStore(context, afterPaint)
    } catch {
      context.storage = 'denied'
    }
    if (context.isClosed || context.isOver) return
    if (store) return store.restore(follow)
    follow()
    changed()
  }

  function joined(topic: Topic, result: wire.Result & {epoch: string; offset: number}): void {
    const {epoch, offset, recovered, missed, digest} = result
    topic.failure = undefined
    topic.oldest = result.oldestOffset ?? topic.oldest
    if (topic.epoch === undefined) {
      const from = recovered ? Math.max(offset - page, topic.oldest - 1, 0) : offset
      begin(context, topic, epoch, from)
    } else if (!recovered) missing(context, topic, {epoch, offset}, missed, digest)
    topic.epochs.add(topic.epoch = epoch)
    topic.head = offset
    topic.answeredAt = Date.now()
    // Later than what it puts an end to, whatever the clock says.
    topic.toldAt = Math.max(topic.answeredAt, topic.toldAt + 1)
    if (result.readOffset !== undefined) marked(context, topic, marksOf(result))
    meet(topic)
    sendSeen(context, topic)
    // The gap of this answer is told of in this turn, too.
    queueMicrotask(() => complete(topic))
    changed(topic, topic.tip < offset)
  }

  function complete(topic: Topic): void {
    if (isLacking(context, topic)) void pages().then(({fill}) => fill(context, topic), () => {})
  }

  function ended(topic: Topic, failure: Failure & {ended: boolean}): void {
    topic.failure = failure
    if (failure.ended && failure.code === 'forbidden') {
      begin(context, topic)
      people(({vacate}) => vacate(context, topic))
      store?.forget(topic)
    }
    context.isStale = true
    changed(topic)
  }

  function meet(topic: Topic): void {
    if (options.presence !== false && topic.id !== '*') people(({askPresence}) => void askPresence(context, topic))
  }

  /** The page is shown or hidden: a user all of whose pages are hidden is away. */
  function turned(): void {
    for (const topic of topics.values()) if (topic.subscription?.state === 'live') meet(topic)
  }

  function message(incoming: Incoming): void {
    const given = incoming as wire.ServerMessage
    if (given.type === 'muted') return people(({muted}) => muted(context, given))
    const {povId} = given as {povId?: string}
    const topic = topics.get((given.type === 'error' ? given.detail : povId) ?? '')
    if (!topic) return
    if (given.type === 'presence_diff') people(({moving}) => moving(context, topic, given))
    else if (given.type === 'typing') people(({typists}) => typists(context, topic, given.users))
    else if (given.type === 'receipts') people(({receive}) => receive(context, topic, given.read))
    else if (given.type === 'error' && given.code === 'forbidden') people(({vacate}) => vacate(context, topic))
    else told(context, topic, given)
  }

  function welcomed(): void {
    const before = context.user
    context.user = client.welcome?.userId ?? client.user
    if (context.user !== before) for (const each of topics.values()) restate(context, each)
    people(({askMutes}) => void askMutes(context))
  }

  ends.push(
    client.on('status', ({state}) => {
      if (state !== 'live' && state !== 'catching-up') {
        // Who is there is not known without a connection.
        for (const each of topics.values()) {
          each.diffs = undefined
          people(({vacate}) => vacate(context, each))
        }
      }
      changed()
    }),
    client.on('welcome', welcomed),
    client.on('message', message),
    client.on('pending', all => {
      context.pending = all
      changed()
    }),
    client.on('signedOut', () => {
      context.isOver = true
      store?.close()
      context.storage = 'off'
      context.mutes.clear()
      context.pending = []
      for (const topic of topics.values()) {
        begin(context, topic)
        topic.present = new Map()
        topic.isUnwritten = false
        topic.subscription?.close()
      }
      changed()
    }),
  )
  globalThis.document?.addEventListener('visibilitychange', turned)
  ends.push(() => globalThis.document?.removeEventListener('visibilitychange', turned))
  if (client.welcome) welcomed()
  if (isStored) void restore()
  else follow()

  return {
    subscribe(listener) {
      // One that is given twice is two.
      const each = () => listener()
      listeners.add(each)
      return () => void listeners.delete(each)
    },
    getSnapshot,
    async loadEarlier(povId) {
      const due = [...topics.values()].filter(topic => topic.id === (povId ?? topic.id) && hasEarlier(topic))
      if (!due.length) return
      const {earlier} = await pages()
      await Promise.all(due.map(topic => earlier(context, topic)))
    },
    load: async gap => (await pages()).load(context, gap),
    seen(rows) {
      const touched = new Set<Topic>()
      for (const row of rows) {
        const topic = topicOf(context, row)
        if (!topic || row.offset <= (marksNow(topic)?.seen ?? Infinity)) continue
        topic.seen = row.offset
        touched.add(topic)
      }
      for (const topic of touched) {
        restate(context, topic)
        sendSeen(context, topic)
      }
    },
    async read(row) {
      if (row) {
        const topic = topicOf(context, row)
        if (topic) await mark(context, topic, 'read', row.offset)
        return
      }
      await Promise.all([...topics.values()].map(topic => {
        const marks = marksNow(topic)
        if (marks && topic.tip >= firstUnread(marks)) return mark(context, topic, 'read', topic.tip)
      }))
    },
    async markUnread(row) {
      const topic = topicOf(context, row)
      if (topic) await mark(context, topic, 'unread', row.offset)
    },
    async mute(povId, level, until) {
      const answer = await client.request('mute', {povId, level, until: until?.toISOString()})
      people(({muted}) => muted(context, answer))
    },
    typing(povId, active, where) {
      client.send('typing', {povId, active, where})
    },
    close() {
      for (const topic of topics.values()) {
        clearTimeout(topic.seenTimer)
        clearTimeout(topic.typingTimer)
        topic.seenTimer = undefined
        sendSeen(context, topic)
        clearTimeout(topic.seenTimer)
      }
      context.isClosed = true
      clearTimeout(gathering)
      clearTimeout(context.muteTimer)
      for (const end of ends) end()
      listeners.clear()
      store?.close()
    },
  }
}

/** What asks for pages of a log. Rejects with a `PovError` where that does not load. */
const pages = () => import('./feed-pages.js').catch(error => {
  throw new PovError({code: 'unavailable', message: 'A part of the SDK did not load', detail: String(error)})
})

/** A frame that was asked for comes before the paint, and none in a page that is hidden. */
function painted(then: () => Promise<void>): void {
  let isDone = false
  const once = () => {
    if (!isDone) void then()
    isDone = true
  }
  const isHidden = globalThis.document?.hidden ?? true
  if (!isHidden) requestAnimationFrame(() => setTimeout(once))
  setTimeout(once, isHidden ? 0 : 1_000)
}
