/** A middleware for Express, Connect and all that calls them alike: an app's requests become activities. */
import type {NewActivity} from '../wire.js'
import {createPublisher, type Publisher, type PublisherOptions} from './publisher.js'
import {makeChooser, nameOf, type Choice} from './rules.js'
import {readTraceparent} from './trace.js'

type Answered = unknown | Promise<unknown>

export interface TrackerOptions extends PublisherOptions, Choice {
  /** Who did a request, asked when it was answered: an id, or an object that has one. `request.user` unless said otherwise. */
  actor?: (request: any) => Answered
  /** On which PoV it was, where the path does not say it. */
  pov?: (request: any) => Answered
  /** Whether activities have their requests' trace context in their details, as `traceparent`; true by default. */
  trace?: boolean
}

/** What is used of a request; Express has all of it. */
export interface TrackedRequest {
  method?: string
  url?: string
}

/** What is used of a response. */
export interface TrackedResponse {
  statusCode: number
  headersSent: boolean
  once(event: 'close', listener: () => void): unknown
}

export interface ActivityTracker {
  (request: TrackedRequest, response: TrackedResponse, next: (error?: any) => void): void
  /** What sends the activities, and counts them. */
  readonly publisher: Publisher
  /** Send what waits; answers whether all is sent. */
  flush(timeout?: number): Promise<boolean>
  /** Send what waits, a second at most, and stop: for when the app ends. */
  close(timeout?: number): Promise<void>
}

/**
 * Watch an app's requests: `app.use(activityTracker({url, token, rules}))`, before the routes.
 *
 * A response is never delayed and never fails because of it. It is best effort, and counted: what cannot be sent
 * in time is dropped, and reported once a minute. Throws for options that could never make an activity.
 */
export function activityTracker(options: TrackerOptions): ActivityTracker {
  const {actor = request => request.user, pov, trace = true} = options
  const chooser = makeChooser(options, Boolean(pov))
  const publisher = createPublisher(options)

  async function answered(request: any, method: string, path: string, status: number, begun: number): Promise<void> {
    const candidate = chooser.pick(method, path, status)
    if (!candidate) return
    const user = nameOf(await actor(request))
    const povId = pov && !('pov_id' in candidate.parts) ? await pov(request) : undefined
    const params: [string, unknown][] = Object.entries(request.params ?? {})
    const activity = chooser.make(candidate, {
      method, path, status, request, user,
      durationMs: performance.now() - begun,
      pathArguments: Object.fromEntries(params.map(([name, value]) => [name, String(value)])),
      pov: povId === undefined || povId === null ? undefined : String(povId),
      traceparent: trace ? readTraceparent(request.headers?.traceparent) : undefined,
    })
    if (activity) offer(activity)
  }

  function offer(activity: NewActivity): void {
    publisher.publish(activity).catch(() => {}) // the publisher has counted and reported it
  }

  const fail = (error: unknown) => publisher.drop(`a request was not tracked: ${String(error)}`)

  function track(request: TrackedRequest, response: TrackedResponse, next: (error?: any) => void): void {
    try {
      const {method = '', url = ''} = request
      const path = pathOf(url)
      const begun = performance.now()
      if (chooser.watches(method, path)) {
        // Closed is a response that was sent, and one whose client has gone before its end.
        response.once('close', () => {
          if (response.headersSent) answered(request, method, path, response.statusCode, begun).catch(fail)
        })
      }
    } catch (error) {
      fail(error)
    }
    next()
  }

  return Object.assign(track, {publisher, flush: publisher.flush, close: publisher.close})
}

/** The path below where the middleware is mounted, percent-encoded as it came, without the query. */
function pathOf(url: string): string {
  const path = url.replace(/[?#].*$/s, '')
  return path.startsWith('/') ? path : new URL(path, 'http://localhost').pathname
}
