/**
 * All messages of the socket: made by `pov-rt schema typescript`, which knows those of your own
 * plugins, too (`--plugins-dir`). Change nothing here.
 *
 * A field that may be absent is optional. Servers may add fields and types: ignore what is unknown.
 * `id` is the sender's own, and comes back with the answer.
 */

/** What `level` may be. */
export type Level = 'feed' | 'off' | 'sound' | 'toast'

/** What `reason` may be. */
export type Reason = 'closed' | 'digest' | 'feed' | 'filtered' | 'hidden' | 'muted' | 'own' | 'quiet'

/** What `state` may be. */
export type State = 'active' | 'away'

/** What `then` may be. */
export type Then = 'feed' | 'off' | 'sound' | 'toast'

/**
 * Say that this device has a PoV, or with `inbox` its user's inbox, up to `offset`.
 *
 * A client that says the `epoch` too learns when the log was replaced. `shown` says whether the
 * user was shown what is at `offset`, and `reason` why not.
 */
export interface Ack {
  type: 'ack'
  id?: string | number
  offset: number
  /** 1 to 128 characters. */
  povId?: string
  inbox?: boolean
  epoch?: string
  shown?: boolean
  reason?: Reason
}

/** Where the device's cursor is now (0: it has none); it never goes back. */
export interface Acked {
  type: 'acked'
  id?: string | number
  povId?: string
  inbox?: boolean
  epoch: string
  offset: number
}

/**
 * What happened on a PoV, as stored and pushed. `at` is the server's time (RFC 3339).
 *
 * One that was changed later is `amended`, with other `details`, or `retracted`, without any; so
 * is the activity that tells of the change, which says of which `original`. `by` is who changed
 * it, where that is not who did it, and `reason` what they said. What tells of an amendment has no
 * `details` where another one followed.
 */
export interface Activity {
  id: string
  type: string
  action: string
  povId: string
  userId: string
  at?: string
  /** At most 16384 bytes of JSON, and at most 32 levels of objects and lists, this being the first. */
  details?: Record<string, unknown>
  original?: Original
  amended?: boolean
  retracted?: boolean
  by?: string
  reason?: string
}

/**
 * An activity on a PoV this connection is subscribed to; `offset` is its place in that log.
 *
 * `feed` is `*` when it comes from the team feed; `offset` is then the feed's.
 */
export interface ActivityMessage {
  type: 'activity'
  id?: string | number
  data: Activity
  offset: number
  feed?: string
}

/**
 * Give an activity other `details`; all else of it stays.
 *
 * `changeId` is the change's own id, for retries; `reason` is shown with it. With the grant
 * `operate` the activity may be anybody's, and `offset` says where it is, if it is old.
 */
export interface Amend {
  type: 'amend'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  /** 1 to 128 characters. */
  activityId: string
  /** At most 16384 bytes of JSON, and at most 32 levels of objects and lists, this being the first. */
  details: Record<string, unknown>
  /** 1 to 128 characters. */
  changeId?: string
  /** 1 to 200 characters. */
  reason?: string
  offset?: number
}

/** How many activities one user caused. */
export interface Author {
  userId: string
  count: number
}

/** The change is durable: the activity `changeId` at this place tells of it. */
export interface Changed {
  type: 'changed'
  id?: string | number
  povId: string
  activityId: string
  changeId: string
  epoch: string
  offset: number
  duplicate: boolean
}

/** The server is about to close this socket; come back after `retryAfter` seconds if given. */
export interface Closing {
  type: 'closing'
  id?: string | number
  code: number
  reason: string
  retryAfter?: number
}

/**
 * Of the activities that were missed `counted` are still there, by `people` different users.
 *
 * `activities` and `users` name the 20 most frequent, the most frequent first. At most the newest
 * 10,000 are counted.
 */
export interface Digest {
  counted: number
  people: number
  activities: Sort[]
  users: Author[]
}

