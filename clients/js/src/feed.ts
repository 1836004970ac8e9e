/** A headless store: what happens on PoVs, as rows and groups that a page only has to draw. */
import type {
  Client, Failure, Feed, FeedGap, FeedOptions, Incoming, Placed, Position, PovState, Row,
  Snapshot, Subscription,
} from './api.js'
import type {Kept, Marks} from './feed-rows.js'
import type {Cache} from './feed-cache.js'
import type * as wire from './wire.js'
import {fits, PovError} from './client.js'
import {openCache} from './feed-cache.js'
import {
  compare, countAfter, firstUnread, group, insert, marksOf, monotone, moved, rowOf,
} from './feed-rows.js'

/** A list of who writes is void after this many ms (docs/protocol.md). */
const TYPING = 8_000
/** How long the news of what is being caught up may wait for more of it, ms. */
const GATHER = 16
/** The most that the server sends of what was last, or in a page (docs/protocol.md). */
const MOST = 1_000
/** Rows of a page of a gap. */
const GAP_PAGE = 500
/** How many pages of the history are searched for a page of rows that pass the filter. */
const SEARCHED = 5
/** Of how many of the user's own activities is remembered that they are not unread. */
const OWN = 1_000

/** Some of the log, (`from`, `to`], is missing. `view` is what the page sees of it. */
interface Hole {
  from: number
  to: number
  missed?: number
  digest?: wire.Digest
  state: FeedGap['state']
  view?: FeedGap
  work?: Promise<unknown>
}

/** One log that is followed, that of a PoV or the team feed `*`. Everything in (`from`, `tip`] is known. */
interface Topic {
  readonly id: string
  /** Its name in the stored copies: the filter is part of it. */
  readonly name: string
  subscription?: Subscription
  failure?: Failure
  epoch?: string
  from: number
  tip: number
  /** Up to where it has to catch up. */
  head: number
  /** The oldest offset that the log has, as the server said last. */
  oldest: number
  /** The oldest first. */
  rows: Kept[]
  /** The time of the newest row that ever was. */
  latest: number
  /** Offsets of the user's own activities. */
  own: Set<number>
  /** The oldest first. */
  holes: Hole[]
  /** What another epoch took with it. */
  lost?: FeedGap
  /** What the server said of the marks, and what is asked of it but not answered yet. */
  marks?: Marks
  hopes: Set<(marks: Marks) => Marks>
  /** Up to where is to be said that it was seen. */
  seen: number
  seenTimer?: ReturnType<typeof setTimeout>
  toldAt: number
  answeredAt?: number
  present: Map<string, wire.User>
  /** Changes that came while the list of who is there was on its way. */
  diffs?: wire.PresenceDiff[]
  typing: readonly wire.Typist[]
  typingTimer?: ReturnType<typeof setTimeout>
  receipts: ReadonlyMap<string, number>
  earlier?: Promise<void>
  isFilling?: boolean
  /** Something of it changed since the last snapshot; up to where it was shown; not written since. */
  isTouched: boolean
  /** Its marks are others. */
  isMarked?: boolean
  shown: number
  isUnwritten?: boolean
  view?: PovState
}

/** How loud a PoV is, until when; without a level as by default. */
interface Mute {
  level?: wire.Level
  until?: string
}

