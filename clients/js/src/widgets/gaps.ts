/** What is missing between rows, where it is missing. */
import {html, nothing} from 'lit-html'
import type {FeedGap, Group} from '../api.js'
import type {Item} from './list.js'
import type {Later} from './later.js'
import {icon} from './icons.js'
import {topicOf} from './shown.js'
import {say} from './text.js'
import {moment} from './times.js'

/** By the place among the groups that they stand before. */
export function gapsBefore(view: Later, groups: readonly Group[]): Map<number, Item[]> {
  const found = new Map<number, Item[]>()
  view.gaps.clear()
  if (view.isFiltered) return found
  for (const gap of view.snapshot.gaps) {
    const isOf = ({rows}: Group) => topicOf(rows[0]!) === gap.povId
    let at = groups.findIndex(each => isOf(each) && each.rows[0]!.offset <= gap.to.offset)
    if (at < 0) at = groups.findLastIndex(isOf) + 1 || groups.length
    const above = groups[at - 1]
    const below = groups[at]?.rows[0]!.at
    const item = gapItem(view, gap, below, above?.rows.at(-1)!.at, above?.state)
    view.gaps.set(item.key, gap)
    found.set(at, [...found.get(at) ?? [], item])
  }
  return found
}

function gapItem(view: Later, gap: FeedGap, from?: number, to?: number, above?: Group['state']): Item {
  const {missed, state, digest, povId} = gap
  const isGone = state === 'gone'
  const {panels} = view
  const isDigest = digest && !isGone && panels
  return {
    key: `gap ${povId} ${gap.to.offset}`,
    part: 'gap',
    classes: `gap${isDigest ? ' digest' : ''}${above && above !== 'read' ? ' is-unread' : ''}`,
    of: [gap, view.element.stamp, panels, from, to],
    draw() {
      if (isDigest) return panels.digest(view, gap)
      const first = missed === undefined ? say(view, 'gap.some') : say(view, isGone ? 'gap.gone' : 'gap.missed', {n: missed})
      const second = isGone ? say(view, 'gap.why')
        : from && to && say(view, 'gap.when', {from: moment(view, from), to: moment(view, to)})
      return html`<span class="cut">${icon('cut', 'icon-l')}</span><div><p>${first}</p>${second ? html`<p>${second}</p>` : nothing}</div>${
        isGone ? nothing : html`<button class="btn" data-do="load" ?disabled=${state === 'loading'}>${
          say(view, state === 'loading' ? 'do.loading' : 'do.load')}</button>`}`
    },
  }
}
