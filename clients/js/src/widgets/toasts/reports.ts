/** Tells the server whether what came was shown, so that who asks why somebody saw nothing is answered. */
import type {Client, Row, Snapshot} from '../../api.js'
import {topicOf, type Unshown} from './toast.js'

/** What is gathered is told at most once in this many ms. */
const GATHER = 5_000

interface Report {
  readonly row: Row
  readonly reason?: Unshown
}

/** Gather what is to be told; of each PoV the newest counts. */
export function makeReports(clientOf: () => Client | undefined, snapshotOf: () => Snapshot) {
  const due = new Map<string, Report>()
  const told = new Map<string, Report>()
  let timer: ReturnType<typeof setTimeout> | undefined

  function tell(): void {
    timer = undefined
    const client = clientOf()
    const {connection, gaps} = snapshotOf()
    if (!client || connection.state !== 'live') return void due.clear()
    for (const [povId, report] of due) {
      const {row: {epoch, offset}, reason} = report
      // The device's cursor goes where this says: never past what can still be loaded.
      if (gaps.some(each => each.povId === povId && each.state !== 'gone' && each.to.offset <= offset)) continue
      told.set(povId, report)
      client.request('ack', {povId, offset, epoch, shown: !reason, reason}).catch(() => {
        // Nothing depends on it: the next one says more.
      })
    }
    due.clear()
  }

  return {
    add(row: Row, reason?: Unshown): void {
      const topic = topicOf(row)
      for (const {row: known} of [due.get(topic), told.get(topic)].filter(each => !!each)) {
        if (known.epoch === row.epoch && known.offset >= row.offset) return
      }
      due.set(topic, {row, reason})
      timer ??= setTimeout(tell, GATHER)
    },
    end(): void {
      clearTimeout(timer)
      timer = undefined
      due.clear()
    },
  }
}
