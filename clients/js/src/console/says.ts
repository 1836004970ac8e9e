/** Messages in words: one line each, as somebody would tell it. */
import type {
  Activity, ActivityMessage, ErrorMessage, HistoryPage, MarksMessage, Muting, NewActivity, NotificationMessage, Present,
  PresenceDiff, Receipts, Result, Subscribed, TypingSent, User, Welcome,
} from '../wire.js'
import {findField, type Field} from './schema.js'
import type {Message} from './log.js'

/** A line; `field` stands before the text, emphasised. */
export interface Line {
  readonly text: string
  readonly field?: string
}

const FEW = 3
const plain = new Intl.DateTimeFormat(undefined, {
  weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23',
})

/** 14:12:07.216, the local time. */
export function exactTime(at: number): string {
  const date = new Date(at)
  const two = (value: number) => String(value).padStart(2, '0')
  const ms = String(date.getMilliseconds()).padStart(3, '0')
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`
}

/** 14:12, the local time. */
export const clockTime = (at: number): string => exactTime(at).slice(0, 5)

/** Fri 14:11 */
export const dayTime = (at: number | string): string => plain.format(new Date(at)).replace(',', '')

/** "3 ms", "1.2 s" */
export function took(ms: number): string {
  return ms < 1000 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`
}

/** "23 h 59 min" */
export function lasts(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000))
  if (minutes < 1) return 'less than a minute'
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`
}

/** Some of them by name, the others counted. */
function some(items: readonly string[], more = 0): string {
  const rest = items.length - FEW + more
  return rest > 0 && items.length > FEW ? `${items.slice(0, FEW).join(', ')} and ${rest} more`
    : more ? `${items.join(', ')} and ${more} more` : items.join(', ')
}

const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`
const person = ({userId, devices}: User): string => `${userId} (${devices.join(', ')})`
const deed = ({type = '', action = ''}: Partial<NewActivity | Activity>): string => `${type} ${action}`.trim()
const level = ({povId = NOWHERE, level: loud, until}: Partial<Muting>): string =>
  `${povId} ${loud ?? 'as by default'}${until ? ` until ${dayTime(until)}` : ''}`

