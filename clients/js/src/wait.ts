/** How long to wait: before trying again, and for the page. */
import type {Options} from './api.js'

const BASE = 500
const MOST = 20_000
/** No server is stayed away from for longer; beyond 2^31 ms timers end at once. */
const LONGEST = 3_600_000

/**
 * Full jitter: anything between nothing and a bound that doubles with each attempt from 0.5 s to 20 s
 * (M. Brooker, "Exponential Backoff And Jitter"), in ms. So a crowd that lost its server at once comes
 * back spread out.
 *
 * What the server asked for (`retryAfter`, seconds) is waited for, an hour at most, and up to a second
 * more: it may have told many the same.
 */
export function delay(attempt: number, retryAfter?: number): number {
  if (retryAfter! >= 0) return Math.min(retryAfter! * 1000, LONGEST) + Math.random() * 1000
  return Math.random() * Math.min(MOST, BASE * 2 ** attempt)
}

/** How long the page may take to get a token, ms: a fetch in a dead network has no end by itself. */
const TOKEN = 20_000

/** Ask the page for a token. Rejects where it throws, answers anything else, or takes too long. */
export async function askToken(
  {getToken}: Options, given: AbortSignal, refused?: string,
): Promise<string | null> {
  const late = AbortSignal.timeout(TOKEN)
  const got: unknown = await Promise.race([
    getToken({signal: AbortSignal.any([given, late]), refused}),
    new Promise((_, reject) => { late.onabort = () => reject(late.reason) }),
  ])
  if (typeof got === 'string' || got === null) return got
  throw new TypeError('no token and not null')
}
