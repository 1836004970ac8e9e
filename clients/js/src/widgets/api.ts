/** What the parts of the components are to each other. */
import type {TemplateResult} from 'lit'
import type {FeedGap, Group, Row, Snapshot} from '../api.js'
import type {Teller} from './sentences.js'
import type {Source} from './source.js'

/** What is left of the rows; an empty one leaves nothing out. Of each list any one has to fit, and all that are given. */
export interface Filter {
  /** Words, all of which have to be in what the row says. */
  readonly text?: string
  readonly types?: readonly string[]
  readonly actions?: readonly string[]
  readonly users?: readonly string[]
  readonly povs?: readonly string[]
}

/** Which panel of a feed is open. */
export type PanelName = 'filter' | 'notifications' | 'presence' | 'menu'

/** What panels see of their feed: `<pov-team-activity>` is one. */
export interface PanelHost extends Teller {
  readonly snapshot: Snapshot
  readonly source: Source | undefined
  readonly filter: Filter
  /** Filter by this from now on; the list, the URL and the counts follow. */
  setFilter(filter: Filter): void
  /** Of the rows of the snapshot: which fit, and how many unread ones don't. */
  readonly fitting: {readonly groups: readonly Group[]; readonly hiddenUnread: number}
  /** Which panel is open. */
  readonly panel: PanelName | undefined
  /** The feed's own root, where panels are. */
  readonly shadowRoot: ShadowRoot | null
  readonly shortcuts?: string
  /** Close what is open; the focus goes back to what opened it, or stays where it is `isElsewhere`. */
  closePanel(isElsewhere?: boolean): void
  openPanel(name: PanelName, row?: Group): void
  /** The row whose menu is open. */
  readonly menuOf: Group | undefined
  /** Mark as unread from there, read up to there, or all. A failure is said in the list, never thrown. */
  markUnread(row: Row): void
  markRead(row?: Row): void
  /** Be silent of a PoV until then, or as by default again. A failure is said; what was muted can be taken back there. */
  mute(povId: string, until?: Date): Promise<void>
  /** Show a row of the snapshot, wherever it is, and focus it. */
  reveal(row: Row): void
  /** Tell, where the person looks, that something failed: a sentence's name. */
  fail(key: string): void
}

/** What `panels/index.ts` exports: loaded when a panel, a filter or a digest is first there. */
export interface Panels {
  /** Of all panels, for the shadow root. */
  readonly sheet: CSSStyleSheet
  filterPanel(host: PanelHost): TemplateResult
  /** What is filtered by, as chips above the list while the panel is closed. */
  filterChips(host: PanelHost): TemplateResult
  /** The words of an empty list under a filter: "No file by Jonas Weber so far". */
  filterEmpty(host: PanelHost): TemplateResult
  notificationsPanel(host: PanelHost): TemplateResult
  presencePanel(host: PanelHost): TemplateResult
  /** The menu of `host.menuOf`. */
  menuPanel(host: PanelHost): TemplateResult
  /** "214 updates by 6 people", with bars: all that is in the place of a gap, within its `.gap.digest`. */
  digest(host: PanelHost, gap: FeedGap): TemplateResult
  fits(host: Teller, filter: Filter, row: Row): boolean
  /** A filter as the `#` of an address has it, and back; what else is there stays. */
  toHash(filter: Filter, hash: string): string
  fromHash(hash: string): Filter
}
