/** A server as far as tabs share it, and a `Line` to it as `Connection` is one, in a `Browser`'s time. */
import type {Incoming, Line, LineEvents, Outgoing, Reason, Status} from '../src/api.js'
import type {Browser, Tab} from './browser.js'

type Message = {type: string; [field: string]: unknown}

interface Socket {
  connection: string
  tab: Tab
  isOpen: boolean
  povs: Map<string, string>
  receive(message: Message): void
  closed(code: number): void
}

/** Keeps logs, answers as docs/protocol.md says, and stamps what it sends with the connection's id. */
export class Server {
  isUp = true
  /** The reason for which every attempt ends for good. */
  refuses: Reason | undefined
  attempts = 0
  connections = 0
  all: Socket[] = []
  /** What came, in order. */
  readonly log: (Message & {connection: string})[] = []
  readonly povs = new Map<string, Message[]>()

  constructor(readonly browser: Browser) {}

  get sockets(): Socket[] {
    this.all = this.all.filter(each => each.isOpen && !each.tab.isGone)
    return this.all
  }

  /** Messages of a type that came since the last time this was asked for. */
  take(...types: string[]): Message[] {
    return this.log.splice(0).filter(each => types.includes(each.type))
  }

  publish(povId: string, data: Message = {type: 'activity'}): number {
    const log = this.povs.get(povId) ?? []
    this.povs.set(povId, log)
    log.push(data)
    for (const each of this.sockets) {
      if (each.povs.has(povId)) this.send(each, {type: 'activity', data: {povId, ...data}, offset: log.length})
    }
    return log.length
  }

  /** To everybody, unasked. */
  push(message: Message): void {
    for (const each of this.sockets) this.send(each, message)
  }

  /** Close all sockets. */
  drop(code = 1006): void {
    for (const each of this.sockets) {
      each.isOpen = false
      this.browser.deliver(each.tab, each.tab, () => each.closed(code))
    }
  }

  send(socket: Socket, message: Message): void {
    const text = JSON.stringify({...message, connection: socket.connection})
    this.browser.deliver(socket.tab, socket.tab, () => socket.receive(JSON.parse(text) as Message))
  }

  receive(socket: Socket, message: Message): void {
    if (!socket.isOpen || socket.tab.isGone) return
    this.log.push({...message, connection: socket.connection})
    const {id, type, povId} = message as Message & {povId: string}
    const answer = (what: Message) => this.send(socket, {...what, ...(id === undefined ? {} : {id})})
    const log = this.povs.get(povId) ?? []
    if (povId === 'forbidden' && type !== 'unsubscribe') return answer({type: 'error', code: 'forbidden', message: 'no'})
    if (povId === 'lost') return // and its answer with it
    if (type === 'subscribe' && message.povIds) {
      const results = (message.povIds as string[]).map(each => {
        if (each === 'forbidden') return {povId: each, code: 'forbidden', message: 'no'}
        socket.povs.set(each, '')
        return {povId: each, epoch: 'e', offset: 0}
      })
      return answer({type: 'subscribed', results})
    }
    switch (type) {
      case 'resume':
        socket.povs.set('p', '')
        return answer({type: 'subscribed', povIds: ['p'], results: [{povId: 'p', epoch: 'e', offset: 0}]})
      case 'subscribe': {
        socket.povs.set(povId, JSON.stringify(message.only))
        const {offset = log.length} = (message.since ?? {}) as {offset?: number}
        answer({type: 'subscribed', povId, epoch: 'e', offset, recovered: !!message.since})
        for (let at = offset; at < log.length; at++) {
          this.send(socket, {type: 'activity', data: {povId, ...log[at]}, offset: at + 1})
        }
        return
      }
      case 'unsubscribe':
        socket.povs.delete(povId)
        return answer({type: 'unsubscribed', povId})
      case 'presence':
        return answer({type: 'present', povId, users: [], more: 0})
      case 'read':
        if (message.inbox) return answer({type: 'inbox_read', epoch: 'e', offset: message.offset})
        return answer({type: 'receipts', povId, read: {ana: message.offset}})
      case 'history':
        return answer({type: 'history_page', povId, echo: message.limit})
      case 'typing':
        return
      default:
        answer({type: `${type}_done`, echo: message.echo})
    }
  }
}

/** What a tab's `connect` makes: connects in 20 ms, comes back 500 ms after a loss. */
export function connectTo(server: Server, tab: Tab): Line {
  const {browser} = server
  let on: LineEvents
  let socket: Socket | undefined
  let isClosed = false
  let attempt: ReturnType<Browser['after']> | undefined
  const since = () => Date.now()
  const status = (next: Omit<Status, 'since'>) => on.status({...next, since: since()})

  function wait(reason: Reason): void {
    socket = undefined
    attempt = browser.after(500, open, tab)
    status({state: 'offline', reason, retryAt: since() + 500})
  }

  function finish(reason: Reason): void {
    isClosed = true
    if (socket) socket.isOpen = false
    socket = undefined
    browser.cancel(attempt)
    status({state: 'closed', reason})
  }

  function open(): void {
    if (isClosed) return
    server.attempts++
    if (server.refuses) return finish(server.refuses)
    if (!server.isUp) return wait('network')
    const mine: Socket = (socket = {
      connection: `c${++server.connections}`,
      tab,
      isOpen: true,
      povs: new Map(),
      receive: message => socket === mine && receive(message),
      closed: code => {
        if (socket === mine) code < 4500 ? wait('network') : finish('ended')
      },
    })
    server.all.push(mine)
    server.send(mine, {type: 'welcome', connectionId: mine.connection, userId: 'ana'})
  }

  function receive(message: Message): void {
    if (message.type !== 'welcome') return on.message(message as Incoming)
    status({state: 'live'})
    on.opened(message as never)
  }

  return {
    get isOpen() {
      return !!socket
    },
    start(events) {
      on = events
      attempt = browser.after(20, open, tab)
      browser.after(0, () => {
        if (!isClosed) status({state: 'connecting'})
      }, tab)
    },
    send(message: Outgoing) {
      const by = socket
      const text = JSON.stringify(message)
      if (by) browser.after(10, () => server.receive(by, JSON.parse(text) as Message))
    },
    retry() {
      server.log.push({type: 'retried', connection: ''})
      if (socket || isClosed) return
      browser.cancel(attempt)
      open()
    },
    suspend() {},
    resume() {},
    close(reason) {
      if (!isClosed) finish(reason)
    },
  }
}