/** Something was wrong with a request; `code` is stable, `message` is for people. */
export interface ErrorMessage {
  type: 'error'
  id?: string | number
  message: string
  code: string
  field?: string
  detail?: string
  retryAfter?: number
  incident?: string
  outcome?: string
}

/**
 * What is promised of an acknowledged activity, and for how long.
 *
 * `survives` is `process`, `primary`, `second`, `disk` or `replicated` (docs/protocol.md), and may
 * be another one a moment later. It can be recovered while the PoV has had fewer
 * than `entries` newer ones, and for `seconds`.
 */
export interface Guarantee {
  survives: string
  entries: number
  seconds: number
}

/**
 * Ask for activities after an offset, the oldest first; or before one, the newest first.
 *
 * With neither, for the newest. `types`, `actions` and `users` leave out all others.
 */
export interface History {
  type: 'history'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  after?: number
  before?: number
  /** 1 to 1000. */
  limit?: number
  /** 1 to 20 items. */
  types?: string[]
  /** 1 to 20 items. */
  actions?: string[]
  /** 1 to 50 items. */
  users?: string[]
}

/**
 * The activities found, and the state of the log.
 *
 * `next` is what to send as `after` or `before` for what follows; without it there is no more.
 */
export interface HistoryPage {
  type: 'history_page'
  id?: string | number
  povId: string
  epoch: string
  offset: number
  oldestOffset: number
  activities: Item[]
  next?: number
}

/** The user has read the inbox up to `offset`, here or on another device. */
export interface InboxRead {
  type: 'inbox_read'
  id?: string | number
  epoch: string
  offset: number
}

/** An activity with its place in the PoV's log. */
export interface Item {
  data: Activity
  offset: number
}

/**
 * Up to where the user has read and seen a PoV, or with `inbox` the notifications.
 *
 * `unread` and `unseen` are what the log has behind that. With `unreadFrom` everything from there
 * on is unread, whatever was read.
 */
export interface MarksMessage {
  type: 'marks'
  id?: string | number
  povId?: string
  inbox?: boolean
  epoch: string
  readOffset: number
  seenOffset: number
  unreadFrom?: number
  unread: number
  unseen: number
}

/**
 * Say how loud a PoV, or with `*` the team feed, is for the user.
 *
 * For good, or until an instant (RFC 3339 with a time zone): then it is as it was for good before.
 * Without a `level` it is again as it was by default.
 */
export interface Mute {
  type: 'mute'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  level?: Level
  /** RFC 3339. */
  until?: string
}

/**
 * How loud the PoV is for the user from now on; without a `level`: as by default.
 *
 * `then` is the level after `until`; absent: as by default.
 */
export interface Muted {
  type: 'muted'
  id?: string | number
  povId: string
  level?: Level
  until?: string
  then?: Then
}

/** Ask for all that is not as by default. */
export interface Mutes {
  type: 'mutes'
  id?: string | number
}

/** All PoVs that are not as by default, also those that the user may not see now. */
export interface MutesSent {
  type: 'mutes'
  id?: string | number
  mutes: Muting[]
}

/** How loud one PoV is. */
export interface Muting {
  povId: string
  level: Level
  until?: string
  then?: Then
}

/**
 * An activity as a publisher sends it; the server adds what is missing.
 *
 * `id` identifies it for retries; the server makes one when absent. `userId` is who did it; the
 * token's user when absent (over a socket always the token's user).
 */
export interface NewActivity {
  /** 1 to 128 characters. */
  id?: string
  /** 1 to 64 characters. */
  type: string
  /** 1 to 64 characters. */
  action: string
  /** 1 to 128 characters. */
  povId: string
  /** 1 to 128 characters. */
  userId?: string
  /** At most 16384 bytes of JSON, and at most 32 levels of objects and lists, this being the first. */
  details?: Record<string, unknown>
}

/** A message to one user, as stored and pushed. `at` is the server's time (RFC 3339). */
export interface Notification {
  id: string
  type: string
  at?: string
  povId?: string
  userId?: string
  expiresAt?: string
  /** At most 16384 bytes of JSON, and at most 32 levels of objects and lists, this being the first. */
  details?: Record<string, unknown>
}

