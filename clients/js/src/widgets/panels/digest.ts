/** What was missed in a long absence, in numbers, in the place of its rows. */
import {html, nothing, type TemplateResult} from 'lit'
import type {FeedGap} from '../../api.js'
import type {Sort} from '../../wire.js'
import type {PanelHost} from '../api.js'
import {icon} from '../icons.js'
import {avatar} from '../people.js'
import {has, number, say} from '../text.js'
import {moment} from '../times.js'
import {list, shortNames} from './names.js'

/** So many are named, and have a bar; the others are one. */
const PEOPLE = 3
const SORTS = 5

const sortName = (host: PanelHost, {type, action}: Sort) =>
  has(host, `sum.${type}.${action}`) ? say(host, `sum.${type}.${action}`) : say(host, 'sum.other', {type, action})

/** What to draw as bars: the largest first, what is left over, and what the server has not named, as one. */
export function sumsOf(host: PanelHost, {counted, activities}: NonNullable<FeedGap['digest']>): [name: string, count: number][] {
  const all = activities.toSorted((a, b) => b.count - a.count)
  const named = all.length > SORTS ? all.slice(0, SORTS - 1) : all
  const found = named.map((each): [string, number] => [sortName(host, each), each.count])
  const rest = counted - named.reduce((sum, {count}) => sum + count, 0)
  if (rest > 0) found.push([say(host, 'sum.rest'), rest])
  return found
}

/** From the last row before it, where one is there, to from when on nothing is missing. */
function when(host: PanelHost, {povId, from, to}: FeedGap): string | undefined {
  const {rows, povs} = host.snapshot
  const before = from && rows.find(row => row.povId === povId && row.epoch === from.epoch && row.offset <= from.offset)
  const after = rows.findLast(row => row.povId === povId && row.epoch === to.epoch && row.offset > to.offset)
  const end = after?.at ?? povs.get(povId)?.completeSince
  if (!end) return
  return say(host, before ? 'digest.when' : 'digest.until', {from: before && moment(host, before.at), to: moment(host, end)})
}

/** Load all of it, and go to the first one. */
async function readFromStart(host: PanelHost, gap: FeedGap): Promise<void> {
  const {feed} = host.source!
  try {
    await feed.load(gap)
  } catch {
    return host.fail('gap.failed')
  }
  const first = feed.getSnapshot().rows.findLast(({povId, epoch, offset}) =>
    povId === gap.povId && epoch === gap.to.epoch && offset > (gap.from?.offset ?? 0))
  if (!first) return
  // It is in the list once that was drawn anew: in the next frame.
  await frame()
  await frame()
  host.reveal(first)
}

const frame = () => new Promise(requestAnimationFrame)

export function digest(host: PanelHost, gap: FeedGap): TemplateResult {
  const given = gap.digest!
  const {counted, people, users} = given
  const sums = sumsOf(host, given)
  const ids = users.map(({userId}) => userId).filter(Boolean)
  const named = ids.slice(0, PEOPLE)
  const names = shortNames(host, ids)
  const time = when(host, gap)
  const isLoading = gap.state === 'loading'
  const title = say(host, 'digest.title', {
    updates: say(host, 'digest.updates', {n: counted}),
    people: say(host, 'n.person', {n: people}),
  })
  return html`<span class="cut">${icon('cut', 'icon-l')}</span><div><p><b>${title}</b></p>${
    time ? html`<p>${time}</p>` : nothing}</div><div class="sums-of" part="digest">${named.length ? html`<div class="by"><span
  class="stack" aria-hidden="true">${named.map(id => avatar(host, id, 'av-m'))}${people > named.length
    ? html`<span class="more">+${number(host, people - named.length)}</span>` : nothing}</span><span>${
    say(host, 'digest.most', {who: list(host, named.map(id => names.get(id)!))})}</span></div>` : nothing}<dl class="sums">${
    sums.map(([name, count]) => html`<div><dt>${name}</dt><dd class="bar" aria-hidden="true"><svg><rect height="4" rx="2" width="${
      Math.round(100 * count / counted)}%"></rect></svg></dd><dd>${number(host, count)}</dd></div>`)}</dl><div class="go"><button
  class="btn btn-main" ?disabled=${isLoading} @click=${() => void readFromStart(host, gap)}>${
    say(host, isLoading ? 'do.loading' : 'do.read-start')}</button><button class="btn" @click=${() => host.markRead()}>${
    say(host, 'do.read-all')}</button></div></div>`
}
