/** The filter: its panel, its chips above the list, and what an empty list says of it. */
import {html, nothing, type TemplateResult} from 'lit'
import {live} from 'lit/directives/live.js'
import {ref} from 'lit/directives/ref.js'
import {repeat} from 'lit/directives/repeat.js'
import type {Row} from '../../api.js'
import type {Filter, PanelHost} from '../api.js'
import {icon} from '../icons.js'
import {avatar, nameOf} from '../people.js'
import {kindOf, povName, type Teller} from '../sentences.js'
import {has, quoted, say, type Values} from '../text.js'
import {enter, whenThere} from './enter.js'
import {isFiltering} from './fits.js'
import {byName, list, sayOr, shortNames} from './names.js'
import {stateOf} from './state.js'

/** This many people are offered at first. */
const PEOPLE = 5
/** More of a kind than this are not named one by one where nothing fits. */
const NAMED = 3
const KNOWN = ['task', 'phase', 'comment', 'file', 'person']

/** What the rows have to filter by, most frequent first. */
interface Facets {
  readonly types: readonly string[]
  readonly people: readonly string[]
  readonly povs: readonly string[]
  /** `type.action` */
  readonly sorts: readonly string[]
}

const facets = new WeakMap<readonly Row[], Facets>()

function facetsOf(rows: readonly Row[]): Facets {
  let found = facets.get(rows)
  if (!found) {
    const frequent = (of: (row: Row) => string | undefined) => {
      const counts = new Map<string, number>()
      for (const row of rows) {
        const value = of(row)
        if (value) counts.set(value, (counts.get(value) ?? 0) + 1)
      }
      return [...counts].sort(([, a], [, b]) => b - a).map(([value]) => value)
    }
    const types = frequent(({activity}) => activity.type)
    facets.set(rows, found = {
      types: [...KNOWN.filter(each => types.includes(each)), ...types.filter(each => !KNOWN.includes(each))],
      people: frequent(({activity}) => activity.userId),
      povs: frequent(({povId}) => povId),
      sorts: frequent(({activity: {type, action}}) => `${type}.${action}`),
    })
  }
  return found
}

const typeName = (host: Teller, type: string) => sayOr(host, `type.${type}`, type)
const actionName = (host: Teller, action: string) => sayOr(host, `action.${action}`, action)

const union = (one: readonly string[], other: readonly string[] = []) => [...new Set([...one, ...other])]

const toggled = (given: readonly string[] = [], value: string) =>
  given.includes(value) ? given.filter(each => each !== value) : [...given, value]

type List = 'types' | 'actions' | 'users' | 'povs'

/** Actions of types that are not chosen any more go with them. */
function choose(host: PanelHost, key: List, values: readonly string[]): void {
  const filter: Filter = {...host.filter, [key]: values}
  const offered = actionsOf(host, filter.types)
  host.setFilter(key === 'types' ? {...filter, actions: filter.actions?.filter(each => offered.includes(each))} : filter)
}

function actionsOf({snapshot: {rows}}: PanelHost, types: readonly string[] = []): string[] {
  const found = facetsOf(rows).sorts.filter(sort => types.some(type => sort.startsWith(`${type}.`)))
  return [...new Set(found.map(sort => sort.slice(types.find(type => sort.startsWith(`${type}.`))!.length + 1)))]
}

/** How many fit, and how many unread ones don't. */
function counts(host: PanelHost): string {
  const {groups, hiddenUnread} = host.fitting
  const fit = say(host, 'filter.fit', {n: groups.reduce((sum, {rows}) => sum + rows.length, 0)})
  return hiddenUnread ? say(host, 'filter.counts', {fit, hidden: say(host, 'filter.hidden', {n: hiddenUnread})}) : fit
}

