/** How the connection and the completeness of a feed are said: one table, for header, foot, thread and voice. */
import type {FeedGap, PovState, Snapshot, Status} from '../api.js'
import type {Glyph} from './icons.js'
import {completeSince, isEarly} from './brief.js'
import {moment, span} from './times.js'
import type {Speaker, Values} from './text.js'

/** What is said of a state. Names are those of sentences. */
export interface Said {
  /** The state's name: `says.NAME` and its like. */
  readonly name: StateName
  readonly glyph: Glyph
  /** Of the thread below the bead: dotted `broken`, dashed `filling`, none `bad`, else inked or plain. */
  readonly thread: '' | 'broken' | 'filling' | 'bad'
  readonly says: readonly [key: string, values?: Values]
  /** What is said beside it where there is room. */
  readonly also?: Said['says']
  readonly foot: readonly [key: string, values?: Values]
  /** The one thing to press: `do.ACTION`. */
  readonly action?: 'retry' | 'resume' | 'sign-in' | 'reload'
  /** The state for the page's own styles: `:state(NAME)`. */
  readonly state: 'live' | 'offline' | 'catching-up' | 'paused' | 'expired' | 'signed-out' | 'connecting' | 'stopped'
}

export type StateName =
  | 'connecting' | 'live' | 'catching-up' | 'slow' | 'offline' | 'paused' | 'restarting' | 'busy' | 'renewing'
  | 'expired' | 'signed-out' | 'ended' | 'page-error' | 'refused' | 'closed' | 'no-access'

/** Renewing the token is said when it has taken this long, ms. */
const RENEWING = 10_000

/** Which of our states a client is in. `ended`: all that is followed may not be seen. */
export function stateOf({state, reason, since}: Status, now = Date.now()): StateName {
  if (state === 'connecting' || state === 'live') return state
  if (state === 'suspended') return 'paused'
  if (state === 'closed') {
    if (reason === 'session_ended') return 'expired'
    if (reason === 'signed_out') return 'signed-out'
    return reason === 'page_error' ? 'page-error' : reason === 'ended' || reason === 'refused' ? reason : 'closed'
  }
  if (reason === 'slow') return 'slow'
  if (state === 'catching-up') return state
  if (reason === 'restarting' || reason === 'busy') return reason
  if (reason === 'token') return now - since >= RENEWING ? 'renewing' : 'live'
  return reason === 'gap' ? 'catching-up' : 'offline'
}

const TABLE: Record<StateName, readonly [Glyph, Said['thread'], Said['state'], Said['action']?]> = {
  connecting: ['connecting', 'filling', 'connecting'],
  live: ['live', '', 'live'],
  'catching-up': ['catching', 'filling', 'catching-up'],
  slow: ['catching', 'filling', 'catching-up'],
  offline: ['offline', 'broken', 'offline', 'retry'],
  paused: ['paused', 'broken', 'paused', 'resume'],
  restarting: ['connecting', 'broken', 'offline'],
  busy: ['busy', 'broken', 'offline', 'retry'],
  renewing: ['connecting', 'broken', 'offline'],
  expired: ['expired', 'broken', 'expired', 'sign-in'],
  'signed-out': ['signedout', 'bad', 'signed-out', 'sign-in'],
  ended: ['refused', 'bad', 'stopped'],
  'page-error': ['refused', 'bad', 'stopped', 'reload'],
  refused: ['refused', 'bad', 'stopped'],
  closed: ['signedout', 'bad', 'stopped'],
  'no-access': ['refused', 'bad', 'stopped'],
}

const isGone = ({state, failure}: PovState) => state === 'ended' && failure?.code === 'forbidden'

/** The gaps whose number is known and that can be loaded. */
const missedOf = (gaps: readonly FeedGap[]) =>
  gaps.filter(each => each.state !== 'gone').reduce((sum, each) => sum + (each.missed ?? 0), 0)

/** How far catching up has come, and from when on there was no connection. */
export interface Progress {
  readonly since: number | undefined
  readonly n: number
  readonly total: number
}

/** All that is said of a feed. `now` in ms. */
export function sayState(speaker: Speaker, snapshot: Snapshot, now = Date.now(), progress?: Progress): Said {
  const {connection, povs, gaps, rows, pending} = snapshot
  const all = [...povs.values()]
  const denied = all.filter(isGone).length
  const found = stateOf(connection, now)
  const name = denied && denied === all.length && connection.state !== 'closed' ? 'no-access'
    // Who was never here had no session that could end.
    : found === 'expired' && !rows.length && all.every(each => !each.position) ? 'signed-out'
    : isEarly(snapshot) ? 'connecting' : found
  const [glyph, thread, state, action] = TABLE[name]
  const since = completeSince(snapshot)
  const at = {time: moment(speaker, connection.since, now)}
  let says: Said['says'] = [`says.${name}`, at]
  let also: Said['also']
  let foot: Said['foot'] = ['foot.up-to-date']
  if (name === 'live') {
    const missed = missedOf(gaps)
    const digest = gaps.find(each => each.digest && each.state !== 'gone')
    if (digest) {
      says = ['says.digest', at]
      foot = ['foot.live-since', at]
    } else if (missed) {
      says = ['says.missed', {n: missed}]
      foot = ['foot.gaps', {n: missed}]
    } else if (!rows.length && since !== undefined) {
      says = ['says.nothing']
      foot = ['foot.nothing']
    } else if (since !== undefined) {
      also = ['says.since', {time: moment(speaker, since, now)}]
      foot = ['foot.since', {time: moment(speaker, since, now)}]
    }
    if (denied) foot = ['foot.denied', {n: denied, total: all.length}]
  } else if (name === 'connecting') foot = ['foot.connecting']
  else if (thread === 'filling' && progress) {
    if (name === 'catching-up' && progress.n && progress.n < progress.total) says = ['says.progress', {n: progress.n, total: progress.total}]
    foot = progress.since ? ['foot.away', {time: span(speaker, now - progress.since)}] : ['foot.connecting']
  } else if (thread === 'filling') foot = ['foot.connecting']
  else if (name === 'signed-out') foot = ['foot.wiped']
  else if (name === 'no-access') foot = ['foot.denied', {n: denied, total: all.length}]
  else if (thread === 'bad') foot = ['foot.stopped', at]
  else if (thread === 'broken') foot = ['foot.until', at]
  if (pending.length && thread !== 'bad') foot = ['foot.pending', {n: pending.length}]
  return {name, glyph, thread, says, also, foot, action, state}
}
