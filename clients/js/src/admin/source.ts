/** What the server says, asked for again and again as long as somebody looks; and what it is told to do. */

/** `GET /api/node`: the node in numbers. */
export interface NodeState {
  readonly node: string
  readonly version: string
  readonly operator: string
  readonly since: string
  readonly notReady: string | null
  readonly actions: boolean
  readonly connections: number
  readonly users: number
  readonly behind: number
  readonly published: number
  readonly delivered: number
  readonly unsentBytes: number
  readonly unsentS: number
  readonly lagS: number
  readonly deliveryS: readonly [half: number, most: number] | null
  readonly refused: Readonly<Record<string, number>>
  readonly off: Readonly<Record<string, string>>
}

/** The numbers at an instant; those that only rise count since the node began. */
export interface NodeSample {
  readonly at: string
  readonly connections: number
  readonly behind: number
  readonly lagS: number
  readonly published: number
  readonly delivered: number
  readonly refused: number
}

/** `GET /api/node/hour`: what the numbers were, oldest first. */
export interface NodeHour {
  readonly node: string
  readonly samples: readonly NodeSample[]
  readonly refusedBefore: Readonly<Record<string, number>>
}

/** What was just published, one of `GET /api/node/activities`, and how many connections it went to. */
export interface Happened {
  readonly at: string
  readonly povId: string
  readonly id: string
  readonly type: string
  readonly action: string
  readonly userId: string
  readonly to: number
}

export interface ConnectionRow {
  readonly node: string
  readonly connectionId: string
  readonly userId: string
  readonly device: string
  readonly transport: string
  readonly povs: readonly string[]
  readonly remoteIp: string
  readonly ageS: number
  readonly sentBytes: number
  readonly unsentBytes: number
  readonly lag: number
  readonly bytesPerS: number | null
  readonly cost: number
  readonly tokenExpiresAt: string
}

export interface UserRow {
  readonly node: string
  readonly userId: string
  readonly connections: number
  readonly devices: readonly string[]
  readonly unsentBytes: number
  readonly lag: number
  readonly bytesPerS: number | null
  readonly cost: number
  readonly lastSeen: string | null
  readonly blockedUntil: string | null
}

export interface PovRow {
  readonly node: string
  readonly povId: string
  readonly subscribers: number
  readonly offset: number
  readonly behind: number
  readonly lag: number
  readonly unsentBytes: number
  readonly activitiesPerS: number | null
  readonly deliveriesPerS: number | null
}

export interface PluginRow {
  readonly node: string
  readonly name: string
  readonly origin: string
  readonly messages: number
  readonly messagesPerS: number | null
  readonly failures: number
  readonly off: string | null
}

export type List = 'connections' | 'users' | 'povs' | 'plugins'
export type Row = ConnectionRow | UserRow | PovRow | PluginRow

/** A node that did not answer the one that is asked; nothing of it is in the answer. */
export interface Missing {
  readonly node: string
  readonly host: string
  readonly why: string
}

/** A page of a list of all nodes; its rows are under the list's name. */
interface Page {
  readonly nodes: readonly string[]
  readonly missing: readonly Missing[]
  readonly total: number
  readonly more: number
  readonly next?: string
  readonly connections?: readonly ConnectionRow[]
  readonly users?: readonly UserRow[]
  readonly povs?: readonly PovRow[]
  readonly plugins?: readonly PluginRow[]
}

/** One station of an activity's way; `passed` is null where nobody knows. */
export interface Station {
  readonly name: string
  readonly passed: boolean | null
  readonly at?: string
  readonly text?: string
}

/** How far an activity came on its way to one device, and why not further. */
export interface Lane {
  readonly device: string
  readonly cause: string
  readonly answer: string
  readonly connectionId?: string
  readonly node: string
  readonly connected: boolean
  readonly stations: readonly Station[]
}

/** One thing that happened to a user, as the trace has it; what there is more depends on which. */
export interface Event {
  readonly at: string
  readonly event: string
  readonly [more: string]: unknown
}

/** `GET /api/activities/{id}/explain`: why a user did not get an activity, or that they did. */
export interface Explained {
  readonly node: string
  readonly missing: readonly Missing[]
  readonly id: string
  readonly userId: string
  readonly cause: string
  readonly answer: string
  readonly since?: string
  readonly next: string
  readonly delivered: boolean
  readonly activity?: {
    readonly povId?: string
    readonly offset: number
    readonly type?: string
    readonly action?: string
    readonly userId?: string
    readonly publisher?: string
    readonly traceparent?: string
  }
  readonly lanes: readonly Lane[]
  readonly events: readonly Event[]
  readonly traceSince?: string
}

