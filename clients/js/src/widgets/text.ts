/** Sentences from words: with plurals, names and emphasis, in whatever order a language wants them. */
import {html, type TemplateResult} from 'lit-html'
import {words} from './words.js'

/** A sentence, or one for each plural category of `Intl.PluralRules` (`other` at least), chosen by `n`. */
export type Sentence = string | ({other: string} & {[category in Intl.LDMLPluralRule]?: string})

/** The sentences of a component, by name: any of them can be replaced. `*so*` is emphasis, `{name}` a value. */
export type Strings = Readonly<Record<string, Sentence>>

/** In whose words, and for whom. */
export interface Speaker {
  readonly strings?: Strings
  /** BCP 47; the page's language, else the browser's. */
  readonly locale: string
}

/** What stands for a `{name}`; a number is written as the language does. */
export type Values = Readonly<Record<string, unknown>>

const rules = new Map<string, Intl.PluralRules>()
const numbers = new Map<string, Intl.NumberFormat>()

/** Make with a locale once: `Intl`'s objects are slow to make. */
export function once<T>(made: Map<string, T>, key: string, make: () => T): T {
  let found = made.get(key)
  if (!found) made.set(key, found = make())
  return found
}

/** What a function of the page's answers. Where it throws the page is told so, and nothing comes of it. */
export function ask<T>(make: () => T): T | undefined {
  try {
    return make()
  } catch (error) {
    reportError(error)
  }
}

/** Languages that write small numbers as code does. */
const PLAIN = /^(de|en|es|fr|it|ja|nl|pt|zh)(-..)?$/

/** Write a number as the language does. The first that `Intl` writes takes a browser 50 ms: most need none of it. */
export function number({locale}: Speaker, value: number): string {
  if (PLAIN.test(locale) && value < 1_000 && value >= 0 && Number.isInteger(value)) return `${value}`
  return once(numbers, locale, () => new Intl.NumberFormat(locale)).format(value)
}

/** Whether there is a sentence of that name. */
export function has({strings}: Speaker, key: string): boolean {
  return !!(strings?.[key] ?? words[key])
}

/** The sentence of that name, its values not yet in it. */
function choose(speaker: Speaker, key: string, values: Values): string {
  const {strings, locale} = speaker
  const found = strings?.[key] ?? words[key] ?? key
  if (typeof found === 'string') return found
  const rule = once(rules, locale, () => new Intl.PluralRules(locale))
  return found[rule.select(values.n as number)] ?? found.other
}

const shown = (speaker: Speaker, value: unknown) => typeof value === 'number' ? number(speaker, value) : value

/** A sentence as plain text. */
export function say(speaker: Speaker, key: string, values: Values = {}): string {
  return choose(speaker, key, values).replaceAll('*', '')
    .replace(/\{(\w+)\}/g, (_, name: string) => String(shown(speaker, values[name]) ?? ''))
}

/**
 * A sentence to be drawn. What is between two `*` is bold. Values may be templates; text that comes from people
 * goes in as `quoted(text)`, so that its direction stays its own.
 */
export function draw(speaker: Speaker, key: string, values: Values = {}): unknown[] {
  return choose(speaker, key, values).split('*').map((part, i) => {
    const pieces = part.split(/\{(\w+)\}/).map((each, at) => at % 2 ? shown(speaker, values[each]) : each)
    return i % 2 ? html`<b>${pieces}</b>` : pieces
  })
}

/** Text of people: its direction does not change that of what is around it. */
export function quoted(text: string): TemplateResult {
  return html`<bdi>${text}</bdi>`
}
