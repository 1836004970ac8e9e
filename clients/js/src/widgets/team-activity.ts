/** `<pov-team-activity>`: what happens on some PoVs, and what is known of how complete that is. */
import {html, nothing, type PropertyDeclarations, type PropertyValues, type TemplateResult} from 'lit'
import type {Group, PovState, Row, Snapshot} from '../api.js'
import type {Filter, PanelHost, PanelName, Panels} from './api.js'
import type * as wire from '../wire.js'
import {PovElement, sheetOf} from './element.js'
import {glyph, icon} from './icons.js'
import {Articles, type Item} from './list.js'
import {avatar} from './people.js'
import {dividerItem, rowItems} from './rows.js'
import {linkOf} from './sentences.js'
import {sayState, type Said} from './status.js'
import {draw, has, number, say} from './text.js'
import text from './feed.css'

type More = typeof import('./more.js')

/** So many groups are in the page at first and come with each step down; more than `MOST` never are. */
const WINDOW = 100
const MOST = 500
/** More new rows than this in a second come without motion. */
const CALM = 5
const MINUTE = 60_000

const sheet = sheetOf(text)

/**
 * What a team does, live, and how complete the list of it is.
 *
 * @element pov-team-activity
 *
 * @attr {string} url - The server's address. Default: that of this module where it is served at `/client/`, else the page's own.
 * @attr {string} token-url - What answers `{"token": ...}`, asked with the page's cookies; 401: nobody is signed in. Default: `URL/api/auth/ws-token`.
 * @attr {string} pov - The ids of the PoVs, divided by spaces, or `*` for the team feed.
 * @attr {string} heading - The title. Default: "Team activity".
 * @attr {'unread'|'new'|'none'} badge - What the number beside the title counts. Default: `unread`.
 * @attr {'off'} group - `off`: each activity is a row of its own.
 * @attr {'open'|'scroll'} read - What makes a row read: opening it (default), or also being on the screen for a second.
 * @attr {boolean} tab-badge - The page's title and icon count what is new.
 * @attr {boolean} filter-in-url - The filter is kept in the page's `#`.
 * @attr {'auto'|'light'|'dark'} theme - Default: the page's `color-scheme`.
 * @attr {'comfortable'|'compact'} density - `compact`: a line a row.
 * @attr {string} locale - BCP 47. Default: the `lang` in force where the element stands, else the browser's.
 * @attr {'off'} shortcuts - `off`: no keys but those that every list has.
 *
 * @fires {CustomEvent<{row: Row, activity: Activity, href?: string}>} pov-open - A row was opened. Cancelable: what it leads to is then not gone to.
 * @fires {CustomEvent<{row?: Row}>} pov-read - Up to this row, or all, was marked as read.
 * @fires {CustomEvent<{unread: number, new: number}>} pov-count - The counts are others.
 * @fires {CustomEvent<{state: string}>} pov-state - The state is another: `live`, `offline`, `catching-up`, `paused`, `expired`, `signed-out`, `connecting` or `stopped`.
 * @fires {CustomEvent} pov-sign-in - "Sign in" was pressed. Sign in, then call `reconnect()`.
 * @fires {CustomEvent<{povId: string, until: Date}>} pov-muted - A PoV was muted with the key M.
 *
 * @slot heading - In the place of the title.
 * @slot tools - Beside the buttons of the header.
 * @slot empty - In the place of the words of an empty list.
 * @slot footer - In the place of the words of the foot.
 *
 * @csspart header - The header.
 * @csspart status-bead - The round sign where the thread begins.
 * @csspart title - The title with its badge.
 * @csspart badge - The number beside the title.
 * @csspart status - The words of the connection.
 * @csspart tools - The buttons of the header.
 * @csspart presence - The button that shows who is there.
 * @csspart list - What scrolls.
 * @csspart new-pill - "3 new".
 * @csspart row - A row.
 * @csspart bead - Its avatar and kind.
 * @csspart avatar - An avatar, anywhere.
 * @csspart kind - The sign of the type.
 * @csspart line - The sentence.
 * @csspart link - What it leads to.
 * @csspart quote - What was written.
 * @csspart meta - PoV, receipts, what opens a group.
 * @csspart receipts - "Seen by 4 of 6".
 * @csspart actions - The buttons of a row.
 * @csspart subrow - A row of an open group.
 * @csspart divider - "Read up to here".
 * @csspart gap - What is missing.
 * @csspart empty - The words where there are no rows.
 * @csspart earlier - "Load earlier", or where the PoV begins.
 * @csspart footer - The foot.
 *
 * @cssprop --pov-avatar - The size of the avatars (32px).
 * @cssprop --pov-pad - The space before the thread (16px).
 * @cssprop --pov-row-gap - Half of the space between rows (10px).
 * @cssprop --pov-feed-height - The greatest height; the list scrolls then.
 *
 * @cssstate live - All is up to date.
 * @cssstate offline - There is no connection.
 * @cssstate catching-up - What was missed is on its way.
 * @cssstate paused - The page slept.
 * @cssstate expired - The session has ended.
 * @cssstate signed-out - Nobody is signed in.
 * @cssstate empty - There is no row.
 */
