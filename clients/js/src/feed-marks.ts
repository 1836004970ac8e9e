/** How far the user is on what a feed follows: what the server says of it and what it is told. */
import type {Incoming, Row} from './api.js'
import type {Kept, Marks} from './feed-rows.js'
import type {Context, Topic} from './feed-topic.js'
import type * as wire from './wire.js'
import {marksOf, moved} from './feed-rows.js'

/** What was seen is said at most once in this many ms. */
const SEEN = 1_000

/** The marks, or what is hoped of them, are others: so are the states of rows. */
export function restate(context: Context, topic: Topic): void {
  context.isStale = topic.isMarked = true
  context.changed(topic)
}

/** The marks are these now. */
export function marked(context: Context, topic: Topic, marks: Marks): void {
  topic.marks = marks
  topic.isUnwritten = true
  restate(context, topic)
}

/** The server says what the marks are, unasked or as an answer. */
export function told(context: Context, topic: Topic, incoming: Incoming): void {
  const marks = incoming as wire.ServerMessage
  if (marks.type === 'marks' && marks.epoch === topic.epoch) marked(context, topic, marksOf(marks))
}

/** Move a mark: here at once, and back if the server does not. Rejects with a `PovError`, then. */
export async function mark(
  context: Context, topic: Topic, type: 'seen' | 'read' | 'unread', offset: number,
): Promise<void> {
  const {epoch, hopes} = topic
  const hope = (marks: Marks) => moved[type](marks, offset)
  hopes.add(hope)
  restate(context, topic)
  try {
    const answer = await context.client.request(type as string, {povId: topic.id, offset, epoch})
    if (topic.epoch !== epoch) return
    if (type === 'read' && topic.marks) topic.marks = hope(topic.marks)
    hopes.delete(hope)
    told(context, topic, answer)
  } finally {
    hopes.delete(hope)
    restate(context, topic)
  }
}

/** The log that has marks for a row, if the row is of one as it is now. */
export function topicOf({topics}: Context, row: Row): Topic | undefined {
  const topic = topics.get((row as Kept).topic)
  if (topic?.epochs.has(row.epoch) && topic.id !== '*') return topic
}

/** Tell the server what was seen: now, or when it was not told for a while, or when it can be. */
export function sendSeen(context: Context, topic: Topic): void {
  const {client, isClosed} = context
  const offset = topic.seen
  if (topic.seenTimer || !offset || isClosed || !/^(live|catching-up)$/.test(client.status.state)) return
  topic.seen = 0
  topic.seenTimer = setTimeout(() => {
    topic.seenTimer = undefined
    sendSeen(context, topic)
  }, SEEN)
  // Not seen, then: what the server last said stands, and the page says it again when it shows them.
  mark(context, topic, 'seen', offset).catch(() => {})
}
