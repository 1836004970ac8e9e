/**
 * Which toasts there are: of what happens, and for how long. No document, no clock of its own.
 *
 * Each activity that comes is shown, counted in a burst or digest, or left out for a reason that is said:
 * nothing is dropped in silence. Toasts that wait behind the ones that show, and all while they are held, do not
 * get older.
 */
import type {FeedGap, Pending, Row, Snapshot, Status} from '../../api.js'
import {stateOf, type StateName} from '../status.js'

/** More than so many on one PoV within this many ms are one toast. */
const BURST = 3_000
const SINGLES = 2
/** A break is said after it lasted this long, ms. */
const BREAK = 5_000
/** Who was away for longer than this, ms, gets a digest and not the toasts of what happened. */
const AWAY = 300_000
/** The most that wait behind; the oldest of more become one. */
const WAITING = 7
/** Asked for the browser's notifications after so many. */
const ASK_AFTER = 3
/** Authors of a toast that are told apart. */
const AUTHORS = 50

/** Why an activity has no toast: the words that `ack` knows. */
export type Unshown = 'own' | 'muted' | 'feed' | 'quiet' | 'filtered' | 'digest'

/** What a toast is about. */
export interface Toast {
  readonly key: string
  readonly kind:
    | 'activity' | 'burst' | 'digest' | 'action' | 'unsent' | 'session' | 'offline' | 'restarting' | 'back' | 'muted'
    | 'ask' | 'failed'
  /** The newest first; of a burst the last two. */
  readonly rows: readonly Row[]
  /** How many activities it stands for. */
  readonly count: number
  /** Who did them, those of late first. */
  readonly users: readonly string[]
  /** On which PoVs. */
  readonly povs: readonly string[]
  /** Since when, or when it ends that it tells of, ms since 1970. */
  readonly at: number
  readonly pending?: Pending
  /** Whether it is an alert: read out at once. */
  readonly isAlert?: boolean
  /** How long it shows, ms; absent: until it is dismissed. */
  readonly duration?: number
}

/** What is to be done beside showing toasts. */
export interface Effects {
  /** A sound: `arrive` for what came, `attend` for what asks for the user. */
  sound(name: 'arrive' | 'attend'): void
  /** It came, is loud enough, and has a toast: for the browser's notifications. */
  came(toast: Toast): void
  /** A row has no toast, and why. */
  unshown(row: Row, reason: Unshown): void
  /** The list of toasts is another. */
  changed(): void
}

/** What a person or page chose. */
export interface Choices {
  readonly duration: number
  readonly max: number
  /** Whether it is quiet now. */
  isQuiet(): boolean
  /** Whether it passes the element's own filter. */
  fits(row: Row): boolean
  /** Whether a feed on the page shows it. */
  isInView(row: Row): boolean
  /** Whether the connection is told of. */
  tellsStatus(): boolean
  /** Whether the browser's notifications may be asked for. */
  mayAsk(): boolean
  now(): number
}

type Change = {-readonly [K in keyof Toast]?: Toast[K]}
type Held = {-readonly [K in keyof Toast]: Toast[K]} & {
  /** How long it showed, ms. */
  spent: number
  /** When the last of it came. */
  last: number
}

/** What an app asks for with an activity: `details.actions`, `[{"label": "Open", "href": "/x"}]`, two at most. */
interface Action {
  readonly label: string
  readonly href?: string
}

/** Those of an activity, as far as they are well made. */
export function actionsOf({activity}: Row): Action[] {
  const given = activity.details?.actions
  return !Array.isArray(given) ? [] : (given as Partial<Action>[])
    .filter((each): each is Action => typeof each?.label === 'string' && ['string', 'undefined'].includes(typeof each.href))
    .slice(0, 2)
}

/** Up to where a log was looked at. */
interface Mark {epoch: string; offset: number}

const topicOf = ({key}: Row) => (JSON.parse(key) as [string])[0]

export class Policy {
  /** The newest first. */
  #toasts: readonly Held[] = []
  readonly #marks = new Map<string, Mark>()
  /** What came while a log was being caught up. */
  #missed: Row[] = []
  #lastLive: number | undefined
  #isAway = true
  #broken: {name: StateName; since: number; isTold: boolean} | undefined
  #isHeld = false
  #ranAt: number
  #shown = 0
  #hasAsked = false
  #number = 0
  #unsent = new Set<string>()
  #snapshot: Snapshot | undefined
  readonly #choices: Choices
  readonly #effects: Effects

