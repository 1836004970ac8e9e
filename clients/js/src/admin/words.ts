/** Numbers, bytes and times as people read them at a glance. */
const grouped = new Intl.NumberFormat('en')
const fine = new Intl.NumberFormat('en', {maximumFractionDigits: 1})

/** `12`, `3.4`, `1,284`; `–` for what is not known. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  return value > 0 && value < 10 ? fine.format(value) : grouped.format(Math.round(value))
}

/** `0`, `812 B`, `4.2 MB` */
export function size(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  if (!value) return '0'
  const units = ['B', 'KB', 'MB', 'GB']
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

/** `41 s`, `12 min`, `3 h`, `9 days` */
export function span(seconds: number): string {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} days`
}

/** How long an instant lies ahead, or back. */
export const until = (instant: string): string => span((Date.parse(instant) - Date.now()) / 1000)
export const since = (instant: string): string => span((Date.now() - Date.parse(instant)) / 1000)

/** `a, b, 7 more` */
export function several(texts: readonly string[], named = 2): string {
  const more = texts.length - named
  return [...texts.slice(0, named), ...(more > 0 ? [`${more} more`] : [])].join(', ') || '–'
}

/** `1 connection`, `1,284 connections` */
export const count = (n: number, one: string, many = `${one}s`): string => `${grouped.format(n)} ${n === 1 ? one : many}`

/** The time of day of a number of ms since 1970, in the reader’s time zone: `14:01:12`. */
export const clock = (at: number): string => new Date(at).toLocaleTimeString('en-GB')

const TIME = {hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3} as const
const DAY = {weekday: 'short', day: 'numeric', month: 'short'} as const

/** An instant, in the reader’s time zone: `14:01:12.004`, of another day than today `Wed 25 Nov, 14:01:12.004`. */
export function moment(instant: string, now = new Date()): string {
  const at = new Date(instant)
  const isToday = at.toDateString() === now.toDateString()
  return (isToday ? '' : `${at.toLocaleDateString('en-GB', DAY).replace(',', '')}, `) + at.toLocaleTimeString('en-GB', TIME)
}

/** How long after another an instant was: `+2 ms`, `+1.4 s`; the instant itself where that says more. */
export function later(began: string | undefined, instant: string): string {
  const ms = began ? Date.parse(instant) - Date.parse(began) : NaN
  if (ms >= 0 && ms < 1000) return `+${ms} ms`
  return ms < 60_000 && ms >= 0 ? `+${fine.format(ms / 1000)} s` : moment(instant)
}

/** Since when something is, at a glance: `08:02`, of another day `Tue 08:02`, of another week `24 Nov`. */
export function sinceWhen(instant: string, now = new Date()): string {
  const at = new Date(instant)
  const time = at.toLocaleTimeString('en-GB', {hour: '2-digit', minute: '2-digit'})
  if (at.toDateString() === now.toDateString()) return time
  if (now.getTime() - at.getTime() > 6 * 86_400_000) return at.toLocaleDateString('en-GB', {day: 'numeric', month: 'short'})
  return `${at.toLocaleDateString('en-GB', {weekday: 'short'})} ${time}`
}
