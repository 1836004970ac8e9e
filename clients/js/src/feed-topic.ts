/** One log that a feed follows: its rows, what is missing between them, and what comes of it. */
import type {
  Client, Failure, FeedGap, Only, Placed, Position, PovState, Snapshot, Subscription,
} from './api.js'
import type {Kept, Marks} from './feed-rows.js'
import type * as wire from './wire.js'
import {fits} from './client.js'
import {monotone, moved, rowOf, sameList} from './feed-rows.js'

/** Of how many activities is remembered that they are not unread, or changed. */
const OWN = 1_000

/** Some of the log, (`from`, `to`], is missing. `view` is what the page sees of it. */
export interface Hole {
  from: number
  to: number
  missed?: number
  digest?: wire.Digest
  state: FeedGap['state']
  view?: FeedGap
  work?: Promise<unknown>
}

/** One log that is followed, that of a PoV or the team feed `*`. Everything in (`from`, `tip`] is known. */
export interface Topic {
  readonly id: string
  /** Its name in the stored copies: the filter is part of it. */
  readonly name: string
  subscription?: Subscription
  failure?: Failure
  epoch?: string
  /** What rows may have as theirs: the log has had these, and lost no row since. */
  epochs: Set<string>
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
  /** Offsets of what is not unread: the user's own activities, and changes of others. */
  own: Set<number>
  /** What the newest change of an activity says of it, by `nameOf`. */
  changes: Map<string, Partial<wire.Activity>>
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
  /** Something of it changed since the last snapshot; up to where it was shown; not written since. */
  isTouched: boolean
  /** Its marks are others. */
  isMarked?: boolean
  shown: number
  isUnwritten?: boolean
  view?: PovState
}

/** How loud a PoV is, until when, and after that; without a level as by default. */
export interface Mute {
  level?: wire.Level
  until?: string
  then?: wire.Level
}

/** What the parts of one feed have in common. */
export interface Context {
  readonly client: Client
  readonly topics: ReadonlyMap<string, Topic>
  /** The filter, where there is one. */
  readonly only?: Only
  /** Rows of a page. */
  readonly page: number
  readonly mutes: Map<string, Mute>
  muteTimer?: ReturnType<typeof setTimeout>
  user?: string
  pending: Snapshot['pending']
  storage: Snapshot['storage']
  isClosed?: boolean
  /** Signed out: nothing is kept, nothing is written. */
  isOver?: boolean
  /** New rows that are the newest of their logs; unless more changed, and all has to be put together anew. */
  fresh: Kept[]
  isStale: boolean
  /** What was loaded may exceed the limit. */
  hasGrown?: boolean
  /** Changes were told of a moment ago. */
  isTold?: boolean
  /** What the parts need of the store that are loaded beside it. */
  readonly admit: typeof admit
  readonly asMade: typeof asMade
  readonly begin: typeof begin
  readonly fits: typeof fits
  readonly hasEarlier: typeof hasEarlier
  readonly learn: typeof learn
  readonly marked: (context: Context, topic: Topic, marks: Marks) => void
  readonly moved: typeof moved
  readonly sameList: typeof sameList
  fail(failure: Failure): Error
  /** Tell of a change of a topic, else of any: at the end of this turn, or with more that comes. */
  changed(topic?: Topic, canWait?: boolean): void
}

/** The log may have what is before the oldest row. */
export function hasEarlier({id, from, oldest}: Topic): boolean {
  return id !== '*' && from > Math.max(0, oldest - 1)
}

/** The newest page is not all there, or has nothing but what tells of changes, and no more comes by itself. */
export function isLacking({page, only}: Context, topic: Topic): boolean | undefined {
  const {head, from, tip, rows} = topic
  const hole = topic.holes.at(-1)
  if (hole) return hole.state === 'open' && head - hole.to < page
  return hasEarlier(topic) && (head - from < page || only && rows.length < page
    || tip === head && rows.every(row => row.activity.original))
}

/** What is known of a log at its begin: where that is, if it has an epoch, and nothing else. */
function blank(epoch?: string, from = 0, tip = from) {
  return {
    epoch, from, tip, head: tip, rows: [], latest: -Infinity, own: new Set<number>(), epochs: new Set([epoch!]), changes: new Map<never, never>(), holes: [],
    lost: undefined, marks: undefined, hopes: new Set<never>(), seen: 0, seenTimer: undefined,
    receipts: new Map<string, number>(), shown: 0, answeredAt: undefined, earlier: undefined,
  } satisfies Partial<Topic>
}

/** A log that nothing is known of yet. `name` is what its stored copies have. */
export function newTopic(id: string, name: string): Topic {
  return {...blank(), id, name, oldest: 1, toldAt: 0, present: new Map(), typing: [], isTouched: true}
}

