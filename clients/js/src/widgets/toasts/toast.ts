/** What a toast is about, and what of an activity makes it one. */
import type {Pending, Row} from '../../api.js'

/** Why an activity was not shown: the words that `ack` knows. */
export type Unshown = 'own' | 'muted' | 'feed' | 'quiet' | 'filtered' | 'digest' | 'hidden'

/** What a toast is about. */
export interface Toast {
  readonly key: string
  readonly kind:
    | 'activity' | 'burst' | 'digest' | 'action' | 'unsent' | 'session' | 'offline' | 'restarting' | 'back' | 'muted'
    | 'ask' | 'failed'
  /** The newest first; of a burst the last two. */
  readonly rows: readonly Row[]
  /** How many activities it stands for. */
  readonly count: number
  /** Who did them, those of late first. */
  readonly users: readonly string[]
  /** On which PoVs. */
  readonly povs: readonly string[]
  /** Since when, or when it ends that it tells of, ms since 1970. */
  readonly at: number
  readonly pending?: Pending
  /** Whether it is an alert: read out at once. */
  readonly isAlert?: boolean
  /** How long it shows, ms; absent: until it is dismissed. */
  readonly duration?: number
}

/** What an app asks for with an activity: `details.actions`, `[{"label": "Open", "href": "/x"}]`, two at most. */
interface Action {
  readonly label: string
  readonly href?: string
}

/** Those of an activity, as far as they are well made. */
export function actionsOf({activity}: Row): Action[] {
  const given = activity.details?.actions
  return !Array.isArray(given) ? [] : (given as Partial<Action>[])
    .filter((each): each is Action => typeof each?.label === 'string' && ['string', 'undefined'].includes(typeof each.href))
    .slice(0, 2)
}

export {topicOf} from '../shown.js'

/** `type`, `type:action` or `:action`, divided by commas: any of them. */
export function filterOf(filter: string | undefined): (row: Row) => boolean {
  const all = (filter?.split(',') ?? []).map(each => each.split(':').map(part => part.trim())).filter(each => each.some(Boolean))
  return ({activity}) => !all.length ||
    all.some(([type, action]) => (!type || type === activity.type) && (!action || action === activity.action))
}
