/** What the SDK's parts are to each other and to a page. Guarantees are written here, once. */
import type * as wire from './wire.js'

/**
 * What `details` is, by type and action (`'task.completed'`): a page adds what its server declares, and
 * `Activity`, `NewActivity` and `publish` know it.
 */
export interface ActivityDetails extends wire.ActivityDetails {}
/** An activity; with its type and action (`Activity<'task', 'completed'>`) it has their `details`. */
export type Activity<Type extends string = string, Action extends string = string> =
  wire.ActivityOf<Type, Action, ActivityDetails>
/** An activity as it is published. */
export type NewActivity<Type extends string = string, Action extends string = string> =
  wire.NewActivityOf<Type, Action, ActivityDetails>

/** A place in a PoV's log. Offsets of another epoch mean nothing. */
export interface Position {
  /** Which log it is: a log that was replaced begins another. */
  epoch: string
  /** +1 with each activity, from 1; 0 is the place before the first. */
  offset: number
}

/**
 * How the client stands to the server.
 *
 * - `connecting`: the first attempts, until one comes through or the first one fails.
 *   Show: that it loads; stored rows of a feed are there already.
 * - `catching-up`: there is a connection; what was missed is on its way.
 *   Show: what there is, and that more is coming.
 * - `live`: all subscriptions are up to date.
 *   Show: nothing, or that it is live.
 * - `offline`: there is no connection; the next attempt is at `retryAt`.
 *   Show: since when (`since`), that what is shown is as of then, and a button that calls `retry()`.
 * - `suspended`: the page sleeps (frozen, in the back/forward cache) or `suspend()` was called.
 *   Show: nothing, for a page that sleeps wakes by itself; after your own `suspend()` what calls `resume()`.
 * - `closed`: for good; `reason` says why. `connect()` makes another client.
 *   Show: what the reason asks for, see there.
 */
export type State = 'connecting' | 'catching-up' | 'live' | 'offline' | 'suspended' | 'closed'

/**
 * Why, where it is not the ordinary course. Those from `session_ended` on are of `closed`.
 *
 * - `network`: the connection broke, or the server cannot be reached; `detail` says more. Do: nothing, it
 *   comes back, over plain HTTP where WebSockets do not get through. If it never does: is the server up,
 *   does the page's CSP allow the address?
 * - `silent`: nothing came for `pingInterval` + 10 s (after the tab or the machine slept: for 5 s). Do:
 *   nothing, it comes back.
 * - `restarting`: the server restarts (4000). Do: nothing, it comes back in seconds.
 * - `busy`: the server has too much to do, or this address asks too often (4005, 429, 503). Do: nothing;
 *   it waits as long as the server says. If it lasts: look at the server's log and limits.
 * - `slow`: this page reads too slowly (4002). Do: nothing now; if it comes back often, subscribe to less,
 *   filter with `only`, or do less for each activity.
 * - `gap`: the server would have left something out, and closed instead (4004). Do: nothing, all of it is
 *   recovered.
 * - `token`: a new token is being fetched, or fetching it fails. Do: nothing for a moment. If it lasts,
 *   `getToken` throws: look at `detail` and at the route that makes tokens.
 * - `frozen`: the page sleeps. Do: nothing, it wakes by itself.
 * - `session_ended`: `getToken` gave null, or the server refuses a fresh token, too. Do: have the user sign
 *   in, then `connect()`. If they are signed in, the two servers disagree: keys, clocks, claims (`detail`,
 *   and the server's log with the reason).
 * - `signed_out`: `signOut()`, here or in another tab. Do: show what is shown to who is not signed in.
 * - `ended`: an administrator ended this user's connections (4500). Do: say so, and do not try again by
 *   yourself.
 * - `page_error`: this page sends what it must not (4501, 1002, 1007, 1009), or its token cannot be
 *   one. Do: mend the page; a reload begins anew.
 * - `refused`: the page's origin or the server's name is not allowed (403, 421). Do: add the origin to
 *   `server.allowed_origins`, or the name to `server.allowed_hosts`.
 * - `closed`: `close()` was called. Do: nothing.
 */
export type Reason =
  | 'network' | 'silent' | 'restarting' | 'busy' | 'slow' | 'gap' | 'token' | 'frozen'
  | 'session_ended' | 'signed_out' | 'ended' | 'page_error' | 'refused' | 'closed'

