/** What stands in the list: rows, what they open to, where reading ended. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Group, Row} from '../api.js'
import type {Item} from './list.js'
import type {TeamActivity} from './team-activity.js'
import {icon} from './icons.js'
import {avatar, hueOf} from './people.js'
import {kindOf, linkOf, povName, quoteOf, sentence, titleOf} from './sentences.js'
import {quoted, say} from './text.js'
import {age, full} from './times.js'

const unreadOf = ({state}: {state: Row['state']}) =>
  state === 'read' ? '' : state === 'seen' ? ' is-unread is-seen' : ' is-unread'

const time = (host: TeamActivity, at: number) =>
  html`<time datetime=${new Date(at).toISOString()} title=${full(host, at)}>${age(host, at)}</time>`

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
  if (isOpen) for (const each of rows) items.push(subItem(host, each))
  return items
}

function drawRow(host: TeamActivity, group: Group, isOpen: boolean, isActive: boolean): TemplateResult {
  const {rows, state} = group
  const row = rows[0]!
  const {activity, own, povId} = row
  const user = activity.userId ?? ''
  const isMany = rows.length > 1
  const quote = isMany ? undefined : quoteOf(host, activity)
  const given = isMany ? undefined : host.renderItem?.(row)
  return html`<span class="bead ${isMany && !isOpen ? `is-many hue-${hueOf(user)}` : ''}" part="bead">${avatar(host, user)}<span class="kind" part="kind">${icon(kindOf(activity))}</span></span>
${given ?? html`<p class="line" part="line">${sentence(host, group, host.later?.shortName(row))}</p>${quote ? html`<p class="quote" part="quote"><bdi>${quote}</bdi></p>` : nothing}`}
<p class="meta" part="meta"><span class="pov-name">${quoted(povName(host, povId))}</span>${
  own ? host.later?.tally(row) : nothing}${isMany ? html`<span><button class="fold" data-do="fold" aria-expanded=${isOpen}><span class="w">${
  say(host, isOpen ? 'do.hide' : 'do.show')}</span>${icon(isOpen ? 'up' : 'down', 'icon-s')}</button></span>` : nothing}${
  state === 'read' ? nothing : html`<span class="sr">${say(host, state === 'new' ? 'row.new' : 'row.unread')}</span>`}</p>
${isActive ? host.later?.acts(group) : nothing}${time(host, row.at)}`
}

function subItem(host: TeamActivity, row: Row): Item {
  return {
    key: `${row.key} `,
    part: 'subrow',
    classes: `sub${unreadOf(row)}`,
    of: [row, host.stamp],
    draw() {
      const link = linkOf(host, row.activity)
      const words = titleOf(row.activity) ?? quoteOf(host, row.activity)
      const what = words === undefined ? sentence(host, {rows: [row]}) : quoted(words)
      return html`<span></span><p class="line">${host.renderItem?.(row) ?? (link && words !== undefined ? html`<a href=${link} part="link">${what}</a>` : what)}</p>${time(host, row.at)}`
    },
  }
}

/** Where reading ended. */
export function dividerItem(host: TeamActivity): Item {
  return {
    key: 'divider',
    part: 'divider',
    classes: 'divider',
    of: [host.stamp],
    draw: () => html`<span>${say(host, 'divider')}</span><i class="ln"></i><button class="btn btn-text" data-do="read-all">${say(host, 'do.read-all')}</button>`,
  }
}
