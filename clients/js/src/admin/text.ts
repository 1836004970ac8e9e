/** The whole answer to why somebody did not see something, as plain text: for a ticket, or a colleague. */
import type {Event, Explained, Lane, Missing, Station} from './source.js'

export type State = 'passed' | 'stop' | 'unknown' | 'ahead'

/** What stands before a station: passed, stopped there, nobody knows, not reached. */
const MARKS = {passed: '+', stop: 'x', unknown: '?', ahead: '.'} as const
/** What only programs need of an event. */
const SILENT: readonly string[] = ['at', 'event', 'epoch', 'connectionId', 'userId']

/** What each station of a lane is to who reads it: behind the one where it stopped all lie ahead. */
export function statesOf(stations: readonly Station[]): State[] {
  const stop = stations.findIndex(({passed}) => passed === false)
  return stations.map(({passed}, n) =>
    stop >= 0 && n > stop ? 'ahead' : passed === null ? 'unknown' : passed ? 'passed' : 'stop')
}

/** One event on a line, without its time. */
export function eventWords(event: Event): string {
  const more = Object.entries(event).filter(([name]) => !SILENT.includes(name))
    .map(([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
  return [event.event, ...more].join(' ')
}

/** `task done by ben, #1 of PoV acme, published by service:board` */
export function activityWords({activity}: Explained): string {
  if (!activity) return ''
  const {type, action, userId, povId, offset, publisher} = activity
  const what = [type, action].filter(Boolean).join(' ')
  const where = `#${offset} of ${povId ? `PoV ${povId}` : 'an inbox'}`
  return [`${what}${userId ? ` by ${userId}` : ''}`.trim(), where, publisher && `published by ${publisher}`]
    .filter(Boolean).join(', ')
}

/** What an answer is without, for a node did not say it. */
export const missingWords = ({node, host, why}: Missing): string =>
  `Without the node ${node} on ${host}, which ${why}: what it knows may change the answer.`

function laneWords({device, cause, answer, connectionId, node, connected, stations}: Lane): string[] {
  const states = statesOf(stations)
  const connection = connectionId ? `, connection ${connectionId} on node ${node}${connected ? '' : ' (gone)'}` : ''
  return [
    '', `${device}: ${answer} [${cause}]${connection}`,
    ...stations.map(({name, at, text}, n) =>
      `  ${MARKS[states[n]!]} ${name.padEnd(12)} ${[at, text].filter(Boolean).join(' ')}`.trimEnd()),
  ]
}

export function asText(answer: Explained): string {
  const {activity, events, lanes, missing, traceSince} = answer
  return [
    `Why did ${answer.userId} not see ${answer.id}?`, '',
    `${answer.answer} [${answer.cause}]`,
    ...(answer.since ? [`since ${answer.since}`] : []),
    `next  ${answer.next}`,
    ...(activity ? ['', activityWords(answer)] : []),
    ...(activity?.traceparent ? [`traceparent ${activity.traceparent}`] : []),
    ...lanes.flatMap(laneWords),
    ...(events.length ? ['', `Last of ${answer.userId}:`] : []),
    ...events.map(each => `  ${each.at} ${eventWords(each)}`),
    '', ...missing.map(missingWords), traceSince ? `The trace begins at ${traceSince}.` : 'Nothing of what happened is kept: see [trace] in the settings.',
    '',
  ].join('\n')
}
