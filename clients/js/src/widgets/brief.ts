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

/** There is a connection, but no answer yet of what is followed. */
export const isEarly = ({connection, rows, povs}: Snapshot): boolean => connection.state === 'live' && !rows.length
  && [...povs.values()].every(each => each.state === 'joining' && !each.position && !each.failure)

/** Undefined where it takes more words than there are; `isWarm`: whether there is time for times. */
export function sayBriefly(speaker: Speaker, snapshot: Snapshot, now = Date.now(), isWarm = true): Said | undefined {
  const {connection: {state, reason, since}, gaps, pending, rows, povs} = snapshot
  const isFirst = state === 'connecting' || isEarly(snapshot)
  if (isFirst || state === 'catching-up' && !reason) {
    const name = isFirst ? 'connecting' : 'catching-up'
    return {
      name, state: name, glyph: isFirst ? 'connecting' : 'catching', thread: 'filling', says: [`says.${name}`], foot: ['foot.connecting'],
    }
  }
  if (state === 'offline' && /network|silent/.test(reason ?? '')) {
    const at = {time: moment(speaker, since, now)}
    return {
      name: state, state, glyph: state, thread: 'broken', action: 'retry',
      says: ['says.offline', at], foot: ['foot.until', at],
    }
  }
  const from = completeSince(snapshot)
  if (state !== 'live' || gaps.length || pending.length || !rows.length || [...povs.values()].some(each => each.failure)) return
  const time = isWarm && from && moment(speaker, from, now)
  return {
    name: state, state, glyph: state, thread: '',
    says: ['says.live'], also: time ? ['says.since', {time}] : undefined, foot: time ? ['foot.since', {time}] : ['foot.up-to-date'],
  }
}
