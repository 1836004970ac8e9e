/** What came into view: seen after a second, and told to the server as shown; and what did not, as far as one knows why. */
import type {Row} from '../api.js'
import type {Later} from './later.js'
import {makeReports} from './reports.js'
import {showing, topicOf} from './shown.js'

/** In view for this long is seen, ms. */
const SEEN = 1_000

/** Watches the rows of one element. */
export class Watch {
  /** Since when which rows are in view. */
  #inView = new Map<Element, number>()
  #timer: ReturnType<typeof setTimeout> | undefined
  /** By topic, the newest row that was shown. */
  #shown = new Map<string, Row>()
  /** Of these what was marked as read: what is marked as unread after that stays so. */
  #read = new Map<string, Row>()
  readonly #reports: ReturnType<typeof makeReports>
  readonly #observer = new IntersectionObserver(entries => this.#turned(entries), {threshold: 0.5})

  constructor(readonly host: Later) {
    this.#reports = makeReports(() => host.source?.client, () => host.snapshot)
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
    if (this.#inView.size || this.host.isFiltered || document.hidden) this.#later()
  }

  end(): void {
    this.#observer.disconnect()
    clearTimeout(this.#timer)
    this.#reports.end()
    document.removeEventListener('visibilitychange', this.#visible)
    showing.delete(this.#shows)
  }

  /** It is in view, or comes as the newest of a list whose top is: of a PoV that is followed, and not filtered. */
  #shows = (row: Row): boolean => {
    const {host} = this
    const {element, snapshot: {povs}, panels} = host
    if (host.isFiltered && !panels?.fits(host, host.filter, row)) return false
    // An element that is not shown is at no top; to ask for its style for each row would be slow.
    return element.isAtTop && (povs.has(row.povId) || povs.has('*'))
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
    if (document.hidden) return this.#tell()
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
        const topic = topicOf(row)
        const last = this.#shown.get(topic)
        if (!last || last.epoch !== row.epoch || last.offset < row.offset) this.#shown.set(topic, row)
        if (row.state === 'new') fresh.push(row)
      }
    }
    if (isYoung) this.#later()
    if (fresh.length) host.source?.feed.seen(fresh)
    if (host.element.read === 'scroll') this.#markRead()
    this.#tell()
  }

  #markRead(): void {
    for (const [topic, row] of this.#shown) {
      if (this.#read.get(topic) === row) continue
      this.#read.set(topic, row)
      if (row.state !== 'read') this.host.markRead(row)
    }
  }

  /** Say what was shown, what the filter hid, and what nobody could see: of each PoV the newest. */
  #tell(): void {
    const {hidden} = document
    const {host} = this
    const {panels, snapshot: {rows}} = host
    const isFiltered = host.isFiltered && panels
    if (!hidden) for (const row of this.#shown.values()) this.#reports.add(row)
    if (!hidden && !isFiltered) return
    const known = new Set<string>()
    for (const row of rows) {
      const topic = topicOf(row)
      if (known.has(topic)) continue
      known.add(topic)
      if (row.state !== 'new') continue
      if (isFiltered && !panels.fits(host, host.filter, row)) this.#reports.add(row, 'filtered')
      else if (hidden) this.#reports.add(row, 'hidden')
    }
  }
}