/** One that is pressed or not. */
function toggle(host: PanelHost, key: List, value: string, content: unknown, classes = ''): TemplateResult {
  const isOn = !!host.filter[key]?.includes(value)
  return html`<button class="chip ${classes}" part="chip" aria-pressed=${isOn}
    @click=${() => choose(host, key, toggled(host.filter[key], value))}>${content}</button>`
}

function set(host: PanelHost, name: string, values: readonly string[], draw: (value: string) => unknown, more: unknown = nothing) {
  return values.length ? html`<div role="group" aria-label=${say(host, name)}><span class="label" aria-hidden="true">${say(host, name)}</span>
<div class="set">${repeat(values, value => value, draw)}${more}</div></div>` : nothing
}

export function filterPanel(host: PanelHost): TemplateResult {
  const {filter, snapshot: {rows, povs}} = host
  const state = stateOf(host)
  const found = facetsOf(rows)
  const people = state.people = union(state.people, found.people)
  const shown = state.isAll ? people : union(people.slice(0, PEOPLE), filter.users)
  const names = shortNames(host, shown)
  const followed = [...povs.keys()].filter(each => each !== '*')
  const offered = union(followed, [...found.povs, ...filter.povs ?? []])
  const actions = union(actionsOf(host, filter.types), filter.actions)
  if (state.filter !== filter) {
    if (state.filter) state.told = rows.length && !host.fitting.groups.length ? `${noneOf(host)}. ${hiddenOf(host)}` : counts(host)
    state.filter = filter
  }
  return html`<div class="panel" part="filter-panel" role="group" aria-label=${say(host, 'do.filter')}
  ${ref(whenThere(host, 'filter', element => opened(host, element)))}>
<label class="input">${icon('search')}<input type="search" maxlength="200" autocomplete="off" enterkeyhint="search"
  aria-label=${say(host, 'filter.text')} placeholder=${say(host, 'filter.text')} .value=${live(filter.text ?? '')}
  @input=${(event: Event) => host.setFilter({...filter, text: (event.target as HTMLInputElement).value})}></label>
${set(host, 'filter.type', union(found.types, filter.types), type =>
    toggle(host, 'types', type, html`${icon(kindOf({type} as Row['activity']))}<span>${typeName(host, type)}</span>`))}
${set(host, 'filter.action', actions.length > 1 || filter.actions?.length ? actions : [], action =>
    toggle(host, 'actions', action, html`<span>${actionName(host, action)}</span>`))}
${set(host, 'filter.by', shown, id =>
    toggle(host, 'users', id, html`${avatar(host, id, 'av-s')}${quoted(names.get(id)!)}`, 'by'),
  people.length > shown.length ? html`<button class="chip" part="chip" @click=${() => {
    state.isAll = true
    host.requestUpdate()
  }}>${say(host, 'filter.more', {n: people.length - shown.length})}</button>` : nothing)}
${offered.length > 1 ? html`<label><span class="label">${say(host, 'filter.pov')}</span><span class="input"><select
  @change=${({target}: Event) => {
    const {value} = target as HTMLSelectElement
    if (value !== SOME) choose(host, 'povs', value ? [value] : [])
  }}>
<option value="" .selected=${!filter.povs?.length}>${povs.has('*') ? say(host, 'filter.all-povs') : say(host, 'filter.any-pov', {n: povs.size})}</option>
${(filter.povs?.length ?? 0) > 1
    ? html`<option value=${SOME} .selected=${true}>${say(host, 'filter.some-povs', {n: filter.povs!.length})}</option>` : nothing}
${byName(host, offered).map(id =>
    html`<option value=${id} .selected=${filter.povs?.length === 1 && filter.povs[0] === id}>${povName(host, id)}</option>`)}
</select>${icon('down')}</span></label>` : nothing}
<div class="end"><span>${counts(host)}</span>${isFiltering(filter)
    ? html`<button class="btn btn-text" @click=${() => host.setFilter({})}>${say(host, 'do.clear-all')}</button>` : nothing}</div>
<p class="sr" aria-live="polite">${state.told}</p></div>`
}

