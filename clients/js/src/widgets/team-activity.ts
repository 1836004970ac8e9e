/** `<pov-team-activity>`: rows, and how complete they are. What is not needed for the first of them is in `later.ts`. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Row, Snapshot} from '../api.js'
import type {PanelHost} from './api.js'
import type {Changed, Properties} from './base.js'
import type {Later} from './later.js'
import {sayBriefly} from './brief.js'
import {NOTHING, PovElement, sheetOf} from './element.js'
import {glyph, icon} from './icons.js'
import {Articles, STEP, type Item} from './list.js'
import {rowItems} from './rows.js'
import type {Said} from './status.js'
import {draw, number, say} from './text.js'
import text from './feed.css'

/** Between two drawings of a burst, ms. */
const BUSY = 64
/** Until the rest is loaded, this is all. */
const FEW = 36
/** How long the rest waits for a quiet moment, ms. */
const QUIET = 500
/** What is out of sight of a list of more rows than these is not laid out. */
const LONG = 40
/** Connecting is no more than a moment until then, ms. */
const MOMENT = 4_000

const idle: typeof requestIdleCallback = globalThis.requestIdleCallback ?? setTimeout

/** Of which row an element is. */
export const keyOf = (element: EventTarget | null | undefined): string | undefined =>
  (element as Element | null | undefined)?.closest<HTMLElement>('article')?.dataset.key

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
 * @csspart digest - "214 updates by 6 people", in a gap.
 * @csspart filter-panel - What to filter by.
 * @csspart chip - What is filtered by, while the panel is closed.
 * @csspart subscription-panel - How loud PoVs are.
 * @csspart presence-panel - Who is there.
 * @csspart menu - What can be done with a row.
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
 * @cssstate connecting - The first attempt.
 * @cssstate stopped - It has ended for good.
 * @cssstate empty - There is no row.
 */
export class TeamActivity extends PovElement {
  static override properties: Properties = {
    heading: {},
    badge: {},
    read: {},
    tabBadge: {attribute: 'tab-badge', type: Boolean},
    filterInUrl: {attribute: 'filter-in-url', type: Boolean},
    renderItem: {attribute: false},
  }

  static override styles = [...PovElement.styles, sheetOf(text)]

  declare heading?: string
  declare badge?: string
  declare read?: string
  declare tabBadge?: boolean
  declare filterInUrl?: boolean
  /** What stands in the place of a row's sentence and quote: a node, a template, or undefined for ours. */
  declare renderItem?: (row: Row) => unknown

  // What rows.ts and later.ts see; none of it is a page's.
  /** @internal */ fitting: PanelHost['fitting'] = {groups: [], hiddenUnread: 0}
  /** @internal */ said!: Said
  /** Another number each time that all rows may look other than they did. @internal */
  stamp = 0
  /** The first rows are there: to write a time takes a browser 30 ms, the first time. @internal */ isWarm = false
  /** @internal */ readonly opened = new Set<string>()
  /** The row under the pointer. @internal */ pointed: string | undefined
  /** The row that Tab comes to. @internal */ current: string | undefined
  /** Whether the focus is in the list. @internal */ hasFocus = false
  /** Rows that came a moment ago. @internal */ readonly fresh = new Set<string>()
  /** @internal */ articles: Articles | undefined
  /** Whether the newest row is where it can be seen. @internal */ isAtTop = true
  /** Earlier ones are on their way. @internal */ isLoading = false
  /** What there is beside rows, once it is loaded. @internal */ later: Later | undefined
  /** How many groups may be in the page. @internal */ size = FEW

  #items: readonly Item[] = []
  /** Of these so many are there already. */
  #drawn = 0
  #isMore = false
  /** More came at once than anybody reads. */
  #isBurst = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #loading: Promise<Later> | undefined
  #counted = '0 0'

  /** Nothing but what is there has changed. @internal */
  redraw(): void {
    this.requestUpdate('snapshot')
  }