export class TeamActivity extends PovElement implements PanelHost {
  static override properties: PropertyDeclarations = {
    heading: {},
    badge: {},
    read: {},
    tabBadge: {attribute: 'tab-badge', type: Boolean},
    filterInUrl: {attribute: 'filter-in-url', type: Boolean},
    renderItem: {attribute: false},
  }

  static override styles = [...PovElement.styles, sheet]
  static override shadowRootOptions = {...PovElement.shadowRootOptions, delegatesFocus: false}

  declare heading?: string
  declare badge?: string
  declare read?: string
  declare tabBadge?: boolean
  declare filterInUrl?: boolean
  /** What stands in the place of a row's sentence and quote: a node, a template, or undefined for ours. */
  declare renderItem?: (row: Row) => unknown

  filter: Filter = {}
  fitting: PanelHost['fitting'] = {groups: [], hiddenUnread: 0}
  menuOf: Group | undefined

  // What rows.ts and more.ts see.
  /** Another number each time that all rows may look other than they did. @internal */
  stamp = 0
  /** @internal */ readonly opened = new Set<string>()
  /** The row under the pointer. @internal */ pointed: string | undefined
  /** The row that Tab comes to. @internal */ current: string | undefined
  /** Whether the focus is in the list. @internal */ hasFocus = false
  /** Rows that came a moment ago. @internal */ readonly fresh = new Set<string>()
  /** Rows are touched, not pointed at. @internal */ isCoarse = false
  /** @internal */ said!: Said
  /** @internal */ panel: PanelName | undefined
  /** @internal */ panels: Panels | undefined
  /** @internal */ articles!: Articles
  /** A sentence about something that failed. @internal */ failed: string | undefined
  /** Whether the newest row is where it can be seen. @internal */ isAtTop = true
  /** New rows are kept behind the pill: the row that was the newest. @internal */ held: Row | undefined
  /** @internal */ more: ReturnType<More['attach']> | undefined

  #size = WINDOW
  #hasPointer = false
  #loading = false
  #isMoreAsked = false
  #came: number[] = []
  #tick: ReturnType<typeof setTimeout> | undefined
  #opener: HTMLElement | undefined
  #watch: IntersectionObserver | undefined
  #counted = ''
  #fits = new WeakMap<Group, Group | null>()

  get menuKey(): string | undefined {
    return this.menuOf?.key
  }

  // ---- what a page and the panels call ----

  setFilter(filter: Filter): void {
    this.filter = filter
    this.#fits = new WeakMap()
    if (this.filterInUrl && this.panels) history.replaceState(history.state, '', this.panels.toHash(filter, location.hash) || '#')
    this.held = undefined
    this.redraw()
  }

  openPanel(name: PanelName, row?: Group): void {
    this.#opener ??= this.shadowRoot!.activeElement as HTMLElement | null ?? undefined
    this.panel = name
    this.menuOf = row
    this.#needPanels()
    this.redraw()
  }

