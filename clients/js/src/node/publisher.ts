/**
 * Brings activities to the server over HTTP, in batches, each until it is taken.
 *
 * - Order: they leave in the order of `publish`, one request at a time. One that fails holds up those behind it.
 * - Retries: the same ids, so that nothing is published twice.
 * - Memory: at most `capacity` activities of `capacityBytes` wait; of more `publish` rejects.
 * - Counts: each activity is in one of `queued`, `sent`, `refused` (by the server), `dropped`.
 */
import {randomBytes} from 'node:crypto'
import type {NewActivity} from '../wire.js'
import {delay} from '../wait.js'

const BATCH = 500
const BATCH_BYTES = 1024 * 1024
const ANSWER_BYTES = 1024 * 1024
/** How long the first activity waits for others to travel with it, ms. */
const GATHER = 200
/** There is a report about what went wrong at most so often, ms. */
const REPORT = 60_000
/** How long a process that ends sends what waits, ms. */
export const EXIT = 1000
const REASONS = 3
const TEXT = 200

export interface PublisherOptions {
  /** Where the server is: http:// or https://. */
  url: string
  /** A service token, or what answers one that is still good: asked for each batch. */
  token: string | (() => string | Promise<string>)
  /** How many activities wait at most: 10,000 unless said otherwise, of 16 MiB. */
  capacity?: number
  capacityBytes?: number
  /** How long a request may take, ms: 10,000. */
  timeout?: number
  /** Gets a line about what went wrong, at once and then at most once a minute; `console.warn` unless said otherwise. */
  report?: (line: string) => void
}

/** Why an activity was not published: `full`, `closed`, `invalid`, or the code of the server that refuses it. */
export class PublishError extends Error {
  constructor(readonly code: string, message: string) {
    super(message)
    this.name = 'PublishError'
  }
}

/** What became of an activity: `duplicate` if its id was published before. */
export interface Taken {
  id: string
  duplicate: boolean
}

export interface Publisher {
  /** Resolves when the server has the activity. Rejects with a `PublishError`; until then it is tried again. */
  publish(activity: NewActivity): Promise<Taken>
  /** Send what waits now; answers whether all is sent. A failure ends this, as the time (ms) does. */
  flush(timeout?: number): Promise<boolean>
  /** Flush, and reject what is left; nothing is taken any more. */
  close(timeout?: number): Promise<void>
  /** Count an activity that cannot be sent, and report why. */
  drop(why: string): void
  readonly queued: number
  readonly sent: number
  readonly refused: number
  readonly dropped: number
}

interface Waiting {
  id: string
  line: string
  bytes: number
  resolve: (taken: Taken) => void
  reject: (error: PublishError) => void
}

interface Outcome {
  error?: {code: string, message?: string}
  duplicate?: boolean
}

/** How publishers end that have something to send; one listener for all of them. */
const busy = new Set<() => Promise<void>>()

/** Nothing else keeps the process: send what waits. */
async function endAll(): Promise<void> {
  await Promise.all([...busy].map(end => end()))
}

