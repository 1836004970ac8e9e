/** One WebSocket, or what takes its place, that looks after itself: token, backoff, liveness. */
import type {Incoming, Line, LineEvents, Options, Outgoing, Reason, Socket, Status} from './api.js'
import type * as wire from './wire.js'
import {claimsOf} from './scope.js'
import {askToken, delay} from './wait.js'

/** How long an attempt may take until `welcome`, a probe of a refusal, an answer to `ping`: ms. */
const PATIENCE = 10_000
/** The same where there is reason for doubt: the tab was hidden, the machine asleep, the network gone. */
const DOUBT = 5_000
/** A connection that lasted this long was a good one: the next attempts begin small again. */
const STABLE = 10_000
/** A token with less than this left is not tried once more, ms. */
const NEARLY_EXPIRED = 10_000
/** Ids of our own requests begin with it; nobody else's do. */
const OWN = '~'

/** Where the server is: `ws`, and `http` for asking why it refused. */
export function addressOf({url, device}: Options): {ws: string; http: string} {
  const at = new URL(url ?? '', globalThis.location?.origin)
  at.protocol = at.protocol.replace('ws', 'http')
  at.pathname = at.pathname.replace(/\/?$/, '/ws/')
  if (device) at.searchParams.set('device', device)
  return {http: at.href, ws: at.href.replace('http', 'ws')}
}

/** What a close code says: come back, or with which reason not to. See docs/protocol.md. */
function judge(code: number): {reason: Reason; final: boolean} {
  const final = code >= 4500 || [1002, 1007, 1009].includes(code)
  const known: Reason[] = ['restarting', 'token', 'slow', 'silent', 'gap', 'busy']
  return {reason: known[code - 4000] ?? (code === 4500 ? 'ended' : final ? 'page_error' : 'network'), final}
}

/**
 * Make a `Line` over a socket of one's own.
 *
 * Owns the socket, the token and all timers. `first` is a token to begin with.
 */
