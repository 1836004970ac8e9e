/** What both elements are: where they get it from, whose words they use, how they look. */
import type {Client, Feed, Options, Row, Snapshot} from '../api.js'
import {Base, type Changed, type Properties} from './base.js'
import type {Person, ResolvePeople} from './people.js'
import type {Teller} from './sentences.js'
import type {Strings} from './text.js'
import {acquire, forget, type Source} from './source.js'
import text from './tokens.css'

/** A style sheet of a text: no page's policy forbids these. */
export function sheetOf(css: string): CSSStyleSheet {
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(css)
  return sheet
}

/** Colours and type. */
const tokens = sheetOf(text)

/** What there is to see before anything is known. */
export const NOTHING: Snapshot = {
  connection: {state: 'connecting', since: Date.now()},
  rows: [], groups: [], gaps: [], pending: [], povs: new Map(), unread: 0, unseen: 0, storage: 'loading',
}

const SOURCE = ['url', 'tokenUrl', 'getToken', 'client', 'feed', 'pov', 'group']

/**
 * An element that shows a feed. It draws at most once a frame, and never in a page that is hidden.
 *
 * @cssprop --pov-surface - The feed.
 * @cssprop --pov-raised - What floats: toasts, menus.
 * @cssprop --pov-sunken - Panels, code.
 * @cssprop --pov-hover - A row under the pointer.
 * @cssprop --pov-line - Hairlines.
 * @cssprop --pov-edge - The border of what can be pressed or typed in.
 * @cssprop --pov-thread - The line of what is read.
 * @cssprop --pov-ink - Text.
 * @cssprop --pov-ink-2 - Text that is second.
 * @cssprop --pov-ink-3 - Times and hints.
 * @cssprop --pov-accent - Unread, live, links, focus: 4.5 on surface, sunken and tint.
 * @cssprop --pov-accent-ink - Text on the accent: 4.5 on it.
 * @cssprop --pov-tint - What is chosen or new.
 * @cssprop --pov-warn - Attention: offline, something missing.
 * @cssprop --pov-warn-tint - Behind what asks for attention.
 * @cssprop --pov-bad - Failure.
 * @cssprop --pov-bad-tint - Behind what failed.
 * @cssprop --pov-p1 - Behind the initials of people: one of six by the user id.
 * @cssprop --pov-p1-ink - The initials on it.
 * @cssprop --pov-p2 - Behind the initials of others.
 * @cssprop --pov-p2-ink - The initials on it.
 * @cssprop --pov-p3 - Behind the initials of others.
 * @cssprop --pov-p3-ink - The initials on it.
 * @cssprop --pov-p4 - Behind the initials of others.
 * @cssprop --pov-p4-ink - The initials on it.
 * @cssprop --pov-p5 - Behind the initials of others.
 * @cssprop --pov-p5-ink - The initials on it.
 * @cssprop --pov-p6 - Behind the initials of others.
 * @cssprop --pov-p6-ink - The initials on it.
 * @cssprop --pov-font - All text but code; `inherit` for that of the page.
 * @cssprop --pov-radius-s - Corners of buttons and fields.
 * @cssprop --pov-radius - Corners of the feed and of panels.
 * @cssprop --pov-shadow - Of what floats.
 * @cssprop --pov-ease - How things come in.
 * @cssprop --pov-ease-out - How they leave.
 */
export abstract class PovElement extends Base implements Teller {
  static override properties: Properties = {
    url: {},
    tokenUrl: {attribute: 'token-url'},
    pov: {},
    theme: {reflect: true},
    density: {reflect: true},
    locale: {},
    shortcuts: {},
    group: {},
    getToken: {attribute: false},
    client: {attribute: false},
    feed: {attribute: false},
    strings: {attribute: false},
    people: {attribute: false},
    resolvePeople: {attribute: false},
    povs: {attribute: false},
    href: {attribute: false},
  }

  static override styles: readonly CSSStyleSheet[] = [tokens]