/** Publish activities from a program in Node. Throws for a `url` that is none of a server. */
export function createPublisher({
  url, token, capacity = 10_000, capacityBytes = 16 * 1024 * 1024, timeout = 10_000, report = console.warn,
}: PublisherOptions): Publisher {
  const base = new URL(url)
  if (!/^https?:$/.test(base.protocol)) throw new TypeError(`${url} is no server's address; write http://HOST:PORT`)
  base.username = base.password = base.search = base.hash = ''
  const address = `${base.href.replace(/\/$/, '')}/api/activities`

  const queue: Waiting[] = []
  const counts = {sent: 0, refused: 0, dropped: 0}
  let told = {...counts}, toldAt = -Infinity, reasons: string[] = [], reporting: NodeJS.Timeout | undefined
  let bytes = 0, failures = 0, failed = 0, closed = false, running = false
  let wake = () => {}
  const waiters = new Set<() => void>()
  let request: AbortController | undefined

  function note(why: string): void {
    if (reasons.length < REASONS && !reasons.includes(why)) reasons.push(why)
    // Later, for what happens now belongs to the same line; and who publishes does not wait for it.
    reporting ??= setTimeout(tell, Math.max(0, toldAt + REPORT - Date.now())).unref()
  }

  function tell(): void {
    clearTimeout(reporting)
    reporting = undefined
    if (!reasons.length) return
    const [sent, refused, dropped] = (['sent', 'refused', 'dropped'] as const).map(each => counts[each] - told[each])
    const why = reasons.join('; ')
    told = {...counts}
    toldAt = Date.now()
    reasons = []
    report(`activities since the last such line: ${sent} sent, ${refused} refused, ${dropped} dropped; ${queue.length} wait: ${why}`)
  }

  function changed(): void {
    for (const each of [...waiters]) each()
  }

  function drop(why: string): void {
    counts.dropped++
    note(why)
  }

  function leave(number: number): Waiting[] {
    const gone = queue.splice(0, number)
    for (const each of gone) bytes -= each.bytes
    return gone
  }

  /** Give up what is left, and the request under way, which would keep the process. */
  function dropAll(why: string): void {
    for (const each of leave(queue.length)) {
      drop(why)
      each.reject(new PublishError('closed', why))
    }
    request?.abort()
    changed()
  }

  /** Wait, but not while somebody flushes. The process may end meanwhile. */
  function pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms).unref()
      wake = () => { clearTimeout(timer); resolve() }
    })
  }

  async function run(): Promise<void> {
    if (!busy.size) process.on('beforeExit', endAll)
    busy.add(end)
    if (queue.length < BATCH) await pause(GATHER)
    let most = BATCH
    while (queue.length) {
      const batch = take(most)
      const [verdict, why, retryAfter] = await attempt(batch)
      if (verdict === 'failed' && queue.length) {
        failed++
        note(`no success at ${address} (${why})`)
        changed()
        await pause(delay(failures++, retryAfter))
      } else if (verdict === 'too large') {
        most = Math.max(1, batch.length >> 1)
      } else {
        failures = 0
        most = BATCH
        changed()
      }
    }
    leaveBusy()
    running = false
    changed()
  }

  function leaveBusy(): void {
    if (busy.delete(end) && !busy.size) process.off('beforeExit', endAll)
  }

  function take(most: number): Waiting[] {
    let size = 0, number = 0
    while (number < Math.min(most, queue.length)) {
      size += queue[number]!.bytes + 1
      if (number && size > BATCH_BYTES) break
      number++
    }
    return queue.slice(0, number)
  }

  async function attempt(batch: Waiting[]): Promise<['done' | 'failed' | 'too large', string?, number?]> {
    let answer: Response, text: string
    const {signal} = request = new AbortController()
    const timer = setTimeout(() => request!.abort(new Error(`no answer within ${timeout} ms`)), timeout).unref()
    try {
      const headers = {authorization: `Bearer ${await ask(signal)}`, 'content-type': 'application/x-ndjson'}
      const body = batch.map(each => each.line).join('\n')
      answer = await fetch(address, {method: 'POST', headers, body, redirect: 'manual', signal})
      text = await read(answer)
    } catch (error) {
      return ['failed', explain(error)]
    } finally {
      clearTimeout(timer)
    }
    const outcomes = outcomesOf(answer.status, text, batch.length)
    if (!outcomes && answer.status === 413) {
      if (batch.length > 1) return ['too large']
      settle(batch, [{error: {code: 'too_large', message: 'The server refuses an activity of this size'}}])
      return ['done']
    }
    if (!outcomes) {
      const after = answer.headers.get('retry-after') ?? ''
      return ['failed', whyOf(answer.status, text, typeof token === 'string'), /^\d+$/.test(after) ? Number(after) : undefined]
    }
    settle(batch, outcomes)
    return ['done']
  }

  function settle(batch: Waiting[], outcomes: Outcome[]): void {
    if (queue[0] !== batch[0]) return // rejected meanwhile, at the end
    leave(batch.length)
    for (const [index, {id, resolve, reject}] of batch.entries()) {
      const {error, duplicate = false} = outcomes[index]!
      if (error) {
        counts.refused++
        note(`the server refuses some: ${cut(`${error.code}: ${error.message ?? ''}`)}`)
        reject(new PublishError(error.code, error.message ?? error.code))
      } else {
        counts.sent++
        resolve({id, duplicate})
      }
    }
  }

  async function ask(late: AbortSignal): Promise<string> {
    const given: unknown = typeof token === 'string' ? token : await Promise.race([
      token(), new Promise((_, reject) => { late.onabort = () => reject(late.reason) }),
    ])
    if (typeof given === 'string' && /^[!-~]+$/.test(given)) return given
    throw new TypeError('the token is no text of visible ASCII characters') // without what it is
  }

  function publish(activity: NewActivity): Promise<Taken> {
    return new Promise((resolve, reject) => {
      const refuse = (code: string, why: string) => {
        drop(why)
        reject(new PublishError(code, why))
      }
      if (closed) return refuse('closed', 'it is closed')
      const id = activity.id ?? newId()
      let line: string
      try {
        line = JSON.stringify({...activity, id})
      } catch (error) {
        return refuse('invalid', `JSON cannot hold them (${explain(error)})`)
      }
      const size = Buffer.byteLength(line)
      if (queue.length >= capacity) return refuse('full', `the queue of ${capacity} is full; more are only counted`)
      if (bytes + size > capacityBytes) {
        return refuse('full', `${capacityBytes} bytes of them wait already; more are only counted`)
      }
      bytes += size
      queue.push({id, line, bytes: size, resolve, reject})
      if (!running) {
        running = true
        void run()
      }
    })
  }

  async function flush(ms = EXIT): Promise<boolean> {
    const before = failed
    wake()
    if (queue.length) {
      await new Promise<void>(resolve => {
        const look = () => {
          if (queue.length && failed === before) return
          clearTimeout(timer)
          waiters.delete(look)
          resolve()
        }
        const timer = setTimeout(() => { waiters.delete(look); resolve() }, ms)
        waiters.add(look)
      })
    }
    return !queue.length
  }

  async function close(ms = EXIT): Promise<void> {
    closed = true
    await flush(ms)
    dropAll('the server did not take them before the end')
    wake()
    tell()
  }

  async function end(): Promise<void> {
    leaveBusy()
    if (!await flush()) dropAll('the server did not take them before the end')
    tell()
  }

  return {
    publish, flush, close, drop,
    get queued() { return queue.length },
    get sent() { return counts.sent },
    get refused() { return counts.refused },
    get dropped() { return counts.dropped },
  }
}

