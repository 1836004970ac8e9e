/** What the SDK's parts are to each other and to a page. Guarantees are written here, once. */
import type * as wire from './wire.js'

/** A place in a PoV's log. Offsets of another epoch mean nothing. */
export interface Position {
  epoch: string
  offset: number
}

/**
 * How the client stands to the server.
 *
 * - `connecting`: the first attempts, until one comes through or the first one fails.
 * - `catching-up`: there is a connection; what was missed is on its way.
 * - `live`: all subscriptions are up to date.
 * - `offline`: there is no connection; the next attempt is at `retryAt`.
 * - `suspended`: the page sleeps (frozen, in the back/forward cache) or `suspend()` was called.
 * - `closed`: for good; `reason` says why. `connect()` makes another client.
 */
export type State = 'connecting' | 'catching-up' | 'live' | 'offline' | 'suspended' | 'closed'

/**
 * Why, where it is not the ordinary course:
 *
 * - `network`: the connection broke, or the server cannot be reached
 * - `silent`: nothing came for `pingInterval` + 10 s
 * - `restarting` (4000), `busy` (4005, 429, 503), `slow` (4002), `gap` (4004)
 * - `token`: a new token is being fetched, or fetching it fails
 * - `frozen`: the page sleeps
 * - and of `closed`: `session_ended` (`getToken` gave null, or the server refuses a fresh token, too),
 *   `signed_out` (`signOut()`, here or in another tab), `ended` (4500: by an administrator),
 *   `page_error` (4501, 1002, 1007, 1009: this page sends what it must not), `refused` (403, 421: the
 *   page's origin or the server's name is not allowed), `closed` (`close()`)
 */
export type Reason =
  | 'network' | 'silent' | 'restarting' | 'busy' | 'slow' | 'gap' | 'token' | 'frozen'
  | 'session_ended' | 'signed_out' | 'ended' | 'page_error' | 'refused' | 'closed'

export interface Status {
  state: State
  reason?: Reason
  /** What the server or the browser said of it, for a log. */
  detail?: string
  /** The close code, where there was one. */
  code?: number
  /** When this state began, ms since 1970. */
  since: number
  /** When the next attempt is, ms since 1970; absent while one is under way. */
  retryAt?: number
}

/** A message of the server, parsed. */
export type Incoming = wire.ServerMessage | {type: string; id?: string | number; [field: string]: unknown}
/** A message to the server; `id` is the sender's, and comes back with the answer. */
export type Outgoing = {type: string; id?: string; [field: string]: unknown}

/**
 * A way to the server that looks after itself: a socket of one's own (`Connection`), or that of
 * whichever tab leads (`TabLine`). It reconnects, keeps the token fresh and notices silence.
 *
 * After `opened` the other side knows nothing of this line: subscribe anew, from one's positions.
 * Between `opened` and the next status that is not open, messages come in the order of the server's
 * stream, each once, none left out. What is sent while it is not open is dropped: the sender asks.
 */
export interface Line {
  readonly isOpen: boolean
  /** Begin. Calls `on` from then on, never before this returns. */
  start(on: LineEvents): void
  send(message: Outgoing): void
  /** Try at once where an attempt is waited for; probe the connection where there is one. */
  retry(): void
  /** Give the connection up until `resume()`; the state is `suspended`. */
  suspend(): void
  resume(): void
  /** End for good. With `signed_out` for all tabs of this user. */
  close(reason: 'closed' | 'signed_out'): void
}

export interface LineEvents {
  /** The line is open; `welcome` says who one is. */
  opened(welcome: wire.Welcome): void
  message(message: Incoming): void
  /** The line's own states: `live` stands for open. */
  status(status: Status): void
}

/** What `connect` takes. Only `getToken` is needed on a page of the server's own host. */
export interface Options {
  /** The server, `https://rt.example` or a path of it; default: the page's own origin. */
  url?: string
  /**
   * Answers a socket token; called before each connection that needs a fresh one, and ahead of the
   * token's end. `null` says that nobody is signed in: the client closes with `session_ended`. If it
   * throws, it is asked again later (the state says `token`).
   */
  getToken(why: {signal: AbortSignal; refused?: string}): Promise<string | null> | string | null
  /** The device's name in presence and for cursors, 1 to 64 characters; default `default`. */
  device?: string
  /** Who is signed in, where the page knows it; else the token says it. For stored copies offline. */
  user?: string
  /** A WebSocket class, for Node before 22. */
  WebSocket?: typeof WebSocket
  /** One socket for all tabs of the browser (default true where Web Locks are). */
  tabs?: boolean
  /** Keep publishes made offline, and send them when back (default false). */
  outbox?: boolean
  /** How long a request may take, ms (default 10,000). */
  timeout?: number
}

