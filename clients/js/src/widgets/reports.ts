/** Tells the server whether what came was shown, so that who asks why somebody saw nothing is answered. */
import type {Client, Row, Snapshot} from '../api.js'
import {topicOf} from './shown.js'
import type {Unshown} from './toasts/toast.js'
import {isAnyVisible} from './visible.js'

/** What is gathered is told at most once in this many ms. */
const GATHER = 5_000

interface Report {
  readonly row: Row
  readonly reason?: Unshown
  /** What whoever reports it shows. */
  readonly snapshotOf: () => Snapshot
}

/** All that is reported by one client, whichever elements do. */
class Gatherer {
  /** By topic the newest, or what was said of it last: that it was shown goes before that it was not. */
  #due = new Map<string, Report>()
  #told = new Map<string, Report>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(readonly client: Client) {}

  add(report: Report): void {
    const {row} = report
    const topic = topicOf(row)
    const isKnown = [this.#due.get(topic), this.#told.get(topic)].some(each => each?.row.epoch === row.epoch
      && (each.row.offset > row.offset || each.row.offset === row.offset && (!each.reason || !!report.reason)))
    if (!isKnown) this.#due.set(topic, report)
    if (this.#due.size) this.#timer ??= setTimeout(() => this.#tell(), GATHER)
  }

  /** Whoever reported it is gone. */
  drop(snapshotOf: Report['snapshotOf']): void {
    for (const [topic, each] of this.#due) if (each.snapshotOf === snapshotOf) this.#due.delete(topic)
  }

  /** What cannot be told now waits until something is reported again. */
  #tell(): void {
    this.#timer = undefined
    for (const [povId, report] of this.#due) {
      const {row: {offset}, snapshotOf} = report
      const {connection, gaps} = snapshotOf()
      // The device's cursor goes where this says: never past what can still be loaded.
      if (connection.state !== 'live' || gaps.some(each => each.povId === povId && each.state !== 'gone' && each.to.offset <= offset)) continue
      this.#due.delete(povId)
      this.#told.set(povId, report)
      this.#say(povId, report).catch(() => {
        // Nothing depends on it: the next one says more.
      })
    }
  }

  async #say(povId: string, {row: {epoch, offset}, reason}: Report): Promise<void> {
    // All tabs are one device: where one is visible, what that one says counts.
    if (reason === 'hidden' && await isAnyVisible()) return
    await this.client.request('ack', {povId, offset, epoch, shown: !reason, reason})
  }
}

const gatherers = new WeakMap<Client, Gatherer>()

/** Reports of one element; what several say of a client is told once. */
export function makeReports(clientOf: () => Client | undefined, snapshotOf: () => Snapshot) {
  let gatherer: Gatherer | undefined
  return {
    add(row: Row, reason?: Unshown): void {
      const client = clientOf()
      if (!client) return
      gatherer = gatherers.get(client)
      if (!gatherer) gatherers.set(client, gatherer = new Gatherer(client))
      gatherer.add({row, reason, snapshotOf})
    },
    end(): void {
      gatherer?.drop(snapshotOf)
    },
  }
}
