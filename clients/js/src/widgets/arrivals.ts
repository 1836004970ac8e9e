/** Rows that come: lit for a moment one by one, unless they come faster than anybody reads. */
import type {Row, Snapshot} from '../api.js'
import type {Later} from './later.js'

/** More new rows than this in a second come without motion. */
const CALM = 5
/** How long a new row is lit, ms. */
const LIT = 1_200

/** Those of one element. */
export class Arrivals {
  /** When the last ones came. */
  #times: number[] = []

  constructor(readonly host: Later) {}

  /** There are rows above what was the newest. */
  came({groups, connection}: Snapshot, newest: Row): void {
    const {element} = this.host
    const now = Date.now()
    const times = this.#times = this.#times.filter(each => each > now - 1000)
    for (const {key, rows: [row]} of groups) {
      if (row!.at < newest.at || row!.key === newest.key || times.length > CALM) break
      times.push(now)
      element.fresh.add(key)
    }
    if (times.length > CALM || connection.state !== 'live') element.fresh.clear()
    if (element.fresh.size) setTimeout(() => {
      element.fresh.clear()
      element.redraw()
    }, LIT)
  }
}