  constructor(choices: Choices, effects: Effects) {
    this.#choices = choices
    this.#effects = effects
    this.#ranAt = choices.now()
  }

  /** All of them, the newest first; the first `max` show. */
  get toasts(): readonly Toast[] {
    return this.#toasts
  }

  /** When something is due next, ms since 1970; undefined: nothing is. */
  get next(): number | undefined {
    const now = this.#choices.now()
    const times = this.#isHeld ? [] : this.#shows().filter(each => each.duration !== undefined)
      .map(each => this.#ranAt + each.duration! - each.spent)
    if (this.#broken && !this.#broken.isTold) times.push(this.#broken.since + BREAK)
    return times.length ? Math.max(now, Math.min(...times)) : undefined
  }

  /** How long a toast has shown of its time, 0 to 1. */
  spent(toast: Toast): number {
    const {duration, spent} = toast as Held
    const running = !this.#isHeld && this.#shows().includes(toast as Held) ? this.#choices.now() - this.#ranAt : 0
    return duration ? Math.min(1, (spent + running) / duration) : 0
  }

  /** Toasts stand still, or go on: the pointer or the focus is on them, or the tab is hidden. */
  hold(isHeld: boolean): void {
    if (isHeld === this.#isHeld) return
    this.#run()
    this.#isHeld = isHeld
  }

  dismiss(key: string): void {
    this.#run()
    this.#set(this.#toasts.filter(each => each.key !== key))
  }

  /** What is due is done: call at `next`. */
  tick(): void {
    this.#run()
    const left = this.#toasts.filter(each => each.duration === undefined || each.spent < each.duration)
    if (left.length < this.#toasts.length) this.#set(left)
    this.#tellBreak()
  }

  /** A PoV was muted until then: it can be undone. */
  muted(povId: string, until: number): void {
    this.#run()
    this.#set(this.#toasts.filter(each => each.kind !== 'muted' && !(each.kind === 'activity' && each.povs[0] === povId)))
    this.#add({kind: 'muted', povs: [povId], at: until, duration: this.#choices.duration})
  }

  /** Something that the user asked of a toast did not happen. */
  failed(): void {
    this.#add({kind: 'failed', isAlert: true, duration: this.#choices.duration}, 'failed')
  }

  /** The feed is another. */
  changed(snapshot: Snapshot): void {
    this.#run()
    this.#snapshot = snapshot
    this.#look(snapshot)
    this.#connection(snapshot.connection)
    this.#waiting(snapshot.pending)
    this.#readElsewhere(snapshot)
  }

  // ---- what came ----

  #look(snapshot: Snapshot): void {
    const {rows, povs, connection} = snapshot
    const due = new Map<string, number>()
    let isBehind = connection.state !== 'live'
    for (const [topic, {position, state}] of povs) {
      if (!position) continue
      const mark = this.#marks.get(topic)
      if (mark?.epoch === position.epoch) {
        if (position.offset > mark.offset) due.set(topic, mark.offset)
      } else if (mark) due.set(topic, 0) // another log: what is new in it
      // What is stored here is where this person was; what a first subscription begins with is not news.
      else if (state === 'catching-up') continue
      this.#marks.set(topic, {...position})
      if (state !== 'live' && state !== 'ended') isBehind = true
    }
    const fresh: Row[] = []
    if (due.size) {
      for (const row of rows) {
        const after = due.get(topicOf(row))
        if (after !== undefined && row.offset > after) fresh.push(row)
      }
    }
    if (isBehind || this.#isAway) this.#missed = fresh.concat(this.#missed)
    else if (fresh.length) this.#came(fresh, true)
    if (isBehind) this.#isAway = true
    else if (this.#isAway) this.#returned(snapshot)
    if (!isBehind) this.#lastLive = this.#choices.now()
  }

  /** All is caught up: what was missed is told, as befits how long that was. */
  #returned({gaps}: Snapshot): void {
    const missed = this.#missed
    const since = this.#lastLive ?? missed.at(-1)?.at
    const wasTold = this.#broken?.isTold
    this.#missed = []
    this.#isAway = false
    this.#broken = undefined
    const before = this.#toasts.filter(each => each.kind !== 'offline' && each.kind !== 'restarting')
    const digests = gaps.filter(each => each.digest && each.state !== 'gone')
    const others = missed.filter(row => !row.own && row.state === 'new')
    const isLong = since !== undefined && this.#choices.now() - since > AWAY
    if (before.length < this.#toasts.length) this.#set(before)
    if (digests.length || isLong && others.length > SINGLES) {
      for (const row of missed) this.#effects.unshown(row, row.own ? 'own' : 'digest')
      if (!others[0] || !this.#choices.isInView(others[0])) this.#digest(others, digests, since)
    } else if (wasTold && this.#choices.tellsStatus()) {
      for (const row of missed) this.#effects.unshown(row, row.own ? 'own' : 'digest')
      this.#add({kind: 'back', count: others.length, duration: this.#choices.duration})
    } else this.#came(missed, false)
  }

  #digest(rows: readonly Row[], gaps: readonly FeedGap[], since: number | undefined): void {
    const users = new Set(rows.map(row => row.activity.userId))
    let count = rows.length
    let people = users.size
    for (const {missed, digest} of gaps) {
      count += missed ?? digest!.counted
      people = Math.max(people, digest!.people)
      for (const each of digest!.users) users.add(each.userId)
    }
    const povs = new Set([...rows, ...gaps].map(each => each.povId))
    this.#add({
      kind: 'digest', rows: rows.slice(0, 1), count, at: since ?? 0, povs: [...povs],
      users: Array.from({length: Math.max(people, users.size)}, (_, i) => [...users][i] ?? ''),
    }, 'digest')
  }

  /** These came now; the newest first. A sound is for what comes while one is there. */
  #came(rows: readonly Row[], isLoud: boolean): void {
    let loudest: Held | undefined
    for (const row of [...rows].reverse()) {
      const reason = this.#reasonOf(row)
      if (reason) this.#effects.unshown(row, reason)
      else {
        const toast = this.#show(row)
        if (isLoud && this.#levelOf(row) === 'sound') loudest = toast.kind === 'action' || !loudest ? toast : loudest
        if (isLoud) this.#effects.came(toast)
      }
    }
    if (loudest) this.#effects.sound(loudest.kind === 'action' ? 'attend' : 'arrive')
    this.#ask()
  }

  #levelOf(row: Row): string {
    const {povs} = this.#snapshot!
    return (povs.get(row.povId) ?? povs.get(topicOf(row)))?.level ?? 'sound'
  }

  #reasonOf(row: Row): Unshown | undefined {
    const {isQuiet, fits, isInView} = this.#choices
    if (row.own) return 'own'
    const level = this.#levelOf(row)
    if (level === 'off') return 'muted'
    if (!fits(row)) return 'filtered'
    if (level === 'feed' || isInView(row)) return 'feed'
    return isQuiet() ? 'quiet' : undefined
  }

  /** A toast for it: its own, or that of its PoV's burst. */
  #show(row: Row): Held {
    const now = this.#choices.now()
    const {povId} = row
    const user = row.activity.userId
    if (actionsOf(row).length) return this.#add({kind: 'action', rows: [row], users: [user], povs: [povId], at: row.at})
    const {duration} = this.#choices
    const isOf = ({kind, povs}: Held) => (kind === 'burst' || kind === 'activity') && povs[0] === povId && povs.length === 1
    const recent = this.#toasts.filter(each => isOf(each) && now - each.last < BURST)
    const burst = recent.find(each => each.kind === 'burst')
    if (!burst && recent.length < SINGLES) {
      this.#shown++
      return this.#add({kind: 'activity', rows: [row], users: [user], povs: [povId], at: row.at, duration})
    }
    const rows = [row, ...recent.flatMap(each => each.rows)].slice(0, 2)
    const users = [...new Set([user, ...recent.flatMap(each => each.users)])].slice(0, AUTHORS)
    const count = recent.reduce((sum, each) => sum + each.count, 1)
    const next: Held = {
      key: burst?.key ?? `t${++this.#number}`, kind: 'burst', rows, users, count, povs: [povId], at: row.at, duration,
      spent: 0, last: now,
    }
    this.#set([next, ...this.#toasts.filter(each => !recent.includes(each))])
    return next
  }