/** A notification of the user's own inbox; `offset` is its place there. */
export interface NotificationMessage {
  type: 'notification'
  id?: string | number
  data: Notification
  offset: number
}

/** Of which types, actions and users activities are wanted; those of `notUsers` never are. */
export interface Only {
  /** 1 to 50 items. */
  types?: string[]
  /** 1 to 50 items. */
  actions?: string[]
  /** 1 to 50 items. */
  users?: string[]
  /** 1 to 50 items. */
  notUsers?: string[]
}

/** Which activity a change is about: its id, and its place in the PoV's log. */
export interface Original {
  id: string
  offset: number
}

/** Ask for a sign of life. */
export interface Ping {
  type: 'ping'
  id?: string | number
}

/** After which position (`epoch`, `offset`), or how many of the `last` entries, is wanted. */
export interface Place {
  /** 1 to 64 characters. */
  epoch?: string
  offset?: number
  /** 1 to 1000. */
  last?: number
}

/** The sign of life; a client's own is accepted without an answer. */
export interface Pong {
  type: 'pong'
  id?: string | number
}

/**
 * How far a subscription has come where not all is sent, as with a filter.
 *
 * With an `epoch`: the log has this one from here on, and holds all that was sent up to `offset`.
 */
export interface PositionMessage {
  type: 'position'
  id?: string | number
  povId: string
  epoch?: string
  offset: number
}

/** Ask who is on a PoV, and be told of changes from then on; `state` sets one's own. */
export interface Presence {
  type: 'presence'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  state?: State
}

/** Who came, who left (their ids), and whose devices or state changed. */
export interface PresenceDiff {
  type: 'presence_diff'
  id?: string | number
  povId: string
  joined: User[]
  left: string[]
  changed: User[]
}

/** Who is on the PoV; `more` are there that are not named. */
export interface Present {
  type: 'present'
  id?: string | number
  povId: string
  users: User[]
  more: number
}

/**
 * Publish an activity in the connected user's name; a `userId` in it has no effect.
 *
 * With `echo` false a subscribed sender does not get its activity back: the answer stands in for
 * it, in its place in the stream.
 */
export interface Publish {
  type: 'publish'
  id?: string | number
  data: NewActivity
  echo?: boolean
}

/** The activity is durable at this place; `duplicate`: its id was published before. */
export interface Published {
  type: 'published'
  id?: string | number
  activityId: string
  povId: string
  epoch: string
  offset: number
  duplicate: boolean
}

/**
 * The user has read a PoV, or with `inbox` the notifications, up to `offset`.
 *
 * Others are told of those who may collaborate on the PoV.
 */
export interface Read {
  type: 'read'
  id?: string | number
  offset: number
  /** 1 to 128 characters. */
  povId?: string
  inbox?: boolean
  epoch?: string
}

/** Up to where users have read the PoV, those who went on since the last message. */
export interface Receipts {
  type: 'receipts'
  id?: string | number
  povId: string
  read: Record<string, number>
}

/** Go on with this token, the same user's and newer than the one in use. */
export interface Refresh {
  type: 'refresh'
  id?: string | number
  /** 1 to 16384 characters. */
  token: string
}

/**
 * The socket lives until `expiresAt` (RFC 3339).
 *
 * `lost` are the PoVs that the new token does not let it be subscribed to; it no longer is.
 */
export interface Refreshed {
  type: 'refreshed'
  id?: string | number
  expiresAt: string
  lost: string[]
}

/** What became of one subscription: where it begins, or an error. */
export interface Result {
  povId: string
  epoch?: string
  offset?: number
  oldestOffset?: number
  guarantee?: Guarantee
  filtered?: boolean
  readOffset?: number
  seenOffset?: number
  unreadFrom?: number
  unread?: number
  unseen?: number
  recovered?: boolean
  after?: number
  missed?: number
  digest?: Digest
  code?: string
  message?: string
}

