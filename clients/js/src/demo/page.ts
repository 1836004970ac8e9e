/** What both of the demo's pages have: how they look, and whose words they speak. */
import '../widgets/icons-more.js'
import type {Knowing} from '../widgets/people.js'
import type {Speaker} from '../widgets/text.js'
import tokens from '../widgets/tokens.css'

/** Dress the page in the widgets' own colours and type. */
export function dress(): void {
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(tokens)
  document.adoptedStyleSheets = [sheet]
}

/** What the widgets' drawings of people and their words ask of whoever uses them. */
export interface Page extends Knowing, Speaker {
  people: Record<string, {name: string}>
}

/** Make one; `draw` is called when somebody's name came. */
export const makePage = (draw: () => void): Page =>
  ({people: {}, locale: document.documentElement.lang, requestUpdate: draw})

/** Names by id, as the widgets take them. */
export const peopleOf = (names: Record<string, string>): Record<string, {name: string}> =>
  Object.fromEntries(Object.entries(names).map(([id, name]) => [id, {name}]))
