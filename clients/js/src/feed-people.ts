/**
 * Who is on what a feed follows, writes there and has read it, and what the user has muted. It is loaded beside the
 * store, and imports nothing that the store has: the context hands it over.
 */
import type {Context, Mute, Topic} from './feed-topic.js'
import type * as wire from './wire.js'

/** A list of who writes is void after this many ms (docs/protocol.md). */
const TYPING = 8_000

/** Who is there has changed. */
export function moving(context: Context, topic: Topic, diff: wire.PresenceDiff): void {
  const {joined: came, changed: others, left} = diff
  topic.diffs?.push(diff)
  for (const each of [...came, ...others]) topic.present.set(each.userId, each)
  for (const each of left) topic.present.delete(each)
  context.changed(topic)
}

/** Be there, as active as the page is, and ask who else is. */
export async function askPresence(context: Context, topic: Topic): Promise<void> {
  const diffs = topic.diffs = [] as wire.PresenceDiff[]
  let users: wire.User[] = []
  try {
    const state = globalThis.document?.hidden ? 'away' : 'active'
    ;({users} = await context.client.request('presence', {povId: topic.id, state}))
  } catch {
    // Not granted, or not now: nobody is known to be there.
  }
  if (topic.diffs !== diffs) return
  topic.diffs = undefined
  topic.present = new Map(users.map(each => [each.userId, each]))
  for (const each of diffs) moving(context, topic, each)
  context.changed(topic)
}

/** Nobody is known to be there. */
export function vacate(context: Context, topic: Topic): void {
  topic.present = new Map()
  typists(context, topic, [])
}

/** Who writes, until it is said anew or for too long not. */
export function typists(context: Context, topic: Topic, users: readonly wire.Typist[]): void {
  clearTimeout(topic.typingTimer)
  topic.typing = context.sameList(topic.typing, users.filter(each => each.userId !== context.user))
  if (topic.typing.length) topic.typingTimer = setTimeout(() => typists(context, topic, []), TYPING)
  context.changed(topic)
}

/** Who has read how far: the user, too, elsewhere. */
export function receive(context: Context, topic: Topic, read: Readonly<Record<string, number>>): void {
  const receipts = new Map(topic.receipts)
  for (const [id, offset] of Object.entries(read)) {
    receipts.set(id, Math.max(offset, receipts.get(id) ?? 0))
    const {marks} = topic
    if (id === context.user && marks && offset > marks.read) context.marked(context, topic, context.moved.read(marks, offset))
  }
  topic.receipts = receipts
  context.changed(topic)
}

/** A PoV is as loud as that now. */
export function muted(context: Context, {povId, ...mute}: Mute & {povId: string}): void {
  context.mutes.set(povId, mute)
  unmute(context)
}

/** Tell of mutes that have ended, now and when the next one does: the server does not. */
function unmute(context: Context): void {
  const ends = [...context.mutes.values()].map(({until}) => Date.parse(until ?? '') - Date.now())
  const left = ends.filter(ms => ms > 0)
  clearTimeout(context.muteTimer)
  // Longer waits than this end at once.
  if (left.length) context.muteTimer = setTimeout(() => unmute(context), Math.min(...left, 2 ** 31 - 1))
  context.changed()
}

/** Ask what is muted. */
export async function askMutes(context: Context): Promise<void> {
  try {
    const {mutes} = await context.client.request('mutes', {})
    context.mutes.clear()
    for (const each of mutes) muted(context, each)
  } catch {
    // Not granted, or not now: nothing is muted that was not.
  }
}