/** As the server's: 48 bits of the time in milliseconds and 80 random ones, in hex. */
function newId(): string {
  return Date.now().toString(16).padStart(12, '0') + randomBytes(10).toString('hex')
}

/** The text of an answer, of which anything may be at that address. */
async function read(answer: Response): Promise<string> {
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of answer.body ?? []) {
    pieces.push(piece)
    size += piece.length
    if (size > ANSWER_BYTES) break
  }
  return Buffer.concat(pieces).toString()
}

/** What became of each of so many activities, if the answer says so. */
function outcomesOf(status: number, text: string, count: number): Outcome[] | undefined {
  if (status === 400) return Array(count).fill({error: refusalOf(text) ?? {code: '400'}}) // the batch as a whole
  const results = status === 200 ? parse(text)?.results : undefined
  return Array.isArray(results) && results.length === count && results.every(isOutcome) ? results : undefined
}

const isOutcome = (each: any) => typeof each === 'object' && each && (!each.error || typeof each.error.code === 'string')

function refusalOf(text: string): {code: string, message?: string} | undefined {
  const error = parse(text)?.error
  return typeof error?.code === 'string' ? error : undefined
}

function parse(text: string): any {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function whyOf(status: number, text: string, isFixed: boolean): string {
  if (status === 200) return '200, but the body is no answer to a batch: is that a pov-rt server?'
  const refusal = refusalOf(text)
  const more = status === 401 && isFixed ? '; the token is always the same: give serviceToken(...), or a function' : ''
  return `${status}${refusal ? ` ${cut(`${refusal.code}: ${refusal.message ?? ''}`)}` : ''}${more}`
}

/** What a stranger may have written, as a log can have it. */
const cut = (text: string) => text.slice(0, TEXT).replace(/[^\x20-\x7e]/g, '?').replace(/: $/, '')

/** `fetch` says what is wrong in the cause of its errors. */
function explain(error: any): string {
  return cut(String(error?.cause?.message || error?.cause?.code || error?.message || error))
}
