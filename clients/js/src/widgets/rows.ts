/** What stands in the list: rows, what they open to, where reading ended. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Group, Row} from '../api.js'
import type {Item} from './list.js'
import type {TeamActivity} from './team-activity.js'
import {icon} from './icons.js'
import {avatar, hueOf} from './people.js'
import {kindOf, povName, quoteOf, sentence} from './sentences.js'
import {ask, quoted, say, type Speaker} from './text.js'
import {age, full} from './times.js'

/** How an unread row looks, by whether it was seen. */
export const unreadOf = ({state}: {state: Row['state']}) =>
  state === 'read' ? '' : state === 'seen' ? ' is-unread is-seen' : ' is-unread'

/** In the time's column; all of it in the title, where it may be asked for. */
export const time = (host: Speaker, at: number, isActive = true, isWarm = true) =>
  html`<time datetime=${new Date(at).toISOString()} title=${isActive ? full(host, at) : nothing}>${isWarm ? age(host, at) : ''}</time>`

/** A row, and if it is open what is in it. */
export function rowItems(host: TeamActivity, group: Group): Item[] {
  const {key, rows} = group
  const row = rows[0]!
  const pov = row.own ? host.snapshot.povs.get(row.povId) : undefined
  const isOpen = rows.length > 1 && host.opened.has(key)
  const {later} = host
  const isActive = !!later?.isCoarse || key === host.pointed || key === host.current && host.hasFocus
  const items: Item[] = [{
    key,
    part: 'row',
    classes: `row${unreadOf(group)}${host.fresh.has(key) ? ' is-fresh' : ''}${rows.length > 1 ? ' is-group' : ''}`,
    of: [group, host.stamp, isOpen, isActive, later?.menuOf?.key === key, pov?.receipts, pov?.present],
    draw: () => drawRow(host, group, isOpen, isActive),
  }]
  if (isOpen) items.push(...later!.subs(group))
  return items
}

function drawRow(host: TeamActivity, group: Group, isOpen: boolean, isActive: boolean): TemplateResult {
  const {rows, state} = group
  const row = rows[0]!
  const {activity, povId} = row
  const user = activity.userId ?? ''
  const isMany = rows.length > 1
  const quote = isMany ? undefined : quoteOf(host, activity)
  const given = isMany ? undefined : ask(() => host.renderItem?.(row))
  return html`<span class="bead ${isMany && !isOpen ? `is-many hue-${hueOf(user)}` : ''}" part="bead">${avatar(host, user)}<span class="kind" part="kind">${icon(kindOf(activity))}</span></span>
${given ?? html`<p class="line" part="line">${sentence(host, group, host.later?.shortName(row))}</p>${quote ? html`<p class="quote" part="quote"><bdi>${quote}</bdi></p>` : nothing}`}
<p class="meta" part="meta"><span class="pov-name">${quoted(povName(host, povId))}</span>${
  host.later?.remarks(group, isOpen)}${
  state === 'read' ? nothing : html`<span class="sr">${say(host, state === 'new' ? 'row.new' : 'row.unread')}</span>`}</p>
${isActive ? host.later?.acts(group) : nothing}${time(host, row.at, isActive, host.isWarm)}`
}