  /** Have all the rest. A failure is forgotten: the next who needs it asks again. @internal */
  async load(): Promise<Later> {
    this.#loading ??= import('./later.js').then(({Later}) => new Later(this))
    try {
      const later = await this.#loading
      // One that was put back into a page that is hidden has nothing drawn yet.
      if (!this.articles) await this.updateComplete
      if (!this.later) {
        this.later = later
        if (this.articles) later.begin()
        this.requestUpdate()
      }
      return later
    } catch (error) {
      this.#loading = undefined
      throw error
    }
  }

  /** Have it, whenever. @internal */
  need = (): void => void this.load().catch(reportError)

  // ---- what changes ----

  protected override changed(snapshot: Snapshot, before: Snapshot): void {
    const {unread, unseen} = snapshot
    const counted = `${unread} ${unseen}`
    if (counted !== this.#counted) {
      this.#counted = counted
      this.tell('pov-count', {unread, new: unseen})
    }
    if (this.articles) this.later?.changed(snapshot, before)
  }

  override connectedCallback(): void {
    super.connectedCallback()
    this.#timer = setTimeout(this.need, MOMENT)
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback()
    clearTimeout(this.#timer)
    if (this.articles) this.later?.end()
    this.articles?.clear()
    this.articles = undefined
    this.#drawn = 0
  }

  /** Rows that come faster than anybody reads are drawn some at a time. */
  protected override async scheduleUpdate(): Promise<void> {
    if (this.#isBurst) await new Promise(resolve => setTimeout(resolve, BUSY))
    // The first rows are what everybody waits for.
    if (this.#drawn || !this.snapshot.rows.length || document.hidden) await super.scheduleUpdate()
  }

  protected override willUpdate(changed: Changed): void {
    super.willUpdate(changed)
    if (changed.size !== 1 || !changed.has('snapshot')) {
      this.stamp++
      this.lead()
    }
    const {snapshot, internals: {states}, later} = this
    const before = this.said
    // What has no words yet is said as soon as they are there.
    const said = later ? later.say() : sayBriefly(this, snapshot, Date.now(), this.isWarm)
    this.said = said ?? before ?? sayBriefly(this, NOTHING)!
    const {state, name} = this.said
    if (state !== before?.state) {
      states.delete(before?.state)
      states.add(state)
      this.tell('pov-state', {state})
    }
    states[snapshot.rows.length ? 'delete' : 'add']('empty')
    if (!later) {
      if (!said || name === 'offline' || this.filterInUrl && location.hash) this.need()
      else if (snapshot.rows.length) idle(this.need, {timeout: QUIET})
    }
    this.fitting = later?.fit() ?? {groups: snapshot.groups, hiddenUnread: 0}
    this.#arrange()
  }

  /** What stands in the list, and what waits above it. */
  #arrange(): void {
    const groups = this.later?.hold() ?? this.fitting.groups
    const size = Math.min(groups.length, this.size)
    // A screenful is first, then more of them with each frame; in a burst, which nobody reads, there are no more.
    let first = 0
    while (first < size && !this.articles?.of(groups[first]!.key)) first++
    this.#isBurst = this.isWarm && first > STEP
    this.#drawn = Math.min(size, first > STEP ? STEP : this.#drawn + STEP)
    this.#isMore = this.#drawn < size
    const shown = groups.slice(0, this.#drawn)
    const between = this.later?.between(shown)
    this.#items = [
      ...shown.flatMap((group, i) => [...between?.get(i) ?? [], ...rowItems(this, group)]),
      ...between?.get(shown.length) ?? [],
    ]
  }

  protected override updated(): void {
    const {shadow} = this
    if (!this.articles) {
      this.articles = new Articles(shadow.querySelector('.rows')!)
      this.later?.begin()
    }
    const {articles} = this
    const isLost = articles.show(this.#items)
    if (!articles.of(this.current)) this.current = this.#items[0]?.key
    const total = this.#isMore ? -1 : this.#items.length
    this.#items.forEach(({key}, i) => articles.place(key, key === this.current, i + 1, total))
    if (isLost) articles.of(this.current)?.focus()
    this.later?.updated()
    if (this.#isMore || articles.isLate || !this.isWarm && this.#drawn) requestAnimationFrame(() => setTimeout(() => {
      // Once these are painted.
      this.isWarm ? this.redraw() : this.requestUpdate()
      this.isWarm = true
    }))
  }

  // ---- what is done to it ----

  #clicked = async (event: MouseEvent): Promise<void> => {
    const {later} = this
    if (later) later.clicked(event)
    else {
      const {target} = event
      ;(await this.load()).clicked(event, target as Element)
    }
  }

