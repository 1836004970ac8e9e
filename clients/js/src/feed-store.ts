/**
 * What a feed shows is written where it was stored, and is there at once when the page is back. It is loaded beside
 * the store, and imports nothing that the store has: the context hands it over.
 */
import type {Cache} from './feed-cache.js'
import type {Context, Topic} from './feed-topic.js'
import {openCache} from './feed-cache.js'

/** How long stored rows may be on their way, ms: a tab that is frozen while it writes holds them for hours. */
const PATIENCE = 2_000

function inTime<T>(all: Promise<T>[]): Promise<T[]> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new DOMException('The database does not answer', 'TimeoutError')), PATIENCE)
    Promise.all(all).then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** Its state is `storage` of the context. Nothing of it rejects. */
export interface Store {
  /** Take what is stored, and call when the logs can go on from there, whatever came of it. */
  restore(then: () => void): Promise<void>
  /** Write what is on the page, once it had its chance to be there. */
  save(): void
  forget(topic: Topic): void
  close(): void
}

/** `afterPaint` calls when what was told of had its chance to be painted. */
export function createStore(context: Context, afterPaint: (then: () => Promise<void>) => void): Store {
  const {client, only} = context
  const topics = [...context.topics.values()]
  let cache: Cache | undefined
  let isWriting = false

  function denied(error: unknown): void {
    if (context.isOver) return
    const isFull = (error as DOMException | null)?.name === 'QuotaExceededError'
    context.storage = isFull ? 'full' : 'denied'
    // Who has no room now may have some later.
    if (!isFull) cache = void cache?.close()
    context.changed()
  }

  function save(): void {
    if (!cache || isWriting || !topics.some(each => each.isUnwritten)) return
    isWriting = true
    afterPaint(() => write().finally(() => {
      isWriting = false
      if (context.storage === 'stored' && !context.isClosed) save()
    }))
  }

  async function write(): Promise<void> {
    if (!cache || context.isOver) return
    const due = topics.filter(each => each.isUnwritten && each.epoch !== undefined)
    const ranges = due.map(({name: topic, epoch, from, shown, holes, rows, toldAt, marks}) => {
      const above = Math.max(from, holes.at(-1)?.to ?? 0)
      const known = rows.filter(row => row.offset > above && row.offset <= shown)
      return {topic, epoch: epoch!, from: above, to: shown, toldAt, marks, rows: known}
    }).filter((each, i) => each.rows.length || due[i]!.lost)
    for (const each of due) each.isUnwritten = each.shown < each.tip
    try {
      if (ranges.length) await cache.write(ranges)
      if (context.storage === 'stored' || context.isOver) return
      context.storage = 'stored'
      context.changed()
    } catch (error) {
      for (const each of due) each.isUnwritten = true
      denied(error)
    }
  }

  async function restore(then: () => void): Promise<void> {
    try {
      cache = await openCache(await client.scope)
      if (context.isOver || context.isClosed) return cache.close()
      context.user ??= client.user
      const found = await inTime(topics.map(topic => cache!.read(topic.name, topic.id, !!only)))
      if (context.isOver) return
      for (const [i, topic] of topics.entries()) {
        const stored = found[i]
        if (!stored) continue
        context.begin(context, topic, stored.epoch, stored.from, stored.to)
        Object.assign(topic, {oldest: 0, toldAt: stored.toldAt, marks: stored.marks})
        let before = -Infinity
        for (const {activity} of stored.rows) context.learn(context, topic, activity)
        // Another tab may have begun elsewhere in the log, and dated by that.
        const rows = stored.rows.map(({offset, at, activity}) =>
          context.asMade(context, topic, offset, before = Math.max(before, at), activity))
        const own = new Set(rows.filter(row => row.own).map(row => row.offset))
        Object.assign(topic, {rows, latest: before, own})
      }
      context.storage = 'stored'
    } catch (error) {
      denied(error)
    }
    if (context.isClosed || context.isOver) return
    then()
    context.changed()
  }

  return {
    restore,
    save,
    forget(topic) {
      cache?.forget(topic.name).catch(denied)
    },
    close() {
      cache?.close()
    },
  }
}
