/** Trace contexts (W3C Trace Context, Level 1): of which request in whatever system an activity came. */
import type {NewActivity} from '../wire.js'

const CONTEXT = /^((?!ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}/

/**
 * The trace context that a header `traceparent` has, if it is one: nothing is to be lost by a bad header.
 *
 * Of a version that is not known yet what the first version has is kept, and what may follow it is not.
 */
export function readTraceparent(value: unknown): string | undefined {
  if (typeof value !== 'string') return
  const found = CONTEXT.exec(value)
  if (!found) return
  const rest = value.slice(found[0].length)
  return rest && (found[1] === '00' || rest[0] !== '-') ? undefined : found[0]
}

/** An activity of a trace, in its details; what it says itself stays. */
export function withTrace(activity: NewActivity, traceparent: string | undefined): NewActivity {
  if (!traceparent || 'traceparent' in (activity.details ?? {})) return activity
  return {...activity, details: {...activity.details, traceparent}}
}
