/** The demo's line of truth: what a page shows, beside what the log says there is. */
import type {Snapshot} from '../api.js'
import type {Count, Positions} from './shared.js'

/** After which offset of a PoV's log counting begins: a log that took the place of another counts from its start. */
function startOf(base: Positions, povId: string, epoch: string): number {
  const first = base.get(povId)
  return first?.epoch === epoch ? first.offset : 0
}

/** How many were published after `base`. */
export function sentOf(base: Positions, log: Positions): number {
  let sent = 0
  for (const [povId, {epoch, offset}] of log) sent += offset - startOf(base, povId, epoch)
  return sent
}

/**
 * Count what a page shows of what was published after `base` and before `log`.
 *
 * Every place in the log is one activity with an id of its own. So of the places up to which the page says
 * to be complete, those are lost that it has no id for, unless it says itself that something is missing
 * there: a gap that can be loaded, earlier pages. Rows beside an id's first one are twice.
 */
export function countOf(snapshot: Snapshot, base: Positions, log: Positions): Count {
  let shown = 0
  let lost = 0
  let twice = 0
  for (const [povId, {epoch, offset: end}] of log) {
    const start = startOf(base, povId, epoch)
    const state = snapshot.povs.get(povId)
    const at = state?.position
    /** The page says that it has all up to here. */
    const reach = at?.epoch === epoch ? Math.max(start, Math.min(at.offset, end)) : start
    const ids = new Set<string>()
    const offsets = new Set<number>()
    let within = 0
    let oldest = Infinity
    for (const row of snapshot.rows) {
      if (row.povId !== povId || row.epoch !== epoch) continue
      oldest = Math.min(oldest, row.offset)
      if (row.offset <= start || row.offset > end) continue
      offsets.add(row.offset)
      if (ids.has(row.activity.id)) {
        twice++
        continue
      }
      ids.add(row.activity.id)
      if (row.offset <= reach) within++
    }
    const excused = new Set<number>()
    const excuse = (after: number, upTo: number) => {
      for (let each = Math.max(after, start) + 1; each <= Math.min(upTo, reach); each++) {
        if (!offsets.has(each)) excused.add(each)
      }
    }
    if (state?.hasEarlier) excuse(0, oldest - 1)
    for (const gap of snapshot.gaps) {
      if (gap.povId !== povId || gap.to.epoch !== epoch || gap.state === 'gone') continue
      excuse(gap.from?.epoch === epoch ? gap.from.offset : 0, gap.to.offset)
    }
    shown += ids.size
    lost += reach - start - within - excused.size
  }
  return {shown, lost, twice, toCome: sentOf(base, log) - shown - lost}
}