  /** The server's address. Default: that of this module where it is served at `/client/`, else the page's own. */
  declare url?: string
  /** What answers `{"token": ...}`, asked with the page's cookies; 401: nobody is signed in. */
  declare tokenUrl?: string
  /** The ids of the PoVs, divided by spaces, or `*` for the team feed. Toasts without it are of the page's first feed. */
  declare pov?: string
  /** `light`, `dark` or `auto`, which is the page's `color-scheme`. */
  declare theme?: 'auto' | 'light' | 'dark'
  /** `comfortable`, or `compact`: a line a row. */
  declare density?: 'comfortable' | 'compact'
  /** BCP 47. Default: the `lang` that is in force where the element stands, else the browser's. */
  declare locale: string
  /** `off`: no keys but those that every list has. */
  declare shortcuts?: 'off'
  /** `off`: each activity is a row of its own. */
  declare group?: 'off'
  /** Answers a socket token, in the place of `tokenUrl`; see the SDK's `getToken`. */
  declare getToken?: Options['getToken']
  /** What `connect` returned, in the place of `url`, `tokenUrl` and `getToken`. */
  declare client?: Client
  /** What `createFeed` returned, in the place of all of these and `pov`. */
  declare feed?: Feed
  /** Sentences that replace ours, by name. */
  declare strings?: Strings
  /** Names and pictures, by user id. */
  declare people?: Readonly<Record<string, Person>>
  /** Asked for who is not in `people`, many at once; what it answers is kept. */
  declare resolvePeople?: ResolvePeople
  /** Names of PoVs, by id. */
  declare povs?: Readonly<Record<string, string>>
  /** Where an activity leads to. Default: its `details.href`. Only http and https are followed. */
  declare href?: (activity: Row['activity']) => string | undefined

  /** What is held while the element is on a page. */
  source: Source | undefined
  /** All there is to see, as of the last change; without a source nothing. */
  snapshot: Snapshot = NOTHING
  readonly internals = this.attachInternals()
  #unsubscribe: (() => void) | undefined

  /** The feed has changed; called once for each change, also in a page that is hidden. */
  protected changed(_snapshot: Snapshot, _before: Snapshot): void {}

  /** An element of the page may say something else than it did. @internal */
  heed(): void {}

  /** Have all look at what this one says. */
  protected lead(): void {
    for (const each of all) each.heed()
  }

  /** Tell the page; false if it took it upon itself. @internal */
  tell(name: string, detail?: unknown, cancelable = false): boolean {
    return this.dispatchEvent(new CustomEvent(name, {detail, cancelable, bubbles: true, composed: true}))
  }

  override connectedCallback(): void {
    super.connectedCallback()
    this.locale ||= this.closest<HTMLElement>('[lang]')?.lang || navigator.language
    this.style.setProperty('--page-font', getComputedStyle(this).fontFamily)
    // What it held may have been let go of.
    if (this.hasUpdated) this.#hold()
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback()
    this.#release()
  }

  /**
   * Begin anew with another client: after the user has signed in. Elements that share one all do.
   * @public
   */
  reconnect(): void {
    const client = this.source?.client
    forget(client)
    for (const each of [...all].filter(other => other !== this && client && other.source?.client === client)) each.#hold()
    this.#hold()
  }

  protected override willUpdate(changed: Changed): void {
    this.locale = localeOf(this.locale)
    if (!this.hasUpdated || SOURCE.some(each => changed.has(each))) this.#hold()
  }

  /** A frame is time enough, and a page that is hidden draws nothing. */
  protected override async scheduleUpdate(): Promise<void> {
    if (this.hasUpdated) await new Promise(resolve => requestAnimationFrame(resolve))
  }

  #hold(): void {
    const next = this.isConnected ? acquire(this) : undefined
    this.#release()
    if (!(this.source = next)) return
    all.add(this)
    const {feed} = next!
    const look = () => {
      const before = this.snapshot
      this.snapshot = feed.getSnapshot()
      this.changed(this.snapshot, before)
      this.requestUpdate('snapshot')
    }
    this.#unsubscribe = feed.subscribe(look)
    look()
  }

  #release(): void {
    all.delete(this)
    this.#unsubscribe?.()
    this.source?.release()
    this.#unsubscribe = this.source = undefined
    this.snapshot = NOTHING
  }
}

/** The language as `Intl` takes it; of what is none (`en_US` is meant) the browser's. */
function localeOf(given: string): string {
  try {
    return Intl.getCanonicalLocales(given.replaceAll('_', '-'))[0]!
  } catch {
    return navigator.language
  }
}

/** Those on the page that hold something. */
const all = new Set<PovElement>()