export interface Question {
  readonly activityId: string
  readonly userId: string
  /** Empty: the one that has such an activity. */
  readonly povId: string
  /** Empty: all of the user's. */
  readonly device: string
}

/** A question with what was answered, or why it was not; with neither it still is asked. */
export interface Asked {
  readonly question: Question
  readonly answer?: Explained
  readonly failed?: string
}

/** What somebody looks at; `pages` are the places where the turned pages began. */
export interface View {
  readonly list: List
  readonly sort: string
  readonly reverse: boolean
  readonly search: string
  /** Whose rows alone are shown; empty: everybody's. */
  readonly user: string
  readonly pages: readonly string[]
}

/** What the server said last, all of one look; `view` is what was asked for. */
export interface Look {
  readonly at: number
  readonly view: View
  readonly state: NodeState
  /** Whether rows are of several nodes, and of which there are none though they may have some. */
  readonly areSeveral: boolean
  readonly missing: readonly Missing[]
  readonly rows: readonly Row[]
  readonly total: number
  readonly next: string | undefined
  readonly behind: readonly ConnectionRow[]
  readonly blocked: readonly UserRow[]
  readonly blockedTotal: number
  readonly busiest: PovRow | undefined
  readonly happened: readonly Happened[]
}

/** The node's numbers at an instant, rates of the time since the one before. */
export interface Sample {
  readonly connections: number
  readonly activities: number
  readonly deliveries: number
  readonly behind: number
  readonly lagMs: number
  readonly refused: number
}

/** How often to look, ms. */
const EVERY = 2000
/** Rows of a page. */
export const ROWS = 50
/** How often to ask for what the numbers were, ms: the server has a new one as often. */
const HOUR_EVERY = 30_000
/** Users that are looked through for those whose name has a text in it, and named. */
const LOOKED_THROUGH = 50
const NAMED = 8
const KEPT = 'pov-rt-admin-token'

class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message)
  }
}

/** What to say of a request that failed. */
export const wordsOf = (error: unknown): string =>
  error instanceof Refused ? error.message : 'The server does not answer'

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((all, each) => all + each, 0)

/** The numbers of a look, as the node keeps them itself. */
const counted = (state: NodeState, at: number): NodeSample =>
  ({...state, at: new Date(at).toISOString(), refused: sum(state.refused)})

/** What changed between two samples of one node, a second. */
function rates(now: NodeSample, before: NodeSample): Sample {
  const seconds = Math.max(0.001, (Date.parse(now.at) - Date.parse(before.at)) / 1000)
  const rate = (name: 'published' | 'delivered' | 'refused') => Math.max(0, now[name] - before[name]) / seconds
  return {
    connections: now.connections, activities: rate('published'), deliveries: rate('delivered'),
    behind: now.behind, lagMs: now.lagS * 1000, refused: rate('refused'),
  }
}

/** What the server answers to a request; its words where it refuses. */
async function ask<T>(method: string, path: string, token: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = {Authorization: `Bearer ${token}`}
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  const answer = await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body)})
  const text = await answer.text()
  const found = text ? JSON.parse(text) as T & {error?: {message: string}} : undefined
  if (!answer.ok) throw new Refused(answer.status, found?.error?.message ?? `the server answers ${answer.status}`)
  return found as T
}

/** Owner: the page, which it tells of each change. The token stays in this tab, until it is closed or signed out. */
export class Source {
  token = sessionStorage.getItem(KEPT) ?? ''
  look: Look | undefined
  hour: NodeHour | undefined
  /** The rates of now, from the last two looks. */
  sample: Sample | undefined
  /** What was asked last of an activity. */
  asked: Asked | undefined
  /** Why there is nothing newer. */
  trouble = ''
  /** Why the token is of no use. */
  refused = ''
  private timer: ReturnType<typeof setTimeout> | undefined
  private turn = 0
  private hourAt = 0

  constructor(private readonly view: () => View, private readonly changed: () => void) {}

