/** What a feed knows of rows without asking anybody: their order, groups, states and counts. */
import type {Group, Row} from './api.js'
import type * as wire from './wire.js'

/** A row and the log it is of: that of its PoV, or the team feed's. */
export interface Kept extends Row {
  readonly topic: string
}

/** How far the user is on a PoV; `top` is the newest offset that the server counted. */
export interface Marks {
  readonly read: number
  readonly seen: number
  /** Everything from here on is unread, too. */
  readonly floor?: number
  readonly top: number
}

/** What the server says of the marks, counts included: they cover everything up to its newest offset. */
export function marksOf(told: wire.MarksMessage | wire.Result): Marks {
  const {readOffset: read = 0, seenOffset, unreadFrom: floor, unread = 0} = told
  return {read, seen: Math.max(read, seenOffset ?? 0), floor, top: firstUnread({read, floor}) - 1 + unread}
}

/** What each request does to the marks, as the server does it. */
export const moved = {
  seen: (marks: Marks, offset: number): Marks => ({...marks, seen: Math.max(marks.seen, offset)}),
  read: (marks: Marks, offset: number): Marks => {
    const {floor, read} = marks
    if (offset >= read) return {...moved.seen(marks, offset), read: offset, floor: undefined}
    return floor !== undefined && floor <= offset ? {...marks, floor: offset + 1} : marks
  },
  unread: (marks: Marks, offset: number): Marks =>
    ({...marks, floor: offset <= marks.read ? offset : undefined}),
}

/** The first offset that is unread. */
export function firstUnread({read, floor = Infinity}: {read: number; floor?: number}): number {
  return Math.min(read + 1, floor)
}

/** How many after offset `after` are not the user's own, if `last` is the newest. */
export function countAfter(after: number, last: number, own: ReadonlySet<number>): number {
  let count = last - after
  for (const each of own) if (each > after && each <= last) count--
  return Math.max(0, count)
}

/** Make a row; without marks (the team feed has none) it is read. */
export function rowOf(
  topic: string, epoch: string, offset: number, at: number, activity: wire.Activity,
  user?: string, marks?: Marks,
): Kept {
  const own = !!activity.original || activity.userId === user
  const state = own || !marks || offset < firstUnread(marks) ? 'read' : offset > marks.seen ? 'new' : 'seen'
  const key = JSON.stringify([topic, epoch, offset])
  return Object.freeze({key, topic, povId: activity.povId, epoch, offset, activity, at, state, own})
}

/**
 * Times to sort activities by, which lie between two rows with the times `low` and `high`; the
 * oldest first. They never go back along the log, however the clocks of the servers went.
 */
export function monotone(activities: readonly wire.Activity[], low: number, high: number): number[] {
  const times = activities.map(each => {
    const at = Date.parse(each.at ?? '')
    if (!Number.isNaN(at)) return Math.min(at, high)
    return low > -Infinity ? low : high < Infinity ? high : Date.now()
  })
  if (low === -Infinity && high < Infinity) {
    for (let i = times.length - 1, next = high; i >= 0; i--) next = times[i] = Math.min(times[i]!, next)
  } else {
    for (let i = 0, before = low; i < times.length; i++) before = times[i] = Math.max(times[i]!, before)
  }
  return times
}

/** Newest first: by time, then by log, then by offset. */
export function compare(a: Kept, b: Kept): number {
  return b.at - a.at || (a.topic === b.topic ? b.offset - a.offset : a.topic < b.topic ? 1 : -1)
}

/** Put new rows (sorted) into rows, and say how many of the old ones lie above the last of the new. */
export function insert(rows: readonly Kept[], fresh: readonly Kept[]): [rows: Kept[], above: number] {
  const head: Kept[] = []
  let above = 0
  for (const row of fresh) {
    while (above < rows.length && compare(rows[above]!, row) < 0) head.push(rows[above++]!)
    head.push(row)
  }
  return [head.concat(above ? rows.slice(above) : rows), above]
}

/** Group rows; of `known` groups those that are still the same are taken as they are. */
export function group(
  rows: readonly Kept[], known: readonly Group[], belong: (newer: Kept, older: Kept) => boolean,
): Group[] {
  const before = new Map(known.map(each => [each.key, each]))
  const groups: Group[] = []
  for (let start = 0, end: number; start < rows.length; start = end) {
    for (end = start + 1; end < rows.length && belong(rows[end - 1]!, rows[end]!);) end++
    const {key} = rows[end - 1]!
    const old = before.get(key)
    if (old?.rows.length === end - start && old.rows.every((row, i) => row === rows[start + i])) {
      groups.push(old)
      continue
    }
    const members = Object.freeze(rows.slice(start, end))
    const has = (state: Row['state']) => members.some(row => row.state === state)
    const state = has('new') ? 'new' : has('seen') ? 'seen' : 'read'
    groups.push(Object.freeze({key, rows: members, state}))
  }
  return groups
}

/** The old object where nothing of it is new, else the new one, frozen. */
export function same<T extends object>(old: T, next: T): T {
  return (Object.keys(next) as (keyof T)[]).every(key => old[key] === next[key]) ? old : Object.freeze(next)
}

/** The old list where the new one has the same members. */
export function sameList<T extends object>(old: readonly T[] = [], next: readonly T[]): readonly T[] {
  return old.length === next.length && old.every((each, i) => each === next[i]) ? old : next
}
