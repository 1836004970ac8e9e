/** What a WebSocket is for the connection, over plain HTTP: events that the server sends, and requests. */
import type {Socket} from './api.js'

/** In `sessionStorage`, once it is known that this is the way, and how; the connection looks there. */
const REMEMBERED = 'pov-rt'
const EVENTS = 'events'
const FETCHED = 'fetched'
/** Messages of one request; the server takes 64. */
const AT_ONCE = 32
/** How long to wait where the server does not say, ms. */
const BUSY = 1000
/** How long nothing may come of an answer that does not end, ms: then something holds it back. */
const HELD = 4_000
/** How often the same is fetched again that did not arrive. */
const TRIES = 3
/** What a browser says of a connection that ended without a word. */
const CUT = 1006
const PING = '{"type":"ping"'

/** What is remembered where nothing can be stored: for this page. */
let known: string | undefined

function remember(how: string): void {
  known = how
  try {
    sessionStorage.setItem(REMEMBERED, how)
  } catch {
    // Then each page finds out by itself.
  }
}

function isFetched(): boolean {
  try {
    known = sessionStorage.getItem(REMEMBERED) ?? undefined
  } catch {
    // It is as this page knows.
  }
  return known === FETCHED
}

/**
 * A session (docs/protocol.md, Without a WebSocket): made, used and ended as a WebSocket is.
 *
 * Requests are sent one after the other, for their order is that of the messages. What the server sends comes as the
 * events of one answer that does not end. Where such an answer is held back on its way, it is fetched: by
 * requests whose answers end. Once the server has said something one way, tabs of this session begin with it.
 */
export class Session implements Socket {
  onmessage: ((event: {data: string}) => void) | null = null
  onclose: ((event: {code: number; reason: string}) => void) | null = null
  onerror: unknown
  #base: string
  #token: string
  #connection = ''
  #waiting: string[] = []
  #isSending = false
  #ended = new AbortController()
  #how = isFetched() ? FETCHED : EVENTS
  /** When a `ping` was sent that nothing was heard after (`performance.now()`). */
  #asked?: number

  /** `url` and `protocols` are those of a WebSocket, and so is the token in them. */
  constructor(url: string, protocols: string[]) {
    this.#base = url.replace('ws', 'http')
    this.#token = protocols[1]!.replace('bearer.', '')
    void this.#read()
  }

  send(text: string): void {
    this.#waiting.push(text)
    if (!this.#isSending) void this.#post()
  }

  close(): void {
    // The server took it, and its answer does not come: it is the events that do not get through any more.
    if (!this.#isSending && performance.now() - this.#asked! > HELD) remember(FETCHED)
    this.#ended.abort()
  }

  #end(): void {
    if (this.#ended.signal.aborted) return
    this.#ended.abort()
    this.onclose?.({code: CUT, reason: ''})
  }

  #fetch(path: string, more: RequestInit = {}, signal = this.#ended.signal): Promise<Response> {
    return fetch(this.#base.replace(/\/ws\/\??/, `/api/${path}`), {
      ...more,
      headers: {...more.headers, Authorization: `Bearer ${this.#token}`},
      credentials: 'omit',
      cache: 'no-store',
      signal,
    })
  }

  async #read(): Promise<void> {
    try {
      if (this.#how === FETCHED || await this.#listen()) {
        this.#how = FETCHED
        await this.#poll()
      }
    } catch {
      // The network ended it.
    }
    this.#end()
  }

  /** Take events as they come, until they end; true: none comes, something holds them back. */
  async #listen(): Promise<boolean> {
    const held = new AbortController()
    const timer = setTimeout(() => held.abort(), HELD)
    try {
      const answer = await this.#fetch('session?', {}, AbortSignal.any([held.signal, this.#ended.signal]))
      if (!answer.ok) return false
      let text = ''
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const {done, value} = await reader.read()
        if (done) return false
        const lines = (text + value).split('\n')
        text = lines.pop()!
        for (const line of lines) this.#take(line)
        if (this.#connection) clearTimeout(timer)
      }
    } catch {
      return held.signal.aborted
    } finally {
      clearTimeout(timer)
    }
  }

  /** Fetch what came since, and what comes next, until the server has the session no more. */
  async #poll(): Promise<void> {
    let last = ''
    for (let failures = 0; failures < TRIES;) {
      let answer: Response | undefined
      try {
        answer = await this.#fetch('session?live=long-poll&', {headers: last ? {'Last-Event-ID': last} : {}})
        if (answer.ok) {
          for (const line of (await answer.text()).split('\n')) {
            if (line.startsWith('id:')) last = line.slice(3)
            else this.#take(line)
          }
          failures = 0
          continue
        }
      } catch {
        // What did not arrive is asked for again.
      }
      const isBusy = answer?.status === 429
      // Only what was begun can be gone on with, and only while the server has it.
      if (!last || this.#ended.signal.aborted || answer && answer.status < 500 && !isBusy) return
      if (!isBusy) failures++
      await pause(answer)
    }
  }

  #take(line: string): void {
    if (line.startsWith('data:')) this.#receive(line.slice(5))
  }

  #receive(data: string): void {
    if (this.#ended.signal.aborted) return
    this.#asked = undefined
    if (!this.#connection) {
      this.#connection = (JSON.parse(data) as {connectionId: string}).connectionId
      remember(this.#how)
    }
    this.onmessage?.({data})
  }

  /** Send what waits, until nothing does. */
  async #post(): Promise<void> {
    this.#isSending = true
    try {
      while (this.#waiting.length) {
        const some = this.#waiting.slice(0, AT_ONCE)
        if (some.some(each => each.startsWith(PING))) this.#asked ??= performance.now()
        const answer = await this.#fetch('messages?', {
          method: 'POST',
          headers: {'Content-Type': 'application/json', 'Pov-Rt-Connection': this.#connection},
          body: `[${some.join()}]`,
        })
        if (answer.status === 429) {
          await pause(answer)
        } else if (answer.status !== 204) {
          return this.#end()
        } else {
          this.#waiting.splice(0, some.length)
          for (const each of some) this.#token = refreshed(each) ?? this.#token
        }
      }
    } catch {
      this.#end()
    } finally {
      this.#isSending = false
    }
  }
}

/** Wait as long as an answer asks for. */
function pause(answer?: Response): Promise<void> {
  const seconds = parseFloat(answer?.headers.get('retry-after') ?? '')
  return new Promise(done => setTimeout(done, seconds >= 0 ? seconds * 1000 : BUSY))
}

/** The token that a message brings, if it does: the requests behind it have that one. */
function refreshed(text: string): string | undefined {
  const {type, token} = JSON.parse(text) as {type: string; token?: string}
  return type === 'refresh' ? token : undefined
}
