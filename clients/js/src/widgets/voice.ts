/** What a screen reader is told: of states that last, and of what is new, a phrase at a time. */
import type {Row, Snapshot} from '../api.js'
import type {Later} from './later.js'
import {topicOf, wasSaid} from './shown.js'
import type {StateName} from './status.js'
import {has, say} from './text.js'
import {clock} from './times.js'

/** A state is told of when it has lasted this long, ms; some that pass by themselves later. */
const LASTS = 2_000
const LATER: {[name in StateName]?: number} = {connecting: 4_000, restarting: 5_000, busy: 5_000}
/** What is new is told of at most once in this many ms. */
const NEWS = 5_000
/** Activities of several PoVs come in no order: so much later than others they are new still, ms. */
const LATE = 10_000
const ALERTS = /^(expired|ended|page-error)$/

/** Tells of one element. */
export class Voice {
  #told: StateName | undefined
  #waits: StateName | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #newsTimer: ReturnType<typeof setTimeout> | undefined
  #news = new Map<string, Row>()
  /** By topic the newest that was known. */
  #newest = new Map<string, Row>()
  /** Its time; absent where nothing is new yet. */
  #newestAt: number | undefined
  /** Those that were looked at: it is drawn more often than it changes. */
  #rows: readonly Row[] | undefined
  #isBroken = false
  #came = 0
  #missed = 0

  constructor(readonly host: Later) {
    this.#look(host.snapshot.rows, false)
  }

  /** The store has changed. */
  changed(snapshot: Snapshot): void {
    const {said} = this.host
    if (!said) return
    if (said.name !== this.#waits) {
      this.#waits = said.name
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.#state(said.name), ALERTS.test(said.name) ? 0 : LATER[said.name] ?? LASTS)
    }
    const {rows, gaps} = snapshot
    const isLive = said.name === 'live' && !this.#isBroken
    if (rows !== this.#rows || !rows.length) this.#look(rows, isLive)
    if (this.#news.size && !this.#newsTimer) this.#newsTimer = setTimeout(() => this.#tellNews(), 500)
    const missed = gaps.reduce((sum, each) => sum + (each.state === 'open' ? each.missed ?? 0 : 0), 0)
    if (missed > this.#missed && isLive) this.say('told.missed', {n: missed})
    this.#missed = missed
  }

  /** Find what is new of rows, the newest first. */
  #look(rows: readonly Row[], isLive: boolean): void {
    const since = this.#newestAt
    this.#rows = rows
    // The first of all is new, too.
    if (!rows.length && this.host.said?.name === 'live') this.#newestAt = Date.now()
    if (!rows.length) return
    this.#newestAt = rows[0]!.at
    const before = this.#newest
    const now = new Map<string, Row>()
    for (const row of rows) {
      if (since !== undefined && row.at < since - LATE) break
      const topic = topicOf(row)
      if (!now.has(topic)) now.set(topic, row)
      const known = before.get(topic)
      if (since === undefined || row.own || known?.epoch === row.epoch && row.offset <= known.offset) continue
      if (isLive) this.#news.set(row.key, row)
      else this.#came++
    }
    this.#newest = new Map([...before, ...now])
  }

  /** Say a sentence, at once where it is an alert. */
  say(key: string, values: Record<string, unknown> = {}, isAlert = false): void {
    const region = this.host.shadowRoot.querySelector(`[role=${isAlert ? 'alert' : 'status'}]`)!
    region.textContent = say(this.host, key, values)
  }

  end(): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#newsTimer)
  }

  #state(name: StateName): void {
    const {host} = this
    const before = this.#told
    this.#told = name
    const since = host.snapshot.connection.since
    if (name === 'live') {
      const n = this.#came
      if (this.#isBroken) this.say(n ? 'told.live' : 'told.live-nothing', {n})
      this.#isBroken = false
      this.#came = 0
      return
    }
    if (name !== 'connecting') this.#isBroken = true
    if (before !== name && has(host, `told.${name}`)) {
      const n = host.progress?.total
      if (name === 'catching-up' && !n) return
      this.say(`told.${name}`, {time: clock(host, since), n}, ALERTS.test(name))
    }
  }

  #tellNews(): void {
    const rows = [...this.#news.values()].filter(row => !wasSaid(row))
    this.#news.clear()
    this.#newsTimer = setTimeout(() => {
      this.#newsTimer = undefined
      if (this.#news.size) this.#tellNews()
    }, NEWS)
    if (!rows.length) return
    const povs = new Set(rows.map(each => each.povId)).size
    this.say(povs > 1 ? 'told.new-on' : 'told.new', {n: rows.length, povs})
  }
}