/** Subscribe to all that the user subscribed to durably, from this device's cursors. */
export interface Resume {
  type: 'resume'
  id?: string | number
}

/** Withdraw an activity: its `details` are gone for good; the fields are those of `amend`. */
export interface Retract {
  type: 'retract'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  /** 1 to 128 characters. */
  activityId: string
  /** 1 to 128 characters. */
  changeId?: string
  /** 1 to 200 characters. */
  reason?: string
  offset?: number
}

/**
 * The user has had a PoV, or with `inbox` the notifications, on the screen up to `offset`.
 *
 * What was read was seen, too. With the offset 0 it asks for the marks alone.
 */
export interface Seen {
  type: 'seen'
  id?: string | number
  offset: number
  /** 1 to 128 characters. */
  povId?: string
  inbox?: boolean
  epoch?: string
}

/** How often one sort of activity occurred. */
export interface Sort {
  type: string
  action: string
  count: number
}

/**
 * Subscribe to one PoV (`povId`, or `*` for the team feed) or to several (`povIds`).
 *
 * `since` says from where: a position, `"cursor"` for where this device acknowledged, or
 * `{last: n}`; `positions` does so for each of several. `only` leaves out what it does not name.
 * `durable` remembers the subscription, with its filter.
 */
export interface Subscribe {
  type: 'subscribe'
  id?: string | number
  /** 1 to 128 characters. */
  povId?: string
  /** 1 to 200 items. */
  povIds?: string[]
  since?: 'cursor' | Place
  positions?: Record<string, Place>
  only?: Only
  durable?: boolean
}

/**
 * The subscription stands. Everything after `offset` follows, or after `after` if `recovered`.
 *
 * Of what is `filtered` not all is sent; a `position` says now and then how far it has come. Of
 * what was `missed` and is not recovered, the `digest` says how much it was.
 */
export interface Subscribed {
  type: 'subscribed'
  id?: string | number
  povId?: string
  epoch?: string
  offset?: number
  oldestOffset?: number
  guarantee?: Guarantee
  filtered?: boolean
  readOffset?: number
  seenOffset?: number
  unreadFrom?: number
  unread?: number
  unseen?: number
  recovered?: boolean
  after?: number
  missed?: number
  digest?: Digest
  povIds?: string[]
  results?: Result[]
}

/** The token expires at `expiresAt` (RFC 3339); get a new one now. */
export interface TokenExpiring {
  type: 'token_expiring'
  id?: string | number
  expiresAt: string
}

/** Say that one is typing, and where; repeat it every few seconds. `active: false`: stopped. */
export interface Typing {
  type: 'typing'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  active: boolean
  /** 0 to 64 characters. */
  where?: string
}

/** All who are typing on the PoV, oneself perhaps among them; `more` are not named. */
export interface TypingSent {
  type: 'typing'
  id?: string | number
  povId: string
  users: Typist[]
  more: number
}

/** A user who is typing. */
export interface Typist {
  userId: string
  where?: string
}

/**
 * Mark everything of a PoV from `offset` on as unread again, whatever was read.
 *
 * The last one counts. Behind what was read it takes the one before away.
 */
export interface Unread {
  type: 'unread'
  id?: string | number
  offset: number
  /** 1 to 128 characters. */
  povId: string
  epoch?: string
}

/**
 * Unsubscribe from a PoV, or with `*` from the team feed.
 *
 * With `durable` the user's other devices will not resume it either.
 */
export interface Unsubscribe {
  type: 'unsubscribe'
  id?: string | number
  /** 1 to 128 characters. */
  povId: string
  durable?: boolean
}

/**
 * The connection is not subscribed any more.
 *
 * The answer to `unsubscribe`, whether it was or not. Without being asked for it has a `code` and
 * a `message`: the user may not see the PoV now (`forbidden`), or nobody could say for too long.
 */
export interface Unsubscribed {
  type: 'unsubscribed'
  id?: string | number
  povId: string
  code?: string
  message?: string
}

