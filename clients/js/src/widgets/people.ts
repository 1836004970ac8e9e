/** Who somebody is: a name, initials, a colour; asked of the page, many at once, each once. */
import {html, nothing, type TemplateResult} from 'lit-html'

/** What a page knows of a user. */
export interface Person {
  name: string
  /** The address of a picture. */
  avatar?: string
}

/** Those of some users that the page knows, by id. */
export type ResolvePeople = (ids: string[]) =>
  Promise<Readonly<Record<string, Person>>> | Readonly<Record<string, Person>>

/** An element that draws people. */
export interface Knowing {
  readonly people?: Readonly<Record<string, Person>>
  readonly resolvePeople?: ResolvePeople
  requestUpdate(): void
}

/** Of one `resolvePeople`: what it said, whom it is asked for, who waits for it. */
interface Known {
  readonly said: Map<string, Person | undefined>
  /** Of whom it knew nothing some time ago. */
  readonly due: Set<string>
  /** Whom the next question is for. */
  readonly waiting: Set<string>
  readonly asking: Set<string>
  readonly askers: Set<Knowing>
}

/** An id of which nothing was said is asked for again after this many ms; so is one whose asking failed. */
const AGAIN = 60_000

const known = new WeakMap<ResolvePeople, Known>()

/**
 * Who it is, as far as is known now. An unknown one is asked of `resolvePeople` with all others of this
 * turn, and the element updates when the answer is there. A page that throws is told so as of an uncaught error.
 */
export function personOf(element: Knowing, id: string): Person | undefined {
  const given = element.people?.[id]
  const resolve = element.resolvePeople
  if (given || !resolve) return given
  let entry = known.get(resolve)
  if (!entry) known.set(resolve, entry = {said: new Map(), due: new Set(), waiting: new Set(), asking: new Set(), askers: new Set()})
  const {said, due} = entry
  if (!said.has(id) || due.delete(id)) {
    entry.askers.add(element)
    if (entry.asking.has(id)) return
    if (!entry.waiting.size) queueMicrotask(() => ask(resolve, entry))
    entry.waiting.add(id)
  }
  return said.get(id)
}

/** Whether the page is still being asked who it is: keep the space until then. */
export function isAwaited(element: Knowing, id: string): boolean {
  return !element.people?.[id] && !!element.resolvePeople && !known.get(element.resolvePeople)?.said.has(id)
}

async function ask(resolve: ResolvePeople, {said, due, waiting, asking, askers}: Known): Promise<void> {
  const ids = [...waiting]
  waiting.clear()
  for (const id of ids) asking.add(id)
  let found: Readonly<Record<string, Person>> = {}
  try {
    found = await resolve(ids)
  } catch (error) {
    reportError(error)
  }
  for (const id of ids) {
    asking.delete(id)
    said.set(id, found?.[id] ?? said.get(id))
    if (!found?.[id]) setTimeout(() => due.add(id), AGAIN)
  }
  for (const each of askers) each.requestUpdate()
  askers.clear()
}

/** Their name, or else the id. */
export const nameOf = (element: Knowing, id: string): string => personOf(element, id)?.name ?? id

/** The name that friends use: the first word. */
export const given = (name: string): string => name.trim().split(/\s+/)[0]!

/** One of the six colours of avatars, 1 to 6: by a hash of the id (that of Java's strings). */
export function hueOf(id: string): number {
  let hash = 0
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash, 31) + id.charCodeAt(i) | 0
  return (hash >>> 0) % 6 + 1
}

/** The first letters of the first and the last word; of an id that is no name its first two. */
export function initialsOf(name: string): string {
  const found = name.trim().split(/\s+/)
  const first = [...found[0] ?? '']
  const last = [...found.at(-1) ?? '']
  return (found.length > 1 ? first[0]! + last[0]! : first.slice(0, 2).join('')).toLocaleUpperCase()
}

/** A picture that does not come leaves the initials. */
const came = ({type, target}: Event): void => { (target as HTMLElement).style.visibility = type === 'error' ? 'hidden' : '' }

/** Draw them; `classes`: av-s, av-m, av-l. `state` is that of presence. Their name has to stand beside it. */
export function avatar(element: Knowing, id: string, classes = '', state?: 'active' | 'away'): TemplateResult {
  const person = personOf(element, id)
  return html`<span class="av hue-${hueOf(id)} ${classes}" part="avatar" aria-hidden="true" data-is=${
    initialsOf(person?.name ?? id)}>${person?.avatar ? html`<img src=${person.avatar} alt="" loading="lazy" @error=${came} @load=${came}>` : nothing
  }${state ? html`<i class=${state === 'active' ? 'here' : 'away'}></i>` : nothing}</span>`
}
