/** What `<pov-team-activity>` shows and does, from its first rows on. */
import './icons-more.js'
import './words-more.js'
import {html, nothing, type PropertyValues, type TemplateResult} from 'lit'
import type {Group, Row, Snapshot} from '../api.js'
import type {Filter, PanelHost, PanelName, Panels} from './api.js'
import type {TeamActivity} from './team-activity.js'
import {sheetOf} from './element.js'
import {foot, instead, presence} from './around.js'
import {gapsBefore} from './gaps.js'
import {icon} from './icons.js'
import {press} from './keys.js'
import {Articles, type Item} from './list.js'
import {avatar, given, nameOf} from './people.js'
import {parts} from './parts.js'
import {dividerItem, rowItems} from './rows.js'
import {linkOf, povName, type Teller} from './sentences.js'
import {catchUp, progressOf, sayState, type CatchingUp, type Said} from './status.js'
import {badgeTab} from './tab-badge.js'
import {skeleton} from './team-activity.js'
import {draw, number, say} from './text.js'
import {moment} from './times.js'
import {Voice} from './voice.js'
import {Watch} from './watch.js'
import text from './rows.css'

/** So many groups are in the page at first, and come with each step down; more than `MOST` never are. */
const WINDOW = 100
const MOST = 500
/** More new rows than this in a second come without motion. */
const CALM = 5
/** While they do, so many groups are in the page: those that can be seen. Others come as many at a time. */
const BUSY = 24
/** What is out of sight of a list of more rows than these is not laid out. */
const LONG = 40
const MINUTE = 60_000
/** How long a muted PoV can be taken back, ms. */
const UNDO = 8_000

const sheets = [parts, sheetOf(text)]

/** The state of some rows together. */
const stateOf = (rows: readonly Row[]): Row['state'] =>
  rows.some(each => each.state === 'new') ? 'new' : rows.some(each => each.state === 'seen') ? 'seen' : 'read'

const keyOf = (element: Element | null | undefined) => element?.closest<HTMLElement>('article')?.dataset.key

/** It is as long as its element is on a page. */
export class FeedView implements PanelHost {
  filter: Filter = {}
  fitting: PanelHost['fitting'] = {groups: [], hiddenUnread: 0}
  panel: PanelName | undefined
  menuOf: Group | undefined
  panels: Panels | undefined
  said!: Said
  /** Another number each time that all rows may look other than they did. */
  stamp = 0
  readonly opened = new Set<string>()
  /** The row under the pointer. */
  pointed: string | undefined
  /** The row that Tab comes to. */
  current: string | undefined
  /** Whether the focus is in the list. */
  hasFocus = false
  /** Rows that came a moment ago. */
  readonly fresh = new Set<string>()
  /** Rows are touched, not pointed at. */
  readonly isCoarse = matchMedia('(pointer: coarse)').matches
  articles!: Articles
  /** A sentence about something that failed. */
  failed: string | undefined
  /** The PoV that was muted a moment ago. */
  undone: string | undefined
  /** Whether the newest row is where it can be seen. */
  isAtTop = true
  /** New rows are kept behind the pill: the row that was the newest. */
  held: Row | undefined
  isLoading = false
  /** What was there when it began to catch up. */
  catching: CatchingUp | undefined
  /** Rows come faster than anybody reads. */
  isBusy = false

  #size = WINDOW
  /** Of these so many are there already: a few more with each frame. */
  #drawn = 0
  #isMore = false
  #hasPointer = false
  #hasScrolled = false
  #brokenAt = 0
  #came: number[] = []
  #tick: ReturnType<typeof setTimeout> | undefined
  #busyTimer: ReturnType<typeof setTimeout> | undefined
  #undoTimer: ReturnType<typeof setTimeout> | undefined
  #opener: HTMLElement | null = null
  #ends = new IntersectionObserver(entries => this.#turned(entries))
  #fits = new WeakMap<Group, Group | null>()
  #waiting: readonly Row[] = []
  #items: readonly Item[] = []
  /** By given name the one who has it, or none. */
  #names = new Map<string, string>()
  #namesOf = -1
  #areItemsDue = false
  #voice!: Voice
  #watch!: Watch
  #arePanelsAsked = false

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
  get density(): string | undefined { return this.element.density }
  get shadowRoot(): ShadowRoot { return this.element.shadowRoot! }
  requestUpdate(): void { this.element.requestUpdate() }
  redraw(): void { this.element.redraw() }