/** A user on a PoV; `since` is RFC 3339. */
export interface User {
  userId: string
  devices: string[]
  since: string
  state: State
}

/**
 * The first message on a socket that was opened with the `pov-rt.v1` subprotocol.
 *
 * `expiresAt` is the token's expiry (RFC 3339); `pingInterval` is in seconds.
 */
export interface Welcome {
  type: 'welcome'
  id?: string | number
  connectionId: string
  userId: string
  device: string
  expiresAt: string
  pingInterval: number
  version: string
}

/**
 * What `details` is, by type and action, as plugins and settings of the server declare it; `task.*` is every
 * action of `task` that is not named. What was published before that may be otherwise.
 */
export interface ActivityDetails {}

/** What `details` is, of a type and action. */
export type DetailsOf<Type extends string, Action extends string, All = ActivityDetails> =
  `${Type}.${Action}` extends keyof All ? All[`${Type}.${Action}`]
  : `${Type}.*` extends keyof All ? All[`${Type}.*`]
  : Record<string, unknown>

/** An activity of a type and action, with its `details` as declared. */
export type ActivityOf<Type extends string, Action extends string, All = ActivityDetails> =
  Activity & {type: Type; action: Action} & WithDetails<DetailsOf<Type, Action, All>>

/** The same as it is published. */
export type NewActivityOf<Type extends string, Action extends string, All = ActivityDetails> =
  Omit<NewActivity, 'type' | 'action' | 'details'> & {type: Type; action: Action}
  & WithDetails<DetailsOf<Type, Action, All>>

type WithDetails<Details> = {} extends Details ? {details?: Details} : {details: Details}

/** All that a server sends. */
export type ServerMessage =
  | Acked | ActivityMessage | Changed | Closing | ErrorMessage | HistoryPage | InboxRead | MarksMessage
  | Muted | MutesSent | NotificationMessage | Pong | PositionMessage | PresenceDiff | Present | Published
  | Receipts | Refreshed | Subscribed | TokenExpiring | TypingSent | Unsubscribed | Welcome

/** All that a server takes. */
export type ClientMessage =
  | Ack | Amend | History | Mute | Mutes | Ping | Pong | Presence | Publish | Read | Refresh | Resume
  | Retract | Seen | Subscribe | Typing | Unread | Unsubscribe

/** What is answered. */
export interface Requests {
  ack: Ack
  amend: Amend
  history: History
  mute: Mute
  mutes: Mutes
  ping: Ping
  presence: Presence
  publish: Publish
  read: Read
  refresh: Refresh
  resume: Resume
  retract: Retract
  seen: Seen
  subscribe: Subscribe
  unread: Unread
  unsubscribe: Unsubscribe
}

/** What the answer is, where it is no `error`. */
export interface Answers {
  ack: Acked
  amend: Changed
  history: HistoryPage
  mute: Muted
  mutes: MutesSent
  ping: Pong
  presence: Present
  publish: Published
  read: InboxRead | Receipts
  refresh: Refreshed
  resume: Subscribed
  retract: Changed
  seen: MarksMessage
  subscribe: Subscribed
  unread: MarksMessage
  unsubscribe: Unsubscribed
}

/** The codes of the server's own errors; plugins have others. */
export type ErrorCode =
  | 'invalid_message' | 'unknown_type' | 'invalid_request' | 'invalid_activity' | 'invalid_id'
  | 'token_invalid' | 'token_expired' | 'token_revoked' | 'forbidden' | 'not_found' | 'method_not_allowed'
  | 'id_conflict' | 'retracted' | 'epoch_changed' | 'position_lost' | 'too_large' | 'limit_exceeded'
  | 'rate_limited' | 'timeout' | 'unavailable' | 'internal'

/** Why a socket was closed. From 4000 to 4499: come back; from 4500 on: do not. */
export type CloseCode =
  | 1000 | 1002 | 1007 | 1009 | 1011 | 4000 | 4001 | 4002 | 4003 | 4004 | 4005 | 4500 | 4501
