/** The console's line to the server, and all that is known from what came over it. */
import type {Line, Outgoing, Socket, Status} from '../api.js'
import {makeConnection} from '../connection.js'
import type {ActivityMessage, Present, PresenceDiff, Result, Subscribed, User, Welcome} from '../wire.js'
import {Log, type Message} from './log.js'
import type {Document} from './schema.js'

/** `/dev/console.json`. */
export interface ConsoleData {
  version: string
  /** A socket token, new with each request. */
  token: string
  /** For publishing over HTTP. */
  serviceToken: string
  /** What the token grants. */
  can: readonly string[]
  types: Readonly<Record<string, {from: string; grant: string | null; summary: string}>>
  schema: Document
}

/** `/dev/problem.json`. */
export interface Problem {
  message: string
  file: string
  line: number
  traceback: string
  /** The server goes on as it was before the mistake. */
  isRunning: boolean
}

/** A PoV that is followed. */
export interface Place {
  epoch: string
  offset: number
  /** How many are missing before it. */
  missed: number
  /** What was asked for beside the place: the filter, whether it is durable. */
  readonly asked: Readonly<Record<string, unknown>>
  /** When it began, ms since 1970. */
  readonly since: number
}

/** Followed from the start. */
export const DEMO = 'demo'
/** How often it is looked whether a file is wrong, ms. */
const LOOK = 1500
/** An answer to that takes no longer, ms. */
const PATIENCE = 5000

const ask = (path: string): Promise<Response> =>
  fetch(path, {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE)})

/** One for the page. Owns the line; calls `changed` when anything of it is another. */
export class Session {
  readonly log: Log
  readonly povs = new Map<string, Place>()
  /** Who is where, as far as it was asked for. */
  readonly people = new Map<string, Map<string, User>>()
  data: ConsoleData | undefined
  status: Status = {state: 'connecting', since: Date.now()}
  welcome: Welcome | undefined
  problem: Problem | undefined
  /** A problem went away: until the reader has seen that. */
  isMended = false
  /** How many activities came. */
  activities = 0
  private line: Line | undefined
  private ids = 0
  private isFirst = true
  /** The last place seen of each PoV, followed or not. */
  private readonly places = new Map<string, {epoch: string; offset: number}>()

  constructor(private readonly changed: () => void) {
    this.log = new Log(changed)
  }

  /** The id of the next message. */
  get nextId(): number {
    return this.ids + 1
  }

  /** The PoV that forms speak of. */
  get pov(): string {
    return [...this.povs.keys()].find(each => each !== '*') ?? DEMO
  }

  place(povId: string): {epoch: string; offset: number} | undefined {
    return this.povs.get(povId) ?? this.places.get(povId)
  }

  start(): void {
    this.connect()
    void this.look()
    document.addEventListener('visibilitychange', () => { if (!document.hidden) void this.look() })
  }

  /** Send a message, with the next id. Returns the id; undefined where there is no line, which is noted. */
  send(type: string, fields: Readonly<Record<string, unknown>>): number | undefined {
    if (!this.line?.isOpen) {
      this.log.note('not sent', `${type}: there is no connection`)
      return
    }
    const id = ++this.ids
    // Numbers are ids, too; the SDK's own are texts.
    this.line.send({type, id, ...fields} as unknown as Outgoing)
    return id
  }

  /** Try now; begin anew where it has ended for good. */
  retry(): void {
    if (this.status.state === 'closed') this.connect()
    else this.line?.retry()
  }

  /** Fetch tokens and schemas anew. Rejects where the server does not answer. */
  async load(): Promise<ConsoleData> {
    const answer = await ask('/dev/console.json')
    const body = await answer.json() as ConsoleData & {error?: {message: string}}
    if (!answer.ok) throw new Error(body.error?.message ?? `HTTP ${answer.status}`)
    this.data = body
    this.changed()
    return body
  }