/** Fields as they are, for what nobody has words for. */
function rest(message: Message): string {
  return Object.entries(message).filter(([name]) => name !== 'type' && name !== 'id')
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`).join(', ')
}

const KEPT: Readonly<Record<string, string>> = {
  disk: ', kept on disk', process: ', kept in memory', primary: ', kept in memory',
  second: ', kept on disk', replicated: ', kept on two machines',
}

function began(result: Result): string {
  const {povId, offset = 0, recovered, after = offset, missed = 0, guarantee, code, message, filtered} = result
  if (code) return `${povId}: ${message}`
  if (!offset) return `${povId} from 0, nothing has happened there yet`
  const kept = KEPT[guarantee?.survives ?? ''] ?? ''
  const found = recovered && after < offset ? `${offset - after} missed, which follow` : missed ? `${missed} missed` : 'nothing missed'
  return `${povId} from ${offset}, ${found}${filtered ? ', filtered' : ''}${kept}`
}

function marks({povId, inbox, readOffset, seenOffset, unread}: MarksMessage): string {
  return `${inbox ? 'notifications' : povId} read up to ${readOffset}, seen up to ${seenOffset}, ${unread} unread`
}

/** Of what the server sends, by type. */
const GOT: Readonly<Record<string, (message: never) => string>> = {
  welcome: ({userId, device, expiresAt}: Welcome) =>
    `${userId} on device ${device}, token good until ${dayTime(expiresAt)}`,
  activity: ({data, offset, feed}: ActivityMessage) =>
    `${deed(data)} by ${data.userId} on ${data.povId}, offset ${offset}${feed ? ' of the team’s feed' : ''}`,
  published: ({povId, offset, duplicate}: {povId: string; offset: number; duplicate: boolean}) =>
    `${povId}, offset ${offset}${duplicate ? ', it was there already' : ''}`,
  subscribed: (answer: Subscribed) => answer.results ? some(answer.results.map(began)) || 'nothing to follow'
    : answer.povId ? began(answer as Result) : 'nothing to follow',
  unsubscribed: ({povId, message}: {povId: string; message?: string}) =>
    `${povId}${message ? `: ${message}` : ''}`,
  history_page: ({povId, activities, next}: HistoryPage) => {
    const offsets = activities.map(({offset}) => offset)
    const span = offsets.length ? `, offsets ${Math.min(...offsets)} to ${Math.max(...offsets)}` : ''
    const more = next === undefined ? '' : `, more from ${next}`
    return `${count(activities.length, 'activity', 'activities')} of ${povId}${span}${more}`
  },
  present: ({users, more}: Present) => some(users.map(person), more) || 'nobody',
  presence_diff: ({povId, joined, left, changed}: PresenceDiff) => [
    joined.length && `${some(joined.map(person))} came to ${povId}`,
    left.length && `${some(left)} left ${povId}`,
    changed.length && `${some(changed.map(each => `${person(each)} ${each.state}`))} on ${povId}`,
  ].filter(Boolean).join(', '),
  typing: ({povId, users, more}: TypingSent) => {
    const who = users.map(({userId, where}) => where ? `${userId} on ${where}` : userId)
    return `${who.length ? some(who, more) : 'nobody'} in ${povId}`
  },
  receipts: ({povId, read}: Receipts) =>
    `${povId}: ${some(Object.entries(read).map(([id, at]) => `${id} up to ${at}`)) || 'nobody'}`,
  acked: ({povId, offset}: {povId?: string; offset: number}) => `${povId ?? 'notifications'} up to ${offset}`,
  inbox_read: ({offset}: {offset: number}) => `notifications up to ${offset}`,
  marks,
  muted: level,
  mutes: ({mutes}: {mutes: readonly Muting[]}) => some(mutes.map(level)) || 'all as by default',
  position: ({povId, offset}: {povId: string; offset: number}) =>
    `${povId} at ${offset}, what came between is filtered out`,
  notification: ({data: {type, userId, povId}, offset}: NotificationMessage) =>
    `${type}${userId ? ` from ${userId}` : ''}${povId ? ` on ${povId}` : ''}, offset ${offset}`,
  pong: () => 'alive',
  refreshed: ({expiresAt, lost}: {expiresAt: string; lost: readonly string[]}) =>
    `token good until ${dayTime(expiresAt)}${lost.length ? `, no longer for ${some(lost)}` : ''}`,
  token_expiring: ({expiresAt}: {expiresAt: string}) => `at ${dayTime(expiresAt)}`,
  closing: ({code, reason, retryAfter}: {code: number; reason: string; retryAfter?: number}) =>
    `${code} ${reason}${retryAfter === undefined ? '' : `, come back in ${Math.ceil(retryAfter)} s`}`,
}

const place = ({povId, inbox, offset}: {povId?: string; inbox?: boolean; offset: number}): string =>
  `${inbox ? 'notifications' : povId ?? ''} ${offset ? `up to ${offset}` : ''}`.trim()

/** Who leaves a PoV out is told so by the server; here it has to be said in some way. */
const NOWHERE = 'no PoV'

/** Of what is sent to it, by type. */
const SENT: Readonly<Record<string, (message: never) => string>> = {
  subscribe: ({povId, povIds, since}: {povId?: string; povIds?: readonly string[]; since?: unknown}) =>
    `${povIds ? some(povIds) : povId ?? ''}${from(since)}`,
  unsubscribe: ({povId = NOWHERE}: {povId?: string}) => povId,
  resume: () => 'all that is durable',
  history: ({povId = NOWHERE, after, before}: {povId?: string; after?: number; before?: number}) =>
    `of ${povId}${after !== undefined ? `, after ${after}` : before ? `, before ${before}` : ', the newest'}`,
  publish: ({data}: {data?: NewActivity}) => data ? `${deed(data)} on ${data.povId ?? NOWHERE}` : '',
  typing: ({povId = NOWHERE, active, where}: {povId?: string; active?: boolean; where?: string}) =>
    `on ${povId}${where ? `, ${where}` : ''}${active === false ? ', stopped' : ''}`,
  presence: ({povId = NOWHERE, state}: {povId?: string; state?: string}) => `of ${povId}${state ? `, ${state}` : ''}`,
  ack: place,
  read: place,
  seen: place,
  unread: ({povId = NOWHERE, offset = 0}: {povId?: string; offset?: number}) => `${povId} from ${offset} on`,
  mute: level,
  mutes: () => '',
  ping: () => '',
  pong: () => '',
  refresh: () => 'with a new token',
}

function from(since: unknown): string {
  if (since === undefined) return ''
  if (typeof since === 'string') return ', from where this device was'
  const {offset, last} = since as {offset?: number; last?: number}
  return last ? `, the last ${last}` : `, from ${offset}`
}

/** What a message says. Of an error: `fields` are those of the request that it answers, `sent`. */
export function sayMessage(
  message: Message, isSent: boolean, fields: readonly Field[] = [], sent?: Message,
): Line {
  if (message.type === 'error') return sayError(message as unknown as ErrorMessage, fields, sent)
  const words = (isSent ? SENT : GOT)[message.type]
  return {text: words ? words(message as never) : rest(message)}
}

/** What the server says is wrong: the field, and what may be in it. */
function sayError(error: ErrorMessage, fields: readonly Field[], sent?: Message): Line {
  const {code, message, field, detail, retryAfter} = error
  const later = retryAfter ? `, again in ${retryAfter} s` : ''
  if (!field) return {text: `${message}${detail ? `: ${detail}` : ''} (${code})${later}`}
  const found = findField(fields, field)
  if (code === 'invalid_message' && found) {
    const inside = (at: unknown, name: string) => (at as Record<string, unknown> | undefined)?.[name]
    const value = field.split('.').reduce<unknown>(inside, sent)
    return {field, text: `${value === undefined ? 'is missing' : 'is not as it has to be'}: ${wanted(found)}`}
  }
  return {field, text: `${detail ?? message} (${code})${later}`}
}

/** What a field takes. */
export function wanted({kind, options, help, required}: Field): string {
  const what = kind === 'choice' ? options.join(', ')
    : kind === 'json' ? help : [SORTS[kind], help].filter(Boolean).join(', ')
  return required ? what : `${what}; or leave it out`
}

const SORTS: Readonly<Record<Field['kind'], string>> = {
  text: 'a text', number: 'a number', boolean: 'true or false', choice: 'one of those', list: 'a list',
  json: 'JSON', group: 'an object', union: 'one of those',
}
