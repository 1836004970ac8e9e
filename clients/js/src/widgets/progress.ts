/** How far catching up has come: of those that were missed, how many are there. */
import type {PovState, Snapshot} from '../api.js'
import type {Progress} from './status.js'

/** What was there when a feed began to catch up. */
export interface CatchingUp {
  readonly since: number | undefined
  readonly positions: ReadonlyMap<string, PovState['position']>
  /** How many unread ones were not among the rows. */
  readonly hidden: number
}

const hiddenOf = ({unread, rows}: Snapshot) => unread - rows.filter(each => each.state !== 'read').length

/** Remember it; `since`: from when on there was no connection, if that is known. */
export function catchUp(snapshot: Snapshot, since: number | undefined): CatchingUp {
  return {since, positions: new Map([...snapshot.povs].map(([id, {position}]) => [id, position])), hidden: hiddenOf(snapshot)}
}

/** How many came since, and how many it will be: the server counts those that are not here yet. */
export function progressOf({since, positions, hidden}: CatchingUp, snapshot: Snapshot): Progress {
  let n = 0
  for (const [id, {position}] of snapshot.povs) {
    const from = positions.get(id)
    if (from && position?.epoch === from.epoch) n += position.offset - from.offset
  }
  return {since, n, total: n + Math.max(0, hiddenOf(snapshot) - hidden)}
}
