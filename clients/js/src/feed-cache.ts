/** Rows and positions in IndexedDB, so that a reload shows them at once and goes on from there. */
import type {Kept, Marks} from './feed-rows.js'
import type * as wire from './wire.js'
import {completed, openDatabase, result} from './database.js'

/** How many rows of a topic are kept, of how many topics, for how long since they were written. */
const ROWS = 200
const TOPICS = 200
const AGE = 30 * 86_400_000
/** What is known without a hole of a topic: everything (that passes its filter) in (`from`, `to`]. */
export interface Range {
  epoch: string
  from: number
  to: number
  /** When the server last said that this is the epoch, ms since 1970. */
  toldAt: number
  marks?: Marks
}

export interface Stored extends Range {
  /** The oldest first, without a hole, up to `to`. */
  rows: {offset: number; at: number; activity: wire.Activity}[]
}

/** A range to write, with all its rows that are in memory, the oldest first. */
export interface Written extends Range {
  topic: string
  rows: readonly Kept[]
}

export interface Cache {
  /** What is stored of a topic, if there is any. What does not have the shape is as if it was not there. */
  read(topic: string, povId: string, isFiltered: boolean): Promise<Stored | undefined>
  /** Write all or nothing. Rejects with why nothing was written. */
  write(ranges: readonly Written[]): Promise<void>
  forget(topic: string): Promise<void>
  close(): void
}

interface Entry extends Range {
  topic: string
  /** When it was written, ms since 1970. */
  at: number
}

/** Open the stored rows of a user. Rejects if it cannot be or takes too long. */
export async function openCache(scope: string): Promise<Cache> {
  const database = await openDatabase(scope)
  let isSwept = false
  const begin = (mode: IDBTransactionMode) => {
    const transaction = database.transaction(['rows', 'positions'], mode)
    return [transaction, transaction.objectStore('rows'), transaction.objectStore('positions')] as const
  }

  return {
    async read(topic, povId, isFiltered) {
      const [, rows, positions] = begin('readonly')
      const [entry, found] = await Promise.all([
        result(positions.get(topic)) as Promise<unknown>,
        result(rows.getAll(allOf(topic))) as Promise<unknown[]>,
      ])
      if (!isEntry(entry) || entry.at < Date.now() - AGE) return
      const {epoch, from, to, toldAt, marks} = entry
      const kept: Stored['rows'] = []
      // Backwards, for what is before a hole is not known to be all.
      let next = to
      let isWhole = true
      for (const row of found.reverse()) {
        isWhole = isRow(row) && row.epoch === epoch && row.offset <= to && row.offset > from
          && (povId === '*' || row.activity.povId === povId) && (isFiltered || row.offset === next)
        if (!isWhole) break
        kept.push(row as Kept)
        next = (row as Kept).offset - 1
      }
      if (!kept.length) return
      if (isWhole && isFiltered) next = from
      return {epoch, from: next, to, toldAt, marks: isMarks(marks) ? marks : undefined, rows: kept.reverse()}
    },

    async write(ranges) {
      const [transaction, rows, positions] = begin('readwrite')
      const done = completed(transaction)
      try {
        await Promise.all(ranges.map(each => put(each, rows, positions)))
        if (!isSwept) await sweep(rows, positions)
      } catch (error) {
        try {
          transaction.abort()
        } catch {} // it has ended already, which is why
        await done.catch(() => {})
        throw transaction.error ?? error
      }
      await done
      isSwept = true
    },

    async forget(topic) {
      const [transaction, rows, positions] = begin('readwrite')
      rows.delete(allOf(topic))
      positions.delete(topic)
      await completed(transaction)
    },

    close: () => database.close(),
  }
}

/** Several tabs write the same: what is there stays as it is, and is made longer or replaced. */
async function put(given: Written, rows: IDBObjectStore, positions: IDBObjectStore): Promise<void> {
  const {topic, epoch} = given
  const newest = given.rows.slice(-ROWS)
  let {from, to, toldAt, marks} = given
  from = Math.max(from, given.rows.at(-ROWS - 1)?.offset ?? 0)
  const found: unknown = await result(positions.get(topic))
  const old = isEntry(found) ? found : undefined
  if (old && (old.epoch === epoch ? to < old.from : toldAt < old.toldAt)) return
  const known = old?.epoch === epoch && from <= old.to ? old : undefined
  if (!known) rows.delete(allOf(topic))
  for (const {offset, at, activity} of newest) {
    if (!known || offset > known.to || offset <= known.from || activity.amended || activity.retracted) rows.put({topic, epoch, offset, at, activity})
  }
  if (known) {
    if (to < known.to) marks = known.marks
    from = Math.min(from, known.from)
    to = Math.max(to, known.to)
    toldAt = Math.max(toldAt, known.toldAt)
  }
  if (to - from > ROWS) {
    const keys = await result(rows.getAllKeys(allOf(topic))) as [string, string, number][]
    const last = keys.at(-ROWS - 1)
    if (last) {
      from = last[2]
      rows.delete(IDBKeyRange.bound([topic], last))
    }
  }
  positions.put({topic, epoch, from, to, toldAt, marks, at: Date.now()} satisfies Entry)
}

/** Leave out what is too old, and the longest unused of too many. */
async function sweep(rows: IDBObjectStore, positions: IDBObjectStore): Promise<void> {
  const all: unknown[] = await result(positions.getAll())
  const at = (each: unknown) => isEntry(each) ? each.at : 0
  all.sort((a, b) => at(b) - at(a))
  for (const [index, each] of all.entries()) {
    if (index < TOPICS && at(each) >= Date.now() - AGE) continue
    const {topic} = each as Entry
    positions.delete(topic)
    rows.delete(allOf(topic))
  }
}

function allOf(topic: string): IDBKeyRange {
  return IDBKeyRange.bound([topic], [topic, []])
}

// What is stored is what another version, or another program, wrote.

function isEntry(value: unknown): value is Entry {
  const {topic, epoch, from, to, toldAt, at} = (value ?? {}) as Record<string, unknown>
  return typeof topic === 'string' && typeof epoch === 'string'
    && isOffset(from) && isOffset(to) && from <= to && Number.isFinite(toldAt) && Number.isFinite(at)
}

function isMarks(value: unknown): value is Marks {
  const {read, seen, floor, top} = (value ?? {}) as Record<string, unknown>
  return isOffset(read) && isOffset(seen) && isOffset(top) && (floor === undefined || isOffset(floor))
}

function isRow(value: unknown): value is Kept {
  const {epoch, offset, at, activity} = (value ?? {}) as Record<string, unknown>
  const texts = activity as Record<string, unknown> | null
  return typeof epoch === 'string' && isOffset(offset) && Number.isFinite(at) && !!texts
    && ['id', 'type', 'action', 'povId', 'userId'].every(name => typeof texts[name] === 'string')
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number >= 0
}
