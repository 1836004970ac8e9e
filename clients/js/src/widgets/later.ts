/** What `<pov-team-activity>` needs once its first rows are there: loaded then, or with the first need of it. */
import './icons-more.js'
import './words-more.js'
import {html, nothing, type TemplateResult} from 'lit-html'
import type {FeedGap, Group, PovState, Row, Snapshot} from '../api.js'
import type {Filter, PanelHost, PanelName, Panels} from './api.js'
import type {Item} from './list.js'
import {sheetOf} from './element.js'
import {click} from './acts.js'
import {edited, foot, instead, presence, tally} from './around.js'
import {Arrivals} from './arrivals.js'
import {gapsBefore} from './gaps.js'
import {icon} from './icons.js'
import {press} from './keys.js'
import {parts} from './parts.js'
import {avatar, given, nameOf} from './people.js'
import {catchUp, progressOf, type CatchingUp} from './progress.js'
import {Reader} from './reader.js'
import {linkOf, type Teller} from './sentences.js'
import {badgeTab} from './tab-badge.js'
import {keyOf, type TeamActivity} from './team-activity.js'
import {subItem} from './subrows.js'
import {say} from './text.js'
import {dated} from './times.js'
import {sayState, type Progress, type Said} from './status.js'
import {Voice} from './voice.js'
import {Watch} from './watch.js'
import text from './later.css'

/** So many groups are in the page at first, and come with each step down; more than `MOST` never are. */
const WINDOW = 100
const MOST = 500
/** How long a muted PoV can be taken back, ms. */
const UNDO = 8_000

/** The state of some rows together. */
export const stateOf = (rows: readonly Row[]): Row['state'] =>
  rows.some(each => each.state === 'new') ? 'new' : rows.some(each => each.state === 'seen') ? 'seen' : 'read'

const sheets = [parts, sheetOf(text)]

/** It is as long as its element is on a page; panels have it as their host. */
export class Later implements PanelHost {
  filter: Filter = {}
  panel: PanelName | undefined
  menuOf: Group | undefined
  panels: Panels | undefined
  /** Rows are touched, not pointed at. */
  readonly isCoarse = matchMedia('(pointer: coarse)').matches
  /** A sentence about something that failed. */
  failed: string | undefined
  /** The PoV that was muted a moment ago. */
  undone: string | undefined
  /** New rows are kept behind the pill: the row that was the newest. */
  held: Row | undefined
  /** They are. */
  #waiting: readonly Row[] = []
  /** Those that are drawn, by the keys of their elements: what is pressed means these, whatever came since. */
  readonly gaps = new Map<string, FeedGap>()
  /** What was there when it began to catch up. */
  #catching: CatchingUp | undefined
  #brokenAt: number | undefined
  /** The state that the next tick is for. */
  #scheduled = ''
  #tick: ReturnType<typeof setTimeout> | undefined
  /** How loud PoVs were before they were muted here. */
  #levels = new Map<string, PovState['level']>()
  #undoTimer: ReturnType<typeof setTimeout> | undefined
  #opener: HTMLElement | null = null
  #fits = new WeakMap<Group, Group | null>()
  /** By given name the one who has it, or none. */
  #names = new Map<string, string>()
  #namesOf = -1
  #arePanelsAsked = false
  #reader!: Reader
  readonly #arrivals = new Arrivals(this)
  #voice!: Voice
  #watch!: Watch

  constructor(readonly element: TeamActivity) {}

  // What an element says, for whoever draws with this.
  get snapshot(): Snapshot { return this.element.snapshot }
  get source(): TeamActivity['source'] { return this.element.source }
  get locale(): string { return this.element.locale }
  get strings(): Teller['strings'] { return this.element.strings }
  get people(): Teller['people'] { return this.element.people }
  get resolvePeople(): Teller['resolvePeople'] { return this.element.resolvePeople }
  get povs(): Teller['povs'] { return this.element.povs }
  get href(): Teller['href'] { return this.element.href }
  get shortcuts(): string | undefined { return this.element.shortcuts }
  get fitting(): PanelHost['fitting'] { return this.element.fitting }
  get said(): TeamActivity['said'] { return this.element.said }
  get articles(): NonNullable<TeamActivity['articles']> { return this.element.articles! }
  get shadowRoot(): ShadowRoot { return this.element.shadow }
  requestUpdate(): void { this.element.requestUpdate() }
  redraw(): void { this.element.redraw() }