/** Begin with a log: what is known of another one is void. */
export function begin(context: Context, topic: Topic, epoch?: string, from?: number, tip?: number): void {
  clearTimeout(topic.seenTimer)
  Object.assign(topic, blank(epoch, from, tip))
  context.isStale = topic.isUnwritten = true
}

/** The marks as they will be when the server has answered. */
export function marksNow(topic: Topic): Marks | undefined {
  if (!topic.marks) return
  const hoped = [...topic.hopes].reduce((marks, hope) => hope(marks), topic.marks)
  return moved.seen(hoped, topic.seen)
}

/** What a change, and the activity that it is about, have in common. */
const nameOf = ({povId, id}: wire.Activity, of = id) => povId + '\n' + of

/** A row as the marks and the changes are now. A change is a row itself, which is not shown. */
export function asMade(
  {user}: Context, topic: Topic, offset: number, at: number, activity: wire.Activity, epoch = topic.epoch!,
): Kept {
  const change = topic.changes.get(nameOf(activity))
  if (change && !activity.retracted) {
    const now = {...activity, ...change}
    // What came as it is now stays the same object.
    if (JSON.stringify(now) !== JSON.stringify(activity)) activity = now
  }
  return rowOf(topic.id, epoch, offset, at, activity, user, marksNow(topic))
}

/** Learn of a change, unless another one followed. */
export function learn(context: Context, topic: Topic, activity: wire.Activity): void {
  const {original, details, amended, retracted, by, reason} = activity
  if (!original || !details && !retracted) return
  topic.changes.set(nameOf(activity, original.id), {details, amended, retracted, by, reason})
  context.isStale = topic.isMarked = true
}

/** Take activities, the oldest first, that lie between two rows. */
export function admit(
  context: Context, topic: Topic, items: readonly wire.Item[], low: number, high: number,
): void {
  if (!items.length) return
  for (const {data} of items) learn(context, topic, data)
  const times = monotone(items.map(each => each.data), low, high)
  const made = items.map(({offset, data}, i) => asMade(context, topic, offset, times[i]!, data))
  topic.latest = Math.max(topic.latest, times.at(-1)!)
  const {rows} = topic
  if (!rows.length || rows.at(-1)!.offset < made[0]!.offset) {
    rows.push(...made)
    context.fresh.push(...made)
  } else {
    rows.splice(rows.findIndex(row => row.offset > made[0]!.offset), 0, ...made)
    context.isStale = true
  }
  for (const row of made) if (row.own) topic.own.add(row.offset)
  bound(topic.own)
  bound(topic.changes)
  topic.isUnwritten = true
}

/** Forget the oldest of too many. */
function bound<K>(kept: Set<K> | Map<K, unknown>): void {
  for (const key of kept.keys()) if (kept.size > OWN) kept.delete(key)
}

/** Forget the rows up to an offset. */
export function cut(topic: Topic, offset: number): void {
  const kept = topic.rows.findIndex(row => row.offset > offset)
  topic.rows.splice(0, kept < 0 ? topic.rows.length : kept)
  topic.from = Math.max(topic.from, offset)
  while (topic.holes[0] && topic.holes[0].from <= topic.from) {
    topic.from = Math.max(topic.from, topic.holes.shift()!.to)
  }
  topic.isTouched = true
}

/** An activity has come. */
export function received(context: Context, topic: Topic, {epoch, offset, activity}: Placed): void {
  if (epoch !== topic.epoch || offset <= topic.tip) return
  // The client says so before; but what is missing must never be silent.
  if (!context.only && offset > topic.tip + 1) breach(context, topic, offset - 1)
  if (fits(activity, context.only)) admit(context, topic, [{offset, data: activity}], topic.latest, Infinity)
  reached(context, topic, offset)
}

/** Everything up to an offset has come. */
export function reached(context: Context, topic: Topic, offset: number): void {
  topic.tip = offset
  topic.isUnwritten = true
  context.changed(topic, offset < topic.head || context.isTold)
}

/** Nothing comes of what is between here and `to`. */
function breach(context: Context, topic: Topic, to: number, missed?: number, digest?: wire.Digest): void {
  const {tip} = topic
  const same = topic.holes.find(hole => hole.to === to)
  if (to > tip) topic.holes.push({from: tip, to, missed, digest, state: topic.id === '*' ? 'gone' : 'open'})
  else if (same) Object.assign(same, {missed: missed ?? same.missed, digest: digest ?? same.digest})
  topic.tip = Math.max(tip, to)
  context.isStale = true
}

/** Something is missing before `to`, of this epoch or of the one before. */
export function missing(
  context: Context, topic: Topic, to: Position, missed?: number, digest?: wire.Digest,
): void {
  const {id, epoch, tip} = topic
  if (epoch === to.epoch) return breach(context, topic, to.offset, missed, digest)
  begin(context, topic, to.epoch, to.offset)
  if (epoch === undefined) return
  topic.lost = Object.freeze({povId: id, from: {epoch, offset: tip}, to, missed, digest, state: 'gone'})
}
