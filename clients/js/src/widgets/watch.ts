/** What came into view: seen after a second, and told to the server as shown. */
import type {Row} from '../api.js'
import type {Later} from './later.js'
import {showing} from './shown.js'

/** In view for this long is seen, ms. */
const SEEN = 1_000
/** What was shown is told at most once in this many ms. */
const TOLD = 5_000

/** Watches the rows of one element. */
export class Watch {
  /** Since when which rows are in view. */
  #inView = new Map<Element, number>()
  #timer: ReturnType<typeof setTimeout> | undefined
  #ackTimer: ReturnType<typeof setTimeout> | undefined
  /** By topic, the newest row that was shown and not told of. */
  #shown = new Map<string, Row>()
  #told = new Map<string, string>()
  readonly #observer = new IntersectionObserver(entries => this.#turned(entries), {threshold: 0.5})

  constructor(readonly host: Later) {
    document.addEventListener('visibilitychange', this.#visible)
    showing.add(this.#shows)
  }

  watch(element: Element): void {
    this.#observer.observe(element)
  }

  unwatch(element: Element): void {
    this.#observer.unobserve(element)
    this.#inView.delete(element)
  }

  /** Rows in view may be others than they were. */
  changed(): void {
    if (this.#inView.size) this.#later()
  }

  end(): void {
    this.#observer.disconnect()
    clearTimeout(this.#timer)
    clearTimeout(this.#ackTimer)
    document.removeEventListener('visibilitychange', this.#visible)
    showing.delete(this.#shows)
  }

  /** It is in view, or comes as the newest of a list whose top is: of a PoV that is followed, and not filtered. */
  #shows = (row: Row): boolean => {
    const {host} = this
    const {element, snapshot: {povs}, panels} = host
    if (host.isFiltered && !panels?.fits(host, host.filter, row)) return false
    return element.isAtTop && (povs.has(row.povId) || povs.has('*')) && element.checkVisibility()
      || [...this.#inView.keys()].some(each => host.itemOf(each)?.group.rows.some(({key}) => key === row.key))
  }

  #visible = (): void => {
    const now = Date.now()
    for (const each of this.#inView.keys()) this.#inView.set(each, now)
    this.#later()
  }

  #turned(entries: readonly IntersectionObserverEntry[]): void {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) this.#inView.delete(target)
      else if (!this.#inView.has(target)) this.#inView.set(target, Date.now())
    }
    this.#later()
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#look()
    }, SEEN)
  }

  #look(): void {
    if (document.hidden) return
    const {host} = this
    const now = Date.now()
    const fresh: Row[] = []
    let isYoung = false
    for (const [element, since] of this.#inView) {
      if (now - since < SEEN) {
        isYoung = true
        continue
      }
      const found = host.itemOf(element)
      if (!found) continue
      const rows = found.isSub ? [found.row] : found.group.rows
      for (const row of rows) {
        const [topic] = JSON.parse(row.key) as [string]
        const last = this.#shown.get(topic)
        if (!last || last.epoch !== row.epoch || last.offset < row.offset) this.#shown.set(topic, row)
        if (row.state === 'new') fresh.push(row)
      }
    }
    if (isYoung) this.#later()
    if (fresh.length) host.source?.feed.seen(fresh)
    if (host.element.read === 'scroll') this.#read()
    this.#tell()
  }

  #read(): void {
    for (const row of this.#shown.values()) if (row.state !== 'read') this.host.markRead(row)
  }

  /** Say what was shown, so that whoever asks why somebody did not see something is told. */
  #tell(): void {
    const {client} = this.host.source ?? {}
    if (this.#ackTimer || !client || this.host.said?.name !== 'live') return
    let isTold = false
    for (const [povId, {epoch, offset}] of this.#shown) {
      const last = JSON.parse(this.#told.get(povId) ?? '[]') as [string?, number?]
      if (last[0] === epoch && last[1]! >= offset) continue
      // The device's cursor goes where this says: never past what can still be loaded.
      if (this.host.snapshot.gaps.some(each => each.povId === povId && each.state !== 'gone' && each.to.offset <= offset)) continue
      this.#told.set(povId, JSON.stringify([epoch, offset]))
      isTold = true
      client.request('ack', {povId, offset, epoch, shown: true}).catch(() => {
        // Nothing depends on it: it is said again with the next one.
      })
    }
    if (isTold) this.#ackTimer = setTimeout(() => {
      this.#ackTimer = undefined
      this.#tell()
    }, TOLD)
  }
}