/** The state with all that is known of it. */
export interface Status {
  /** How the client stands. */
  state: State
  /** Why; absent in the ordinary course. */
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

/** What is needed of a WebSocket: a browser's, or that of `ws`. */
export interface Socket {
  onmessage: unknown
  onclose: unknown
  onerror: unknown
  send(text: string): void
  close(code?: number): void
}

/** What `connect` takes. Only `getToken` is needed on a page of the server's own host. */
export interface Options {
  /** The server, `https://rt.example` or a path of it; default: the page's own origin. `connect` throws a
   * `TypeError` where it is no address. */
  url?: string
  /**
   * Answers a socket token; called before each connection that needs a fresh one, ahead of the token's
   * end, and after the page slept, for the user may have signed out meanwhile. `null` says that nobody is
   * signed in: the client closes with `session_ended`. If it throws, it is asked again later (the state
   * says `token`). `refused` is the error code of the token before, where the server refused it: fetch a
   * really new one then. Stop when `signal` is aborted.
   */
  getToken(why: {signal: AbortSignal; refused?: string}): Promise<string | null> | string | null
  /** The device's name in presence and for cursors, 1 to 64 characters; default `default`. */
  device?: string
  /**
   * Who is signed in (the token's `userId`), where the page knows it; else the token says it. With it
   * stored rows are there without a connection, and tabs that share one need no token of their own.
   */
  user?: string
  /** Their team, beside `user`, where tokens have a `teamId`: a token of another user or team ends the client. */
  team?: string
  /** A WebSocket class, for Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => Socket
  /** One socket for all tabs of the browser (default true where Web Locks are: https, localhost). */
  tabs?: boolean
  /** Keep publishes made offline, and send them when back (default false); see `Outbox`. */
  outbox?: boolean
  /** How long a request may take, ms (default 10,000). */
  timeout?: number
}

/**
 * What went wrong. `code` is one of these, or a plugin's own.
 *
 * Ours:
 *
 * - `timeout`: no answer in time; the server says it, too. Do: try again; a `publish` with
 *   `outcome: 'unknown'` with the same id, so give it one of yours if you mean to.
 * - `aborted`: your `signal` was. Do: nothing.
 * - `disconnected`: the connection broke after it was sent, and it may not be sent twice. Do: find out
 *   whether it happened, then send it again.
 * - `closed`: the client is closed. Do: what the `reason` of its status asks for; what is in the outbox
 *   stays there, but at sign-out.
 * - `state`: `getState` threw, and is called again later. Do: nothing for a moment; if it lasts, mend what
 *   it asks.
 * - `outbox_full`: 200 publishes or 1 MiB wait already; this one was not kept. Do: tell the user, who may
 *   send or discard some.
 * - `discarded`: `discard()` was called for it, in any tab. Do: nothing.
 *
 * The server's:
 *
 * - `invalid_message`: the message is wrong. Do: mend it; `field` or `detail` says what.
 * - `unknown_type`: no plugin of the server has this type. Do: mend the name, or install the plugin.
 * - `invalid_request`: an HTTP request is wrong. Do: mend it.
 * - `invalid_activity`: the activity is wrong. Do: mend its `field`.
 * - `invalid_id`: an id is none. Do: mend it; `field` says which, `detail` why.
 * - `token_invalid`: the token is none. Do: nothing, `getToken` is asked; if it stays so, see
 *   `session_ended`.
 * - `token_expired`: the token is too old. Do: nothing, `getToken` is asked; if it stays so, it caches.
 * - `token_revoked`: the token is void. Do: nothing, `getToken` is asked; if it stays so, the user has to
 *   sign in again.
 * - `forbidden`: the token or the app does not grant this. Do: tell the user; a subscription has ended. If
 *   they should have it: the claims `povs` and `can`, the app's authoriser, `auth.default_povs`.
 * - `not_found`: nothing is there; of the outbox: it was sent or discarded meanwhile. Do: nothing.
 * - `method_not_allowed`: of HTTP. Do: mend the request.
 * - `id_conflict`: another activity has this id. Do: use a new one.
 * - `retracted`: the activity was retracted, and cannot be changed any more. Do: show that it is gone.
 * - `epoch_changed`: the log was replaced. Do: nothing, what it spoke of is gone; the subscription has
 *   the new position.
 * - `position_lost`: of HTTP, of a stream. Do: nothing; the SDK reads none.
 * - `too_large`: too many bytes. Do: send less.
 * - `limit_exceeded`: a bound of the user or connection is reached. Do: subscribe to less, close others;
 *   subscriptions are tried again.
 * - `rate_limited`: too much in too short a time. Do: try again after `retryAfter`; subscriptions, the outbox
 *   and all requests but `publish`, `amend` and `retract` do, where that is within their `timeout`.
 * - `internal`: the server failed. Do: give its operator the `incident`.
 * - `unavailable`: a part of the server is not there now. Do: try again after `retryAfter`; subscriptions
 *   and the outbox do.
 */
export interface Failure {
  /** Stable, for programs. */
  code: string
  /** For people who develop; it may change. */
  message: string
  /** The path of what is wrong in what was sent, such as `data.povId`. */
  field?: string
  /** More of what is wrong. */
  detail?: string
  /** Seconds after which it may be tried again. */
  retryAfter?: number
  /** Names the failure in the server's log. */
  incident?: string
  /** `unknown`: it may have happened all the same. */
  outcome?: string
}

/** How one request is to be done. */
export interface RequestOptions {
  /** Gives it up; what was sent may happen all the same. */
  signal?: AbortSignal
  /** How long it may take, ms, waiting for a connection included; default that of the client. */
  timeout?: number
}

/** What is missing between two positions: nothing of it will come by itself. */
export interface Gap {
  /** Of which PoV, or `*`. */
  povId: string
  /** The last position that was had; absent where the subscription began with it. */
  from?: Position
  /** The position from which everything comes. */
  to: Position
  /** How many are missing, where the server knows. */
  missed?: number
  /** What it was, in numbers ("214 updates by 6 people"), where the server knows; never of `*`. */
  digest?: wire.Digest
}

/** Which activities are wanted; lists that are absent leave nothing out. */
export type Only = wire.Only

/** How a PoV is followed. */
export interface SubscribeOptions<S = unknown> {
  /**
   * From where: a position, the device's cursor, the last n (at most 1,000), or from now on (absent).
   * It counts at first; after a drop the subscription goes on from its own position.
   */
  since?: Position | 'cursor' | {last: number}
  /** Leave out what does not fit. Positions then have holes that are no loss. */
  only?: Only
  /** Have the server remember it for the user: they then count as following the PoV when away. */
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
  /** Which log it is in. */
  epoch: string
  /** Its place there. */
  offset: number
  /** As the server stored it. */
  activity: wire.Activity
}

/** What a subscription tells. */
export interface SubscriptionEvents<S = unknown> {
  /** One activity, in order, never twice. */
  activity: Placed
  /** What `getState` answered. It replaces all that was known before. */
  state: S
  /** Something is missing: show it, and load it (`history`) or the app's state (`getState` is called again). */
  gap: Gap
  /** The server's answer to each (re)subscription. */
  subscribed: wire.Result & {epoch: string; offset: number}
  /** How far it has come where nothing was sent, of what is filtered; or the log has another epoch now. */
  position: Position
  /** It `ended` (`forbidden`, ...) and is not tried again; else trying again failed for now. */
  error: Failure & {ended: boolean}
}

/** One subscriber of one PoV (or of the team feed `*`). Several of one PoV share what is sent. */
export interface Subscription<S = unknown> {
  /** The PoV, or `*`. */
  readonly povId: string
  /** Up to where its events were given: what to keep, and give as `since` next time. */
  readonly position: Position | undefined
  /** `joining` until the server answered, also after a drop; `ended` is for good. */
  readonly state: 'joining' | 'catching-up' | 'live' | 'ended'
  /** Call `listener` at each event; returns what ends that. */
  on<E extends keyof SubscriptionEvents<S>>(event: E, listener: (value: SubscriptionEvents<S>[E]) => void): () => void
  /** Resolves at the first answer, or rejects if it ended before one. */
  readonly ready: Promise<void>
  /** End it; nothing is told after it. */
  close(): void
}

/** What a client tells. */
export interface ClientEvents {
  /** The state, its reason or the time of the next attempt changed. */
  status: Status
  /** Who one is, at each (re)connection. */
  welcome: wire.Welcome
  /** The token's end is near, or it was renewed. */
  token: {expiresAt: string; renewed: boolean}
  /** Every message that no request waited for, those of plugins too. */
  message: Incoming
  /** How many publishes wait, and which of them need the user (see `outbox`). */
  pending: readonly Pending[]
  /** Signed out, here or in another tab: empty what is shown; stored copies are being deleted. */
  signedOut: void
}

/** A publish that waits in the outbox. */
export interface Pending {
  /** The activity's id. */
  id: string
  /** What is to be published. */
  activity: wire.NewActivity
  /** When it was made, ms since 1970. */
  at: number
  /**
   * `waiting` for the connection; `stale`: older than the server remembers ids (24 h), so that
   * sending it might be sending it twice: `resend` or `discard` it; `failed`: the server refused it.
   */
  state: 'waiting' | 'stale' | 'failed'
  /** Why it was refused. */
  failure?: Failure
}

/** What waits to be sent, of this user in this browser; see `Client.outbox()`. */
export interface Outbox {
  /** All of them, in the order in which they are sent. */
  readonly pending: readonly Pending[]
  /** Send one that is stale or failed; with the same id, so that the server can tell a retry. */
  resend(id: string): Promise<void>
  /** Forget one. Its `publish` rejects with `discarded`. */
  discard(id: string): Promise<void>
}

/** What `connect` returns. */
export interface Client {
  /** The state now. */
  readonly status: Status
  /** What the server said of the connection that is or last was. */
  readonly welcome: wire.Welcome | undefined
  /** Who the token is for; undefined until a token or `options.user` said it. */
  readonly user: string | undefined
  /** What waits in the outbox, as far as is known; none without one. See the event `pending`. */
  readonly pending: readonly Pending[]
  /** Names what is stored in this browser of the user; resolves as soon as `user` is known, rejects if
   * the client is closed before. */
  readonly scope: Promise<string>
  /** Call `listener` at each event; returns what ends that. */
  on<E extends keyof ClientEvents>(event: E, listener: (value: ClientEvents[E]) => void): () => void
  /** Follow a PoV, or the team feed `*`, over all drops, until it is closed or refused. */
  subscribe<S = unknown>(povId: string, options?: SubscribeOptions<S>): Subscription<S>
  /**
   * Send any message, and wait for its answer (typed for the built-in ones). Without a connection it
   * waits for one. What was sent when the connection broke is sent again if that does no harm (all
   * built-in requests but `subscribe`, `resume`, `refresh`; an `amend` or `retract` is given a `changeId`
   * for it where it has none); else it rejects with `disconnected` and `outcome: 'unknown'`. Rejects with a
   * `PovError`, an `Error` that is a `Failure`.
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
  publish<Type extends string, Action extends string>(
    activity: NewActivity<Type, Action>, options?: RequestOptions,
  ): Promise<wire.Published>
  /** What waits to be sent. */
  outbox(): Promise<Outbox>
  /** Try now, where an attempt is waited for; else see whether the connection is good. */
  retry(): void
  /** Give the connection up until `resume()`. */
  suspend(): void
  /** Connect again, and recover what was missed. */
  resume(): void
  /** End it for good, in this tab. */
  close(): void
  /** Close in this tab and all that share its socket, and wipe what is stored here of the user. */
  signOut(): Promise<void>
}

// ---- the store -------------------------------------------------------------------------------

/** What `createFeed` takes beside the client and the PoVs. */
export interface FeedOptions {
  /** How many of a PoV are loaded at first (default 50) and by `loadEarlier`. */
  page?: number
  /** How many rows are kept in memory, the oldest go first (default 1,000; 0 keeps all). */
  limit?: number
  /** Leave out what does not fit. */
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
  /** Of which PoV. */
  readonly povId: string
  /** Which log it is in. */
  readonly epoch: string
  /** Its place there. */
  readonly offset: number
  /** As it is now: `amended` or `retracted`, if it was changed. What tells of a change is no row. */
  readonly activity: wire.Activity
  /** ms since 1970: the server's `at`, never earlier than that of the row before it on the PoV. */
  readonly at: number
  /** `new` until it was on a screen (`seen`), then `seen` until it is `read`; on all the user's devices. */
  readonly state: 'new' | 'seen' | 'read'
  /** Done by the signed-in user: never new or unread. */
  readonly own: boolean
}

/** Rows of one person, type, action and PoV close together; newest first. */
export interface Group {
  /** Unique and stable. */
  readonly key: string
  /** At least one. */
  readonly rows: readonly Row[]
  /** `new` if one of them is, else `seen` if one is. */
  readonly state: 'new' | 'seen' | 'read'
}

/** A gap between rows, which is shown where it is. */
export interface FeedGap extends Gap {
  /** `open`: `load(gap)` fetches it; `loading`; `gone`: the log has no longer (some of) it. */
  readonly state: 'open' | 'loading' | 'gone'
}

/** One PoV of a feed. */
export interface PovState {
  /** The PoV. */
  readonly povId: string
  /** Up to where its rows are there. */
  readonly position: Position | undefined
  /** As of `Subscription`. */
  readonly state: 'joining' | 'catching-up' | 'live' | 'ended'
  /** Why it ended, or why it is not there now. */
  readonly failure?: Failure
  /** Counted by the server, moved on here; groups count their rows. */
  readonly unread: number
  /** How many are new: those that were on no screen yet. */
  readonly unseen: number
  /** Up to where the user has read. */
  readonly readOffset: number
  /** Up to where the user has seen. */
  readonly seenOffset: number
  /** Everything from here on is unread, whatever was read (see `markUnread`). */
  readonly unreadFrom?: number
  /** No gap is known from this time on, ms since 1970; undefined before the first answer. */
  readonly completeSince?: number
  /** Whether the log has more before the oldest row. */
  readonly hasEarlier: boolean
  /** Who is there, each once however many tabs and devices. */
  readonly present: readonly wire.User[]
  /** Who writes. */
  readonly typing: readonly wire.Typist[]
  /** By user, up to where they have read. */
  readonly receipts: ReadonlyMap<string, number>
  /** How the user wants to be told: `off`, `feed`, `toast`, `sound`, each with what is left of it. */
  readonly level: wire.Level
  /** Until when `level` holds, RFC 3339; absent: for good. */
  readonly mutedUntil?: string
}

/** All there is to see. A new object whenever, and only when, something changed. */
export interface Snapshot {
  /** The client's status. */
  readonly connection: Status
  /** Newest first; per PoV in the log's order, between PoVs by time. */
  readonly rows: readonly Row[]
  /** The same rows, those together that belong together. */
  readonly groups: readonly Group[]
  /** Of all PoVs. */
  readonly unread: number
  /** Of all PoVs. */
  readonly unseen: number
  /** By id. */
  readonly povs: ReadonlyMap<string, PovState>
  /** What is missing between the rows. */
  readonly gaps: readonly FeedGap[]
  /** What waits in the outbox. */
  readonly pending: readonly Pending[]
  /** Whether rows survive a reload, and why not: switched `off`, `denied` by the browser, disk `full`. */
  readonly storage: 'loading' | 'stored' | 'off' | 'denied' | 'full'
}

/** A list of what happened on some PoVs, for any view: `subscribe` and `getSnapshot` need no `this`. */
export interface Feed {
  /** Call `listener` after each change, and once for activities that come within 16 ms; returns what ends it. */
  subscribe(listener: () => void): () => void
  /** All there is to see now. */
  getSnapshot(): Snapshot
  /** Load the page before the oldest row of the PoV (of all where it is absent). */
  loadEarlier(povId?: string): Promise<void>
  /** Fetch what is missing, as far as the log has it. */
  load(gap: FeedGap): Promise<void>
  /** They were on the screen: seen (no longer new) for all of the user's devices. */
  seen(rows: readonly Row[]): void
  /** Read up to this row, or all. */
  read(row?: Row): Promise<void>
  /** Unread from this row on. */
  markUnread(row: Row): Promise<void>
  /** How the user wants to be told of a PoV, on all devices, for good or until then. */
  mute(povId: string, level: wire.Level, until?: Date): Promise<void>
  /** Say that the user writes (repeat while they do), or has stopped. */
  typing(povId: string, active: boolean, where?: string): void
  /** Stop following; what is stored stays, for next time. */
  close(): void
}
