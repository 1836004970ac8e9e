/** The network of one page, with a plug: what is cut breaks at once, and nothing new gets through. */
import type {Socket} from '../api.js'

/** What a page has instead of the browser's own. */
export interface Net {
  readonly isPlugged: boolean
  /** Cut it, or mend it; the page hears of that by the events `offline` and `online`, as of any cut. */
  plug(isPlugged: boolean): void
  readonly WebSocket: new (url: string, protocols: string[]) => Socket
  readonly fetch: typeof fetch
}

/** A connection that ended without a closing handshake: RFC 6455, section 7.1.5. */
const BROKEN = 1006

/** Make one. */
export function makeNet(): Net {
  const sockets = new Set<PluggedSocket>()
  const fetch = globalThis.fetch.bind(globalThis)
  let cable = new AbortController()
  let isPlugged = true

  class PluggedSocket implements Socket {
    onmessage: ((event: MessageEvent) => void) | null = null
    onclose: ((event: CloseEvent) => void) | null = null
    onerror: ((event: Event) => void) | null = null
    #socket: WebSocket | undefined

    constructor(url: string, protocols: string[]) {
      if (!isPlugged) {
        setTimeout(() => this.cut())
        return
      }
      const socket = this.#socket = new WebSocket(url, protocols)
      sockets.add(this)
      socket.onmessage = event => this.onmessage?.(event)
      socket.onerror = event => this.onerror?.(event)
      socket.onclose = event => {
        sockets.delete(this)
        this.onclose?.(event)
      }
    }

    send(text: string): void {
      this.#socket?.send(text)
    }

    close(code?: number): void {
      sockets.delete(this)
      this.#socket?.close(code)
    }

    /** Break: nothing comes any more, and whoever has it hears of that now. */
    cut(): void {
      if (this.#socket) this.#socket.onmessage = this.#socket.onerror = this.#socket.onclose = null
      this.close()
      this.onerror?.(new Event('error'))
      this.onclose?.(new CloseEvent('close', {code: BROKEN}))
    }
  }

  return {
    get isPlugged() {
      return isPlugged
    },
    plug(plugged) {
      if (plugged === isPlugged) return
      isPlugged = plugged
      if (!plugged) {
        cable.abort(new TypeError('The network is cut'))
        cable = new AbortController()
        for (const socket of [...sockets]) socket.cut()
      }
      dispatchEvent(new Event(plugged ? 'online' : 'offline'))
    },
    WebSocket: PluggedSocket,
    async fetch(what, how = {}) {
      if (!isPlugged) throw new TypeError('The network is cut')
      const signal = AbortSignal.any([cable.signal, ...how.signal ? [how.signal] : []])
      return fetch(what, {...how, signal})
    },
  }
}
