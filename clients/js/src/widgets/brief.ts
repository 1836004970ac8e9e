/** What is said of the connection at first, before `status.ts` is there: the ordinary course of it. */
import type {Snapshot} from '../api.js'
import type {Said} from './status.js'
import type {Speaker} from './text.js'
import {moment} from './times.js'

/** From when on nothing is missing of all PoVs that have not ended; undefined before their first answers. */
export function completeSince({povs}: Snapshot): number | undefined {
  const all = [...povs.values()].filter(each => each.state !== 'ended').map(each => each.completeSince ?? NaN)
  return all.length ? Math.max(...all) || undefined : undefined
}

/** Undefined where it takes more words than there are. */
export function sayBriefly(speaker: Speaker, snapshot: Snapshot, now = Date.now()): Said | undefined {
  const {connection: {state, reason, since}, gaps, pending, rows, povs} = snapshot
  if (state === 'connecting' || state === 'catching-up' && !reason) {
    return {
      name: state, state, glyph: state === 'connecting' ? state : 'catching', thread: 'filling',
      says: [`says.${state}`], foot: ['foot.connecting'],
    }
  }
  const at = {time: moment(speaker, since, now)}
  if (state === 'offline' && /network|silent/.test(reason ?? '')) {
    return {
      name: state, state, glyph: state, thread: 'broken', action: 'retry',
      says: ['says.offline', at], foot: ['foot.until', at],
    }
  }
  const from = completeSince(snapshot)
  if (state !== 'live' || gaps.length || pending.length || !rows.length || [...povs.values()].some(each => each.failure)) return
  const time = from && moment(speaker, from, now)
  return {
    name: state, state, glyph: state, thread: '',
    says: ['says.live'], also: time ? ['says.since', {time}] : undefined, foot: time ? ['foot.since', {time}] : ['foot.up-to-date'],
  }
}
