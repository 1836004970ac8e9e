/** Times as people say them, by `Intl`. All take ms since 1970. */
import {once, say, type Speaker} from './text.js'

const MINUTE = 60_000
const DAY = 86_400_000

const formats = new Map<string, Intl.DateTimeFormat>()
const minutes = new Map<string, Intl.NumberFormat>()

function format({locale}: Speaker, at: number, options: Intl.DateTimeFormatOptions): string {
  return once(formats, locale + JSON.stringify(options), () => new Intl.DateTimeFormat(locale, options)).format(at)
}

const midnight = (at: number) => new Date(at).setHours(0, 0, 0, 0)

/** 13:48 */
export function clock(speaker: Speaker, at: number): string {
  return format(speaker, at, {timeStyle: 'short'})
}

/** 13:48 today, Tue 13:48 this week, 12 Nov 13:48, 12 Nov 2025 13:48: a point in time that others refer to. */
export function moment(speaker: Speaker, at: number, now = Date.now()): string {
  return midnight(at) === midnight(now) ? clock(speaker, at) : `${day(speaker, at, now)} ${clock(speaker, at)}`
}

/** Tue this week, 12 Nov this year, 12 Nov 2025. */
export function day(speaker: Speaker, at: number, now = Date.now()): string {
  const isRecent = Math.abs(midnight(now) - midnight(at)) < 6.5 * DAY
  const isThisYear = new Date(at).getFullYear() === new Date(now).getFullYear()
  return format(speaker, at, isRecent ? {weekday: 'short'}
    : {day: 'numeric', month: 'short', year: isThisYear ? undefined : 'numeric'})
}

/** now · 2 min (less than 15) · 13:48 (today) · Tue (this week) · 12 Nov · 12 Nov 2025: how long ago, in the time's column. */
export function age(speaker: Speaker, at: number, now = Date.now()): string {
  const ms = now - at
  if (ms < MINUTE) return say(speaker, 'now')
  if (ms < 15 * MINUTE) return span(speaker, ms)
  return midnight(at) === midnight(now) ? clock(speaker, at) : day(speaker, at, now)
}

/** 41 min, 3 hr, 2 days: of a length of time in ms. */
export function span({locale}: Speaker, ms: number): string {
  const [unit, length] = ms < 60 * MINUTE ? ['minute', MINUTE] : ms < DAY ? ['hour', 60 * MINUTE] : ['day', DAY]
  return once(minutes, `${locale} ${unit}`, () => new Intl.NumberFormat(locale, {style: 'unit', unit: unit as string}))
    .format(Math.max(1, Math.floor(ms / (length as number))))
}

/** All of it, for a title. */
export function full(speaker: Speaker, at: number): string {
  return format(speaker, at, {dateStyle: 'full', timeStyle: 'medium'})
}

/** Thursday 19 Nov, 10:02: a day that something began. */
export function dated(speaker: Speaker, at: number): string {
  return `${format(speaker, at, {weekday: 'long', day: 'numeric', month: 'short'})}, ${clock(speaker, at)}`
}
