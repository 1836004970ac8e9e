/**
 * Which toasts there are: of what happens, and for how long. No document, no clock of its own.
 *
 * Each activity that comes is shown, counted in a burst or digest, or left out for a reason that is said:
 * nothing is dropped in silence. Toasts that wait behind the ones that show, and all while they are held, do not
 * get older.
 */
import type {FeedGap, Pending, PovState, Row, Snapshot, Status} from '../../api.js'
import {stateOf, type StateName} from '../status.js'
import {actionsOf, topicOf, type Toast, type Unshown} from './toast.js'

/** More than so many on one PoV within this many ms are one toast. */
const BURST = 3_000
const SINGLES = 2
/** A break is said after it lasted this long, ms. */
const BREAK = 5_000
/** Who was away for longer than this, ms, gets a digest and not the toasts of what happened. */
const AWAY = 300_000
/** The most that wait behind; the oldest of more become one. */
const WAITING = 7
/** So many of what was not sent at once; the next when one of them is gone. */
const UNSENT = 2
/** Asked for the browser's notifications after so many. */
const ASK_AFTER = 3
/** Authors of a toast that are told apart. */
const AUTHORS = 50

/** What is to be done beside showing toasts. */
export interface Effects {
  /** A sound: `arrive` for what came, `attend` for what asks for the user. */
  sound(name: 'arrive' | 'attend'): void
  /** These have a toast now, the oldest first; the toasts are those that are new or say more than before. */
  came(rows: readonly Row[], toasts: readonly Toast[]): void
  /** A row has no toast, and why. */
  unshown(row: Row, reason: Unshown): void
  /** The list of toasts is another; once for whatever was done at once. */
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

/** Up to where a log was looked at. */
interface Mark {epoch: string; offset: number}

const gapOf = ({povId, to}: FeedGap) => `${povId} ${to.epoch} ${to.offset}`
const isBreak = (kind: Toast['kind']) => kind === 'offline' || kind === 'restarting'
const isLoud = (level: PovState['level']) => level === 'toast' || level === 'sound'
const isOfActivity = (kind: Toast['kind']) => kind === 'activity' || kind === 'burst' || kind === 'action'

export class Policy {
  /** The newest first. */
  #toasts: readonly Held[] = []
  readonly #marks = new Map<string, Mark>()
  /** What was there, or was told. */
  #gaps = new Set<string>()
  /** What came while a log was being caught up. */
  #missed: Row[] = []
  /** When one was last there. */
  #lostAt: number | undefined
  #isAway = true
  #broken: {name: StateName; since: number; isTold: boolean} | undefined
  #isExpired = false
  #isHeld = false
  #ranAt: number
  #shown = 0
  #hasAsked = false
  #number = 0
  /** What was not sent and has had its toast, and in which state. */
  readonly #unsent = new Map<string, Pending['state']>()
  /** How PoVs were told of before they were silent. */
  readonly #levels = new Map<string, PovState['level']>()
  #snapshot: Snapshot | undefined
  #sound: 'arrive' | 'attend' | undefined
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
    this.#do(() => this.#drop(each => each.key === key))
  }