export function makeConnection(options: Options, first?: string): Line {
  const direct = options.WebSocket ?? globalThis.WebSocket
  let Way = direct
  const {ws, http} = addressOf(options)
  let on: LineEvents
  let status: Status
  let socket: Socket | undefined
  let isOpen = false
  let attempt = 0
  let openedAt = 0
  let token = first
  /** The code of the server's refusal of the last token; two in a row are final. */
  let refused: string | undefined
  let closing: wire.Closing | undefined
  let pingInterval = 0
  let heardAt = 0
  let ids = 0
  let renewing: string | undefined
  let renewals = 0
  /** When the probe that is under way is over; 0 where there is none. */
  let probedUntil = 0
  /** For whom all this is: a token of somebody else ends it. */
  let {user: userId, team: teamId} = options
  /** Aborted when the attempt or connection that it belongs to is over: nothing of it acts any more. */
  let scope = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let watch: ReturnType<typeof setTimeout> | undefined
  let renewal: ReturnType<typeof setTimeout> | undefined

  function tell(next: Omit<Status, 'since'>): void {
    status = {...next, since: next.state === status.state ? status.since : Date.now()}
    on.status(status)
  }

  /** Let go of socket, timers and whatever is under way, and be heard of no more by them. */
  function drop(): void {
    scope.abort()
    scope = new AbortController()
    for (const each of [timer, watch, renewal]) clearTimeout(each)
    timer = watch = renewal = renewing = undefined
    probedUntil = 0
    isOpen = false
    if (socket) {
      // Its `onerror` stays: `ws` of Node throws an error that nobody takes.
      socket.onmessage = socket.onclose = null
      socket.close(1000)
      socket = undefined
    }
  }

  function finish(reason: Reason, detail?: string, code?: number): void {
    drop()
    tell({state: 'closed', reason, detail, code})
  }

  /** Wait for the next attempt. */
  function wait(reason: Reason, detail?: string, retryAfter?: number, code?: number): void {
    drop()
    const ms = delay(attempt++, retryAfter)
    timer = setTimeout(() => void begin(), ms)
    tell({state: 'offline', reason, detail, code, retryAt: Date.now() + ms})
  }

  /** Where a WebSocket does not get through: try without from the next attempt on, and the other way round. */
  const turn = () => import('./session.js').then(
    ({Session}) => { Way = Way === direct ? Session : direct },
    () => {}, // nobody has the file now; a WebSocket is tried again
  )

  /**
   * Ask the page for a token; undefined where there is none, and what follows is on its way.
   *
   * One of another user ends it: what waits here is not theirs to send or see.
   */
  async function ask(): Promise<string | undefined> {
    const {signal} = scope
    try {
      const got = await askToken(options, signal, refused)
      if (signal.aborted) return
      const claims = got ? claimsOf(got) : {}
      if (!userId) ({userId, teamId} = claims)
      if (got && claims.userId === userId && claims.teamId === teamId) return (token = got)
      finish('session_ended', 'Nobody or another user')
    } catch (error) {
      if (signal.aborted) return
      // An open connection lasts until the token's end; that it then ends is what the page sees.
      if (isOpen) renewal = setTimeout(() => void renew(), delay(++renewals))
      else wait('token', String(error))
    }
  }

  function isUsable(held: string | undefined): held is string {
    const {exp} = held ? claimsOf(held) : {}
    return !!held && !(exp! * 1000 - Date.now() < NEARLY_EXPIRED)
  }

  async function begin(): Promise<void> {
    clearTimeout(timer)
    if (status.state !== 'connecting') tell({...status, state: 'offline', retryAt: undefined})
    if (isUsable(token) || await ask()) open(token!)
  }

  function open(used: string): void {
    const {signal} = scope
    closing = undefined
    try {
      socket = new Way(ws, ['pov-rt.v1', `bearer.${used}`])
    } catch (error) {
      return finish('page_error', String(error)) // a token or an address that cannot be one
    }
    socket.onmessage = ({data}: MessageEvent) => receive(String(data))
    socket.onerror = () => {}
    socket.onclose = ({code, reason}: CloseEvent) => (isOpen ? lost(code, reason) : void probe(used, signal))
    timer = setTimeout(() => {
      void turn()
      wait('network', 'No answer in time')
    }, PATIENCE)
  }

  /** A browser does not say why a socket did not open: ask over HTTP, once. */
  async function probe(used: string, signal: AbortSignal): Promise<void> {
    clearTimeout(timer)
    try {
      const answer = await fetch(http, {
        headers: {Authorization: `Bearer ${used}`},
        credentials: 'omit',
        cache: 'no-store',
        signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]),
      })
      const {status, headers} = answer
      const body = await answer.json().catch(() => ({})) as {error?: Partial<wire.ErrorMessage>}
      if (signal.aborted) return
      const {code, message = `HTTP ${status}`, retryAfter} = body.error ?? {}
      if (status === 401 && code) return reject(code, message)
      if (code === 'forbidden' || code === 'host_unknown') return finish('refused', message)
      if (status === 426) void turn()
      const seconds = retryAfter ?? parseFloat(headers.get('retry-after')!)
      wait(status === 429 || status === 503 ? 'busy' : 'network', message, seconds)
    } catch (error) {
      if (!signal.aborted) wait('network', String(error))
    }
  }

  /** The server refuses the token: get one more; if that is refused too, it is no use. */
  function reject(code: string, detail?: string): void {
    token = undefined
    if (refused) return finish('session_ended', `${code}: ${detail}`)
    refused = code
    drop()
    tell({state: status.state === 'connecting' ? 'connecting' : 'offline', reason: 'token', detail})
    void begin()
  }

  function lost(code: number, detail: string): void {
    if (Date.now() - openedAt > STABLE) attempt = 0
    code = closing?.code ?? code
    const {reason, final} = judge(code)
    if (final) return finish(reason, closing?.reason ?? detail, code)
    if (reason === 'token') token = undefined // what refuses the next one is the handshake
    wait(reason, closing?.reason ?? detail, closing?.retryAfter, code)
  }

  function receive(text: string): void {
    heardAt = performance.now()
    const message = JSON.parse(text) as Incoming
    if (String(message.id ?? '').startsWith(OWN)) {
      if (message.id === renewing) renewed(message)
      return
    }
    if (message.type === 'welcome' && !isOpen) {
      clearTimeout(timer)
      const welcome = message as wire.Welcome
      isOpen = true
      openedAt = Date.now()
      refused = undefined
      pingInterval = welcome.pingInterval * 1000
      look(pingInterval)
      tell({state: 'live'})
      return on.opened(welcome)
    }
    if (message.type === 'closing') closing = message as wire.Closing
    if (message.type === 'token_expiring') void renew()
    on.message(message)
  }

  // ---- liveness ----

  /** Look again in `ms` whether something came meanwhile. */
  function look(ms: number): void {
    clearTimeout(watch)
    probedUntil = 0
    const due = Date.now() + ms
    watch = setTimeout(() => {
      // Late by seconds: the machine slept, or the tab's timers did.
      if (Date.now() - due > DOUBT) return check(DOUBT)
      const silent = performance.now() - heardAt
      if (silent >= pingInterval) check(PATIENCE)
      else look(pingInterval - silent)
    }, ms)
  }

  /** Have the server say something, whatever, within `ms`. */
  function check(ms: number): void {
    const asked = performance.now()
    // One that is under way is not put off: who asks every second would never learn.
    if (!isOpen || (probedUntil && probedUntil <= asked + ms)) return
    probedUntil = asked + ms
    send({type: 'ping', id: OWN})
    clearTimeout(watch)
    watch = setTimeout(() => {
      if (heardAt >= asked) look(pingInterval)
      else wait('silent', 'No answer in time')
    }, ms)
  }

  // ---- the token's renewal, in place ----

  async function renew(): Promise<void> {
    if (!(await ask())) return
    renewing = `${OWN}${++ids}`
    send({type: 'refresh', token, id: renewing})
  }

  function renewed(answer: Incoming): void {
    renewing = undefined
    if (answer.type === 'refreshed') {
      refused = undefined
      renewals = 0
      return on.message({...answer, id: undefined} as Incoming)
    }
    const {code, message, retryAfter} = answer as wire.ErrorMessage
    if (code.startsWith('token_')) {
      token = undefined
      if (refused) return finish('session_ended', `${code}: ${message}`)
      refused = code
    }
    renewal = setTimeout(() => void renew(), delay(++renewals, retryAfter))
  }

  function send(message: Outgoing): void {
    if (isOpen) socket!.send(JSON.stringify(message))
  }

  function retry(): void {
    if (isOpen) check(DOUBT)
    // An attempt that is under way goes on: its own patience ends it.
    else if (status.state === 'offline' && status.retryAt) void begin()
  }

  return {
    get isOpen() {
      return isOpen
    },
    start(events) {
      on = events
      status = {state: 'connecting', since: Date.now()}
      queueMicrotask(async () => {
        if (status.state !== 'connecting') return
        const {signal} = scope
        on.status(status)
        try {
          if (sessionStorage['pov-rt']) await turn() // what `session.ts` left there
        } catch {
          // There is no storage: it begins with a WebSocket.
        }
        if (!signal.aborted) void begin()
      })
    },
    send,
    retry,
    suspend() {
      if (status.state === 'closed' || status.state === 'suspended') return
      drop()
      tell({state: 'suspended'})
    },
    resume() {
      if (status.state !== 'suspended') return
      token = undefined // somebody may have signed out meanwhile
      attempt = 0
      tell({state: 'connecting'})
      void begin()
    },
    close(reason) {
      if (status.state !== 'closed') finish(reason)
    },
  }
}