  start(): void {
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.now()
    })
    this.now()
  }

  signIn(token: string): void {
    this.token = token.trim().replace(/^bearer\s+/i, '')
    this.refused = ''
    this.now()
  }

  signOut(why = ''): void {
    sessionStorage.removeItem(KEPT)
    this.token = ''
    this.look = undefined
    this.asked = undefined
    this.hour = this.sample = undefined
    this.hourAt = 0
    this.refused = why
    this.trouble = ''
    this.turn++
    this.changed()
  }

  /** Look at once, and then again and again. */
  now(): void {
    clearTimeout(this.timer)
    if (this.token && !document.hidden) void this.once(++this.turn)
    else this.changed()
  }

  /** Have the server do something, then look. Throws its words. */
  async act(method: string, path: string, body?: unknown): Promise<void> {
    await ask(method, path, this.token, body)
    this.now()
  }

  /** Ask why somebody did not see something; `asked` has what came of it. */
  async explain(question: Question): Promise<void> {
    const asked = this.asked = {question}
    this.changed()
    const {activityId, userId, povId, device} = question
    const query = new URLSearchParams({userId, ...(povId ? {povId} : {}), ...(device ? {device} : {})})
    const path = `/api/activities/${encodeURIComponent(activityId)}/explain?${query}`
    const found = await ask<Explained>('GET', path, this.token)
      .then(answer => ({question, answer}), error => ({question, failed: wordsOf(error)}))
    if (this.asked !== asked) return // something else was asked by now, or somebody signed out
    this.asked = found
    this.changed()
  }

  /** Some users whose id has a text in it: who is here comes first. */
  async find(text: string): Promise<readonly string[]> {
    const query = new URLSearchParams({q: text, sort: 'connections', limit: String(LOOKED_THROUGH)})
    const {users = []} = await ask<Page>('GET', `/api/users?${query}`, this.token)
    const wanted = text.toLowerCase()
    // A user has a row for each node.
    const found = new Set(users.map(({userId}) => userId).filter(each => each.toLowerCase().includes(wanted)))
    return [...found].slice(0, NAMED)
  }

  /** What the numbers were in the last hour, and are now. */
  history(): readonly Sample[] {
    const samples = this.hour?.samples ?? []
    const were = samples.slice(1).map((sample, n) => rates(sample, samples[n]!))
    return this.sample ? [...were, this.sample] : were
  }

  private async once(turn: number): Promise<void> {
    const {token} = this
    const view = this.view()
    const query = new URLSearchParams({sort: `${view.reverse ? '-' : ''}${view.sort}`, limit: String(ROWS)})
    if (view.search) query.set('q', view.search)
    if (view.user) query.set('userId', view.user)
    const after = view.pages.at(-1)
    if (after) query.set('after', after)
    try {
      const isHourDue = Date.now() - this.hourAt >= HOUR_EVERY
      const state = await ask<NodeState>('GET', '/api/node', token)
      // Of one node: all know who is blocked.
      const ofOne = new URLSearchParams({state: 'blocked', limit: '4', node: state.node})
      const [page, behind, blocked, busiest, happened, hour] = await Promise.all([
        ask<Page>('GET', `/api/${view.list}?${query}`, token),
        ask<Page>('GET', '/api/connections?sort=lag&limit=4', token),
        ask<Page>('GET', `/api/users?${ofOne}`, token),
        ask<Page>('GET', '/api/povs?sort=rate&limit=1', token),
        ask<{activities: readonly Happened[]}>('GET', '/api/node/activities', token),
        isHourDue ? ask<NodeHour>('GET', '/api/node/hour', token) : this.hour,
      ])
      if (turn !== this.turn) return // somebody looks at something else by now
      const at = Date.now()
      if (isHourDue) this.hourAt = at
      this.hour = hour
      const {look} = this
      // Of a node that was started anew there is no rate yet.
      this.sample = look && look.state.since === state.since ? rates(counted(state, at), counted(look.state, look.at)) : undefined
      sessionStorage.setItem(KEPT, token)
      this.trouble = ''
      this.look = {
        at, view, state, areSeveral: page.nodes.length + page.missing.length > 1, missing: page.missing, rows: page[view.list] ?? [], total: page.total, next: page.next,
        behind: (behind.connections ?? []).filter(({lag}) => lag > 0),
        blocked: blocked.users ?? [], blockedTotal: blocked.total,
        busiest: busiest.povs?.[0], happened: happened.activities,
      }
    } catch (error) {
      if (turn !== this.turn) return
      const isToken = error instanceof Refused && (error.status === 401 || error.status === 403)
      if (isToken) return this.signOut(error.message)
      this.trouble = wordsOf(error)
    }
    this.changed()
    this.timer = setTimeout(() => this.now(), EVERY)
  }
}