  /** A key that comes before all the rest is there waits for it, and does then what it does. */
  #keyed = async (event: KeyboardEvent): Promise<void> => {
    const {later} = this
    const [target] = event.composedPath() as Element[]
    if (later) later.keyed(event, target!)
    else (await this.load()).keyed(event, target!)
  }

  // ---- what is drawn ----

  protected override render(): TemplateResult {
    const {later, said: {glyph: sign, thread, says, also, foot, name}, badge, snapshot} = this
    const heading = this.heading ?? say(this, 'heading')
    const n = badge === 'none' ? 0 : badge === 'new' ? snapshot.unseen : snapshot.unread
    const isBare = thread === 'bad' && name !== 'closed'
    const isEmpty = isBare || !this.#items.length
    const tool = (does: string) => html`<button class="btn-icon" data-do=${does} aria-label=${say(this, `do.${does}`)} aria-expanded=${
      later?.panel === does}>${icon(does)}${later?.mark(does)}</button>`
    return html`<section class="feed pov" aria-label=${heading} @click=${this.#clicked} @keydown=${this.#keyed}
><header class="head ${thread ? `is-${thread}` : this.#items[0]?.classes.includes('is-unread') ? '' : 'is-read'}" part="header"><span class="head-bead s-${sign}" part="status-bead">${
  glyph(sign)}</span><div><h2 class="title" part="title"><span><slot name="heading">${heading}</slot></span>${
  n ? html`<span class="badge" part="badge"><span aria-hidden="true">${number(this, Math.min(n, 99))}${n > 99 ? '+' : ''}</span><span class="sr">${
    say(this, badge === 'new' ? 'new' : 'unread', {n})}</span></span>` : nothing
}</h2><p class="says" part="status">${draw(this, ...says)}${also ? html`<span class="opt">${draw(this, ...also)}</span>` : nothing
}</p></div><div class="tools" part="tools">${later?.side()}<slot name="tools"></slot>${tool('filter')}${tool('notifications')}</div></header>${later?.above()}
<div class="list" part="list" ?hidden=${later?.panel === 'notifications'} aria-busy=${thread === 'filling' || this.isLoading}><i class="top"></i>${later?.pill()
}<div class="rows ${this.#items.length > LONG ? 'is-long' : ''}" role=${isEmpty ? nothing : 'feed'} aria-label=${isEmpty ? nothing : say(this, 'list')} ?hidden=${isBare}></div>${
  isEmpty ? later?.instead(isBare) ?? skeleton : later?.below()}<i class="end"></i></div><footer class="foot" part="footer">${later?.foot() ?? html`<span class="mid">${
  icon(thread === 'filling' ? 'clock' : 'check')}</span><p><slot name="footer">${draw(this, ...foot)}</slot></p>`}</footer>${
  later?.floats()}<div class="sr" role="status"></div><div class="sr" role="alert"></div></section>`
  }
}

/** Where rows will be. */
const skeleton = html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map(each => html`<div class="row"><span class="bead"><i class="av skel"></i></span><p class="line w${each}"><i class="skel"></i></p><p class="meta"><i class="skel"></i></p></div>`)}</div>`
