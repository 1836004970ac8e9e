/** The people, PoVs and deeds that the states show, and snapshots of them as the SDK's feed makes them. */
import type {Feed, FeedGap, Group, PovState, Row, Snapshot, Status} from '../../../clients/js/src/api.ts'
import {group, type Kept} from '../../../clients/js/src/feed-rows.ts'
import {NOW} from './clock.ts'

const MINUTE = 60_000
const GROUP_WITHIN = 10 * MINUTE

/** Who is signed in. */
export const USER = 'ana'

export const PEOPLE: Record<string, {name: string}> = {
  ana: {name: 'Ana Ruiz'},
  jonas: {name: 'Jonas Weber'},
  mei: {name: 'Mei Tanaka'},
  ife: {name: 'Ife Okafor'},
  tomasz: {name: 'Tomasz Lis'},
  priya: {name: 'Priya Raman'},
  sam: {name: 'Sam Doyle'},
  noor: {name: 'Noor Haddad'},
}

export const POVS: Record<string, string> = {
  mossgate: 'Mossgate Bank',
  brindle: 'Brindle Freight',
  quillon: 'Quillon Air',
  pellwood: 'Pellwood Clinics',
  larkmoor: 'Larkmoor Energy',
}

/** ms of a time of today, or of a day of this November. */
export function at(hour: number, minute: number, day = 26): number {
  return new Date(2026, 10, day, hour, minute).getTime()
}

/** ms of so many minutes ago. */
export const ago = (minutes: number): number => NOW - minutes * MINUTE

/** What somebody did. */
export interface Deed {
  by: string
  /** `type.action` */
  what: string
  pov: string
  at: number
  details?: Record<string, unknown>
  /** How many are missing before it on its PoV. */
  missing?: number
  /** Default: read. */
  state?: Row['state']
  /** It was, since. */
  since?: 'amended' | 'retracted'
}

export const said = (text: string, over = 'Audit log export', pov = 'mossgate', by = 'jonas'):
  Pick<Deed, 'by' | 'what' | 'pov' | 'details'> =>
  ({by, what: 'comment.added', pov, details: {title: over, text, href: `/povs/${pov}`}})

export const did = (title: string, pov = 'brindle', by = 'mei', what = 'task.completed'):
  Pick<Deed, 'by' | 'what' | 'pov' | 'details'> =>
  ({by, what, pov, details: {title, href: `/povs/${pov}`}})

/** A row of each deed, the newest first; offsets go up with time on each PoV. */
export function rowsOf(deeds: readonly Deed[]): Kept[] {
  const tops = new Map<string, number>()
  const rows = [...deeds].sort((a, b) => a.at - b.at).map(({by, what, pov, at, details, missing = 0, state = 'read', since}): Kept => {
    const offset = (tops.get(pov) ?? 100) + missing + 1
    tops.set(pov, offset)
    const [type = '', action = ''] = what.split('.')
    const own = by === USER
    return Object.freeze({
      key: JSON.stringify([pov, 'e', offset]),
      topic: pov,
      povId: pov,
      epoch: 'e',
      offset,
      activity: {
        id: `${pov}-${offset}`, type, action, povId: pov, userId: by, at: new Date(at).toISOString(),
        details: since === 'retracted' ? undefined : details, ...since && {[since]: true},
      },
      at,
      state: own ? 'read' : state,
      own,
    })
  })
  return rows.reverse()
}

function belong(newer: Kept, older: Kept): boolean {
  const a = newer.activity
  const b = older.activity
  return a.povId === b.povId && a.userId === b.userId && a.type === b.type && a.action === b.action
    && a.retracted === b.retracted && newer.at - older.at <= GROUP_WITHIN
}

/** What a snapshot is made of; all else is as on a quiet day, live. */
export interface Scene {
  deeds?: readonly Deed[]
  connection?: Partial<Status>
  gaps?: readonly FeedGap[]
  pending?: Snapshot['pending']
  storage?: Snapshot['storage']
  /** Replaces what is known of PoVs, by id; the others are those of the deeds. */
  povs?: Record<string, Partial<PovState>>
  /** Replaces the count of unread ones, which is that of the rows. */
  unread?: number
}

/** The snapshot of a scene; `groupWithin` 0: each row is a group of its own. */
export function snapshotOf(scene: Scene, groupWithin = GROUP_WITHIN): Snapshot {
  const rows = rowsOf(scene.deeds ?? [])
  const ids = new Set([...rows.map(({povId}) => povId), ...Object.keys(scene.povs ?? {})])
  const povs = new Map([...ids].sort().map(id => [id, povOf(id, rows, scene.povs?.[id])]))
  const sum = (of: (pov: PovState) => number) => [...povs.values()].reduce((total, each) => total + of(each), 0)
  return Object.freeze({
    connection: Object.freeze({state: 'live' as const, since: at(9, 14), ...scene.connection}),
    rows,
    groups: groupsOf(rows, groupWithin),
    unread: scene.unread ?? sum(({unread}) => unread),
    unseen: sum(({unseen}) => unseen),
    povs,
    gaps: scene.gaps ?? [],
    pending: scene.pending ?? [],
    storage: scene.storage ?? 'stored',
  })
}

function groupsOf(rows: readonly Kept[], within: number): Group[] {
  return group(rows, [], (newer, older) => within > 0 && belong(newer, older))
}

function povOf(povId: string, rows: readonly Row[], more: Partial<PovState> = {}): PovState {
  const its = rows.filter(row => row.povId === povId)
  const top = its[0]?.offset ?? 100
  const before = (states: readonly Row['state'][]) =>
    Math.min(top + 1, ...its.filter(({state}) => states.includes(state)).map(({offset}) => offset)) - 1
  return Object.freeze({
    povId,
    position: {epoch: 'e', offset: top},
    state: 'live' as const,
    unread: its.filter(({state}) => state !== 'read').length,
    unseen: its.filter(({state}) => state === 'new').length,
    readOffset: before(['new', 'seen']),
    seenOffset: before(['new']),
    completeSince: at(9, 14),
    hasEarlier: true,
    present: [],
    typing: [],
    receipts: new Map(),
    level: 'toast' as const,
    ...more,
  })
}

/** A feed that shows what it is given, and keeps what it was asked. */
export class Shown implements Feed {
  /** What was asked of it, in order: names of methods. */
  readonly asked: string[] = []
  #snapshot: Snapshot
  readonly #listeners = new Set<() => void>()

  constructor(snapshot: Snapshot) {
    this.#snapshot = snapshot
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  readonly getSnapshot = (): Snapshot => this.#snapshot

  /** Show this from now on. */
  show(snapshot: Snapshot): void {
    this.#snapshot = snapshot
    for (const each of this.#listeners) each()
  }

  async loadEarlier(): Promise<void> { this.asked.push('loadEarlier') }
  async load(): Promise<void> { this.asked.push('load') }
  seen(): void { this.asked.push('seen') }
  async read(): Promise<void> { this.asked.push('read') }
  async markUnread(): Promise<void> { this.asked.push('markUnread') }
  async mute(): Promise<void> { this.asked.push('mute') }
  typing(): void { this.asked.push('typing') }
  close(): void { this.asked.push('close') }
}
