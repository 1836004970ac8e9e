/** Hours in which nobody is told of anything. */

/** Whether a time is within hours such as `19:00-08:00`, local; over midnight if the end is before the beginning. */
export function isQuiet(hours: string | undefined, now = new Date()): boolean {
  const [, h1, m1, h2, m2] = (/^\s*(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)\s*$/.exec(hours ?? '') ?? []).map(Number)
  if (h1 === undefined) return false
  const from = h1 * 60 + m1!
  const to = h2! * 60 + m2!
  const at = now.getHours() * 60 + now.getMinutes()
  return from <= to ? at >= from && at < to : at >= from || at < to
}
