/** What both of the demo's pages have: names, numbers, times, drawings. */
import '../widgets/icons-more.js'
import type {Knowing} from '../widgets/people.js'

/** Who is on the page, as the drawings of people ask for them. */
export interface Page extends Knowing {
  people: Record<string, {name: string}>
}

/** Make one; `draw` is called when somebody's name came. */
export const makePage = (draw: () => void): Page => ({people: {}, requestUpdate: draw})

/** Names by id, as the widgets take them. */
export const peopleOf = (names: Record<string, string>): Record<string, {name: string}> =>
  Object.fromEntries(Object.entries(names).map(([id, name]) => [id, {name}]))

/** What people are called by those who work with them. */
export const givenName = ({people}: Page, id: string): string => people[id]?.name.split(' ')[0] ?? id

const locale = globalThis.document?.documentElement.lang
const numbers = new Intl.NumberFormat(locale)
const clocks = new Intl.DateTimeFormat(locale, {hour: '2-digit', minute: '2-digit'})

/** 1,000 */
export const number = (value: number): string => numbers.format(value)

/** 13:48, of ms since 1970. */
export const clock = (at: number): string => clocks.format(at)
