/** A feed whose snapshots a test makes, and the toasts that come of them. */
import assert from 'node:assert/strict'
import type {FeedGap, Pending, PovState, Row, Snapshot, Status} from '../src/api.js'
import type * as wire from '../src/wire.js'
import {Policy, type Choices} from '../src/widgets/toasts/policy.js'
import type {Toast} from '../src/widgets/toasts/toast.js'

export const START = Date.UTC(2026, 10, 12, 14)
export const MINUTE = 60_000

/** What a test says of an activity. */
export interface Said {
  pov?: string
  user?: string
  type?: string
  own?: boolean
  at?: number
  actions?: unknown
}

interface Log {
  epoch: string
  tip: number
  state: PovState['state']
  level: PovState['level']
  read: number
  isKnown: boolean
  failure?: PovState['failure']
}

/** A feed whose snapshots a test makes, and what the policy makes of them. */
export class World {
  now = START
  rows: Row[] = []
  gaps: FeedGap[] = []
  pending: Pending[] = []
  status: Status = {state: 'live', since: START}
  readonly logs = new Map<string, Log>()
  readonly sounds: string[] = []
  readonly told: Row[] = []
  readonly unshown: [number, string][] = []
  changes = 0
  isQuiet = false
  inView = (_: Row) => false
  fits = (_: Row) => true
  mayAsk = false
  tells = true
  max = 3
  readonly policy: Policy

  constructor(...povs: string[]) {
    for (const each of povs) this.logs.set(each, {epoch: 'e1', tip: 0, state: 'live', level: 'sound', read: 0, isKnown: true})
    const choices: Choices = {
      duration: 6_000,
      max: this.max,
      isQuiet: () => this.isQuiet,
      fits: row => this.fits(row),
      isInView: row => this.inView(row),
      tellsStatus: () => this.tells,
      mayAsk: () => this.mayAsk,
      now: () => this.now,
    }
    this.policy = new Policy(choices, {
      sound: name => void this.sounds.push(name),
      came: rows => void this.told.push(...rows),
      unshown: (row, reason) => void this.unshown.push([row.offset, reason]),
      changed: () => void this.changes++,
    })
  }

  log(pov: string): Log {
    return this.logs.get(pov)!
  }

  /** It is in the log and the list; the policy is not told yet. */
  add({pov = 'acme', user = 'bo', type = 'task', own = false, at = this.now, actions}: Said = {}, topic = pov): Row {
    const log = this.log(topic)
    const offset = ++log.tip
    const row: Row = {
      key: JSON.stringify([topic, log.epoch, offset]), povId: pov, epoch: log.epoch, offset, at, own, state: 'new',
      activity: {type, action: 'completed', povId: pov, userId: user, ...actions !== undefined && {details: {actions}}} as wire.Activity,
    }
    this.rows.unshift(row)
    return row
  }

  snapshot(): Snapshot {
    const povs = new Map([...this.logs].map(([povId, {epoch, tip, state, level, read, isKnown, failure}]): [string, PovState] => [povId, {
      povId, state, level, failure, position: isKnown ? {epoch, offset: tip} : undefined, unread: tip - read, unseen: 0,
      readOffset: read, seenOffset: read, hasEarlier: false, present: [], typing: [], receipts: new Map(),
    }]))
    return {
      connection: this.status, rows: this.rows.slice(), groups: [], unread: 0, unseen: 0, povs, gaps: this.gaps,
      pending: this.pending, storage: 'stored',
    }
  }

  look(): void {
    this.policy.changed(this.snapshot())
  }

  /** One comes, live. */
  come(said: Said = {}, topic?: string): Row {
    const row = this.add(said, topic)
    this.look()
    return row
  }

  /** Time passes; what is due is done when it is. */
  pass(ms: number): void {
    const end = this.now + ms
    for (let turns = 0; ; turns++) {
      assert(turns < 10_000, 'something is due forever')
      const {next} = this.policy
      if (next === undefined || next > end) break
      this.now = next
      this.policy.tick()
    }
    this.now = end
  }

  connect(state: Status['state'], reason?: Status['reason']): void {
    this.status = {state, reason, since: this.status.state === state ? this.status.since : this.now}
    for (const log of this.logs.values()) log.state = state === 'live' ? 'live' : state === 'catching-up' ? 'catching-up' : 'joining'
    this.look()
  }

  get kinds(): string[] {
    return this.policy.toasts.map(({kind, count}) => count > 1 ? `${kind} ${count}` : kind)
  }

  get only(): Toast {
    assert.equal(this.policy.toasts.length, 1)
    return this.policy.toasts[0]!
  }
}

/** A page that is live, and has been. */
export function live(...povs: string[]): World {
  const world = new World(...povs.length ? povs : ['acme'])
  world.look()
  return world
}

/** What the server said of a gap in numbers. */
const digest: wire.Digest = {counted: 214, people: 6, users: [{userId: 'mei', count: 200}], types: []} as unknown as wire.Digest

export const gapOf = (missed: number, given: Partial<FeedGap> = {}): FeedGap =>
  ({povId: 'acme', to: {epoch: 'e1', offset: missed}, missed, digest, state: 'open', ...given})

export const pending = (id: string, state: Pending['state'] = 'failed', at = START): Pending =>
  ({id, state, at, activity: {type: 'comment', action: 'added', povId: 'acme'} as wire.NewActivity})