  attach(): void {
    this.shadowRoot.adoptedStyleSheets = [...this.shadowRoot.adoptedStyleSheets, ...sheets]
    this.#voice = new Voice(this)
    this.#watch = new Watch(this)
    if (this.element.filterInUrl && location.hash.length > 1) this.#needPanels()
    this.#tab()
    this.element.requestUpdate()
  }

  detach(): void {
    clearTimeout(this.#tick)
    clearTimeout(this.#undoTimer)
    clearTimeout(this.#busyTimer)
    this.#voice.end()
    this.#watch.end()
    this.#ends.disconnect()
    removeEventListener('scroll', this.#scrolled)
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
      const to = opener?.isConnected ? opener : this.articles.of(this.current)
      to?.focus()
    })
  }

  markRead(row?: Row): void {
    this.#try(this.source?.feed.read(row))
    this.element.tell('pov-read', {row})
  }

  markUnread(row: Row): void {
    this.#try(this.source?.feed.markUnread(row))
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
    this.#size = Math.max(this.#size, at + 10)
    this.current = key
    this.redraw()
    void this.element.updateComplete.then(() => {
      const element = this.articles.of(key)
      element?.scrollIntoView({block: 'nearest'})
      element?.focus({preventScroll: true})
    })
  }

  /** Silent until then, or as before; what a page does not say itself is said in the foot. */
  async mute(povId: string, until?: Date): Promise<void> {
    try {
      await this.source?.feed.mute(povId, until ? 'off' : 'sound', until)
    } catch {
      return this.fail('foot.failed')
    }
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

  /** Take what waits behind the pill, and go to it. */
  release(): void {
    const list = this.articles.list.parentElement!
    this.held = undefined
    this.#size = WINDOW
    this.redraw()
    list.scrollTop = 0
    this.shadowRoot.querySelector('.top')!.scrollIntoView({block: 'nearest'})
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
  fold({key}: Group, isOpen = !this.opened.has(key)): void {
    this.opened[isOpen ? 'add' : 'delete'](key)
    this.redraw()
  }

  /** Show more of what is there, else load the page before. */
  earlier(): void {
    const grow = () => {
      this.#size = Math.min(MOST, this.#size + WINDOW)
      this.redraw()
    }
    if (this.#size < Math.min(MOST, this.fitting.groups.length)) return grow()
    if (this.isLoading || !this.hasEarlier) return
    this.isLoading = true
    this.redraw()
    this.#try(this.source?.feed.loadEarlier().finally(() => {
      this.isLoading = false
      grow()
    }), 'earlier.failed')
  }

  get hasEarlier(): boolean {
    return [...this.snapshot.povs.values()].some(each => each.hasEarlier)
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

  /** Do what a button says. */
  act(name: string, element?: Element): void {
    const {source, element: {tell}} = this
    const found = this.itemOf(element)
    const does: Record<string, () => void> = {
      retry: () => source?.client?.retry(),
      resume: () => source?.client?.resume(),
      'sign-in': () => tell.call(this.element, 'pov-sign-in'),
      reload: () => location.reload(),
      'read-all': () => this.markRead(),
      pill: () => this.release(),
      earlier: () => this.earlier(),
      'clear-filter': () => this.setFilter({}),
      'copy-request': () => this.#try(navigator.clipboard.writeText(say(this, 'request', {
        who: source?.client?.user, povs: [...this.snapshot.povs.keys()].map(each => povName(this, each)).join(', '), url: location.href,
      }))),
      undo: () => void this.mute(this.undone!),
      read: () => found && this.markRead(found.row),
      fold: () => found && this.fold(found.group),
      menu: () => this.menuOf ? this.closePanel() : found && this.openPanel('menu', found.group),
      load: () => {
        const gap = this.snapshot.gaps.find(each => `gap ${each.povId} ${each.to.offset}` === keyOf(element))
        if (gap) this.#try(source?.feed.load(gap), 'gap.failed')
      },
    }
    if (does[name]) does[name]()
    else if (this.panel === name) this.closePanel()
    else this.openPanel(name as PanelName)
  }

  #try(done: Promise<unknown> | undefined, key = 'foot.failed'): void {
    done?.catch(() => this.fail(key))
  }

  #needPanels(): void {
    if (this.#arePanelsAsked) return
    this.#arePanelsAsked = true
    import('./panels/index.js').then(panels => {
      this.panels = panels
      this.shadowRoot.adoptedStyleSheets.push(panels.sheet)
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
    const {rows, unseen, connection} = snapshot
    if (connection.state !== before.connection.state) {
      this.failed = undefined
      this.catching = connection.state === 'catching-up' && before.connection.state !== 'connecting'
        ? catchUp(before, this.#brokenAt) : undefined
      if (/^(live|catching-up)$/.test(before.connection.state)) this.#brokenAt = connection.since
    }
    const newest = before.rows[0]
    if (!rows.length) this.held = undefined
    else if (newest && rows[0]!.key !== newest.key) {
      if (this.held || !this.isAtTop || this.#hasPointer || this.hasFocus) this.held ??= newest
      else this.#arrived(snapshot, newest)
    }
    if (unseen !== before.unseen) this.#tab()
    this.#voice.changed(snapshot)
  }

  #tab(): void {
    if (this.element.tabBadge) badgeTab(this, this.snapshot.unseen)
  }

  /** Rows that come one by one are lit for a moment. */
  #arrived({groups, connection}: Snapshot, newest: Row): void {
    const now = Date.now()
    for (const {key, rows: [row]} of groups) {
      if (row!.at < newest.at || row!.key === newest.key || this.#came.length > CALM) break
      this.#came.push(now)
      this.fresh.add(key)
    }
    this.#came = this.#came.filter(each => each > now - 1000)
    if (this.#came.length > CALM) {
      this.isBusy = true
      clearTimeout(this.#busyTimer)
      this.#busyTimer = setTimeout(() => {
        this.isBusy = false
        this.redraw()
      }, 500)
    }
    if (this.isBusy || connection.state !== 'live') this.fresh.clear()
    if (this.fresh.size) setTimeout(() => {
      this.fresh.clear()
      this.redraw()
    }, 1200)
  }

  /** Times, and the seconds until the next attempt. */
  #schedule(): void {
    clearTimeout(this.#tick)
    const isShort = !!this.snapshot.connection.retryAt || this.said.name === 'renewing'
    this.#tick = setTimeout(() => {
      if (!isShort) this.stamp++
      this.redraw()
      this.#schedule()
    }, isShort ? 1000 : MINUTE)
  }

  willUpdate(changed: PropertyValues): void {
    if (changed.size !== 1 || !changed.has('snapshot')) this.stamp++
    const {snapshot, element: {internals: {states}}} = this
    const before = this.said
    const {state} = this.said = sayState(this, snapshot, Date.now(), this.catching && progressOf(this.catching, snapshot))
    if (state !== before?.state) {
      states.delete(before?.state)
      states.add(state)
      this.element.tell('pov-state', {state})
    }
    if (this.said.name !== before?.name || snapshot.connection.retryAt) this.#schedule()
    states[snapshot.rows.length ? 'delete' : 'add']('empty')
    if (this.isFiltered || snapshot.gaps.some(each => each.digest)) this.#needPanels()
    this.#fit()
    this.#arrange()
  }

  get isFiltered(): boolean {
    return Object.values(this.filter).some(each => each?.length)
  }

  /** What is shown of the rows. */
  #fit(): void {
    const {panels, snapshot: {groups}} = this
    if (!this.isFiltered) this.fitting = {groups, hiddenUnread: 0}
    else if (panels) {
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
      this.fitting = {groups: fitting, hiddenUnread}
    } else this.fitting = {groups: [], hiddenUnread: 0}
  }

  /** What stands in the list, and what waits above it. */
  #arrange(): void {
    let {groups} = this.fitting
    const {held} = this
    const waiting: Row[] = []
    if (held) {
      const isOld = (row: Row) => row.key === held.key || row.at < held.at
      const at = groups.findIndex(each => each.rows.some(isOld))
      if (at < 0) this.held = undefined
      else {
        const first = groups[at]!
        const from = first.rows.findIndex(isOld)
        for (const each of groups.slice(0, at)) waiting.push(...each.rows)
        waiting.push(...first.rows.slice(0, from))
        groups = groups.slice(at)
        if (from) {
          const rows = first.rows.slice(from)
          groups = [{...first, rows, state: stateOf(rows)}, ...groups.slice(1)]
        }
      }
    }
    const size = this.isBusy && !this.held ? BUSY : this.#size
    this.#drawn = Math.min(size, Math.min(this.#drawn, groups.length) + BUSY)
    const shown = groups.slice(0, this.#drawn)
    this.#isMore = this.#drawn < Math.min(size, groups.length)
    const last = shown.findLastIndex(each => each.state !== 'read')
    const gaps = gapsBefore(this, shown)
    const items: Item[] = []
    shown.forEach((group, i) => {
      items.push(...gaps.get(i) ?? [], ...rowItems(this, group))
      if (i === last && i < shown.length - 1) items.push(dividerItem(this))
    })
    items.push(...gaps.get(shown.length) ?? [])
    this.#items = items
    this.#waiting = waiting
    this.#areItemsDue = true
  }

  /** In a line a row a given name is enough, where nobody else here has it; undefined: the whole one. */
  shortName({own, activity: {userId}}: Row): string | undefined {
    if (this.density !== 'compact' || own) return
    if (this.#namesOf !== this.stamp) {
      this.#namesOf = this.stamp
      this.#names.clear()
      for (const id of new Set(this.snapshot.rows.map(each => each.activity.userId ?? ''))) {
        const short = given(nameOf(this, id))
        this.#names.set(short, this.#names.has(short) ? '' : id)
      }
    }
    const short = given(nameOf(this, userId ?? ''))
    return this.#names.get(short) === userId ? short : undefined
  }

  // ---- what is drawn ----

  updated(): void {
    const list = this.shadowRoot.querySelector<HTMLElement>('[role=feed]')
    if (!list || !this.#areItemsDue) return
    this.#areItemsDue = false
    if (this.articles?.list !== list) {
      this.articles = new Articles(list, element => this.#watch.watch(element), element => this.#watch.unwatch(element))
      for (const each of this.shadowRoot.querySelectorAll('.top, .end')) this.#ends.observe(each)
      addEventListener('scroll', this.#scrolled, {passive: true, once: true})
    }
    const {articles} = this
    const isLost = articles.show(this.#items)
    if (!articles.of(this.current)) this.current = this.#items[0]?.key
    let place = 0
    const total = String(this.hasEarlier || this.#size < this.fitting.groups.length ? -1 : this.fitting.groups.length - this.#heldGroups)
    for (const {key, part} of this.#items) {
      const element = articles.of(key)!
      const tab = key === this.current ? 0 : -1
      if (element.tabIndex !== tab) element.tabIndex = tab
      if (part !== 'row') continue
      const at = String(++place)
      if (element.ariaPosInSet !== at) element.ariaPosInSet = at
      if (element.ariaSetSize !== total) element.ariaSetSize = total
    }
    if (isLost) articles.of(this.current)?.focus()
    this.#voice.changed(this.snapshot)
    this.#watch.changed()
    if (this.#isMore) this.redraw()
  }

  get #heldGroups(): number {
    return new Set(this.#waiting).size && this.fitting.groups.findIndex(each => each.rows.some(row => !this.#waiting.includes(row)))
  }

  /** Whether nothing stands first that is unread: the thread begins plain. */
  get isRead(): boolean {
    return !this.#items[0]?.classes.includes('is-unread')
  }

  says(): unknown {
    const {says, also} = this.said
    return html`${draw(this, ...says)}${also ? html`<span class="opt">${draw(this, ...also)}</span>` : nothing}`
  }

  badge(): unknown {
    const {element: {badge}, snapshot} = this
    const n = badge === 'none' ? 0 : badge === 'new' ? snapshot.unseen : snapshot.unread
    return n ? html`<span class="badge" part="badge"><span aria-hidden="true">${number(this, Math.min(n, 99))}${n > 99 ? '+' : ''}</span><span class="sr">${
      say(this, badge === 'new' ? 'new' : 'unread', {n})}</span></span>` : nothing
  }

  mark(name: string): unknown {
    return name === 'filter' && this.isFiltered ? html`<i class="mark"></i>` : nothing
  }

  side(): unknown {
    const {action} = this.said
    if (!action) return presence(this)
    const sign = {retry: 'again', resume: 'play', reload: '', 'sign-in': ''}[action]
    return html`<button class="btn btn-slim ${action === 'sign-in' ? 'btn-main' : ''}" data-do=${action}>${
      sign ? icon(sign) : nothing}<span class=${sign ? 'w' : ''}>${say(this, `do.${action}`)}</span></button>`
  }

  render(): TemplateResult {
    const {panel, panels, said, snapshot: {rows}} = this
    const isBare = said.thread === 'bad' && said.name !== 'closed'
    const waiting = this.#waiting.length
    return html`${panel === 'filter' ? panels?.filterPanel(this) : panel === 'notifications' ? panels?.notificationsPanel(this)
      : this.isFiltered ? panels?.filterChips(this) : nothing}
<div class="list" part="list" ?hidden=${panel === 'notifications'} aria-busy=${said.thread === 'filling' || this.isLoading} @scroll=${this.#scrolled}
  @pointerover=${this.#pointed} @pointerleave=${this.#left} @focusin=${this.#focused} @focusout=${this.#blurred}><i class="top" aria-hidden="true"></i>${
  waiting ? html`<div class="pill"><button part="new-pill" data-do="pill">${icon('arrow-up')}${this.#faces()}${say(this, 'new', {n: waiting})}</button></div>` : nothing
}<div role="feed" class=${this.#items.length > LONG ? 'is-long' : ''} aria-label=${say(this, 'list')} ?hidden=${isBare}></div>${this.#body(isBare)}${isBare || !rows.length ? nothing : this.#end()
}<i class="end" aria-hidden="true"></i></div>`
  }

  #faces(): TemplateResult {
    const users = [...new Set(this.#waiting.map(each => each.activity.userId ?? ''))].slice(0, 3)
    return html`<span class="stack">${users.map(user => avatar(this, user, 'av-s'))}</span>`
  }

  /** What is there in the place of rows. */
  #body(isBare: boolean): unknown {
    if (this.#items.length && !isBare) return nothing
    const {said: {state}, snapshot: {rows}} = this
    if (this.isFiltered && rows.length && !isBare) return this.panels?.filterEmpty(this) ?? skeleton
    return state === 'connecting' || state === 'catching-up' ? skeleton : instead(this)
  }

  #end(): unknown {
    if (this.hasEarlier || this.#size < Math.min(MOST, this.fitting.groups.length)) {
      return html`<div class="earlier" part="earlier"><button class="btn btn-text" data-do="earlier" ?disabled=${this.isLoading}>${
        say(this, this.isLoading ? 'do.loading' : 'do.earlier')}</button></div>`
    }
    const {rows, povs, gaps} = this.snapshot
    return povs.size > 1 || gaps.some(each => each.state === 'gone') ? nothing
      : html`<div class="earlier is-end" part="earlier"><p>${say(this, 'begins', {time: moment(this, rows.at(-1)!.at)})}</p></div>`
  }

  foot(): TemplateResult {
    return foot(this)
  }

  floats(): unknown {
    const {panel, panels} = this
    return panel === 'presence' ? panels?.presencePanel(this) : panel === 'menu' ? panels?.menuPanel(this) : nothing
  }

  // ---- what is done to it ----

  clicked(event: MouseEvent): void {
    const target = event.target as Element
    const button = target.closest<HTMLElement>('[data-do]')
    if (button) return this.act(button.dataset.do!, button)
    const found = this.itemOf(target)
    if (!found || event.defaultPrevented || target.closest('button')) return
    if (target.closest('a')) return this.open(found.row, event)
    if (getSelection()?.toString()) return
    if (found.group.rows.length > 1 && !found.isSub) this.fold(found.group)
    else this.open(found.row)
  }

  keyed(event: KeyboardEvent): void {
    if (!event.defaultPrevented && press(this, event)) event.preventDefault()
  }

  #scrolled = (): void => { this.#hasScrolled = true }

  #turned(entries: readonly IntersectionObserverEntry[]): void {
    for (const {target, isIntersecting} of entries) {
      if (target.className === 'end') {
        if (isIntersecting && (this.#hasScrolled || this.#size < this.fitting.groups.length)) this.earlier()
      } else {
        this.isAtTop = isIntersecting
        this.shadowRoot.querySelector('.feed')!.classList.toggle('is-scrolled', !isIntersecting)
        this.#settle()
      }
    }
  }

  /** Let what waits come, as soon as nobody is reading. */
  #settle(): void {
    if (!this.held || !this.isAtTop || this.#hasPointer || this.hasFocus) return
    this.held = undefined
    this.redraw()
  }

  #pointed = (event: PointerEvent): void => {
    if (event.pointerType !== 'mouse') return
    this.#hasPointer = true
    const key = keyOf(event.target as Element)
    if (key === this.pointed) return
    this.pointed = key
    this.redraw()
  }

  #left = (): void => {
    this.#hasPointer = false
    this.pointed = undefined
    this.redraw()
    this.#settle()
  }

  #focused = (event: FocusEvent): void => {
    const key = keyOf(event.target as Element)
    if (!key) return
    this.hasFocus = true
    this.current = key
    this.redraw()
  }

  #blurred = ({relatedTarget}: FocusEvent): void => {
    if (this.articles.list.contains(relatedTarget as Node | null)) return
    this.hasFocus = false
    this.redraw()
    this.#settle()
  }
}