  /** The oldest that wait become one, so that there are never too many. */
  #bounded(all: readonly Held[]): readonly Held[] {
    const most = this.#choices.max + WAITING
    if (all.length <= most) return all
    const surplus = all.filter(each => each.kind === 'activity' || each.kind === 'burst').slice(most - all.length - 1)
    const first = surplus[0]
    if (!first || surplus.length < 2) return all
    const one: Held = {
      ...first, kind: 'burst', key: surplus.at(-1)!.key,
      count: surplus.reduce((sum, each) => sum + each.count, 0),
      rows: surplus.flatMap(each => each.rows).slice(0, 2),
      users: [...new Set(surplus.flatMap(each => each.users))].slice(0, AUTHORS),
      povs: [...new Set(surplus.flatMap(each => each.povs))],
    }
    return all.filter(each => !surplus.includes(each) || each === first).map(each => each === first ? one : each)
  }

  /** What was read on another device needs no toast. */
  #readElsewhere({povs}: Snapshot): void {
    const left = this.#toasts.filter(({kind, rows}) =>
      kind !== 'activity' || !rows.every(row => row.offset <= (povs.get(topicOf(row))?.readOffset ?? 0)))
    if (left.length < this.#toasts.length) this.#set(left)
  }

  // ---- the connection, and what waits ----

  #connection(status: Status): void {
    const name = stateOf(status, this.#choices.now())
    if (name === 'expired') {
      this.#broken = undefined
      this.#set(this.#toasts.filter(each => each.kind !== 'offline' && each.kind !== 'restarting'))
      if (this.#add({kind: 'session', isAlert: true, at: status.since}, 'session')) this.#effects.sound('attend')
    } else if (this.#toasts.some(each => each.kind === 'session') && status.state !== 'closed') {
      this.#set(this.#toasts.filter(each => each.kind !== 'session'))
    }
    if (name === 'signed-out') this.#set([])
    else if (name === 'offline' || name === 'restarting' || name === 'busy') {
      this.#broken ??= {name, since: status.since, isTold: false}
      this.#broken.name = name
      this.#tellBreak()
    } else if (status.state === 'closed') this.#broken = undefined
  }

  #tellBreak(): void {
    const broken = this.#broken
    if (!broken || broken.isTold || this.#choices.now() - broken.since < BREAK || !this.#choices.tellsStatus()) return
    broken.isTold = true
    this.#add({kind: broken.name === 'restarting' ? 'restarting' : 'offline', at: broken.since})
  }

  #waiting(pending: readonly Pending[]): void {
    const failed = pending.filter(each => each.state !== 'waiting')
    const ids = new Set(failed.map(each => each.id))
    const left = this.#toasts.filter(each => !each.pending || ids.has(each.pending.id))
    if (left.length < this.#toasts.length) this.#set(left)
    for (const each of failed) {
      if (this.#unsent.has(each.id)) continue
      this.#add({kind: 'unsent', pending: each, isAlert: true, at: each.at})
      this.#effects.sound('attend')
    }
    this.#unsent = ids
  }

  #ask(): void {
    if (this.#hasAsked || this.#shown < ASK_AFTER || !this.#choices.mayAsk()) return
    this.#hasAsked = true
    this.#add({kind: 'ask'})
  }

  // ---- the list and its time ----

  /** One more; one that has a `key` and is there already is left as it is. Returns what was added. */
  #add(given: Change & {kind: Toast['kind']}): Held
  #add(given: Change & {kind: Toast['kind']}, key: string): Held | undefined
  #add(given: Change & {kind: Toast['kind']}, key?: string): Held | undefined {
    if (key && this.#toasts.some(each => each.key === key)) return
    const now = this.#choices.now()
    const added: Held = {
      rows: [], count: given.rows?.length ?? 0, users: [], povs: [], at: now, ...given,
      key: key ?? `t${++this.#number}`, spent: 0, last: now,
    }
    this.#set([added, ...this.#toasts])
    return added
  }

  #set(toasts: readonly Held[]): void {
    this.#toasts = this.#bounded(toasts)
    this.#effects.changed()
  }

  #shows(): readonly Held[] {
    return this.#toasts.slice(0, this.#choices.max)
  }

  /** Let those that show get older by the time that has passed. */
  #run(): void {
    const now = this.#choices.now()
    const passed = Math.max(0, now - this.#ranAt)
    if (!this.#isHeld) for (const each of this.#shows()) each.spent += passed
    this.#ranAt = now
  }
}