/** What tests put in the place of the browser's. */
export interface Surroundings {
  /** Call when what was told of had its chance to be painted. */
  afterPaint(then: () => Promise<void>): void
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
  {afterPaint}: Surroundings = {afterPaint: painted},
): Feed {
  const {limit = 1_000, only, groupWithin = 600_000} = options
  const page = Math.min(options.page ?? 50, MOST)
  const isFiltered = !!only && Object.values(only).some(Boolean)
  const lists = isFiltered && [only.types, only.actions, only.users, only.notUsers]
  const filter = lists && lists.map(each => each && [...each].sort())
  const topics = new Map([...new Set(povs)].map(id => [id, {
    id, name: JSON.stringify([id, filter]), from: 0, tip: 0, head: 0, oldest: 1, rows: [], latest: -Infinity,
    own: new Set(), holes: [], hopes: new Set(), seen: 0, toldAt: 0, present: new Map(), typing: [],
    receipts: new Map(), isTouched: true, shown: 0,
  } as Topic]))
  const listeners = new Set<() => void>()
  const mutes = new Map<string, Mute>()
  const isStored = options.stored !== false && !!globalThis.indexedDB
  const ends: (() => void)[] = []
  let user = client.user ?? client.welcome?.userId
  let room = limit || Infinity
  let cache: Cache | undefined
  let storage: Snapshot['storage'] = isStored ? 'loading' : 'off'
  let {pending} = client
  let isClosed = false
  /** Signed out: nothing is kept, nothing is written. */
  let isOver = false
  let isWriting = false
  /** New rows that are the newest of their logs; unless more changed, and all has to be put together anew. */
  let fresh: Kept[] = []
  let isStale = true
  /** What was loaded may exceed the limit. */
  let hasGrown = false
  let isChanged = true
  let turn: 0 | 1 | 2 = 0
  let gathering: ReturnType<typeof setTimeout> | undefined
  let muteTimer: ReturnType<typeof setTimeout> | undefined
  let notified: Snapshot | undefined
  let snapshot: Snapshot = Object.freeze({
    connection: client.status, rows: [], groups: [], unread: 0, unseen: 0, povs: new Map(), gaps: [], pending,
    storage,
  })

  // ---- what changed, and telling of it ----

  function changed(topic?: Topic, canWait = false): void {
    isChanged = true
    if (topic) topic.isTouched = true
    if (isClosed || turn === 2 || canWait && turn) return
    clearTimeout(gathering)
    turn = canWait ? 1 : 2
    if (canWait) gathering = setTimeout(tell, GATHER)
    else queueMicrotask(tell)
  }

  function allChanged(): void {
    for (const each of topics.values()) each.isTouched = true
    changed()
  }

  function tell(): void {
    turn = 0
    if (isClosed || getSnapshot() === notified) return
    notified = snapshot
    for (const listener of [...listeners]) {
      try {
        listener()
      } catch (error) {
        setTimeout(() => { throw error })
      }
    }
    for (const each of topics.values()) each.shown = each.tip
    save()
  }

  function getSnapshot(): Snapshot {
    if (!isChanged) return snapshot
    isChanged = false
    const {rows, groups} = arrange()
    const views = [...topics.values()].map(look)
    const isSame = snapshot.povs.size && views.every(each => snapshot.povs.get(each.povId) === each)
    const gaps = [...topics.values()].flatMap(gapsOf)
    const next: Snapshot = {
      connection: client.status,
      rows,
      groups,
      unread: views.reduce((sum, each) => sum + each.unread, 0),
      unseen: views.reduce((sum, each) => sum + each.unseen, 0),
      povs: isSame ? snapshot.povs : new Map(views.map(each => [each.povId, each])),
      gaps: sameList(snapshot.gaps, gaps),
      pending,
      storage,
    }
    return snapshot = same(snapshot, next)
  }

  /** The rows of all PoVs in one order. Costs as much as changed, where rows only came on top. */
  function arrange(): Pick<Snapshot, 'rows' | 'groups'> {
    for (const topic of topics.values()) {
      if (topic.isMarked) {
        topic.isMarked = false
        topic.rows = topic.rows.map(row => {
          const next = asMade(topic, row.offset, row.at, row.activity)
          return next.state === row.state && next.own === row.own ? row : next
        })
      }
      // Of the team feed, whose rows may be hidden, and of bursts more is here than is shown.
      const surplus = topic.rows.length - 2 * room
      if (surplus > 0 && !hasGrown) {
        cut(topic, topic.rows[surplus + room - 1]!.offset)
        isStale = true
      }
    }
    let rows = snapshot.rows as readonly Kept[]
    let groups = snapshot.groups
    if (isStale) {
      const all = [...topics.values()].flatMap(topic => topic.rows.filter(isShown)).sort(compare)
      rows = sameList(rows, all)
      if (hasGrown && rows.length > room) room = rows.length
      groups = sameList(groups, group(rows, groups, belong))
    } else if (fresh.length) {
      const [joined, above] = insert(rows, fresh.filter(isShown).sort(compare))
      if (joined.length > rows.length) {
        let old = 0
        let count = 0
        while (old < groups.length && count < above) count += groups[old++]!.rows.length
        if (old < groups.length) count += groups[old++]!.rows.length
        const upTo = joined.length - rows.length + count
        groups = group(joined.slice(0, upTo), groups.slice(0, old), belong).concat(groups.slice(old))
        rows = joined
      }
    }
    isStale = hasGrown = false
    fresh = []
    if (rows.length > room) {
      for (const row of rows.slice(room).reverse()) cut(topics.get(row.topic)!, row.offset)
      rows = rows.slice(0, room)
      let count = 0
      let last = 0
      while (count < room) count += groups[last++]!.rows.length
      const whole = groups.slice(0, last)
      if (count > room) whole.push(...group(whole.pop()!.rows.slice(0, room - count) as Kept[], [], belong))
      groups = whole
    }
    // Not frozen: that would cost more than all of this, for each row that comes.
    return {rows, groups}
  }

  /** The team feed's rows of a PoV are not shown beside the PoV's own. */
  function isShown(row: Kept): boolean {
    const own = row.topic === '*' && row.povId !== '*' ? topics.get(row.povId) : undefined
    return !own || own.failure && own.subscription?.state === 'ended'
      && !own.rows.some(({activity}) => activity.id === row.activity.id) || false
  }

  function belong(newer: Kept, older: Kept): boolean {
    const a = newer.activity
    const b = older.activity
    return a.povId === b.povId && newer.topic === older.topic && a.userId === b.userId && a.type === b.type
      && a.action === b.action && newer.at - older.at <= groupWithin && groupWithin > 0
      && !topics.get(newer.topic)!.holes.some(hole => hole.from >= older.offset && hole.to < newer.offset)
  }

  /** Forget the rows up to an offset. */
  function cut(topic: Topic, offset: number): void {
    const kept = topic.rows.findIndex(row => row.offset > offset)
    topic.rows.splice(0, kept < 0 ? topic.rows.length : kept)
    topic.from = Math.max(topic.from, offset)
    while (topic.holes[0] && topic.holes[0].from <= topic.from) {
      topic.from = Math.max(topic.from, topic.holes.shift()!.to)
    }
    topic.isTouched = true
  }

  function marksNow(topic: Topic): Marks | undefined {
    if (!topic.marks) return
    const hoped = [...topic.hopes].reduce((marks, hope) => hope(marks), topic.marks)
    return moved.seen(hoped, topic.seen)
  }

  function look(topic: Topic): PovState {
    const {id, epoch, tip, holes, rows, view, subscription} = topic
    if (!topic.isTouched && view) return view
    topic.isTouched = false
    const marks = marksNow(topic)
    const last = Math.max(tip, marks?.top ?? 0)
    const above = holes.at(-1)?.to ?? topic.from
    const old = view?.position
    const position = epoch === undefined ? undefined : {epoch, offset: tip}
    const mute = mutes.get(id)
    const isMuted = mute?.level && !(Date.parse(mute.until ?? '') <= Date.now())
    const next: PovState = {
      povId: id,
      position: old?.epoch === epoch && old?.offset === position?.offset ? old : position,
      state: subscription?.state ?? 'joining',
      failure: topic.failure,
      unread: marks ? countAfter(firstUnread(marks) - 1, last, topic.own) : 0,
      unseen: marks ? countAfter(marks.seen, last, topic.own) : 0,
      readOffset: marks?.read ?? 0,
      seenOffset: marks?.seen ?? 0,
      unreadFrom: marks?.floor,
      completeSince: topic.answeredAt && (rows.find(row => row.offset > above)?.at ?? topic.answeredAt),
      hasEarlier: hasEarlier(topic),
      present: sameList(view?.present, [...topic.present.values()]),
      typing: topic.typing,
      receipts: topic.receipts,
      level: isMuted ? mute.level! : 'sound',
      mutedUntil: isMuted ? mute.until : undefined,
    }
    return topic.view = view ? same(view, next) : Object.freeze(next)
  }

  function gapsOf({id, epoch, holes, lost}: Topic): FeedGap[] {
    const gaps = holes.map(hole => {
      const {state, digest, view} = hole
      const from = {epoch: epoch!, offset: hole.from}
      const to = {epoch: epoch!, offset: hole.to}
      // How many there are is known where each offset is one that is missing.
      const missed = isFiltered ? hole.missed : to.offset - from.offset
      const isSame = view?.from!.offset === from.offset && view.to.offset === to.offset
        && view.state === state && view.missed === missed && view.digest === digest
      return hole.view = isSame ? view : Object.freeze({povId: id, from, to, missed, digest, state})
    })
    return lost ? [lost, ...gaps] : gaps
  }

  // ---- what comes ----

  function asMade(topic: Topic, offset: number, at: number, activity: wire.Activity): Kept {
    return rowOf(topic.id, topic.epoch!, offset, at, activity, user, marksNow(topic))
  }

  /** Take activities, the oldest first, that lie between two rows. */
  function admit(topic: Topic, items: readonly wire.Item[], low: number, high: number): void {
    if (!items.length) return
    const times = monotone(items.map(each => each.data), low, high)
    const made = items.map(({offset, data}, i) => asMade(topic, offset, times[i]!, data))
    topic.latest = Math.max(topic.latest, times.at(-1)!)
    const {rows} = topic
    if (!rows.length || rows.at(-1)!.offset < made[0]!.offset) {
      rows.push(...made)
      fresh.push(...made)
    } else {
      rows.splice(rows.findIndex(row => row.offset > made[0]!.offset), 0, ...made)
      isStale = true
    }
    for (const row of made) if (row.own) topic.own.add(row.offset)
    for (const offset of topic.own) if (topic.own.size > OWN) topic.own.delete(offset)
    topic.isUnwritten = true
  }

  function received(topic: Topic, {epoch, offset, activity}: Placed): void {
    topic.epoch ??= epoch
    if (epoch !== topic.epoch || offset <= topic.tip) return
    // The client says so before; but what is missing must never be silent.
    if (!isFiltered && offset > topic.tip + 1) breach(topic, offset - 1)
    if (fits(activity, only)) admit(topic, [{offset, data: activity}], topic.latest, Infinity)
    reached(topic, offset)
  }

  function reached(topic: Topic, offset: number): void {
    topic.tip = offset
    topic.isUnwritten = true
    changed(topic, offset < topic.head)
  }

  /** Nothing comes of what is between here and `to`. */
  function breach(topic: Topic, to: number, missed?: number, digest?: wire.Digest): void {
    const {tip} = topic
    const same = topic.holes.find(hole => hole.to === to)
    if (to > tip) topic.holes.push({from: tip, to, missed, digest, state: topic.id === '*' ? 'gone' : 'open'})
    else if (same) Object.assign(same, {missed: missed ?? same.missed, digest: digest ?? same.digest})
    topic.tip = Math.max(tip, to)
    isStale = true
  }

  /** Begin with a log: what is known of another one is void. */
  function begin(topic: Topic, epoch: string, from: number, tip: number): void {
    clearTimeout(topic.seenTimer)
    Object.assign(topic, {
      epoch, from, tip, head: tip, rows: [], latest: -Infinity, own: new Set(), holes: [], lost: undefined,
      marks: undefined, hopes: new Set(), seen: 0, seenTimer: undefined, receipts: new Map(), shown: 0,
      answeredAt: undefined,
    } satisfies Partial<Topic>)
    isStale = topic.isUnwritten = true
  }

  /** Something is missing before `to`, of this epoch or of the one before. */
  function missing(topic: Topic, to: Position, missed?: number, digest?: wire.Digest): void {
    const {id, epoch, tip} = topic
    if (epoch === to.epoch) return breach(topic, to.offset, missed, digest)
    begin(topic, to.epoch, to.offset, to.offset)
    if (epoch === undefined) return
    topic.lost = Object.freeze({povId: id, from: {epoch, offset: tip}, to, missed, digest, state: 'gone'})
  }

  function joined(topic: Topic, result: wire.Result & {epoch: string; offset: number}): void {
    const {epoch, offset, recovered, missed, digest} = result
    topic.failure = undefined
    topic.oldest = result.oldestOffset ?? topic.oldest
    if (topic.epoch === undefined) {
      const from = recovered ? Math.max(offset - page, topic.oldest - 1, 0) : offset
      begin(topic, epoch, from, from)
    } else if (!recovered) missing(topic, {epoch, offset}, missed, digest)
    topic.head = offset
    topic.answeredAt = Date.now()
    // Later than what it puts an end to, whatever the clock says.
    topic.toldAt = Math.max(topic.answeredAt, topic.toldAt + 1)
    if (result.readOffset !== undefined) marked(topic, marksOf(result))
    meet(topic)
    sendSeen(topic)
    // The gap of this answer is told of in this turn, too.
    queueMicrotask(() => void fill(topic))
    changed(topic, topic.tip < offset)
  }

  function ended(topic: Topic, failure: Failure & {ended: boolean}): void {
    topic.failure = failure
    if (failure.ended && failure.code === 'forbidden') {
      begin(topic, '', 0, 0)
      topic.epoch = undefined
      topic.present = new Map()
      typists(topic, [])
      cache?.forget(topic.name).catch(denied)
    }
    isStale = true
    changed(topic)
  }

  // ---- pages of the log ----

  function hasEarlier({id, from, oldest}: Topic): boolean {
    return id !== '*' && from > Math.max(0, oldest - 1)
  }

  /** One page; the oldest first. `next` is absent at the end of the log. */
  async function history(
    topic: Topic, place: {after?: number; before?: number}, size: number,
  ): Promise<wire.HistoryPage> {
    const short = (list: string[] | undefined, most: number) => list && list.length <= most ? list : undefined
    const {epoch} = topic
    const found = await client.request('history', {
      povId: topic.id, ...place, limit: size,
      types: short(only?.types, 20), actions: short(only?.actions, 20), users: short(only?.users, 50),
    })
    if (isClosed || found.epoch !== epoch || topic.epoch !== epoch)
      throw new PovError({code: isClosed ? 'closed' : 'epoch_changed', message: 'This is another log'})
    topic.oldest = found.oldestOffset
    const activities = found.activities.filter(each => fits(each.data, only))
    return {...found, activities: place.before ? activities.reverse() : activities}
  }

  function earlier(topic: Topic): Promise<void> {
    return topic.earlier ??= search(topic).finally(() => { topic.earlier = undefined })
  }

  async function search(topic: Topic): Promise<void> {
    let found = 0
    for (let i = 0; i < SEARCHED && found < page && hasEarlier(topic); i++) found += await back(topic)
  }

  /** Load the page at the end of a hole, or the one before the oldest row; return how many came. */
  async function back(topic: Topic, hole?: Hole): Promise<number> {
    const at = hole ? hole.to : topic.from
    const {activities, next} = await history(topic, {before: at + 1}, page)
    // What left memory meanwhile is between the rows and this page.
    if (hole ? !topic.holes.includes(hole) : topic.from !== at) return 0
    between(topic, hole ? hole.from : -1, at, activities)
    const to = Math.min(at, Math.max(hole ? hole.from : 0, (next ?? topic.oldest) - 1))
    if (!hole) topic.from = to
    else {
      hole.to = to
      if (next === undefined) hole.state = 'gone'
      mend(topic, hole)
    }
    return activities.length
  }

  /** After an answer: have the newest page, if that is not what is there or comes by itself. */
  async function fill(topic: Topic): Promise<void> {
    if (topic.isFilling || topic.id === '*' || isClosed) return
    topic.isFilling = true
    try {
      const hole = topic.holes.at(-1)
      if (!hole) {
        if (topic.head - topic.from < page || isFiltered && topic.rows.length < page) await earlier(topic)
      } else if (hole.state === 'open' && topic.head - hole.to < page) {
        await (hole.work = back(topic, hole).finally(() => { hole.work = undefined }))
      }
    } catch {
      // It can be asked for: `hasEarlier` and the gap say what there is.
    }
    topic.isFilling = false
  }

  /** Take what is in (`from`, `to`] of activities, the oldest first. */
  function between(topic: Topic, from: number, to: number, items: readonly wire.Item[]): void {
    const {rows} = topic
    const inside = items.filter(({offset}) => offset > from && offset <= to)
    const low = rows.findLast(row => row.offset <= from)?.at ?? -Infinity
    admit(topic, inside, low, rows.find(row => row.offset > to)?.at ?? Infinity)
    isStale = hasGrown = topic.isUnwritten = true
    changed(topic)
  }

  function mend(topic: Topic, hole: Hole): void {
    if (hole.from >= hole.to) topic.holes = topic.holes.filter(each => each !== hole)
  }

  async function refill(topic: Topic, hole: Hole): Promise<void> {
    hole.state = 'loading'
    changed(topic)
    try {
      while (topic.holes.includes(hole)) {
        const {from} = hole
        const {activities, next = hole.to} = await history(topic, {after: from}, GAP_PAGE)
        if (!topic.holes.includes(hole)) return
        const taken = Math.min(topic.oldest, activities[0]?.offset ?? Infinity, hole.to + 1) - 1
        if (taken > from && topic.oldest > from + 1) {
          const gone: Hole = {from, to: taken, missed: hole.missed, state: 'gone'}
          topic.holes.splice(topic.holes.indexOf(hole), 0, gone)
          hole.from = taken
        }
        between(topic, hole.from, hole.to, activities)
        hole.from = Math.max(hole.from, Math.min(next, hole.to))
        mend(topic, hole)
        if (hole.from === from) throw new PovError({code: 'internal', message: 'The history does not go on'})
      }
    } finally {
      if (hole.state === 'loading') hole.state = 'open'
      changed(topic)
    }
  }

  async function load(gap: FeedGap): Promise<void> {
    const topic = topics.get(gap.povId)
    // One of an older snapshot may have been filled from either end.
    const hole = topic?.epoch === gap.to.epoch && topic.holes.findLast(({from, to}) =>
      from < gap.to.offset && to > (gap.from?.offset ?? 0))
    if (!topic || !hole || gap.state === 'gone') return
    // The newest page of it may be on its way.
    if (hole.state === 'open') await hole.work?.catch(() => {})
    if (hole.state === 'open') hole.work = refill(topic, hole).finally(() => { hole.work = undefined })
    await hole.work
  }

  // ---- marks ----

  /** The marks, or what is hoped of them, are others: so are the states of rows. */
  function restate(topic: Topic): void {
    isStale = topic.isMarked = true
    changed(topic)
  }

  function marked(topic: Topic, marks: Marks): void {
    topic.marks = marks
    topic.isUnwritten = true
    restate(topic)
  }

  async function mark(topic: Topic, type: 'seen' | 'read' | 'unread', offset: number): Promise<void> {
    const {epoch, hopes} = topic
    const hope = (marks: Marks) => moved[type](marks, offset)
    hopes.add(hope)
    restate(topic)
    try {
      const answer = await client.request(type as string, {povId: topic.id, offset, epoch})
      if (topic.epoch !== epoch) return
      if (type === 'read' && topic.marks) topic.marks = hope(topic.marks)
      hopes.delete(hope)
      message(answer)
    } finally {
      hopes.delete(hope)
      restate(topic)
    }
  }

  function topicOf(row: Row): Topic | undefined {
    const topic = topics.get((row as Kept).topic)
    return topic?.epoch === row.epoch && topic.id !== '*' ? topic : undefined
  }

  function sendSeen(topic: Topic): void {
    const offset = topic.seen
    if (topic.seenTimer || !offset || isClosed || !/^(live|catching-up)$/.test(client.status.state)) return
    topic.seen = 0
    topic.seenTimer = setTimeout(() => {
      topic.seenTimer = undefined
      sendSeen(topic)
    }, 1_000)
    // Not seen, then: what the server last said stands, and the page says it again when it shows them.
    mark(topic, 'seen', offset).catch(() => {})
  }

  // ---- who is there ----

  function apply(topic: Topic, {joined: came, changed: others, left}: wire.PresenceDiff): void {
    for (const each of [...came, ...others]) topic.present.set(each.userId, each)
    for (const each of left) topic.present.delete(each)
    changed(topic)
  }

  /** The page is shown or hidden: a user all of whose pages are hidden is away. */
  function turned(): void {
    for (const topic of topics.values()) if (topic.subscription?.state === 'live') meet(topic)
  }

  function meet(topic: Topic): void {
    if (options.presence !== false && topic.id !== '*') void askPresence(topic)
  }

  async function askPresence(topic: Topic): Promise<void> {
    const diffs = topic.diffs = [] as wire.PresenceDiff[]
    let users: wire.User[] = []
    try {
      ({users} = await client.request('presence', {povId: topic.id, state: globalThis.document?.hidden ? 'away' : 'active'}))
    } catch {
      // Not granted, or not now: nobody is known to be there.
    }
    if (topic.diffs !== diffs) return
    topic.diffs = undefined
    topic.present = new Map(users.map(each => [each.userId, each]))
    for (const each of diffs) apply(topic, each)
    changed(topic)
  }

  function typists(topic: Topic, users: readonly wire.Typist[]): void {
    clearTimeout(topic.typingTimer)
    topic.typing = sameList(topic.typing, users.filter(each => each.userId !== user))
    if (topic.typing.length) topic.typingTimer = setTimeout(() => typists(topic, []), TYPING)
    changed(topic)
  }

  function muted({povId, level, until}: Mute & {povId: string}): void {
    mutes.set(povId, {level, until})
    unmute()
  }

  /** Tell of mutes that have ended, now and when the next one does: the server does not. */
  function unmute(): void {
    const ends = [...mutes.values()].map(({until}) => Date.parse(until ?? '') - Date.now())
    const left = ends.filter(ms => ms > 0)
    clearTimeout(muteTimer)
    // Longer waits than this end at once.
    if (left.length) muteTimer = setTimeout(unmute, Math.min(...left, 2 ** 31 - 1))
    allChanged()
  }

  function message(incoming: Incoming): void {
    const told = incoming as wire.ServerMessage
    if (told.type === 'muted') return muted(told)
    const topic = topics.get((told.type === 'error' ? told.detail : (told as {povId?: string}).povId) ?? '')
    if (!topic) return
    if (told.type === 'marks' && told.epoch === topic.epoch) marked(topic, marksOf(told))
    else if (told.type === 'presence_diff') {
      topic.diffs?.push(told)
      apply(topic, told)
    } else if (told.type === 'typing') typists(topic, told.users)
    else if (told.type === 'receipts') {
      const receipts = new Map(topic.receipts)
      for (const [id, offset] of Object.entries(told.read)) {
        receipts.set(id, Math.max(offset, receipts.get(id) ?? 0))
        const {marks} = topic
        if (id === user && marks && offset > marks.read) marked(topic, moved.read(marks, offset))
      }
      topic.receipts = receipts
      changed(topic)
    } else if (told.type === 'error' && told.code === 'forbidden') {
      topic.present = new Map()
      typists(topic, [])
    }
  }

  async function askMutes(): Promise<void> {
    try {
      const {mutes: list} = await client.request('mutes', {})
      mutes.clear()
      for (const each of list) muted(each)
    } catch {
      // Not granted, or not now: nothing is muted that was not.
    }
  }

  // ---- storage ----

  function denied(error: unknown): void {
    if (isOver) return
    const isFull = (error as DOMException | null)?.name === 'QuotaExceededError'
    storage = isFull ? 'full' : 'denied'
    // Who has no room now may have some later.
    if (!isFull) cache = void cache?.close()
    changed()
  }

  /** Write what is on the page, once it had its chance to be there. */
  function save(): void {
    if (!cache || isWriting || ![...topics.values()].some(each => each.isUnwritten)) return
    isWriting = true
    afterPaint(() => write().finally(() => {
      isWriting = false
      if (storage === 'stored' && !isClosed) save()
    }))
  }

  async function write(): Promise<void> {
    if (!cache || isOver) return
    const due = [...topics.values()].filter(each => each.isUnwritten && each.epoch !== undefined)
    const ranges = due.map(({name: topic, epoch, from, shown, holes, rows, toldAt, marks}) => {
      const above = Math.max(from, holes.at(-1)?.to ?? 0)
      const known = rows.filter(row => row.offset > above && row.offset <= shown)
      return {topic, epoch: epoch!, from: above, to: shown, toldAt, marks, rows: known}
    }).filter((each, i) => each.rows.length || due[i]!.lost)
    for (const each of due) each.isUnwritten = each.shown < each.tip
    try {
      if (ranges.length) await cache.write(ranges)
      if (storage === 'stored' || isOver) return
      storage = 'stored'
      changed()
    } catch (error) {
      for (const each of due) each.isUnwritten = true
      denied(error)
    }
  }

  async function restore(): Promise<void> {
    try {
      cache = await openCache(await client.scope)
      if (isOver || isClosed) return cache.close()
      user ??= client.user
      await Promise.all([...topics.values()].map(async topic => {
        const stored = await cache!.read(topic.name, topic.id, isFiltered)
        if (!stored || isOver) return
        begin(topic, stored.epoch, stored.from, stored.to)
        Object.assign(topic, {oldest: 0, toldAt: stored.toldAt, marks: stored.marks})
        let before = -Infinity
        // Another tab may have begun elsewhere in the log, and dated by that.
        const rows = stored.rows.map(({offset, at, activity}) =>
          asMade(topic, offset, before = Math.max(before, at), activity))
        const own = new Set(rows.filter(row => row.own).map(row => row.offset))
        Object.assign(topic, {rows, latest: before, own})
      }))
      if (!isOver) storage = 'stored'
    } catch (error) {
      denied(error)
    }
    if (isClosed || isOver) return
    follow()
    allChanged()
  }

  // ---- following ----

  function follow(): void {
    for (const topic of topics.values()) {
      const {id, epoch, tip} = topic
      const since = epoch === undefined ? {last: page} : {epoch, offset: tip}
      const subscription = topic.subscription = client.subscribe(id, {since, ...isFiltered && {only}})
      ends.push(
        () => subscription.close(),
        subscription.on('subscribed', result => joined(topic, result)),
        subscription.on('gap', ({to, missed, digest}) => {
          missing(topic, to, missed, digest)
          changed(topic)
        }),
        subscription.on('activity', placed => received(topic, placed)),
        subscription.on('position', ({epoch: of, offset}) => {
          if (of === topic.epoch && offset > topic.tip) reached(topic, offset)
        }),
        subscription.on('error', failure => ended(topic, failure)),
      )
    }
  }

  function welcomed(): void {
    const before = user
    user = client.welcome?.userId ?? client.user
    if (user !== before) for (const each of topics.values()) restate(each)
    void askMutes()
  }

  ends.push(
    client.on('status', ({state}) => {
      if (state !== 'live' && state !== 'catching-up') {
        // Who is there is not known without a connection.
        for (const each of topics.values()) {
          each.present = new Map()
          each.diffs = undefined
          typists(each, [])
        }
      }
      allChanged()
    }),
    client.on('welcome', welcomed),
    client.on('message', message),
    client.on('pending', all => {
      pending = all
      changed()
    }),
    client.on('signedOut', () => {
      isOver = true
      cache = void cache?.close()
      storage = 'off'
      mutes.clear()
      pending = []
      for (const topic of topics.values()) {
        begin(topic, '', 0, 0)
        Object.assign(topic, {epoch: undefined, present: new Map(), isUnwritten: false})
        topic.subscription?.close()
      }
      allChanged()
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
      const wanted = povId === undefined ? [...topics.values()] : [topics.get(povId)]
      await Promise.all(wanted.map(topic => topic && hasEarlier(topic) ? earlier(topic) : undefined))
    },
    load,
    seen(rows) {
      const touched = new Set<Topic>()
      for (const row of rows) {
        const topic = topicOf(row)
        if (!topic || row.offset <= (marksNow(topic)?.seen ?? Infinity)) continue
        topic.seen = row.offset
        touched.add(topic)
      }
      for (const topic of touched) {
        restate(topic)
        sendSeen(topic)
      }
    },
    async read(row) {
      if (row) {
        const topic = topicOf(row)
        if (topic) await mark(topic, 'read', row.offset)
        return
      }
      await Promise.all([...topics.values()].map(topic => {
        const marks = marksNow(topic)
        if (marks && topic.tip >= firstUnread(marks)) return mark(topic, 'read', topic.tip)
      }))
    },
    async markUnread(row) {
      const topic = topicOf(row)
      if (topic) await mark(topic, 'unread', row.offset)
    },
    async mute(povId, level, until) {
      muted(await client.request('mute', {povId, level, until: until?.toISOString()}))
    },
    typing(povId, active, where) {
      client.send('typing', {povId, active, where})
    },
    close() {
      for (const topic of topics.values()) {
        clearTimeout(topic.seenTimer)
        clearTimeout(topic.typingTimer)
        topic.seenTimer = undefined
        sendSeen(topic)
        clearTimeout(topic.seenTimer)
      }
      isClosed = true
      clearTimeout(gathering)
      clearTimeout(muteTimer)
      for (const end of ends) end()
      listeners.clear()
      cache?.close()
    },
  }
}

/** The old object where nothing of it is new, else the new one, frozen. */
function same<T extends object>(old: T, next: T): T {
  return (Object.keys(next) as (keyof T)[]).every(key => old[key] === next[key]) ? old : Object.freeze(next)
}

function sameList<T extends object>(old: readonly T[] = [], next: readonly T[]): readonly T[] {
  return old.length === next.length && old.every((each, i) => each === next[i]) ? old : next
}

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
