/** Which requests become activities, and what is said of them: the pure part of the tracker. */
import type {NewActivity} from '../wire.js'
import {withTrace} from './trace.js'

/**
 * A rule: `{method: 'POST', path: '/povs/{pov_id}/tasks/{task_id}/done', type: 'task', action: 'done'}`.
 *
 * `{pov_id}` is the PoV; the path's other parts become the activity's details. Requests that were answered
 * with another status than those of `statuses` (2xx and 303) do not count.
 */
export interface Rule {
  method: string
  path: string
  type: string
  action: string
  statuses?: readonly number[]
}

/**
 * What is known of a request once it is answered. No body, cookie or query value, and of the headers its trace
 * context alone.
 *
 * `path` is percent-encoded, as it came, below where the tracker is mounted; `pathArguments` are the route's
 * named parts; `user` is who the app says it was, `pov` where. `request` is the framework's own.
 */
export interface Facts {
  method: string
  path: string
  status: number
  durationMs: number
  pathArguments: Record<string, string>
  user: string | undefined
  pov: string | undefined
  request: any
  traceparent?: string | undefined
}

/** The options that say what becomes an activity; the same as those of the trackers for Python. */
export interface Choice {
  rules?: readonly Rule[]
  /** Patterns of paths that are none of the tracker's: health checks, metrics and static files unless said otherwise. */
  exclude?: readonly (RegExp | string)[]
  /** Of which requests may become activities: those that change something by default. */
  methods?: readonly string[]
  /** Of which answers count where no rule says it: 2xx and 303 by default. */
  statuses?: readonly number[]
  /** Which part of them is sent, by chance. */
  sampleRate?: number
  /** Asked about requests that no rule is for; what it answers is published. */
  describe?: (facts: Facts) => NewActivity | null | undefined
  /** Has the last word: answers the activity, another, or nothing. */
  beforeSend?: (activity: NewActivity) => NewActivity | null | undefined
  /** In whose name activities are published of which nobody is known who did them; without it they are dropped. */
  anonymous?: string
}

/** A request that is to become an activity: by a rule and the path's parts, or by `describe`. */
export interface Candidate {
  rule: Rule | undefined
  parts: Record<string, string>
}

export const EXCLUDED = /^\/(healthz|readyz|health|metrics|static|favicon\.ico)(\/|$)/
export const CHANGING = ['POST', 'PUT', 'PATCH', 'DELETE']

/** 303 leads from a form to its result; 302 also leads to the login page, so a rule has to name it. */
const isDone = (status: number) => (status >= 200 && status < 300) || status === 303
const counts = (statuses: readonly number[] | undefined, status: number) =>
  statuses ? statuses.includes(status) : isDone(status)

/** Decide which requests become activities. Throws for options that could never make one. */
export function makeChooser(
  {rules = [], exclude = [EXCLUDED], methods = CHANGING, statuses, sampleRate = 1, describe, beforeSend, anonymous}: Choice,
  hasPov: boolean,
) {
  for (const {method, path} of rules) {
    if (!hasPov && !path.includes('{pov_id}')) {
      throw new TypeError(`the rule for ${path} does not say where the {pov_id} is; write it into the path, or have pov say it`)
    }
    if (!methods.includes(method)) throw new TypeError(`the rule for ${method} ${path}: add it to methods`)
  }
  if (!(sampleRate >= 0 && sampleRate <= 1)) throw new TypeError(`sampleRate ${sampleRate} is not between 0 and 1`)
  const patterns = exclude.map(each => new RegExp(each))
  const compiled = rules.map(rule => ({rule, pattern: compile(rule.path)}))

  function watches(method: string, path: string): boolean {
    return methods.includes(method) && !patterns.some(each => path.search(each) >= 0)
  }

  /** What a request that was answered is to become, if anything. */
  function pick(method: string, path: string, status: number): Candidate | undefined {
    const found = compiled.find(each => each.rule.method === method && each.pattern.test(path))
    if (found ? !counts(found.rule.statuses, status) : !(describe && counts(statuses, status))) return
    // Sampled before anybody is asked: what is not sent need not be prepared.
    if (Math.random() >= sampleRate) return
    const parts = found ? found.pattern.exec(path)?.groups ?? {} : {}
    return {rule: found?.rule, parts: Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, decode(part)]))}
  }

  /** The activity, or nothing. What the app's functions throw comes out, and where nobody is known, or no PoV. */
  function make({rule, parts}: Candidate, facts: Facts): NewActivity | undefined {
    let activity = rule ? apply(rule, parts, facts) : describe!(facts)
    if (activity && !activity.userId && facts.user) activity = {...activity, userId: facts.user}
    if (activity) activity = withTrace(activity, facts.traceparent)
    if (activity && beforeSend) activity = beforeSend(activity)
    if (!activity || activity.userId) return activity ?? undefined
    if (anonymous) return {...activity, userId: anonymous}
    throw new Error('nobody is signed in: have actor say who does such requests, or name a user for them with anonymous')
  }

  return {watches, pick, make}
}

function apply({type, action}: Rule, {pov_id, ...details}: Record<string, string>, {pov, path}: Facts): NewActivity {
  const povId = pov_id ?? pov
  if (!povId) throw new Error(`pov does not say on which PoV ${path} was`)
  return {type, action, povId, ...(Object.keys(details).length ? {details} : {})}
}

/** A pattern of percent-encoded paths: decoded before, a '/' inside of a part would end it. */
function compile(path: string): RegExp {
  const literal = path.replace(/[.*+?^$()|[\]\\]/g, '\\$&')
  return new RegExp(`^${literal.replace(/\{(\w+)\}/g, '(?<$1>[^/]+)')}$`)
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part // no UTF-8: what it means nobody knows
  }
}

/** A user's id: itself, or its `userId`, `user_id`, `id` or `username`. */
export function nameOf(user: any): string | undefined {
  if (user === null || user === undefined || user === '') return
  if (typeof user !== 'object') return String(user)
  const found = user.userId ?? user.user_id ?? user.id ?? user.username
  return found === null || found === undefined ? undefined : String(found)
}
