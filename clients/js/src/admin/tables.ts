/** How each list is shown: its sorts, the first of which is the usual one, and its columns. */
import {html, type TemplateResult} from 'lit'
import {glyph, icon} from '../widgets/icons.js'
import {avatar} from '../widgets/people.js'
import {count, number, several, since, size, span, until} from './words.js'
import type {ConnectionRow, List, PluginRow, PovRow, Row, UserRow} from './source.js'

type Cell = TemplateResult | string

export interface Column<T> {
  readonly title: string
  readonly cell: (row: T) => Cell
  /** Numbers stand at the end of their column. */
  readonly isNumber?: boolean
}

export interface Table<T = never> {
  readonly title: string
  readonly sorts: readonly (readonly [sort: string, words: string])[]
  readonly finds: string
  readonly columns: readonly Column<T>[]
  readonly key: (row: T) => string
}

const nobody = {requestUpdate() {}}
const dim = (text: string): TemplateResult => html`<span class="dim">${text}</span>`

export const who = (userId: string, text: Cell = userId): TemplateResult =>
  html`<span class="who">${avatar(nobody, userId, 'av-m')}<b><bdi>${text}</bdi></b></span>`

/** Where a user’s connections are listed. */
export const connectionsOf = (userId: string): string =>
  `#${new URLSearchParams({list: 'connections', sort: 'unsent', user: userId})}`

const PHONES = /phone|mobile|tablet|ipad|android/i

/** The drawing that fits a device's name. */
export const iconOf = (device: string): string => PHONES.test(device) ? 'phone' : 'laptop'

/** A device with its drawing, and by which way where that is no WebSocket. */
export const deviceOf = ({device, transport}: ConnectionRow): TemplateResult =>
  html`<span class="dev">${icon(iconOf(device))}<bdi>${device}</bdi>${
    transport === 'ws' ? '' : dim(transport)}</span>`

/** What was not sent yet, in words and a colour. */
function behind(lag: number, unsentBytes: number): Cell {
  if (!lag && !unsentBytes) return dim('nothing')
  const words = [...(lag ? [`${number(lag)} behind`] : []), ...(unsentBytes ? [`${size(unsentBytes)} unsent`] : [])]
  return html`<span class="status ${lag ? 's-busy' : ''}">${lag ? glyph('busy') : ''}${words.join(', ')}</span>`
}

const cost = (part: number): Cell =>
  part >= 1 ? html`<span class="status s-expired">${glyph('expired')}in debt</span>` : `${Math.round(100 * part)} %`

const SOON_S = 300

/** When a token ends; soon stands out. */
function ends(at: string): Cell {
  return Date.parse(at) - Date.now() < SOON_S * 1000 ? html`<span class="s-expired">${until(at)}</span>` : until(at)
}

const connections: Table<ConnectionRow> = {
  title: 'Connections',
  sorts: [
    ['unsent', 'Most unsent'], ['lag', 'Furthest behind'], ['rate', 'Fastest'], ['cost', 'Dearest'],
    ['age', 'Longest'],
  ],
  finds: 'Person, PoV, device, address',
  key: ({connectionId}) => connectionId,
  columns: [
    {title: 'Person', cell: row => who(row.userId)},
    {title: 'Waits', cell: row => behind(row.lag, row.unsentBytes)},
    {title: 'Device', cell: deviceOf},
    {title: 'PoVs', cell: row => html`<bdi>${several(row.povs, 1)}</bdi>`},
    {title: 'Address', cell: row => html`<span class="mono">${row.remoteIp}</span>`},
    {title: 'For', cell: row => span(row.ageS), isNumber: true},
    {title: 'Sent', cell: row => size(row.sentBytes), isNumber: true},
    {title: 'A second', cell: row => size(row.bytesPerS), isNumber: true},
    {title: 'Cost', cell: row => cost(row.cost), isNumber: true},
    {title: 'Token', cell: row => ends(row.tokenExpiresAt), isNumber: true},
  ],
}

const users: Table<UserRow> = {
  title: 'Users',
  sorts: [
    ['unsent', 'Most unsent'], ['lag', 'Furthest behind'], ['rate', 'Fastest'], ['cost', 'Dearest'],
    ['connections', 'Most connections'], ['seen', 'Seen last'],
  ],
  finds: 'Person, PoV, device, address',
  key: ({node, userId}) => `${node} ${userId}`,
  columns: [
    {title: 'Person', cell: row => who(row.userId)},
    {title: 'Is', cell: row => row.blockedUntil
      ? html`<span class="status s-refused">${glyph('refused')}blocked for ${until(row.blockedUntil)}</span>`
      : row.connections ? html`<span class="status s-live">${glyph('live')}here</span>`
        : dim(row.lastSeen ? `away for ${since(row.lastSeen)}` : 'away')},
    {title: 'Devices', cell: row => html`<bdi>${several(row.devices)}</bdi>`},
    {title: 'Connections', cell: row => row.connections
      ? html`<a href=${connectionsOf(row.userId)} aria-label=${`${count(row.connections, 'connection')} of ${row.userId}`}>${number(row.connections)}</a>`
      : '0', isNumber: true},
    {title: 'A second', cell: row => size(row.bytesPerS), isNumber: true},
    {title: 'Cost', cell: row => cost(row.cost), isNumber: true},
    {title: 'Waits', cell: row => behind(row.lag, row.unsentBytes)},
  ],
}

const povs: Table<PovRow> = {
  title: 'PoVs',
  sorts: [
    ['lag', 'Furthest behind'], ['unsent', 'Most unsent'], ['rate', 'Busiest'], ['cost', 'Dearest'],
    ['subscribers', 'Most followed'],
  ],
  finds: 'PoV',
  key: ({node, povId}) => `${node} ${povId}`,
  columns: [
    {title: 'PoV', cell: row => html`<b><bdi>${row.povId === '*' ? '* team feed' : row.povId}</bdi></b>`},
    {title: 'Followed by', cell: row => number(row.subscribers), isNumber: true},
    {title: 'At', cell: row => number(row.offset), isNumber: true},
    {title: 'A second', cell: row => number(row.activitiesPerS), isNumber: true},
    {title: 'Sent a second', cell: row => number(row.deliveriesPerS), isNumber: true},
    {title: 'Waits', cell: row => row.behind
      ? html`<span class="status s-busy">${glyph('busy')}${count(row.behind, 'connection')}, up to ${number(row.lag)} behind</span>`
      : dim('nothing')},
  ],
}

const plugins: Table<PluginRow> = {
  title: 'Plugins',
  sorts: [['failures', 'Most failures'], ['rate', 'Busiest'], ['messages', 'Most messages']],
  finds: 'Plugin, type, package',
  key: ({node, name}) => `${node} ${name}`,
  columns: [
    {title: 'Plugin', cell: row => html`<b class="mono">${row.name}</b>`},
    {title: 'From', cell: row => row.origin},
    {title: 'Messages', cell: row => number(row.messages), isNumber: true},
    {title: 'A second', cell: row => number(row.messagesPerS), isNumber: true},
    {title: 'Failures', cell: row => row.failures
      ? html`<span class="s-refused">${number(row.failures)}</span>` : '0', isNumber: true},
    {title: 'Is', cell: row => row.off === null ? 'on' : html`<span class="wraps">off: ${row.off}</span>`},
  ],
}

/** Whose a row is, where there are several. */
export const NODE: Column<Row> = {title: 'Node', cell: row => html`<span class="mono">${row.node}</span>`}

export const TABLES = {connections, users, povs, plugins} as unknown as Readonly<Record<List, Table<Row>>>
export const LISTS = Object.keys(TABLES) as List[]
