/** Which rows a filter leaves, and how it stands in an address. */
import type {Row} from '../../api.js'
import type {Filter} from '../api.js'
import {plainSentence, povName, quoteOf, type Teller} from '../sentences.js'
import {once} from '../text.js'

/** What is longer, or more, is left out of an address that is read. */
const LONGEST_TEXT = 200
const LONGEST_NAME = 128
const MOST = 100

/** The lists of a filter, by their names in an address. */
const LISTS = {type: 'types', action: 'actions', by: 'users', pov: 'povs'} as const
const NAME = 'pov-filter'

/** Whether it leaves anything out. */
export const isFiltering = ({text, types, actions, users, povs}: Filter): boolean =>
  !!(text?.trim() || types?.length || actions?.length || users?.length || povs?.length)

const folds = new Map<string, (text: string) => string>()

/**
 * Make a text comparable: case and accents go, as far as they make no other letter in that language: an ö is
 * an o in German, but not in Swedish.
 */
export function fold(locale: string, text: string): string {
  return once(folds, locale, () => {
    const {compare} = new Intl.Collator(locale, {usage: 'search', sensitivity: 'base'})
    const plain = new Map<string, string>()
    const strip = (character: string) => once(plain, character, () => {
      const bare = character.normalize('NFD').replace(/\p{M}/gu, '')
      return compare(character, bare) ? character : bare
    })
    return given => given.normalize('NFKC').toLocaleLowerCase(locale).toLocaleUpperCase(locale).toLocaleLowerCase(locale)
      .replace(/[^\0-\x7f]/gu, strip)
  })(text)
}

/** What was folded last for a row, and of what: names come in later. */
const folded = new WeakMap<Row, readonly [said: string, folded: string]>()

function textOf(teller: Teller, row: Row): string {
  const said = [plainSentence(teller, {rows: [row]}), quoteOf(teller, row.activity), povName(teller, row.povId)].join('\n')
  const known = folded.get(row)
  if (known?.[0] === said) return known[1]
  const found = fold(teller.locale, said)
  folded.set(row, [said, found])
  return found
}

const has = (list: readonly string[] | undefined, value: string | undefined) =>
  !list?.length || list.includes(value ?? '')

/** Whether it leaves a row there. */
export function fits(teller: Teller, {text, types, actions, users, povs}: Filter, row: Row): boolean {
  const {activity, povId} = row
  if (!has(types, activity.type) || !has(actions, activity.action) || !has(users, activity.userId) || !has(povs, povId)) {
    return false
  }
  if (!text?.trim()) return true
  const said = textOf(teller, row)
  return once(words, `${teller.locale} ${text}`, () => {
    words.clear()
    return fold(teller.locale, text).split(/\s+/)
  }).every(word => said.includes(word))
}

/** Those of the last text. */
const words = new Map<string, string[]>()

const encode = (text: string) => encodeURIComponent(text.replace(/\p{Cs}/gu, '\ufffd'))

/** A filter as the `#` of an address has it; what else is there stays, to the letter. */
export function toHash(filter: Filter, hash: string): string {
  const kept = parts(hash).filter(each => !isOurs(each))
  const fields = Object.entries(LISTS).flatMap(([name, key]) =>
    filter[key]?.length ? `${name}:${filter[key].map(encode).join(',')}` : [])
  if (filter.text?.trim()) fields.push(`text:${encode(filter.text)}`)
  if (fields.length) kept.push(`${NAME}=${fields.join(';')}`)
  return kept.length ? `#${kept.join('&')}` : ''
}

/** The filter in the `#` of an address. What is none, or too long, is left out. */
export function fromHash(hash: string): Filter {
  const found: {-readonly [key in keyof Filter]: Filter[key]} = {}
  const value = parts(hash).find(isOurs)?.slice(NAME.length + 1) ?? ''
  for (const field of value.split(';')) {
    const [, name, rest] = /^(\w+):(.*)$/s.exec(field) ?? []
    if (name === 'text') {
      const text = decode(rest!)
      if (text?.trim() && text.length <= LONGEST_TEXT) found.text = text
    } else if (name && Object.hasOwn(LISTS, name)) {
      const list = [...new Set(rest!.split(',', MOST).map(decode))]
        .filter((each): each is string => !!each && each.length <= LONGEST_NAME)
      if (list.length) found[LISTS[name as keyof typeof LISTS]] = list
    }
  }
  return found
}

const isOurs = (part: string) => part.startsWith(`${NAME}=`)

function parts(hash: string): string[] {
  const body = hash.replace(/^#/, '')
  return body ? body.split('&') : []
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return // not ours: an address can have anything
  }
}