/** What went wrong with a request: `code` is the server's, or `timeout`, `aborted`, `disconnected`, `closed`. */
export interface Failure {
  code: string
  message: string
  field?: string
  detail?: string
  /** Seconds after which it may be tried again. */
  retryAfter?: number
  incident?: string
  /** `unknown`: it may have happened all the same. */
  outcome?: string
}

export interface RequestOptions {
  signal?: AbortSignal
  /** ms; default that of the client. */
  timeout?: number
}

/** What is missing between two positions: nothing of it will come by itself. */
export interface Gap {
  povId: string
  /** The last position that was had; absent where the subscription began with it. */
  from?: Position
  /** The position from which everything comes. */
  to: Position
  /** How many are missing, where the server knows. */
  missed?: number
  digest?: wire.Digest
}

/** Which activities are wanted; lists that are absent leave nothing out. */
export type Only = wire.Only

export interface SubscribeOptions<S = unknown> {
  /** From where: a position, the device's cursor, the last n, or from now on (absent). */
  since?: Position | 'cursor' | {last: number}
  only?: Only
  durable?: boolean
  /**
   * Loads the app's own state. It is called once the position is known; activities wait until it
   * answered, then those after the position follow. Called again whenever recovery fails. While it
   * throws it is called again, later each time (`error` events say so).
   */
  getState?(why: {signal: AbortSignal; gap?: Gap}): Promise<S> | S
}

/** An activity where it belongs: `offset` is +1 each in the PoV's log (or, of `*`, in the feed's). */
export interface Placed {
  epoch: string
  offset: number
  activity: wire.Activity
}

export interface SubscriptionEvents<S = unknown> {
  /** One activity, in order, never twice. */
  activity: Placed
  /** What `getState` answered. It replaces all that was known before. */
  state: S
  /** Something is missing: shown, never silent. */
  gap: Gap
  /** The server's answer to each (re)subscription. */
  subscribed: wire.Result & {epoch: string; offset: number}
  /** How far it has come where nothing was sent, of what is filtered. */
  position: Position
  /** It ended (`forbidden`, ...) and is not tried again, or trying again failed for now. */
  error: Failure & {ended: boolean}
}

/** One subscriber of one PoV (or of the team feed `*`). Several of one PoV share what is sent. */
export interface Subscription<S = unknown> {
  readonly povId: string
  /** Up to where its events were given. */
  readonly position: Position | undefined
  readonly state: 'joining' | 'catching-up' | 'live' | 'ended'
  on<E extends keyof SubscriptionEvents<S>>(event: E, listener: (value: SubscriptionEvents<S>[E]) => void): () => void
  /** Resolves at the first answer, or rejects if it ended before one. */
  readonly ready: Promise<void>
  close(): void
}

export interface ClientEvents {
  status: Status
  /** Who one is, at each (re)connection. */
  welcome: wire.Welcome
  /** The token's end is near, or it was renewed. */
  token: {expiresAt: string; renewed: boolean}
  /** Every message that no request waited for, those of plugins too. */
  message: Incoming
  /** How many publishes wait, and which of them need the user (see `outbox`). */
  pending: readonly Pending[]
  /** Signed out, here or in another tab: stored copies are gone. */
  signedOut: void
}

/** A publish that waits in the outbox. */
export interface Pending {
  /** The activity's id. */
  id: string
  activity: wire.NewActivity
  /** When it was made, ms since 1970. */
  at: number
  /**
   * `waiting` for the connection; `stale`: older than the server remembers ids (24 h), so that
   * sending it might be sending it twice: `resend` or `discard` it; `failed`: the server refused it.
   */
  state: 'waiting' | 'stale' | 'failed'
  failure?: Failure
}

/** What waits to be sent, of this user in this browser; see `Client.outbox()`. */
export interface Outbox {
  readonly pending: readonly Pending[]
  /** Send one that is stale or failed; with the same id, so that the server can tell a retry. */
  resend(id: string): Promise<void>
  discard(id: string): Promise<void>
}

