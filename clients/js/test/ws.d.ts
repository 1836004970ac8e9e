/** What the tests use of `ws`, which has no types of its own. */
declare module 'ws' {
  import type {IncomingMessage} from 'node:http'
  import type {Duplex} from 'node:stream'

  export class WebSocket {
    constructor(url: string, protocols?: string | string[])
    onopen: unknown
    onclose: unknown
    onerror: unknown
    on(event: 'close', listener: (code: number) => void): this
    on(event: 'message', listener: (data: Buffer) => void): this
    send(text: string): void
    close(code?: number, reason?: string): void
    terminate(): void
  }
  export class WebSocketServer {
    constructor(options: {noServer: true; handleProtocols(): string})
    handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, done: (peer: WebSocket) => void): void
  }
}
