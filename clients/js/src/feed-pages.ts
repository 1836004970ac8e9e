/**
 * Pages of a log that a feed follows: what was before its rows, and what is missing between them. It is loaded when
 * there is a page to ask for, and imports nothing that the store has: the context hands it over.
 */
import type {FeedGap} from './api.js'
import type {Context, Hole, Topic} from './feed-topic.js'
import type * as wire from './wire.js'

/** Rows of a page of a gap. */
const GAP_PAGE = 500
/** How many pages of the history are searched for a page of rows that pass the filter. */
const SEARCHED = 5

/** One page; the oldest first. `next` is absent at the end of the log. */
async function history(
  context: Context, topic: Topic, place: {after?: number; before?: number}, size: number,
): Promise<wire.HistoryPage> {
  const short = (list: string[] | undefined, most: number) => list && list.length <= most ? list : undefined
  const {client, only} = context
  const {epoch} = topic
  const found = await client.request('history', {
    povId: topic.id, ...place, limit: size,
    types: short(only?.types, 20), actions: short(only?.actions, 20), users: short(only?.users, 50),
  })
  const {isClosed} = context
  if (isClosed || found.epoch !== epoch || topic.epoch !== epoch)
    throw context.fail({code: isClosed ? 'closed' : 'epoch_changed', message: 'This is another log'})
  topic.oldest = found.oldestOffset
  const activities = found.activities.filter(each => context.fits(each.data, only))
  return {...found, activities: place.before ? activities.reverse() : activities}
}

/** Load what is before the oldest row: about a page of what passes the filter. */
export function earlier(context: Context, topic: Topic): Promise<void> {
  if (topic.earlier) return topic.earlier
  // Another log may have begun, and its own page be on its way, before this one fails.
  const mine = topic.earlier = search(context, topic).finally(() => {
    if (topic.earlier === mine) topic.earlier = undefined
  })
  return mine
}

async function search(context: Context, topic: Topic): Promise<void> {
  let found = 0
  for (let i = 0; i < SEARCHED && found < context.page && context.hasEarlier(topic); i++) {
    found += await back(context, topic)
  }
}

/** Load the page at the end of a hole, or the one before the oldest row; return how many rows came. */
async function back(context: Context, topic: Topic, hole?: Hole): Promise<number> {
  const at = hole ? hole.to : topic.from
  const {activities, next} = await history(context, topic, {before: at + 1}, context.page)
  // What left memory meanwhile is between the rows and this page.
  if (hole ? !topic.holes.includes(hole) : topic.from !== at) return 0
  between(context, topic, hole ? hole.from : -1, at, activities)
  const to = Math.min(at, Math.max(hole ? hole.from : 0, (next ?? topic.oldest) - 1))
  if (!hole) topic.from = to
  else {
    hole.to = to
    if (next === undefined) hole.state = 'gone'
    mend(topic, hole)
  }
  return activities.filter(({data}) => !data.original).length
}

/** Have the newest page, which is neither there nor comes by itself (see `isLacking`). */
export async function fill(context: Context, topic: Topic): Promise<void> {
  if (context.isClosed) return
  const hole = topic.holes.at(-1)
  try {
    if (!hole) await earlier(context, topic)
    else await (hole.work ??= back(context, topic, hole).finally(() => { hole.work = undefined }))
  } catch {
    // It can be asked for: `hasEarlier` and the gap say what there is.
  }
}

/** Take what is in (`from`, `to`] of activities, the oldest first. */
function between(
  context: Context, topic: Topic, from: number, to: number, items: readonly wire.Item[],
): void {
  const {rows} = topic
  // What followed a change while the page was on its way is here already, and is what counts.
  const isFollowed = ({data: {povId, original}, offset}: wire.Item) => original && rows.some(row =>
    row.offset > offset && row.povId === povId && row.activity.original?.id === original.id)
  const inside = items.filter(({offset}) => offset > from && offset <= to)
    .map(each => isFollowed(each) ? {...each, data: {...each.data, details: undefined}} : each)
  const low = rows.findLast(row => row.offset <= from)?.at ?? -Infinity
  context.admit(context, topic, inside, low, rows.find(row => row.offset > to)?.at ?? Infinity)
  context.isStale = context.hasGrown = topic.isUnwritten = true
  context.changed(topic)
}

function mend(topic: Topic, hole: Hole): void {
  if (hole.from >= hole.to) topic.holes = topic.holes.filter(each => each !== hole)
}

async function refill(context: Context, topic: Topic, hole: Hole): Promise<void> {
  hole.state = 'loading'
  context.changed(topic)
  try {
    while (topic.holes.includes(hole)) {
      const {from} = hole
      const {activities, next = hole.to} = await history(context, topic, {after: from}, GAP_PAGE)
      if (!topic.holes.includes(hole)) return
      const taken = Math.min(topic.oldest, activities[0]?.offset ?? Infinity, hole.to + 1) - 1
      if (taken > from && topic.oldest > from + 1) {
        const gone: Hole = {from, to: taken, missed: hole.missed, state: 'gone'}
        topic.holes.splice(topic.holes.indexOf(hole), 0, gone)
        hole.from = taken
      }
      between(context, topic, hole.from, hole.to, activities)
      hole.from = Math.max(hole.from, Math.min(next, hole.to))
      mend(topic, hole)
      if (hole.from === from) throw context.fail({code: 'internal', message: 'The history does not go on'})
    }
  } finally {
    if (hole.state === 'loading') hole.state = 'open'
    context.changed(topic)
  }
}

/** Load all that is missing in a gap that the page saw. */
export async function load(context: Context, gap: FeedGap): Promise<void> {
  const topic = context.topics.get(gap.povId)
  // One of an older snapshot may have been filled from either end.
  const hole = topic?.epoch === gap.to.epoch && topic.holes.findLast(({from, to}) =>
    from < gap.to.offset && to > (gap.from?.offset ?? 0))
  if (!topic || !hole || gap.state === 'gone') return
  // The newest page of it may be on its way.
  if (hole.state === 'open') await hole.work?.catch(() => {})
  if (hole.state === 'open') {
    hole.work = refill(context, topic, hole).finally(() => { hole.work = undefined })
  }
  await hole.work
}
