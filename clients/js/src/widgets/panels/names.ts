/** Names of people and lists of things, as a language has them. */
import type {PanelHost} from '../api.js'
import {nameOf, type Knowing} from '../people.js'
import {povName} from '../sentences.js'
import {has, once, say, type Speaker} from '../text.js'

const lists = new Map<string, Intl.ListFormat>()

/** "Mei, Jonas and Ife", "a file or a task", "laptop, phone". */
export function list({locale}: Speaker, items: readonly string[], type: Intl.ListFormatType = 'conjunction'): string {
  const style = type === 'unit' ? 'short' : 'long'
  return once(lists, locale + type, () => new Intl.ListFormat(locale, {type, style})).format(items)
}

const given = (name: string) => /^\S+/.exec(name.trim())?.[0] ?? name

/** By id, their given names; the whole name where two would be the same. */
export function shortNames(element: Knowing, ids: readonly string[]): Map<string, string> {
  const counts = new Map<string, number>()
  for (const id of ids) {
    const short = given(nameOf(element, id))
    counts.set(short, (counts.get(short) ?? 0) + 1)
  }
  return new Map(ids.map(id => {
    const name = nameOf(element, id)
    return [id, counts.get(given(name)) === 1 ? given(name) : name]
  }))
}

/** The sentence of that name, or else what the app calls it. */
export const sayOr = (speaker: Speaker, key: string, own: string): string => has(speaker, key) ? say(speaker, key) : own

/** That of a PoV, or of the team feed. */
export const nameOfPov = (host: PanelHost, id: string): string => id === '*' ? say(host, 'level.all') : povName(host, id)

/** In the order of their names. */
export function byName(host: PanelHost, povs: readonly string[]): string[] {
  const {compare} = new Intl.Collator(host.locale, {numeric: true})
  return [...povs].sort((a, b) => compare(nameOfPov(host, a), nameOfPov(host, b)))
}
