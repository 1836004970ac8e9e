/** A server of real sockets that does as the test says; else what docs/protocol.md says. */
import {createServer, type IncomingMessage, type Server as HttpServer} from 'node:http'
import type {AddressInfo} from 'node:net'
import {WebSocket as NodeSocket, WebSocketServer, type WebSocket as Peer} from 'ws'
import type {Options, Reason, Status} from '../src/api.js'

type Message = {type: string; id?: string; [field: string]: any}

/** One accepted socket. */
export class Accepted {
  readonly received: Message[] = []
  isOpen = true
  /** The code it was closed with by the client. */
  code: number | undefined

  constructor(readonly socket: Peer, readonly token: string, readonly url: string) {}

  send(...messages: Message[]): void {
    for (const each of messages) this.socket.send(JSON.stringify(each))
  }
  of(type: string): Message[] {
    return this.received.filter(each => each.type === type)
  }
}

export interface Refusal {
  status: number
  body?: object
  headers?: Record<string, string>
}

export class Scripted {
  readonly accepted: Accepted[] = []
  /** Tokens of all attempts, refused ones too. */
  readonly attempts: string[] = []
  /** Tokens that were asked about over HTTP. */
  readonly probes: string[] = []
  /** What was asked for over HTTP. */
  readonly paths: string[] = []
  refuse: ((token: string) => Refusal | undefined) | undefined
  /** Whether it says `welcome`. */
  welcomes = true
  pingInterval = 25
  user = 'ana'
  /** The log of each PoV, and its epoch. */
  readonly logs = new Map<string, {epoch: string; data: object[]}>()
  /** What it does with a message; true where that is all. */
  script: ((message: Message, peer: Accepted) => boolean | void) | undefined
  private readonly http: HttpServer
  private readonly sockets = new WebSocketServer({noServer: true, handleProtocols: () => 'pov-rt.v1'})

  private constructor() {
    this.http = createServer((request, response) => {
      const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
      this.probes.push(token)
      this.paths.push(request.url!)
      const {status, body, headers} = this.refuse?.(token) ?? {status: 426, body: {error: {code: 'upgrade_required'}}}
      response.writeHead(status, {'content-type': 'application/json', connection: 'close', ...headers})
      response.end(JSON.stringify(body ?? {}))
    })
    this.http.on('upgrade', (request: IncomingMessage, socket, head) => {
      const token = /bearer\.([^,\s]+)/.exec(request.headers['sec-websocket-protocol'] ?? '')?.[1] ?? ''
      this.attempts.push(token)
      socket.on('error', () => {}) // a client that goes away in the middle
      const refusal = this.refuse?.(token)
      if (refusal) return void socket.end(`HTTP/1.1 ${refusal.status} Refused\r\nConnection: close\r\n\r\n`)
      this.sockets.handleUpgrade(request, socket, head, peer => this.accept(peer, token, request.url!))
    })
  }

  static async start(): Promise<Scripted> {
    const made = new Scripted()
    await new Promise<void>(resolve => made.http.listen(0, '127.0.0.1', resolve))
    return made
  }

  get url(): string {
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}`
  }
  get last(): Accepted {
    return this.accepted.at(-1)!
  }
  get open(): Accepted[] {
    return this.accepted.filter(each => each.isOpen)
  }

  private accept(socket: Peer, token: string, url: string): void {
    const peer = new Accepted(socket, token, url)
    this.accepted.push(peer)
    socket.on('close', code => { peer.isOpen = false; peer.code = code })
    socket.on('message', data => {
      const message = JSON.parse(String(data)) as Message
      peer.received.push(message)
      if (!this.script?.(message, peer)) this.answer(message, peer)
    })
    if (!this.welcomes) return
    peer.send({
      type: 'welcome', connectionId: `c${this.accepted.length}`, userId: this.user, device: 'default',
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(), pingInterval: this.pingInterval, version: '1',
    })
  }

  /** That of the device, on every PoV. */
  cursor = 0

  log(povId: string): {epoch: string; data: object[]} {
    if (!this.logs.has(povId)) this.logs.set(povId, {epoch: 'e1', data: []})
    return this.logs.get(povId)!
  }

  /** Put one into the log, and send it to those who are open (all follow all). */
  happen(povId: string, id: string, sent = true): void {
    const {data} = this.log(povId)
    data.push({id, povId, type: 'task', action: 'created', userId: 'jo', at: '2026-01-01T00:00:00Z', details: {}})
    if (sent) for (const each of this.open) each.send({type: 'activity', data: data.at(-1), offset: data.length})
  }

  answer(message: Message, peer: Accepted): void {
    const {type, id} = message
    if (type === 'ping') return peer.send({type: 'pong', id})
    if (type === 'unsubscribe') return peer.send({type: 'unsubscribed', id, povId: message.povId})
    if (type === 'refresh') return peer.send({type: 'refreshed', id, expiresAt: '2030-01-01T00:00:00Z', lost: []})
    if (type === 'subscribe') {
      const results = (message.povIds as string[] ?? [message.povId]).map(povId => {
        const {epoch, data} = this.log(povId)
        const since = message.since ?? message.positions?.[povId]
        const recovered = since && (since === 'cursor' || since.last || since.epoch === epoch)
        const place = {povId, epoch, offset: data.length, oldestOffset: 1, guarantee: {}}
        if (!since) return place
        if (!recovered) return {...place, recovered: false, missed: data.length}
        const after = since === 'cursor' ? this.cursor : since.last ? Math.max(data.length - since.last, 0) : since.offset
        return {...place, recovered: true, after: after as number}
      })
      peer.send({type: 'subscribed', id, ...(message.povIds ? {results} : results[0])})
      for (const result of results) {
        if (!('after' in result)) continue
        const {povId, after} = result
        const {data} = this.log(povId)
        data.forEach((each, index) => index >= after && peer.send({type: 'activity', data: each, offset: index + 1}))
      }
    }
  }

  /** The process is gone: sockets end without a word, and nobody answers. */
  async kill(): Promise<void> {
    const {port} = this.http.address() as AddressInfo
    for (const each of this.accepted) each.socket.terminate()
    this.http.closeAllConnections()
    await new Promise(resolve => this.http.close(resolve))
    this.back = () => new Promise<void>(resolve => this.http.listen(port, '127.0.0.1', resolve))
  }
  back: () => Promise<void> = async () => {}

  async stop(): Promise<void> {
    for (const each of this.accepted) each.socket.terminate()
    this.http.closeAllConnections()
    if (this.http.listening) await new Promise(resolve => this.http.close(resolve))
  }
}

/** A token whose claims can be read; nobody checks it here. */
export function tokenOf(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({alg: 'none'})}.${part(claims)}.x`
}

export const nodeSocket = NodeSocket as unknown as NonNullable<Options['WebSocket']>
export const short = ({state, reason}: Status): string => reason ? `${state} ${reason satisfies Reason}` : state