  /** What is due is done: call at `next`. */
  tick(): void {
    this.#do(() => {
      this.#drop(each => each.duration !== undefined && each.spent >= each.duration)
      this.#tellBreak()
    })
  }

  /** A PoV was muted until then: it can be undone. */
  muted(povId: string, until: number): void {
    this.#do(() => {
      this.#drop(({kind, povs}) =>
        kind === 'muted' || (kind === 'activity' || kind === 'burst') && povs.length === 1 && povs[0] === povId)
      this.#add({kind: 'muted', povs: [povId], at: until, duration: this.#choices.duration})
    })
  }

  /** How a PoV was told of before it was silent. */
  levelBefore(povId: string): PovState['level'] {
    return this.#levels.get(povId) ?? 'sound'
  }

  /** Something that the user asked of a toast did not happen. */
  failed(): void {
    this.#do(() => this.#add({kind: 'failed', isAlert: true, duration: this.#choices.duration}, 'failed'))
  }

  /** The feed is another. */
  changed(snapshot: Snapshot): void {
    this.#do(() => {
      this.#snapshot = snapshot
      this.#look(snapshot)
      this.#connection(snapshot.connection)
      this.#waiting(snapshot.pending)
      this.#amended(snapshot)
      this.#readElsewhere()
    })
  }

  /** Do something now, and say at once all that has come of it. */
  #do(work: () => void): void {
    this.#run()
    const before = this.#toasts
    this.#sound = undefined
    work()
    if (this.#toasts !== before) this.#effects.changed()
    if (this.#sound) this.#effects.sound(this.#sound)
  }

  /** Begin anew, for somebody else. */
  forget(): void {
    this.#do(() => this.#forget())
    this.#levels.clear()
  }

  // ---- what came ----

  #look({rows, povs, gaps, connection}: Snapshot): void {
    const due = new Map<string, Mark>()
    let isBehind = connection.state !== 'live'
    // What was missing before this page looked is no news.
    for (const each of gaps) if (!this.#marks.has(each.povId)) this.#gaps.add(gapOf(each))
    for (const [topic, {position, state, failure, level}] of povs) {
      if (level !== 'off') this.#levels.set(topic, level)
      if (!position) continue
      const {epoch, offset} = position
      const mark = this.#marks.get(topic)
      if (mark?.epoch === epoch) {
        if (offset > mark.offset) due.set(topic, mark)
      } else if (mark) due.set(topic, {epoch, offset: 0}) // another log: what is new in it
      // What is stored here is where this person was; what a first subscription begins with is not news.
      else if (state === 'catching-up') continue
      this.#marks.set(topic, {epoch, offset})
      // One that cannot be followed for now does not keep the others waiting.
      if (state === 'catching-up' || state === 'joining' && !failure) isBehind = true
    }
    const fresh: Row[] = []
    for (const row of due.size ? rows : []) {
      const topic = topicOf(row)
      const after = due.get(topic)
      if (!after) continue
      if (row.epoch === after.epoch && row.offset > after.offset) {
        if (!row.activity.retracted) fresh.push(row)
      }
      // What follows of it is older: nothing is looked for in vain.
      else if (due.delete(topic) && !due.size) break
    }
    if (isBehind || this.#isAway) this.#missed = fresh.concat(this.#missed)
    else if (fresh.length) this.#came(fresh, true)
    if (isBehind) {
      if (!this.#isAway) this.#lostAt = this.#choices.now()
      this.#isAway = true
    } else if (this.#isAway) this.#returned(gaps)
  }

  /** All is caught up: what was missed is told, as befits how long that was. */
  #returned(gaps: readonly FeedGap[]): void {
    const {now, isQuiet, isInView, tellsStatus, duration} = this.#choices
    const missed = this.#missed
    const newGaps = gaps.filter(each => !this.#gaps.has(gapOf(each)))
    const wasTold = this.#broken?.isTold
    // Who slept learns of it late: what happened says when it was.
    const since = Math.min(this.#lostAt ?? now(), missed.at(-1)?.at ?? Infinity)
    this.#gaps = new Set(gaps.map(gapOf))
    this.#missed = []
    this.#isAway = false
    this.#broken = undefined
    this.#drop(({kind}) => isBreak(kind))
    const quiet = isQuiet()
    const others = missed.filter(row => !this.#reasonOf(row, quiet))
    const digests = quiet ? [] : newGaps.filter(({povId, digest, state}) => {
      const row = this.#snapshot!.rows.find(each => topicOf(each) === povId)
      return digest && state !== 'gone' && isLoud(this.#levelOf(povId)) && !(row && isInView(row))
    })
    const isDigest = digests.length > 0 || others.length > SINGLES && now() - since > AWAY
    // Where something is missing, nothing is said of "nothing missed".
    const isBack = !isDigest && !!wasTold && tellsStatus() && !newGaps.length
    if (!isDigest && !isBack) return this.#came(missed, false)
    for (const row of missed) this.#effects.unshown(row, this.#reasonOf(row, quiet) ?? 'digest')
    if (isDigest) this.#digest(others, digests, since)
    else this.#add({kind: 'back', count: missed.filter(row => !row.own).length, duration})
  }

  /** One for all; what one that is still there tells is in it. */
  #digest(rows: readonly Row[], gaps: readonly FeedGap[], since: number): void {
    const old = this.#toasts.find(each => each.kind === 'digest')
    const users = new Set([...rows.map(row => row.activity.userId ?? ''), ...old?.users.filter(Boolean) ?? []])
    let count = rows.length + (old?.count ?? 0)
    let people = old?.users.length ?? 0
    for (const {missed, digest} of gaps) {
      count += missed ?? digest!.counted
      people = Math.max(people, digest!.people)
      for (const each of digest!.users) users.add(each.userId)
    }
    const known = [...users].slice(0, AUTHORS)
    this.#drop(each => each === old)
    this.#add({
      kind: 'digest', rows: rows.slice(0, 1), count, at: Math.min(since, old?.at ?? since),
      povs: [...new Set([...rows, ...gaps, ...old?.povs.map(povId => ({povId})) ?? []].map(each => each.povId))],
      users: Array.from({length: Math.max(people, users.size)}, (_, i) => known[i] ?? ''),
    })
  }

  /** These came now; the newest first. A sound is for what comes while one is there. */
  #came(rows: readonly Row[], isHeard: boolean): void {
    const quiet = this.#choices.isQuiet()
    const before = new Set(this.#toasts)
    const shown: Row[] = []
    for (const row of [...rows].reverse()) {
      const reason = this.#reasonOf(row, quiet)
      if (reason) {
        this.#effects.unshown(row, reason)
        continue
      }
      const {kind} = this.#show(row)
      shown.push(row)
      if (isHeard && this.#levelOf(row.povId, topicOf(row)) === 'sound') this.#hear(kind === 'action' ? 'attend' : 'arrive')
    }
    if (!shown.length) return
    this.#effects.came(shown, this.#toasts.filter(each => isOfActivity(each.kind) && !before.has(each)))
    this.#ask()
  }

  /** One sound for all; what asks for the user goes before. */
  #hear(name: 'arrive' | 'attend'): void {
    if (this.#sound !== 'attend') this.#sound = name
  }

  #levelOf(povId: string, topic = povId): PovState['level'] {
    const {povs} = this.#snapshot!
    return (povs.get(povId) ?? povs.get(topic))?.level ?? 'sound'
  }

  /** Read, here or on another device; the team feed has no marks. */
  #isRead(row: Row): boolean {
    return row.offset <= (this.#snapshot!.povs.get(topicOf(row))?.readOffset ?? 0)
  }

  #reasonOf(row: Row, quiet: boolean): Unshown | undefined {
    const {fits, isInView} = this.#choices
    if (row.own) return 'own'
    const level = this.#levelOf(row.povId, topicOf(row))
    if (level === 'off') return 'muted'
    if (!fits(row)) return 'filtered'
    // Who has read it has it from a feed, if on another device.
    if (!isLoud(level) || this.#isRead(row) || isInView(row)) return 'feed'
    return quiet ? 'quiet' : undefined
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
    this.#toasts = [next, ...this.#toasts.filter(each => !recent.includes(each))]
    return next
  }

  /** The oldest that wait become one, so that there are never too many; what asks for something last. */
  #bounded(all: readonly Held[]): readonly Held[] {
    const {max, duration} = this.#choices
    const more = all.length - max - WAITING
    if (more <= 0) return all
    const some = all.filter(({kind}) => kind === 'activity' || kind === 'burst')
    const surplus = (some.length > more ? some : all.filter(({kind}) => isOfActivity(kind))).slice(-more - 1)
    const first = surplus[0]!
    const one: Held = {
      ...first, kind: 'burst', key: surplus.at(-1)!.key, duration,
      count: surplus.reduce((sum, each) => sum + each.count, 0),
      rows: surplus.flatMap(each => each.rows).slice(0, 2),
      users: [...new Set(surplus.flatMap(each => each.users))].slice(0, AUTHORS),
      povs: [...new Set(surplus.flatMap(each => each.povs))],
    }
    return all.filter(each => !surplus.includes(each) || each === first).map(each => each === first ? one : each)
  }

  /** What was amended is told as it is now, and what was retracted no more. */
  #amended({rows: all}: Snapshot): void {
    const now = (row: Row) => all.find(({key}) => key === row.key) ?? row
    const changed = this.#toasts.filter(({kind, rows}) =>
      isOfActivity(kind) && rows.some(row => now(row).activity !== row.activity))
    if (!changed.length) return
    this.#toasts = this.#toasts.map(each => {
      if (!changed.includes(each)) return each
      const rows = each.rows.map(now).filter(row => !row.activity.retracted)
      return {...each, rows, count: each.count - each.rows.length + rows.length}
    })
    this.#drop(({kind, rows}) => isOfActivity(kind) && !rows.length)
  }

  /** What was read on another device needs no toast. */
  #readElsewhere(): void {
    const isRead = (povId: string) => {
      const pov = this.#snapshot!.povs.get(povId)
      return !!pov?.readOffset && !pov.unread
    }
    this.#drop(({kind, rows, povs}) => kind === 'digest' ? povs.every(isRead)
      : (kind === 'activity' || kind === 'burst' && povs.length === 1) && rows.every(row => this.#isRead(row)))
  }

  // ---- the connection, and what waits ----

  #connection(status: Status): void {
    const {now, tellsStatus} = this.#choices
    const name = stateOf(status, now())
    if (name === 'signed-out') return this.#forget()
    const isOver = status.state === 'closed'
    // Who was never here had no session that could end.
    if (name === 'expired' && !this.#isExpired && this.#marks.size) {
      this.#add({kind: 'session', isAlert: true, at: status.since}, 'session')
      this.#hear('attend')
    }
    this.#isExpired = name === 'expired'
    if (!isOver) this.#drop(({kind}) => kind === 'session')
    if (name === 'offline' || name === 'restarting' || name === 'busy') {
      if (!tellsStatus()) return
      this.#broken ??= {name, since: status.since, isTold: false}
      this.#broken.name = name
      this.#tellBreak()
    } else if (isOver || !this.#broken?.isTold) {
      // There is a connection, or there will be none: only what was told has to be taken back.
      this.#broken = undefined
      this.#drop(({kind}) => isBreak(kind))
    }
  }

  /** Whoever comes next sees nothing of this one. */
  #forget(): void {
    if (this.#toasts.length) this.#toasts = []
    this.#marks.clear()
    this.#missed = []
    this.#isAway = true
    this.#lostAt = this.#broken = undefined
    this.#isExpired = false
  }

  #tellBreak(): void {
    const broken = this.#broken
    if (!broken || this.#choices.now() - broken.since < BREAK) return
    const kind = broken.name === 'restarting' ? 'restarting' : 'offline'
    if (!broken.isTold) {
      broken.isTold = true
      this.#drop(each => each.kind === 'back')
      this.#add({kind, at: broken.since})
      this.#waiting(this.#snapshot!.pending)
    } else if (this.#toasts.some(each => isBreak(each.kind) && each.kind !== kind)) {
      // It did not come back in a few seconds.
      this.#toasts = this.#toasts.map(each => isBreak(each.kind) ? {...each, kind} : each)
    }
  }

  /** What needs the user and, of what waits for a connection that does not come, the first. */
  #waiting(pending: readonly Pending[]): void {
    const states = new Map(pending.map(each => [each.id, each.state]))
    this.#drop(each => !!each.pending && states.get(each.pending.id) !== each.pending.state)
    for (const [id, state] of this.#unsent) if (states.get(id) !== state) this.#unsent.delete(id)
    for (const each of pending) {
      const {id, state} = each
      const isWaiting = state === 'waiting'
      const there = this.#toasts.filter(({kind}) => kind === 'unsent')
      if (there.length >= UNSENT) return
      if (this.#unsent.has(id) || isWaiting && (!this.#broken?.isTold || there.length)) continue
      this.#unsent.set(id, state)
      this.#add({kind: 'unsent', pending: each, isAlert: true, at: each.at})
      this.#hear('attend')
      if (isWaiting) return
    }
  }

  #ask(): void {
    if (this.#hasAsked || this.#shown < ASK_AFTER || !this.#choices.mayAsk()) return
    this.#hasAsked = true
    this.#add({kind: 'ask'})
  }

  // ---- the list and its time ----

  /** One more; one that has a `key` and is there already is left as it is. Returns what was added. */
  #add(given: Change & {kind: Toast['kind']}): Held
  #add(given: Change & {kind: Toast['kind']}, key: string): void
  #add(given: Change & {kind: Toast['kind']}, key?: string): Held | void {
    if (key && this.#toasts.some(each => each.key === key)) return
    const now = this.#choices.now()
    const added: Held = {
      rows: [], count: given.rows?.length ?? 0, users: [], povs: [], at: now, ...given,
      key: key ?? `t${++this.#number}`, spent: 0, last: now,
    }
    this.#toasts = this.#bounded([added, ...this.#toasts])
    return added
  }

  #drop(isMeant: (toast: Held) => boolean): void {
    if (this.#toasts.some(isMeant)) this.#toasts = this.#toasts.filter(each => !isMeant(each))
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
