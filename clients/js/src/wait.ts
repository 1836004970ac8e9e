/** How long to wait before trying again. */

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
  if (retryAfter! > 0) return Math.min(retryAfter! * 1000, LONGEST) + Math.random() * 1000
  return Math.random() * Math.min(MOST, BASE * 2 ** attempt)
}
