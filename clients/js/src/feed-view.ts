/** What a page sees of a feed: the rows of all logs in one order, their groups, and each PoV's state. */
import type {FeedGap, PovState, Snapshot} from './api.js'
import type {Kept} from './feed-rows.js'
import type {Context, Topic} from './feed-topic.js'
import {compare, countAfter, firstUnread, group, insert, same, sameList} from './feed-rows.js'
import {asMade, cut, hasEarlier, marksNow} from './feed-topic.js'

/**
 * Make a function that returns the snapshot of now: the one before, if all of it still holds. It has at
 * most `limit` rows (0: all), and those that were loaded beyond that.
 */
export function createView(context: Context, limit: number, groupWithin: number): () => Snapshot {
  const {topics} = context
  let room = limit || Infinity
  // Nobody gets this one: it is what the first is made of.
  let snapshot: Snapshot = {rows: [], groups: [], povs: new Map()} as Partial<Snapshot> as Snapshot

  /** The rows of all PoVs in one order. Costs as much as changed, where rows only came on top. */
  function arrange(): Pick<Snapshot, 'rows' | 'groups'> {
    for (const topic of topics.values()) {
      if (topic.isMarked) {
        topic.isMarked = false
        topic.rows = topic.rows.map(row => {
          const next = asMade(context, topic, row.offset, row.at, row.activity, row.epoch)
          return next.state === row.state && next.own === row.own && next.activity === row.activity ? row : next
        })
      }
      // Of the team feed, whose rows may be hidden, and of bursts more is here than is shown.
      const surplus = topic.rows.length - 2 * room
      if (surplus > 0 && !context.hasGrown) {
        cut(topic, topic.rows[surplus + room - 1]!.offset)
        context.isStale = true
      }
    }
    let rows = snapshot.rows as readonly Kept[]
    let groups = snapshot.groups
    if (context.isStale) {
      const all = [...topics.values()].flatMap(topic => topic.rows.filter(isShown)).sort(compare)
      rows = sameList(rows, all)
      if (context.hasGrown && rows.length > room) room = rows.length
      groups = sameList(groups, group(rows, groups, belong))
    } else if (context.fresh.length) {
      const [joined, above] = insert(rows, context.fresh.filter(isShown).sort(compare))
      if (joined.length > rows.length) {
        let kept = 0
        let count = 0
        while (kept < groups.length && count < above) count += groups[kept++]!.rows.length
        if (kept < groups.length) count += groups[kept++]!.rows.length
        const upTo = joined.length - rows.length + count
        groups = group(joined.slice(0, upTo), groups.slice(0, kept), belong).concat(groups.slice(kept))
        rows = joined
      }
    }
    context.isStale = context.hasGrown = false
    context.fresh = []
    if (rows.length > room) {
      for (const row of rows.slice(room).reverse()) cut(topics.get(row.topic)!, row.offset)
      rows = rows.slice(0, room)
      let count = 0
      let last = 0
      while (count < room) count += groups[last++]!.rows.length
      const whole = groups.slice(0, last)
      if (count > room) whole.push(...group(whole.pop()!.rows.slice(0, room - count) as Kept[], snapshot.groups, belong))
      groups = whole
    }
    // Not frozen: that would cost more than all of this, for each row that comes.
    return {rows, groups}
  }

  /** The team feed's rows of a PoV are not shown beside the PoV's own. */
  function isShown(row: Kept): boolean {
    const own = row.topic === '*' && row.povId !== '*' ? topics.get(row.povId) : undefined
    return !row.activity.original && (!own || !!own.failure && own.subscription?.state === 'ended'
      && !own.rows.some(({activity}) => activity.id === row.activity.id))
  }

  function belong(newer: Kept, older: Kept): boolean {
    const a = newer.activity
    const b = older.activity
    return a.povId === b.povId && newer.topic === older.topic && a.userId === b.userId && a.type === b.type
      && a.action === b.action && a.retracted === b.retracted && newer.at - older.at <= groupWithin && groupWithin > 0
      && !topics.get(newer.topic)!.holes.some(hole => hole.from >= older.offset && hole.to < newer.offset)
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
    const mute = context.mutes.get(id)
    const isOver = Date.parse(mute?.until ?? '') <= Date.now()
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
      level: (isOver ? mute?.then : mute?.level) ?? 'sound',
      mutedUntil: isOver ? undefined : mute?.until,
    }
    return topic.view = view ? same(view, next) : Object.freeze(next)
  }

  function gapsOf({id, epoch, holes, lost}: Topic): FeedGap[] {
    const gaps = holes.map(hole => {
      const {state, digest, view} = hole
      const from = {epoch: epoch!, offset: hole.from}
      const to = {epoch: epoch!, offset: hole.to}
      // How many there are is known where each offset is one that is missing.
      const missed = context.only ? hole.missed : to.offset - from.offset
      const isSame = view?.from!.offset === from.offset && view.to.offset === to.offset
        && view.state === state && view.missed === missed && view.digest === digest
      return hole.view = isSame ? view : Object.freeze({povId: id, from, to, missed, digest, state})
    })
    return lost ? [lost, ...gaps] : gaps
  }

  return () => {
    const {rows, groups} = arrange()
    const views = [...topics.values()].map(look)
    const isSame = snapshot.povs.size && views.every(each => snapshot.povs.get(each.povId) === each)
    const gaps = [...topics.values()].flatMap(gapsOf)
    return snapshot = same(snapshot, {
      connection: context.client.status,
      rows,
      groups,
      unread: views.reduce((sum, each) => sum + each.unread, 0),
      unseen: views.reduce((sum, each) => sum + each.unseen, 0),
      povs: isSame ? snapshot.povs : new Map(views.map(each => [each.povId, each])),
      gaps: sameList(snapshot.gaps, gaps),
      pending: context.pending,
      storage: context.storage,
    })
  }
}
