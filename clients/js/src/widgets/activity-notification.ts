/** `<pov-activity-notification>` until it has something to show: what follows is loaded then. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Client, Row, Snapshot} from '../api.js'
import type {Changed, Properties} from './base.js'
import type {ToastView} from './toasts/view.js'
import {isEarly} from './brief.js'
import {PovElement} from './element.js'

/** What an element without a `pov` of its own takes from the page's feed. */
const SHARED = [
  'url', 'tokenUrl', 'getToken', 'client', 'feed', 'pov', 'group', 'strings', 'people', 'resolvePeople', 'povs', 'href', 'theme',
] as const

/**
 * Tells what happens while one looks elsewhere: toasts, a sound, the browser's notifications.
 *
 * It shows nothing of its own where it stands: toasts are in the top layer, and in the modal dialog that is open,
 * into which it moves. So give it a parent of its own where a framework keeps its children in order.
 *
 * An activity with `details.actions`, `[{"label": "Open", "href": "/x"}, {"label": "In an hour"}]`, two at most, has
 * them as buttons, and its toast stays until one of them is pressed or it is dismissed; each fires `pov-action`, and
 * leads to its `href` where it has one (http and https only).
 *
 * @element pov-activity-notification
 *
 * @attr {string} url - The server's address. Default: that of this module where it is served at `/client/`, else the page's own.
 * @attr {string} token-url - What answers `{"token": ...}`, asked with the page's cookies; 401: nobody is signed in. Default: `URL/api/auth/ws-token`.
 * @attr {string} pov - The ids of the PoVs, divided by spaces, or `*`. Default: all that the page's first `<pov-team-activity>` has.
 * @attr {'top-start'|'top'|'top-end'|'bottom-start'|'bottom'|'bottom-end'} position - Where toasts are. Default: `bottom-end`.
 * @attr {number} max - How many show at once. Default: 3.
 * @attr {number} duration - How long one shows, ms. Default: 6000.
 * @attr {'off'} sound - `off`: no sound on this page, even if it was turned on in this browser.
 * @attr {string} quiet - Hours without toasts and sounds, local, such as `19:00-08:00`, until the user chooses others.
 * @attr {string} filter - Which activities: `type`, `type:action` or `:action`, divided by commas. Default: all.
 * @attr {'off'} status - `off`: nothing is told of the connection.
 * @attr {'auto'|'light'|'dark'} theme - Default: the page's `color-scheme`.
 * @attr {string} locale - BCP 47. Default: the `lang` in force where the element stands, else the browser's.
 * @attr {'off'} shortcuts - `off`: F6 stays the browser's.
 *
 * @fires {CustomEvent<{row?: Row, activity?: Activity, href?: string, povs?: string[]}>} pov-open - A toast was opened; one for several has `povs`. Cancelable: what it leads to is then not gone to.
 * @fires {CustomEvent<{row: Row, label: string, href?: string}>} pov-action - A button of an activity's own `details.actions` was pressed. Cancelable.
 * @fires {CustomEvent} pov-sign-in - "Sign in" was pressed. Sign in, then call `reconnect()`.
 *
 * @csspart viewport - What holds the toasts.
 * @csspart toast - A toast.
 * @csspart bead - Avatar and kind.
 * @csspart avatar - The avatar.
 * @csspart kind - The sign of the type.
 * @csspart sign - The sign of a toast that is of nobody.
 * @csspart line - The sentence.
 * @csspart link - What it leads to.
 * @csspart quote - What was written.
 * @csspart meta - PoV and time, or what else there is to say.
 * @csspart actions - Its buttons.
 * @csspart close - "Dismiss".
 *
 * @cssprop --pov-toast-width - The width of toasts (356px).
 * @cssprop --pov-toast-offset - Their distance from the edges (24px).
 */
export class ActivityNotification extends PovElement {
  static override properties: Properties = {
    position: {reflect: true},
    max: {},
    duration: {},
    sound: {},
    quiet: {},
    filter: {},
    status: {},
    renderToast: {attribute: false},
  }

  declare position?: string
  declare max?: string | number
  declare duration?: string | number
  declare sound?: string
  declare quiet?: string
  declare filter?: string
  declare status?: string
  /** What stands in the place of a toast's words: a node, a template, or undefined for ours. */
  declare renderToast?: (row: Row) => unknown

  #view: ToastView | undefined
  /** What it has of the feed. */
  readonly #shared: Record<string, unknown> = {}
  /** Whose toasts these are. */
  #of: Client | undefined
  #loading = false
  /** What there was first in each state, before the rest was loaded: where this person is in each log. */
  readonly #early = new Map<string, Snapshot>()

  protected override changed(snapshot: Snapshot): void {
    const {client} = this.source!
    if (client !== this.#of) {
      this.#of = client
      this.#early.clear()
      this.#view?.forget()
    }
    if (this.#view) return this.#view.changed(snapshot)
    const {state} = snapshot.connection
    if (!this.#early.has(state) && [...snapshot.povs.values()].some(each => each.position)) this.#early.set(state, snapshot)
    // What it loads is not to be in the way of the page's first rows.
    if (!this.#loading && state !== 'connecting' && !isEarly(snapshot)) void this.#load()
  }

  async #load(): Promise<void> {
    this.#loading = true
    try {
      // When there is time, and before it is needed: without a connection there is none to load it by.
      await new Promise<unknown>(done => globalThis.requestIdleCallback?.(done, {timeout: 1000}) ?? setTimeout(done))
      const {ToastView} = await import('./toasts/index.js')
      const view = this.#view = new ToastView(this)
      if (this.isConnected) view.attach()
      for (const each of [...this.#early.values(), this.snapshot]) view.changed(each)
      this.#early.clear()
      this.requestUpdate()
    } catch (error) {
      this.#loading = false // the next change tries again
      reportError(error)
    }
  }

  override connectedCallback(): void {
    super.connectedCallback()
    document.addEventListener('pov-state', this.#found)
    this.#view?.attach()
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback()
    document.removeEventListener('pov-state', this.#found)
    this.#view?.left()
  }

  protected override willUpdate(changed: Changed): void {
    this.#share()
    super.willUpdate(changed)
  }

  protected override updated(): void {
    this.#view?.updated()
  }

  override render(): TemplateResult {
    return html`<div class="viewport pov" part="viewport" popover="manual">${this.#view?.render() ?? nothing}</div><div class="sr" role="status"></div><div class="sr" role="alert"></div>`
  }

  /** A feed is there now: it may be what this element waits for. */
  readonly #found = (): void => {
    if (!this.source) this.requestUpdate('pov')
  }

  /** @internal */
  override heed(): void {
    this.requestUpdate()
  }

  /** Unless the page said of which PoVs, what it said of the feed holds here, where it said nothing else. */
  #share(): void {
    const from = document.querySelector('pov-team-activity') as unknown as Record<string, unknown> | null
    const self = this as unknown as Record<string, unknown>
    const isOurs = (name: string) => self[name] === this.#shared[name]
    if (!from || !isOurs('pov') || !isOurs('feed')) return
    for (const each of SHARED) if (isOurs(each)) self[each] = this.#shared[each] = from[each]
  }
}
