/** `<pov-team-activity>` until it has something to show: what follows is loaded then. */
import {html, type PropertyDeclarations, type PropertyValues, type TemplateResult} from 'lit'
import type {Row, Snapshot} from '../api.js'
import type {FeedView} from './view.js'
import {PovElement, sheetOf} from './element.js'
import {glyph, icon} from './icons.js'
import {draw, say} from './text.js'
import text from './feed.css'

/** Connecting is no more than a moment until then, ms: what there is to say of it is loaded, too. */
const MOMENT = 4_000
/** Between two drawings of a burst, ms. */
const BUSY = 64

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
export class TeamActivity extends PovElement {
  static override properties: PropertyDeclarations = {
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

  /** All that it shows, and does. @internal */
  view: FeedView | undefined
  #loading: Promise<FeedView> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #counted = '0 0'

  /** Nothing but what is there has changed. @internal */
  redraw(): void {
    this.requestUpdate('snapshot')
  }

  /** Tell the page; false if it took it upon itself. @internal */
  tell(name: string, detail?: unknown, cancelable = false): boolean {
    return this.dispatchEvent(new CustomEvent(name, {detail, cancelable, bubbles: true, composed: true}))
  }

  /** Have what shows rows. A failure is forgotten: the next change asks again. @internal */
  async load(): Promise<FeedView> {
    this.#loading ??= import('./view.js').then(({FeedView}) => new FeedView(this))
    try {
      const view = await this.#loading
      if (this.isConnected && !this.view) {
        this.view = view
        view.attach()
      }
      return view
    } catch (error) {
      this.#loading = undefined
      throw error
    }
  }

  protected override changed(snapshot: Snapshot, before: Snapshot): void {
    const {unread, unseen, rows, connection} = snapshot
    const counted = `${unread} ${unseen}`
    if (counted !== this.#counted) {
      this.#counted = counted
      this.tell('pov-count', {unread, new: unseen})
    }
    if (this.view) this.view.changed(snapshot, before)
    else if (rows.length || !/ing/.test(connection.state)) this.load().catch(reportError)
  }

  override connectedCallback(): void {
    super.connectedCallback()
    this.#timer = setTimeout(() => this.load().catch(reportError), MOMENT)
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback()
    clearTimeout(this.#timer)
    this.view?.detach()
    this.view = undefined
  }

  /** Rows that come faster than anybody reads are drawn some at a time. */
  protected override async scheduleUpdate(): Promise<void> {
    if (this.view?.isBusy) await new Promise(resolve => setTimeout(resolve, BUSY))
    await super.scheduleUpdate()
  }

  protected override willUpdate(changed: PropertyValues): void {
    super.willUpdate(changed)
    this.view?.willUpdate(changed)
  }

  protected override updated(): void {
    this.view?.updated()
  }

  override render(): TemplateResult {
    const {view} = this
    const {glyph: sign, thread} = view?.said ?? {glyph: 'connecting', thread: 'filling'}
    const heading = this.heading ?? say(this, 'heading')
    const tool = (name: string) => html`<button class="btn-icon" data-do=${name} aria-label=${say(this, `do.${name}`)} aria-expanded=${
      view?.panel === name}>${icon(name)}${view?.mark(name)}</button>`
    return html`<section class="feed pov" aria-label=${heading} @click=${this.#clicked} @keydown=${this.#keyed}
><header class="head ${thread ? `is-${thread}` : view?.isRead ? 'is-read' : ''}" part="header"><span class="head-bead s-${sign}" part="status-bead">${
  glyph(sign)}</span><div><h2 class="title" part="title"><span><slot name="heading">${heading}</slot></span>${view?.badge()}</h2
><p class="says" part="status">${view ? view.says() : draw(this, 'says.connecting')}</p></div><div class="tools" part="tools">${
  view?.side()}<slot name="tools"></slot>${tool('filter')}${tool('notifications')}</div></header>${view ? view.render()
    : html`<div class="list" part="list" aria-busy="true">${skeleton}</div>`
}<footer class="foot" part="footer">${view ? view.foot() : html`<span class="mid">${icon('clock')}</span><p>${
  draw(this, 'foot.connecting')}</p>`}</footer>${view?.floats()}<div class="sr" role="status"></div><div class="sr" role="alert"></div></section>`
  }

  #clicked = async (event: MouseEvent): Promise<void> => {
    const {view} = this
    if (view) return view.clicked(event)
    const name = (event.target as Element).closest<HTMLElement>('[data-do]')?.dataset.do
    if (name) (await this.load()).act(name)
  }

  #keyed = (event: KeyboardEvent): void => this.view?.keyed(event)
}

/** Where rows will be. */
export const skeleton = html`<div aria-hidden="true">${[1, 2, 3, 4, 5].map(each => html`<div class="row"><span class="bead"><i class="av skel"></i></span><p class="line w${each}"><i class="skel"></i></p><p class="meta"><i class="skel"></i></p></div>`)}</div>`