export interface Client {
  readonly status: Status
  readonly welcome: wire.Welcome | undefined
  /** Who the token is for; undefined until a token or `options.user` said it. */
  readonly user: string | undefined
  /** Names what is stored in this browser of the user; resolves as soon as `user` is known. */
  readonly scope: Promise<string>
  on<E extends keyof ClientEvents>(event: E, listener: (value: ClientEvents[E]) => void): () => void
  subscribe<S = unknown>(povId: string, options?: SubscribeOptions<S>): Subscription<S>
  /**
   * Send any message, and wait for its answer (typed for the built-in ones). What was sent when the
   * connection broke is sent again if it may be (all built-in requests); else it rejects with
   * `disconnected` and `outcome: 'unknown'`. Rejects with a `PovError`.
   */
  request<T extends keyof wire.Requests>(
    type: T, fields: Omit<wire.Requests[T], 'type' | 'id'>, options?: RequestOptions,
  ): Promise<wire.Answers[T]>
  request(type: string, fields?: Record<string, unknown>, options?: RequestOptions): Promise<Incoming>
  /** Send a message that has no answer (`typing`); dropped while there is no connection. */
  send(type: string, fields?: Record<string, unknown>): void
  /**
   * Publish; an id is made where there is none, so that trying again never doubles. With the outbox
   * it is kept first, and the promise lasts until it was sent, however long that takes.
   */
  publish(activity: wire.NewActivity, options?: RequestOptions): Promise<wire.Published>
  outbox(): Promise<Outbox>
  /** Try now. */
  retry(): void
  suspend(): void
  resume(): void
  close(): void
  /** Close in all tabs of this user, and wipe what is stored here of them. */
  signOut(): Promise<void>
}

// ---- the store -------------------------------------------------------------------------------

export interface FeedOptions {
  /** How many of a PoV are loaded at first (default 50) and by `loadEarlier`. */
  page?: number
  /** How many rows are kept in memory, the oldest go first (default 1,000; 0 keeps all). */
  limit?: number
  only?: Only
  /** Same person, type, action and PoV within this many ms is one group (default 600,000; 0: none). */
  groupWithin?: number
  /** Follow who is there, who writes (default true; without the grant it stays empty). */
  presence?: boolean
  /** Keep rows and positions in IndexedDB, for reloads (default true where there is one). */
  stored?: boolean
}

/** One activity. Frozen: a changed one is another object, an unchanged one the same. */
export interface Row {
  /** Unique and stable: of the topic, the epoch and the offset. */
  readonly key: string
  readonly povId: string
  readonly epoch: string
  readonly offset: number
  readonly activity: wire.Activity
  /** ms since 1970: the server's `at`, never earlier than that of the row before it on the PoV. */
  readonly at: number
  readonly state: 'new' | 'seen' | 'read'
  /** Done by the signed-in user: never new or unread. */
  readonly own: boolean
}

/** Rows of one person, type, action and PoV close together; newest first. */
export interface Group {
  readonly key: string
  readonly rows: readonly Row[]
  readonly state: 'new' | 'seen' | 'read'
}

export interface FeedGap extends Gap {
  /** `open`: `load(gap)` fetches it; `loading`; `gone`: the log has no longer (some of) it. */
  readonly state: 'open' | 'loading' | 'gone'
}

export interface PovState {
  readonly povId: string
  readonly position: Position | undefined
  readonly state: 'joining' | 'catching-up' | 'live' | 'ended'
  readonly failure?: Failure
  /** Counted by the server, moved on here; groups count their rows. */
  readonly unread: number
  readonly unseen: number
  readonly readOffset: number
  readonly seenOffset: number
  /** Everything from here on is unread, whatever was read (see `markUnread`). */
  readonly unreadFrom?: number
  /** No gap is known from this time on, ms since 1970; undefined before the first answer. */
  readonly completeSince?: number
  /** Whether the log has more before the oldest row. */
  readonly hasEarlier: boolean
  readonly present: readonly wire.User[]
  readonly typing: readonly wire.Typist[]
  /** By user, up to where they have read. */
  readonly receipts: ReadonlyMap<string, number>
  readonly level: wire.Level
  readonly mutedUntil?: string
}

/** All there is to see. A new object whenever, and only when, something changed. */
export interface Snapshot {
  readonly connection: Status
  /** Newest first; per PoV in the log's order, between PoVs by time. */
  readonly rows: readonly Row[]
  readonly groups: readonly Group[]
  readonly unread: number
  readonly unseen: number
  readonly povs: ReadonlyMap<string, PovState>
  readonly gaps: readonly FeedGap[]
  readonly pending: readonly Pending[]
  /** Whether rows survive a reload, and why not. */
  readonly storage: 'loading' | 'stored' | 'off' | 'denied' | 'full'
}

export interface Feed {
  /** Call `listener` after each change; returns what ends it. */
  subscribe(listener: () => void): () => void
  getSnapshot(): Snapshot
  /** Load the page before the oldest row of the PoV (of all where it is absent). */
  loadEarlier(povId?: string): Promise<void>
  load(gap: FeedGap): Promise<void>
  /** They were on the screen: seen (no longer new) for all of the user's devices. */
  seen(rows: readonly Row[]): void
  /** Read up to this row, or all. */
  read(row?: Row): Promise<void>
  /** Unread from this row on. */
  markUnread(row: Row): Promise<void>
  mute(povId: string, level: wire.Level, until?: Date): Promise<void>
  /** Say that the user writes (repeat while they do), or has stopped. */
  typing(povId: string, active: boolean, where?: string): void
  close(): void
}
