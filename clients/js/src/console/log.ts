/** What was sent and received, as it was: each answer with its request, bounded, pings apart. */

/** A message of either side, parsed. */
export interface Message {
  readonly type: string
  readonly id?: string | number
  readonly [field: string]: unknown
}

/** One message as it went over the line. */
export interface Frame {
  /** Exactly what was sent or received. */
  readonly text: string
  readonly message: Message
  /** ms since 1970, with fractions. */
  readonly at: number
}

/** A request and its answer, or what was not asked for, or what happened to the line. */
export interface Entry {
  readonly key: number
  readonly sent?: Frame
  readonly got?: Frame
  /** How long the answer took, ms. */
  readonly ms?: number
  /** What happened to the line, or did not: no message. */
  readonly note?: {readonly type: string; readonly text: string; readonly at: number}
}

export type Shown = 'all' | 'sent' | 'received' | 'refused'

/** How many entries are kept. */
export const KEPT = 500
/** Ids of what the connection asks by itself begin with it. */
const OWN = '~'

export const isRefused = ({got, note}: Entry): boolean => got?.message.type === 'error' || !!note

/** The log, the newest first. `changed` is called after each change. */
export class Log {
  entries: readonly Entry[] = []
  /** How many signs of life are left out. */
  pings = 0
  /** How many entries are gone. */
  gone = 0
  private held: readonly Entry[] | undefined
  private heldNews = 0
  private keys = 0

  constructor(private readonly changed: () => void) {}

  get isPaused(): boolean {
    return !!this.held
  }

  /** How many messages came since it was paused. */
  get waiting(): number {
    return this.heldNews
  }

  /** What is shown: while paused, what there was then. */
  get shown(): readonly Entry[] {
    return this.held ?? this.entries
  }

  pause(): void {
    this.held = this.held ? undefined : this.entries
    this.heldNews = 0
    this.changed()
  }

  clear(): void {
    this.entries = []
    if (this.held) this.held = []
    this.pings = this.gone = this.heldNews = 0
    this.changed()
  }

  /** Take note of what was sent. */
  sent(text: string): void {
    const frame = read(text)
    if (isOwn(frame)) this.pings++
    else this.add({key: this.keys++, sent: frame})
    this.changed()
  }

  /** Take note of what came; return it parsed. */
  received(text: string): Message {
    const frame = read(text)
    const {message} = frame
    if (isOwn(frame)) return message // its ping was counted
    const at = message.id === undefined ? -1
      : this.entries.findIndex(each => !each.got && each.sent?.message.id === message.id)
    const asked = this.entries[at]
    if (asked?.sent) this.replace(at, {...asked, got: frame, ms: frame.at - asked.sent.at})
    else this.add({key: this.keys++, got: frame})
    this.changed()
    return message
  }

  /** Take note of what is no message: the line broke, or something could not be sent. */
  note(type: string, text: string): void {
    this.add({key: this.keys++, note: {type, text, at: now()}})
    this.changed()
  }

  private add(entry: Entry): void {
    const all = [entry, ...this.entries]
    this.gone += Math.max(0, all.length - KEPT)
    this.entries = all.slice(0, KEPT)
    if (this.held) this.heldNews++
  }

  private replace(at: number, entry: Entry): void {
    this.entries = this.entries.with(at, entry)
    if (!this.held) return
    this.held = this.held.map(each => each.key === entry.key ? entry : each)
  }
}

/** The time to a part of a millisecond. */
export const now = (): number => performance.timeOrigin + performance.now()

const isOwn = ({message: {id, type}}: Frame): boolean =>
  (type === 'ping' || type === 'pong') && typeof id === 'string' && id.startsWith(OWN)

function read(text: string): Frame {
  return {text, message: JSON.parse(text) as Message, at: now()}
}