  closePanel(): void {
    const {panel} = this
    this.panel = this.menuOf = undefined
    this.redraw()
    if (panel) void this.updateComplete.then(() => {
      (this.#opener?.isConnected ? this.#opener : this.articles.of(this.current))?.focus()
      this.#opener = undefined
    })
  }

  markRead(row?: Row): void {
    this.#try(this.source?.feed.read(row))
    this.#tell('pov-read', {row})
  }

  markUnread(row: Row): void {
    this.#try(this.source?.feed.markUnread(row))
  }

  fail(key: string): void {
    this.failed = key
    this.redraw()
  }

  // ---- what happens ----

  protected override changed(snapshot: Snapshot, before: Snapshot): void {
    if (snapshot.connection.state !== before.connection.state) this.failed = undefined
    const newest = before.rows[0]
    if (newest && snapshot.rows[0]?.key !== newest.key) {
      if (this.held || !this.isAtTop || this.#hasPointer || this.hasFocus) this.held ??= newest
      else this.#arrived(snapshot, newest)
    }
    if (!snapshot.rows.length) this.held = undefined
    this.#count(snapshot)
    this.more?.changed(snapshot, before)
  }

  /** Say the counts: to the page, also where nothing is drawn. */
  #count({unread, unseen}: Snapshot): void {
    const counted = `${unread} ${unseen}`
    if (counted === this.#counted) return
    this.#counted = counted
    this.#tell('pov-count', {unread, new: unseen})
  }

  /** Rows that come one by one are lit for a moment. */
  #arrived({groups}: Snapshot, newest: Row): void {
    const now = Date.now()
    for (const group of groups) {
      if (group.rows[0]!.at < newest.at || group.rows[0]!.key === newest.key) break
      this.#came.push(now)
      if (this.#came.length <= CALM) this.fresh.add(group.key)
    }
    this.#came = this.#came.filter(each => each > now - 1000)
    if (this.#came.length > CALM) this.fresh.clear()
    if (this.fresh.size) setTimeout(() => {
      this.fresh.clear()
      this.redraw()
    }, 1200)
  }

  /** Take what waits behind the pill. @internal */
  release(): void {
    this.held = undefined
    this.isAtTop = true
    this.#size = WINDOW
    this.redraw()
    const list = this.articles.list.parentElement!
    list.scrollTop = 0
    if (list.getBoundingClientRect().top < 0) this.scrollIntoView()
  }

  /** Nothing but what is there has changed. @internal */
  redraw(): void {
    this.requestUpdate('snapshot')
  }

  /** Open what a row leads to. @internal */
  open(row: Row, event?: Event): void {
    const {activity} = row
    const href = linkOf(this, activity)
    const isTaken = !this.#tell('pov-open', {row, activity, href}, true)
    if (row.state !== 'read') this.markRead(row)
    if (isTaken) return event?.preventDefault()
    if (href && event?.type !== 'click') location.assign(href)
  }

  /** Open or close a group. @internal */
  fold(group: Group, isOpen = !this.opened.has(group.key)): void {
    if (isOpen) this.opened.add(group.key)
    else this.opened.delete(group.key)
    this.redraw()
  }

  /** The group or the row of a group that an element shows. @internal */
  itemOf(element: Element | null | undefined): {group: Group; row: Row; isSub: boolean} | undefined {
    const key = element?.closest<HTMLElement>('article')?.dataset.key
    for (const group of this.fitting.groups) {
      if (group.key === key) return {group, row: group.rows[0]!, isSub: false}
      const row = key?.endsWith(' ') && group.rows.find(each => `${each.key} ` === key)
      if (row) return {group, row, isSub: true}
    }
  }

  /** Do what a button says. @internal */
  act(name: string, element?: Element): void {
    const {source} = this
    const found = this.itemOf(element)
    if (name === 'retry') source?.client?.retry()
    else if (name === 'resume') source?.client?.resume()
    else if (name === 'sign-in') this.#tell('pov-sign-in', undefined)
    else if (name === 'reload') location.reload()
    else if (name === 'read-all') this.markRead()
    else if (name === 'undo') this.more?.unmute()
    else if (name === 'pill') this.release()
    else if (name === 'earlier') this.earlier()
    else if (name === 'clear-filter') this.setFilter({})
    else if (name === 'read' && found) this.markRead(found.row)
    else if (name === 'fold' && found) this.fold(found.group)
    else if (name === 'menu' && found) this.menuOf ? this.closePanel() : this.openPanel('menu', found.group)
    else if (name === 'filter' || name === 'notifications' || name === 'presence') {
      if (this.panel === name) this.closePanel()
      else this.openPanel(name)
    } else if (name === 'load') {
      const key = element?.closest<HTMLElement>('article')?.dataset.key
      const gap = this.snapshot.gaps.find(each => `gap ${each.povId} ${each.to.offset}` === key)
      if (gap) this.#try(source?.feed.load(gap), 'gap.failed')
    }
  }

  /** Show more of what is there, else load the page before. @internal */
  earlier(): void {
    if (this.#size < Math.min(MOST, this.fitting.groups.length)) {
      this.#size += WINDOW
      return this.redraw()
    }
    if (this.#loading || !this.#hasEarlier) return
    this.#loading = true
    this.redraw()
    const done = this.source?.feed.loadEarlier()
    this.#try(done?.finally(() => {
      this.#loading = false
      this.#size += WINDOW
      this.redraw()
    }), 'earlier.failed')
  }

  get #hasEarlier(): boolean {
    return [...this.snapshot.povs.values()].some(each => each.hasEarlier)
  }