  private connect(): void {
    const {log} = this
    const Recorded = class extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols)
        let isOpen = false
        this.addEventListener('open', () => { isOpen = true })
        this.addEventListener('message', ({data}) => log.received(String(data)))
        this.addEventListener('close', ({code, reason}) => {
          if (isOpen) log.note('closed', `${code} ${reason}`.trim())
        })
      }

      override send(text: string): void {
        super.send(text)
        log.sent(text)
      }
    }
    this.line = makeConnection({
      device: 'console',
      tabs: false,
      getToken: async () => (await this.load()).token,
      WebSocket: Recorded as unknown as new (url: string, protocols: string[]) => Socket,
    })
    this.line.start({
      opened: welcome => this.opened(welcome),
      message: message => this.receive(message as Message),
      status: status => {
        this.status = status
        this.changed()
      },
    })
  }

  private opened(welcome: Welcome): void {
    this.welcome = welcome
    if (this.isFirst) {
      this.send('subscribe', {povId: DEMO})
      this.send('presence', {povId: DEMO})
    } else {
      // Another server may have other types.
      this.load().catch(() => {}) // the line says it, if the server is away
      for (const [povId, {asked, epoch, offset}] of this.povs) {
        this.send('subscribe', {povId, since: {epoch, offset}, ...asked})
      }
      for (const povId of this.people.keys()) this.send('presence', {povId})
    }
    this.isFirst = false
    this.changed()
  }

  private receive(message: Message): void {
    if (message.type === 'activity') this.moved(message as unknown as ActivityMessage)
    else if (message.type === 'subscribed') this.follow(message as unknown as Subscribed)
    else if (message.type === 'unsubscribed') this.leave(String(message.povId))
    else if (message.type === 'present') {
      const {povId, users} = message as unknown as Present
      this.people.set(povId, new Map(users.map(each => [each.userId, each])))
    } else if (message.type === 'presence_diff') this.meet(message as unknown as PresenceDiff)
    else if (message.type === 'published' || message.type === 'history_page' || message.type === 'position') {
      this.reached(message as unknown as {povId: string; epoch?: string; offset: number})
    }
    this.changed()
  }

  private moved({data, offset, feed}: ActivityMessage): void {
    this.activities++
    const place = this.povs.get(feed ?? data.povId)
    if (place) place.offset = offset
  }

  /** A place was named of a PoV, which is followed or not. */
  private reached({povId, epoch, offset}: {povId: string; epoch?: string; offset: number}): void {
    const place = this.povs.get(povId)
    // What is followed moves on by what comes; the answer to `echo: false` stands in for that.
    if (place) place.offset = offset <= place.offset + 1 ? Math.max(offset, place.offset) : place.offset
    if (epoch) this.places.set(povId, {epoch, offset})
  }

  private follow(answer: Subscribed): void {
    const sent = this.log.entries.find(each => each.got?.message.id === answer.id && each.sent)?.sent?.message
    const only = sent?.only
    const durable = sent?.durable
    for (const result of (answer.results ?? [answer]) as Result[]) {
      const {povId, epoch, offset, recovered, after, missed = 0} = result
      if (!epoch || offset === undefined) continue
      this.places.set(povId, {epoch, offset})
      const before = this.povs.get(povId)
      this.povs.set(povId, {
        epoch,
        // What is recovered follows this answer.
        offset: recovered ? after ?? before?.offset ?? offset : offset,
        missed: recovered ? before?.missed ?? 0 : (before?.missed ?? 0) + missed,
        asked: {...only ? {only} : {}, ...durable ? {durable} : {}},
        since: before?.since ?? Date.now(),
      })
    }
  }

  private leave(povId: string): void {
    const place = this.povs.get(povId)
    if (place) this.places.set(povId, {epoch: place.epoch, offset: place.offset})
    this.povs.delete(povId)
    this.people.delete(povId)
  }

  private meet({povId, joined, changed, left}: PresenceDiff): void {
    const there = this.people.get(povId)
    if (!there) return
    for (const each of [...joined, ...changed]) there.set(each.userId, each)
    for (const each of left) there.delete(each)
  }

  private timer: ReturnType<typeof setTimeout> | undefined

  /** Look whether a file is wrong, now and again; a server that is back is tried at once. */
  private async look(): Promise<void> {
    clearTimeout(this.timer)
    if (document.hidden) return
    try {
      const answer = await ask('/dev/problem.json')
      const {problem} = await answer.json() as {problem: Problem | null}
      if (this.problem && !problem) this.isMended = true
      if (problem) this.isMended = false
      if (problem?.traceback !== this.problem?.traceback || !problem !== !this.problem) {
        this.problem = problem ?? undefined
        this.changed()
      }
      if (!problem || problem.isRunning) this.comeBack()
    } catch {
      // The server is away: the line says it, and comes back with it.
    }
    this.timer = setTimeout(() => void this.look(), LOOK)
  }

  private comeBack(): void {
    const {state, reason} = this.status
    if (state === 'offline') this.retry()
    // The server of another start may have another key: ours is none of a person's, so a new one does.
    else if (state === 'closed' && reason === 'session_ended') this.connect()
  }
}
