/** What an activity says: who did what to what; the object from `details.title`, never guessed. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Group, Row} from '../api.js'
import {icon} from './icons.js'
import {isAwaited, nameOf, type Knowing} from './people.js'
import {ask, draw, has, quoted, say, type Speaker, type Values} from './text.js'

/** An element that says what activities are. */
export interface Teller extends Speaker, Knowing {
  /** Where an activity leads to; default `details.href`. */
  readonly href?: (activity: Row['activity']) => string | undefined
  /** Names of PoVs, by id. */
  readonly povs?: Readonly<Record<string, string>>
}

const KINDS = /^(task|phase|comment|file|person)$/

/** The icon of its type. */
export const kindOf = ({type}: Row['activity']): string => KINDS.test(type) ? type : 'target'

const text = (value: unknown) => typeof value === 'string' || typeof value === 'number' ? String(value) : undefined

/** What the activity is about, as the app says it. */
export const titleOf = ({details}: Row['activity']): string | undefined => text(details?.title)

/** Its text, in the language's quotation marks. */
export function quoteOf(speaker: Speaker, {details}: Row['activity']): string | undefined {
  const found = text(details?.text)
  return found && say(speaker, 'quote', {text: found})
}

/** The PoV's name, else its id. */
export const povName = ({povs}: Teller, id: string): string => povs?.[id] ?? id

/** The address, if it is one that a page may lead to: http, https or of the page itself. Scripts are none. */
export function safeLink(given: string | undefined): string | undefined {
  return given && URL.canParse(given, document.baseURI) && /^https?:$/.test(new URL(given, document.baseURI).protocol) ? given : undefined
}

/** Where an activity leads to. */
export function linkOf({href}: Teller, activity: Row['activity']): string | undefined {
  return safeLink(href ? ask(() => href(activity)) : text(activity.details?.href))
}

/** Which sentence, and its values as plain text. */
function choose(teller: Teller, rows: readonly Row[], who: string): [key: string, values: Record<string, string | number>] {
  const {activity, own} = rows[0]!
  const {type, action, details, retracted} = activity
  const n = rows.length
  const what = n > 1 ? say(teller, `n.${type}`, {n}) : titleOf(activity)
  const values = {who, type, action, n, what: what ?? '', from: text(details?.from) ?? '', to: text(details?.to) ?? ''}
  const key = retracted ? 'retracted' : `${type}.${action}`
  const find = (name: string) => [own ? `you.${name}` : name, name].find(each => has(teller, each))
  // Not every sentence of one is right of several.
  const isWhole = n > 1 ? has(teller, `n.${type}`) && !/^(phase|person)$/.test(type)
    : what !== undefined && (type !== 'phase' || values.to)
  const found = n > 1 && find(`many.${key}`) || (isWhole || retracted) && find(key)
  if (found) return [found, values]
  return [n > 1 ? 'many.other' : what ? 'other.what' : 'other', values]
}

/** Whoever did it; a place for the name while the page is asked for it. */
const actorOf = (teller: Teller, {activity, own}: Row) =>
  own ? say(teller, 'you') : nameOf(teller, activity.userId ?? '')

const awaited = html`<span class="skel name"></span>`

/** The sentence of a row or group, to be drawn; its object is a link where there is one. */
export function sentence(teller: Teller, {rows}: Pick<Group, 'rows'>, who = actorOf(teller, rows[0]!)): unknown[] {
  const [key, values] = choose(teller, rows, who)
  const link = rows.length === 1 ? linkOf(teller, rows[0]!.activity) : undefined
  const what = quoted(String(values.what))
  const drawn: Values = {
    ...values,
    who: isAwaited(teller, rows[0]!.activity.userId ?? '') && !rows[0]!.own ? awaited : quoted(who),
    what: link ? html`<a href=${link} part="link">${what}</a>` : what,
    steps: steps(String(values.from), String(values.to)),
  }
  return draw(teller, key, drawn)
}

function steps(from: string, to: string): TemplateResult {
  return html`<span class="keep">${from ? html`${quoted(from)} <span class="arrow">${icon('arrow', 'icon-s flip')}</span> ` : nothing}<b>${quoted(to)}</b></span>`
}

/** The same as plain text: for what is read out, and for the browser's notifications. */
export function plainSentence(teller: Teller, {rows}: Pick<Group, 'rows'>): string {
  const [key, values] = choose(teller, rows, actorOf(teller, rows[0]!))
  return say(teller, key, {...values, steps: [values.from, values.to].filter(Boolean).join(' → ')})
}