  begin(): void {
    this.element.size = Math.max(WINDOW, this.element.size)
    this.element.isWarm = true
    this.#wear(...sheets)
    this.#breaks(this.snapshot)
    this.#voice = new Voice(this)
    this.#watch = new Watch(this)
    const {articles} = this
    articles.made = element => this.#watch.watch(element)
    articles.gone = element => this.#watch.unwatch(element)
    for (const each of articles.list.children) this.#watch.watch(each)
    this.#reader = new Reader(this)
    if (this.element.filterInUrl && location.hash.length > 1) this.#needPanels()
    this.#tab()
  }

  /** An element that comes back has its sheets still. */
  #wear(...given: CSSStyleSheet[]): void {
    const {adoptedStyleSheets: worn} = this.shadowRoot
    worn.push(...given.filter(each => !worn.includes(each)))
  }

  end(): void {
    for (const each of [this.#undoTimer, this.#tick]) clearTimeout(each)
    this.#reader.end()
    this.#voice.end()
    this.#watch.end()
    if (this.element.tabBadge) badgeTab(this, 0)
  }

  // ---- what panels and keys call ----

  setFilter(filter: Filter): void {
    this.filter = filter
    this.#fits = new WeakMap()
    if (this.element.filterInUrl && this.panels) {
      history.replaceState(history.state, '', location.pathname + location.search + this.panels.toHash(filter, location.hash))
    }
    this.held = undefined
    this.redraw()
  }

  openPanel(name: PanelName, row?: Group): void {
    this.#opener ??= this.shadowRoot.activeElement as HTMLElement | null
    this.panel = name
    this.menuOf = row
    this.#needPanels()
    this.redraw()
  }

  closePanel(isElsewhere = false): void {
    const {panel} = this
    this.panel = this.menuOf = undefined
    this.redraw()
    const opener = this.#opener
    this.#opener = null
    if (!panel || isElsewhere) return
    void this.element.updateComplete.then(() => {
      // A row's buttons are only there while it is pointed at.
      const to = opener?.isConnected ? opener : this.articles.of(this.element.current)
      to?.focus()
    })
  }

  markRead(row?: Row): void {
    this.attempt(this.source?.feed.read(row))
    this.element.tell('pov-read', {row})
  }

  markUnread(row: Row): void {
    this.attempt(this.source?.feed.markUnread(row))
  }

  fail(key: string): void {
    this.failed = key
    this.#voice.say(key)
    this.redraw()
  }

  reveal(row: Row): void {
    const {groups} = this.fitting
    const at = groups.findIndex(each => each.rows.some(({key}) => key === row.key))
    if (at < 0) return
    const {key} = groups[at]!
    this.held = undefined
    this.element.size = Math.max(this.element.size, at + 10)
    this.element.current = key
    this.redraw()
    void this.element.updateComplete.then(() => {
      const element = this.articles.of(key)
      element?.scrollIntoView({block: 'nearest'})
      element?.focus({preventScroll: true})
    })
  }

  /** Silent until then, or as before; what a page does not say itself is said in the foot. */
  async mute(povId: string, until?: Date): Promise<void> {
    const level = this.snapshot.povs.get(povId)?.level
    try {
      await this.source?.feed.mute(povId, until ? 'off' : this.#levels.get(povId) ?? 'sound', until)
    } catch {
      return this.fail('foot.failed')
    }
    if (until && level && level !== 'off') this.#levels.set(povId, level)
    clearTimeout(this.#undoTimer)
    this.undone = undefined
    if (until && this.element.tell('pov-muted', {povId, until}, true)) {
      this.undone = povId
      this.#undoTimer = setTimeout(() => {
        this.undone = undefined
        this.redraw()
      }, UNDO)
    }
    this.redraw()
  }

  /** Open what a row leads to. */
  open(row: Row, event?: Event): void {
    const {activity} = row
    const href = linkOf(this, activity)
    const isOurs = this.element.tell('pov-open', {row, activity, href}, true)
    if (row.state !== 'read') this.markRead(row)
    if (!isOurs) event?.preventDefault()
    else if (href && !event) location.assign(href)
  }

  /** Open or close a group. */
  fold({key}: Group, isOpen = !this.element.opened.has(key)): void {
    this.element.opened[isOpen ? 'add' : 'delete'](key)
    this.redraw()
  }

  get #hasEarlier(): boolean {
    return [...this.snapshot.povs.values()].some(each => each.hasEarlier)
  }

  /** Whether more rows are here than in the page. */
  get canGrow(): boolean {
    return this.element.size < Math.min(MOST, this.fitting.groups.length)
  }

  /** Show more of what is there, else load the page before. */
  earlier(): void {
    const {element} = this
    const grow = () => {
      element.size = Math.min(MOST, element.size + WINDOW)
      this.redraw()
    }
    if (this.canGrow) return grow()
    if (element.isLoading || !this.#hasEarlier) return
    element.isLoading = true
    this.redraw()
    this.attempt(this.source?.feed.loadEarlier().finally(() => {
      element.isLoading = false
      grow()
    }), 'earlier.failed')
  }

  /** Take what waits behind the pill, and go to it. */
  release(): void {
    const {element} = this
    const top = element.shadow.querySelector('.top')!
    this.held = undefined
    element.size = WINDOW
    this.redraw()
    top.parentElement!.scrollTop = 0
    top.scrollIntoView({block: 'nearest'})
  }

  /** The group, or the row of an open one, that an element shows. */
  itemOf(element: Element | null | undefined): {group: Group; row: Row; isSub: boolean} | undefined {
    const key = keyOf(element)
    if (!key) return
    for (const group of this.fitting.groups) {
      if (group.key === key) return {group, row: group.rows[0]!, isSub: false}
      const row = key.endsWith(' ') && group.rows.find(each => `${each.key} ` === key)
      if (row) return {group, row, isSub: true}
    }
  }

  /** Say so if it fails. */
  attempt(done: Promise<unknown> | undefined, key = 'foot.failed'): void {
    done?.catch(() => this.fail(key))
  }

  #needPanels(): void {
    if (this.#arePanelsAsked) return
    this.#arePanelsAsked = true
    import('./panels-chunk.js').then(panels => {
      this.panels = panels
      this.#wear(panels.sheet)
      if (this.element.filterInUrl) this.filter = panels.fromHash(location.hash)
      this.element.requestUpdate()
    }, (error: unknown) => {
      this.#arePanelsAsked = false
      this.fail('foot.failed')
      reportError(error)
    })
  }

  // ---- what changes ----

  /** The store has changed; the page may be hidden. */
  changed(snapshot: Snapshot, before: Snapshot): void {
    const {connection: {state}, rows} = snapshot
    const old = before.connection.state
    if (snapshot.connection.reason === 'signed_out' && old !== 'closed') {
      // Nothing is left of what was chosen: the next one here may be somebody else.
      this.panel = this.menuOf = undefined
      this.setFilter({})
    }
    const newest = before.rows[0]
    if (!rows.length) this.held = undefined
    else if (newest && rows[0]!.key !== newest.key) {
      if (this.held || this.#reader.isReading) this.held ??= newest
      else this.#arrivals.came(snapshot, newest)
    }
    if (state !== old) {
      this.failed = undefined
      this.#catching = state === 'catching-up' && old !== 'connecting' ? catchUp(before, this.#brokenAt) : undefined
      this.#breaks(snapshot)
    }
    if (snapshot.unseen !== before.unseen) this.#tab()
    this.#voice.changed(snapshot)
  }

  /** Remember since when there is no connection, however it changes until there is one. */
  #breaks({connection: {state, since}}: Snapshot): void {
    if (state === 'live') this.#brokenAt = undefined
    else if (!/^(connecting|catching-up)$/.test(state)) this.#brokenAt ??= since || undefined
  }

  /** Times, and the seconds until the next attempt. */
  #schedule(): void {
    clearTimeout(this.#tick)
    this.#scheduled = this.said.name
    const isShort = /^(offline|busy|renewing)$/.test(this.said.name) || this.snapshot.connection.reason === 'token'
    this.#tick = setTimeout(() => {
      if (isShort) this.redraw()
      else this.requestUpdate()
      this.#schedule()
    }, isShort ? 1_000 : 60_000)
  }

  /** How the connection and the rows stand. */
  say(): Said {
    return sayState(this, this.snapshot, Date.now(), this.progress)
  }

  /** How far catching up has come. */
  get progress(): Progress | undefined {
    return this.#catching && progressOf(this.#catching, this.snapshot)
  }

  updated(): void {
    if (this.said.name !== this.#scheduled) this.#schedule()
    this.#voice.changed(this.snapshot)
    this.#watch.changed()
    if (this.isFiltered || this.snapshot.gaps.some(each => each.digest)) this.#needPanels()
  }

  #tab(): void {
    if (this.element.tabBadge) badgeTab(this, this.snapshot.unseen)
  }

  get isFiltered(): boolean {
    return Object.values(this.filter).some(each => each?.length)
  }

  /** What is shown of the rows; undefined: all. */
  fit(): PanelHost['fitting'] | undefined {
    const {panels, snapshot: {groups}} = this
    if (!this.isFiltered) return
    if (!panels) return {groups: [], hiddenUnread: 0}
    let hiddenUnread = 0
    const fitting = groups.flatMap(group => {
      let known = this.#fits.get(group)
      if (known === undefined) {
        const rows = group.rows.filter(row => panels.fits(this, this.filter, row))
        known = rows.length === group.rows.length ? group : rows.length ? {...group, rows, state: stateOf(rows)} : null
        this.#fits.set(group, known)
      }
      if (known !== group) for (const row of group.rows) if (row.state !== 'read' && !known?.rows.includes(row)) hiddenUnread++
      return known ?? []
    })
    return {groups: fitting, hiddenUnread}
  }

  /** In a line a row a given name is enough, where nobody else here has it; undefined: the whole one. */
  shortName({own, activity: {userId}}: Row): string | undefined {
    if (this.element.density !== 'compact' || own) return
    if (this.#namesOf !== this.element.stamp) {
      this.#namesOf = this.element.stamp
      this.#names.clear()
      for (const id of new Set(this.snapshot.rows.map(each => each.activity.userId ?? ''))) {
        const short = given(nameOf(this, id))
        this.#names.set(short, this.#names.has(short) ? '' : id)
      }
    }
    const short = given(nameOf(this, userId ?? ''))
    return this.#names.get(short) === userId ? short : undefined
  }

  /** What stands in the list: what is above it while somebody reads waits. */
  hold(): readonly Group[] {
    const {held, fitting: {groups}} = this
    const waiting: Row[] = []
    this.#waiting = waiting
    if (!held) return groups
    const isOld = (row: Row) => row.key === held.key || row.at < held.at
    const at = groups.findIndex(each => each.rows.some(isOld))
    if (at < 0) {
      this.held = undefined
      return groups
    }
    const first = groups[at]!
    const from = first.rows.findIndex(isOld)
    const rows = first.rows.slice(from)
    for (const each of groups.slice(0, at)) waiting.push(...each.rows)
    waiting.push(...first.rows.slice(0, from))
    return [from ? {...first, rows, state: stateOf(rows)} : first, ...groups.slice(at + 1)]
  }

  // ---- what is drawn ----

  /** What stands between groups, by the index of the one below it. */
  between(groups: readonly Group[]): Map<number, Item[]> {
    const all = gapsBefore(this, groups)
    const below = groups.findLastIndex(each => each.state !== 'read') + 1
    if (below && below < groups.length) all.set(below, [this.#divider(), ...all.get(below) ?? []])
    return all
  }

  /** What is below a row: that it was edited, of one's own who has seen it, of several what shows them. */
  remarks({rows: [row, ...more]}: Group, isOpen: boolean): unknown[] {
    const pov = row!.own && this.snapshot.povs.get(row!.povId)
    return [
      pov ? tally(this, row!, pov) : nothing,
      more.length ? html`<span><button class="fold" data-do="fold" aria-expanded=${isOpen}><span class="w">${
        say(this, isOpen ? 'do.hide' : 'do.show')}</span>${icon(isOpen ? 'up' : 'down', 'icon-s')}</button></span>` : edited(this, row!),
    ]
  }

  /** What can be done with a row, while it is pointed at. */
  acts({key, rows: [row], state}: Group): TemplateResult {
    return html`<span class="acts" part="actions">${state === 'read' || row!.own ? nothing
      : html`<button class="btn-icon" data-do="read" aria-label=${say(this, 'do.read')}>${icon('check')}</button>`
    }<button class="btn-icon" data-do="menu" aria-label=${say(this, 'do.menu')} aria-haspopup="menu" aria-expanded=${
      this.menuOf?.key === key}>${icon('more')}</button></span>`
  }

  mark(name: string): unknown {
    return name === 'filter' && this.isFiltered ? html`<i class="mark"></i>` : nothing
  }

  /** Beside the title: the one thing to press, else who is there. */
  side(): unknown {
    const {action} = this.said
    return action ? html`<button class="btn btn-slim ${action === 'sign-in' ? 'btn-main' : ''}" data-do=${action}>${
      action === 'resume' ? icon('play') : action === 'retry' ? icon('again') : nothing}<span class=${action === 'resume' || action === 'retry' ? 'w' : ''}>${say(this, `do.${action}`)}</span></button>` : presence(this)
  }

  /** Between the header and the list. */
  above(): unknown {
    const {panel, panels} = this
    return panel === 'filter' ? panels?.filterPanel(this) : panel === 'notifications' ? panels?.notificationsPanel(this)
      : this.isFiltered ? panels?.filterChips(this) : nothing
  }

  pill(): unknown {
    const waiting = this.#waiting
    if (!waiting.length) return nothing
    const users = [...new Set(waiting.map(each => each.activity.userId ?? ''))].slice(0, 3)
    return html`<div class="pill"><button part="new-pill" data-do="pill">${icon('arrow-up')}<span class="stack">${
      users.map(user => avatar(this, user, 'av-s'))}</span>${say(this, 'new', {n: waiting.length})}</button></div>`
  }

  /** What is there in the place of rows; undefined: where they will be. */
  instead(isBare: boolean): unknown {
    const {said: {thread}, snapshot: {rows}} = this
    if (this.isFiltered && rows.length && !isBare) return this.panels?.filterEmpty(this)
    return thread === 'filling' || rows.length && !isBare ? undefined : instead(this)
  }

  /** Below the oldest row: earlier ones, or nothing is before it. */
  below(): unknown {
    const {isLoading} = this.element
    if (this.#hasEarlier || this.canGrow) return html`<div class="earlier" part="earlier"><button class="btn btn-text" data-do="earlier" ?disabled=${
      isLoading}>${say(this, isLoading ? 'do.loading' : 'do.earlier')}</button></div>`
    const {rows, povs, gaps} = this.snapshot
    return povs.size > 1 || !rows.length || gaps.some(each => each.state === 'gone') ? nothing
      : html`<div class="earlier is-end" part="earlier"><p>${say(this, 'begins', {time: dated(this, rows.at(-1)!.at)})}</p></div>`
  }

  foot(): TemplateResult {
    return foot(this)
  }

  floats(): unknown {
    const {panel, panels} = this
    return panel === 'presence' ? panels?.presencePanel(this) : panel === 'menu' ? panels?.menuPanel(this) : nothing
  }

  // ---- what is done to it ----

  clicked(event: MouseEvent, target = event.target as Element): void {
    click(this, event, target)
  }

  keyed(event: KeyboardEvent, target: Element): void {
    if (!event.defaultPrevented && press(this, event, target as HTMLElement)) event.preventDefault()
  }

  // ---- more of the list ----

  /** Where reading ended. */
  #divider(): Item {
    return {
      key: 'divider',
      part: 'divider',
      classes: 'divider',
      of: [this.element.stamp],
      draw: () => html`<span>${say(this, 'divider')}</span><i class="ln"></i><button class="btn btn-text" data-do="read-all">${say(this, 'do.read-all')}</button>`,
    }
  }

  /** The rows of an open group. */
  subs({rows}: Group): Item[] {
    return rows.map(row => subItem(this, row))
  }
}