/** The value of "several of them", which can be seen but not chosen: no id has a space. */
const SOME = ' '

/** It begins anew each time it opens. */
function opened(host: PanelHost, element: HTMLElement): () => void {
  enter(element.querySelector('input')!, !matchMedia('(pointer: coarse)').matches)
  return () => Object.assign(stateOf(host), {people: [], isAll: false, filter: undefined, told: ''})
}

export function filterChips(host: PanelHost): TemplateResult {
  const {filter} = host
  const chip = (name: string, without: Filter) => html`<button class="chip is-on" part="chip"
    aria-label=${say(host, 'filter.remove', {name})} @click=${() => host.setFilter(without)}>${quoted(name)}${icon('close', 'icon-s')}</button>`
  const all = (key: List, name: (value: string) => string) => (filter[key] ?? []).map(value =>
    chip(name(value), {...filter, [key]: toggled(filter[key], value)}))
  return html`<div class="active-f ${/new|seen/.test(host.fitting.groups[0]?.state ?? '') ? 'is-unread' : ''}">${filter.text?.trim() ? chip(say(host, 'filter.quote', {text: filter.text.trim()}), {...filter, text: ''}) : nothing}${
    all('types', type => typeName(host, type))}${all('actions', action => actionName(host, action))}${
    all('users', id => nameOf(host, id))}${all('povs', id => povName(host, id))}</div>`
}

/** "file", "completed task or file": what none was found of. */
function whatOf(host: PanelHost): string[] {
  const {filter: {types = [], actions = []}, snapshot: {rows}} = host
  const of = (type: string) => has(host, `one.${type}`) ? say(host, `one.${type}`) : say(host, 'one.other', {type})
  if (!actions.length) return types.length ? types.map(of) : [say(host, 'one')]
  if (!types.length) return actions.map(action => say(host, 'one.any', {action: actionName(host, action)}))
  const {sorts} = facetsOf(rows)
  const pairs = types.flatMap(type => actions.map(action => ({type, action, key: `${type}.${action}`})))
  const known = pairs.filter(({key}) => sorts.includes(key) || has(host, `one.${key}`))
  return (known.length ? known : pairs).map(({type, action, key}) =>
    has(host, `one.${key}`) ? say(host, `one.${key}`) : say(host, 'one.action', {type, action}))
}

/** "No file by Jonas Weber so far". */
export function noneOf(host: PanelHost): string {
  const {filter: {text, users = [], povs = []}} = host
  const what = whatOf(host)
  if ([what, users, povs].some(each => each.length > NAMED)) return say(host, 'none.many')
  const own = host.source?.client?.user
  const or = (items: string[]) => list(host, items, 'disjunction')
  const values: Values = {
    what: or(what),
    who: or(users.map(id => id === own ? say(host, 'none.you') : nameOf(host, id))),
    pov: or(povs.map(id => povName(host, id))),
    text: text?.trim() && say(host, 'filter.quote', {text: text.trim()}),
  }
  return say(host, `none${users.length ? '.by' : ''}${povs.length ? '.on' : ''}${values.text ? '.with' : ''}`, values)
}

function hiddenOf(host: PanelHost): string {
  const {hiddenUnread} = host.fitting
  return hiddenUnread ? say(host, 'none.hidden', {n: hiddenUnread}) : ''
}

export function filterEmpty(host: PanelHost): TemplateResult {
  const hidden = hiddenOf(host)
  const earlier = [...host.snapshot.povs.values()].some(({hasEarlier}) => hasEarlier) && say(host, 'none.earlier')
  return html`<div class="empty" part="empty"><h3>${noneOf(host)}</h3>${hidden || earlier
    ? html`<p>${hidden} ${earlier || nothing}</p>` : nothing}<div class="go"><button class="btn" @click=${() =>
    host.setFilter({})}>${say(host, 'do.clear-filter')}</button></div></div>`
}