  #try(done: Promise<unknown> | undefined, key = 'foot.failed'): void {
    done?.catch(() => this.fail(key))
  }

  #tell(name: string, detail: unknown, cancelable = false): boolean {
    return this.dispatchEvent(new CustomEvent(name, {detail, cancelable, bubbles: true, composed: true}))
  }

  #needPanels(): void {
    if (!this.panels) void import('./panels/index.js').then(panels => {
      this.panels = panels as Panels
      this.shadowRoot!.adoptedStyleSheets.push(panels.sheet)
      if (this.filterInUrl) this.filter = panels.fromHash(location.hash)
      this.redraw()
    })
  }

  #needMore(): void {
    if (this.#isMoreAsked) return
    this.#isMoreAsked = true
    void import('./more.js').then(more => {
      this.shadowRoot!.adoptedStyleSheets.push(more.sheet)
      this.stamp++
      this.more = more.attach(this)
      this.redraw()
    })
  }

  // ---- the element ----

  override connectedCallback(): void {
    super.connectedCallback()
    this.#scheduleTick()
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback()
    clearTimeout(this.#tick)
    this.more?.detach()
    this.more = undefined
    this.#isMoreAsked = false
  }

  /** Times, and the seconds until the next attempt. */
  #scheduleTick(): void {
    clearTimeout(this.#tick)
    const isShort = !!this.snapshot.connection.retryAt
    this.#tick = setTimeout(() => {
      if (!isShort) this.stamp++
      this.redraw()
      this.#scheduleTick()
    }, isShort ? 1000 : MINUTE)
  }

  protected override willUpdate(changed: PropertyValues): void {
    super.willUpdate(changed)
    if (changed.size !== 1 || !changed.has('snapshot')) this.stamp++
    const {connection} = this.snapshot
    const before = this.said?.state
    const said = sayState(this, this.snapshot)
    if (said.state !== 'connecting' && said.state !== 'catching-up' || this.snapshot.rows.length) {
      if (said.state === 'live') (globalThis.requestIdleCallback ?? setTimeout)(() => this.isConnected && this.#needMore())
      else this.#needMore()
    }
    this.said = said
    if (this.filterInUrl && location.hash.length > 1 || this.panel || this.#isFiltered || this.snapshot.gaps.some(each => each.digest)) this.#needPanels()
    this.#fit()
    const {states} = this.internals
    if (said.state !== before) {
      states.delete(before!)
      states.add(said.state)
      this.#tell('pov-state', {state: said.state})
      this.#scheduleTick()
    } else if (connection.retryAt) this.#scheduleTick()
    states[this.snapshot.rows.length ? 'delete' : 'add']('empty')
  }

  get #isFiltered(): boolean {
    return Object.values(this.filter).some(each => each?.length)
  }

  /** What is shown of the rows. */
  #fit(): void {
    const {groups} = this.snapshot
    const {panels} = this
    if (!this.#isFiltered) this.fitting = {groups, hiddenUnread: 0}
    else if (panels) {
      let hiddenUnread = 0
      const found = groups.flatMap(group => {
        let known = this.#fits.get(group)
        if (known === undefined) {
          const rows = group.rows.filter(row => panels.fits(this, this.filter, row))
          known = rows.length === group.rows.length ? group : rows.length ? {...group, rows, state: stateOf(rows)} : null
          this.#fits.set(group, known)
        }
        if (group !== known) for (const row of group.rows) if (row.state !== 'read' && !known?.rows.includes(row)) hiddenUnread++
        return known ?? []
      })
      this.fitting = {groups: found, hiddenUnread}
    } else this.fitting = {groups: [], hiddenUnread: 0}
  }

  /** What stands in the list, and how many wait above it. */
  #items(): [items: Item[], waiting: Row[]] {
    let {groups} = this.fitting
    const waiting: Row[] = []
    const {held} = this
    if (held) {
      let at = 0
      while (at < groups.length && !groups[at]!.rows.some(row => row.key === held.key || row.at < held.at)) waiting.push(...groups[at++]!.rows)
      const first = groups[at]
      groups = groups.slice(at)
      if (!first) {
        this.held = undefined
        groups = this.fitting.groups
        waiting.length = 0
      } else {
        const from = first.rows.findIndex(row => row.key === held.key || row.at < held.at)
        if (from) {
          waiting.push(...first.rows.slice(0, from))
          const rows = first.rows.slice(from)
          groups = [{...first, rows, state: stateOf(rows)}, ...groups.slice(1)]
        }
      }
    }
    const shown = groups.slice(0, this.#size)
    const lastUnread = shown.findLastIndex(each => each.state !== 'read')
    const items: Item[] = []
    const gaps = this.more?.gapsBefore(shown)
    shown.forEach((group, i) => {
      for (const gap of gaps?.get(i) ?? []) items.push(gap)
      items.push(...rowItems(this, group))
      if (i === lastUnread && i < shown.length - 1) items.push(dividerItem(this))
    })
    for (const gap of gaps?.get(shown.length) ?? []) items.push(gap)
    return [items, waiting]
  }

  #waiting: Row[] = []
  #list: Item[] = []

  override update(changed: PropertyValues): void {
    [this.#list, this.#waiting] = this.#items()
    super.update(changed)
  }

  protected override firstUpdated(): void {
    const root = this.shadowRoot!
    const list = root.querySelector<HTMLElement>('[role=feed]')!
    this.isCoarse = matchMedia('(pointer: coarse)').matches
    this.#watch = new IntersectionObserver(entries => {
      for (const {target, isIntersecting} of entries) {
        if (target.className === 'top') {
          this.isAtTop = isIntersecting
          root.firstElementChild!.classList.toggle('is-scrolled', !isIntersecting)
          this.#settle()
        } else if (isIntersecting && (this.#hasScrolled || this.#size < this.fitting.groups.length)) this.earlier()
      }
    })
    for (const each of root.querySelectorAll('.top, .end')) this.#watch.observe(each)
    this.articles = new Articles(list, element => this.more?.made(element), element => this.more?.gone(element))
    const scrolled = () => { this.#hasScrolled = true }
    list.parentElement!.addEventListener('scroll', scrolled, {passive: true, once: true})
    addEventListener('scroll', scrolled, {passive: true, once: true})
  }

  #hasScrolled = false

  protected override updated(): void {
    const {list} = this.articles
    if (this.articles.show(this.#list)) this.articles.of(this.current ?? this.#list[0]?.key)?.focus()
    if (!this.articles.of(this.current)) this.current = this.#list[0]?.key
    let place = 0
    for (const {key, part} of this.#list) {
      const element = this.articles.of(key)!
      const tab = key === this.current ? 0 : -1
      if (element.tabIndex !== tab) element.tabIndex = tab
      if (part === 'row') {
        element.ariaPosInSet = String(++place)
        element.ariaSetSize = '-1'
      }
    }
    list.ariaBusy = String(this.said.thread === 'filling')
    this.more?.updated()
  }

  /** Let what waits come, as soon as nobody is reading. */
  #settle(): void {
    if (this.held && this.isAtTop && !this.#hasPointer && !this.hasFocus) {
      this.held = undefined
      this.redraw()
    }
  }

  // ---- what is drawn ----

  override render(): TemplateResult {
    const {said, snapshot} = this
    const {rows} = snapshot
    const body = this.#body(rows)
    const isBare = said.thread === 'bad' && said.name !== 'closed'
    return html`<section class="feed pov" aria-label=${this.heading ?? say(this, 'heading')} @click=${this.#clicked} @keydown=${this.#keyed}>
${this.#header()}
${this.panel === 'filter' || this.panel === 'notifications' ? this.panels?.[`${this.panel}Panel`](this)
    : this.#isFiltered ? this.panels?.filterChips(this) : nothing}
<div class="list" part="list" ?hidden=${this.panel === 'notifications'} @pointerover=${this.#pointed} @pointerleave=${this.#left} @focusin=${this.#focused} @focusout=${this.#blurred}>
<i class="top" aria-hidden="true"></i>${this.#waiting.length ? html`<div class="pill"><button part="new-pill" data-do="pill">${icon('arrow-up')}${this.#faces()}${say(this, 'new', {n: this.#waiting.length})}</button></div>` : nothing}
<div role="feed" aria-label=${say(this, 'list')} ?hidden=${isBare}></div>${body}${rows.length && !isBare ? this.#end() : nothing}<i class="end" aria-hidden="true"></i></div>
${this.#foot()}
${this.panel === 'presence' ? this.panels?.presencePanel(this) : this.panel === 'menu' ? this.panels?.menuPanel(this) : nothing}
<div class="sr" role="status"></div><div class="sr" role="alert"></div></section>`
  }

  #faces(): TemplateResult {
    const users = [...new Set(this.#waiting.map(each => each.activity.userId ?? ''))].slice(0, 3)
    return html`<span class="stack">${users.map(user => avatar(this, user, 'av-s'))}</span>`
  }

  #header(): TemplateResult {
    const {said, snapshot} = this
    const {glyph: sign, thread, says, also, action} = said
    const top = this.#list[0]
    const isRead = !thread && !top?.classes.includes('is-unread')
    const n = this.badge === 'none' ? 0 : this.badge === 'new' ? snapshot.unseen : snapshot.unread
    return html`<header class="head ${thread ? `is-${thread}` : isRead ? 'is-read' : ''}" part="header"><span class="head-bead s-${sign}" part="status-bead">${glyph(sign)}</span>
<div><h2 class="title" part="title"><span><slot name="heading">${this.heading ?? say(this, 'heading')}</slot></span>${n
    ? html`<span class="badge" part="badge"><span aria-hidden="true">${n > 99 ? `${number(this, 99)}+` : number(this, n)}</span><span class="sr">${say(this, this.badge === 'new' ? 'new' : 'unread', {n})}</span></span>` : nothing
  }</h2><p class="says" part="status">${draw(this, ...says)}${also ? html`<span class="opt">${draw(this, ...also)}</span>` : nothing}</p></div>
<div class="tools" part="tools">${action ? this.#button(action) : this.#presence()}<slot name="tools"></slot>${
  this.#tool('filter', this.#isFiltered)}${this.#tool('notifications')}</div></header>`
  }

  #tool(name: 'filter' | 'notifications', isMarked = false): TemplateResult {
    const isOpen = this.panel === name
    return html`<button class="btn-icon" data-do=${name} aria-label=${say(this, `do.${name}`)} aria-expanded=${isOpen}>${
      icon(name === 'filter' ? name : 'bell')}${isMarked ? html`<i class="mark"></i>` : nothing}</button>`
  }

  #button(action: NonNullable<Said['action']>): TemplateResult {
    return html`<button class="btn btn-slim ${action === 'sign-in' ? 'btn-main' : ''}" data-do=${action}>${
      action === 'retry' ? icon('again') : action === 'resume' && has(this, 'do.resume') ? icon('play') : nothing}<span class="w">${say(this, `do.${action}`)}</span></button>`
  }

  #presence(): unknown {
    const users = new Map<string, wire.User>()
    for (const {present} of this.snapshot.povs.values()) for (const each of present) {
      if (users.get(each.userId)?.state !== 'active') users.set(each.userId, each)
    }
    if (!users.size) return nothing
    const self = this.source?.client?.user
    const rank = ({userId, state}: wire.User) => (userId === self ? 2 : 0) + (state === 'active' ? 0 : 1)
    const all = [...users.values()].sort((a, b) => rank(a) - rank(b))
    const n = all.length
    const named = n > 3 ? 2 : n
    return html`<button class="who-btn" part="presence" data-do="presence" aria-label=${say(this, 'here', {n})} aria-expanded=${this.panel === 'presence'}><span class="stack">${
      all.slice(0, named).map(each => avatar(this, each.userId, 'av-m', each.state))}${n > named ? html`<span class="more">+${number(this, n - named)}</span>` : nothing}</span><span class="here-n" aria-hidden="true">${
      icon('people')}${number(this, n)}<span class="w">${say(this, 'here.word')}</span></span></button>`
  }

  /** Of one's own row: who has read that far. @internal */
  receipts(row: Row, {receipts, present}: PovState): unknown {
    const others = new Set([...receipts.keys(), ...present.map(each => each.userId)])
    others.delete(row.activity.userId ?? '')
    const total = others.size
    if (!total) return nothing
    let n = 0
    for (const each of others) if ((receipts.get(each) ?? 0) >= row.offset) n++
    return this.more?.tally(n, total) ?? nothing
  }

  /** What is there in the place of rows. */
  #body(rows: readonly Row[]): unknown {
    const {said} = this
    if (this.#list.length && said.thread !== 'bad') return nothing
    if (this.#isFiltered && rows.length) return this.panels?.filterEmpty(this)
    if (!rows.length && (said.state === 'connecting' || said.state === 'catching-up')) return skeleton
    return rows.length && said.name === 'closed' ? nothing : this.more?.instead() ?? nothing
  }

  #end(): unknown {
    if (this.#hasEarlier || this.#size < this.fitting.groups.length) return html`<div class="earlier" part="earlier"><button class="btn btn-text" data-do="earlier" ?disabled=${this.#loading}>${
      say(this, this.#loading ? 'do.loading' : 'do.earlier')}</button></div>`
    return this.more?.begins() ?? nothing
  }

  #foot(): TemplateResult {
    const {said, failed} = this
    const more = this.more?.foot()
    return html`<footer class="foot" part="footer">${more ?? html`<span class="mid">${icon(said.name === 'live' ? 'check' : 'clock')}</span><p><slot name="footer">${draw(this, ...(failed ? [failed] as const : said.foot))}</slot></p><span></span>`}</footer>`
  }

  // ---- what is done to it ----

  #clicked = (event: MouseEvent): void => {
    const target = event.composedPath()[0] as Element
    const button = target.closest<HTMLElement>('[data-do]')
    if (button) return this.act(button.dataset.do!, button)
    if (target.closest('button, input, select, [role=menu], [role=group]')) return
    const found = this.itemOf(target)
    if (!found || event.defaultPrevented) return
    const link = target.closest('a')
    if (link) return this.open(found.row, event)
    if (getSelection()?.toString()) return
    if (found.group.rows.length > 1 && !found.isSub) this.fold(found.group)
    else this.open(found.row)
  }

  #keyed = (event: KeyboardEvent): void => this.more?.key(event)

  #pointed = (event: PointerEvent): void => {
    if (event.pointerType !== 'mouse') return
    this.#hasPointer = true
    const key = (event.target as Element).closest<HTMLElement>('article')?.dataset.key
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
    const key = (event.target as Element).closest<HTMLElement>('article')?.dataset.key
    if (!key) return
    this.hasFocus = true
    this.current = key
    this.redraw()
  }

  #blurred = (event: FocusEvent): void => {
    if (this.articles.list.contains(event.relatedTarget as Node | null)) return
    this.hasFocus = false
    this.redraw()
    this.#settle()
  }
}

const stateOf = (rows: readonly Row[]): Row['state'] =>
  rows.some(each => each.state === 'new') ? 'new' : rows.some(each => each.state === 'seen') ? 'seen' : 'read'

/** Where rows will be. */
const skeleton = html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map(each => html`<div class="row"><span class="bead"><i class="av skel"></i></span><p class="line w${each}"><i class="skel"></i></p><p class="meta"><i class="skel"></i></p></div>`)}</div>`
