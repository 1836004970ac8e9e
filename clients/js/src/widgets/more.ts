/** What a feed needs once it shows something: loaded then. */
import {html, nothing, type TemplateResult} from 'lit'
import type {FeedGap, Group, Snapshot} from '../api.js'
import type {Item} from './list.js'
import type {TeamActivity} from './team-activity.js'
import {sheetOf} from './element.js'
import {icon} from './icons.js'
import './icons-more.js'
import {press} from './keys.js'
import {nameOf} from './people.js'
import {badgeTab} from './tab-badge.js'
import {draw, has, say} from './text.js'
import {full, moment} from './times.js'
import {Voice} from './voice.js'
import {Watch} from './watch.js'
import text from './more.css'

export const sheet = sheetOf(text)

/** Be with an element until it leaves the page. */
export function attach(host: TeamActivity) {
  const voice = new Voice(host)
  const watch = new Watch(host)
  for (const each of host.articles?.list.querySelectorAll('article') ?? []) watch.watch(each)
  let undo: {povId: string; timer: ReturnType<typeof setTimeout>} | undefined

  const count = () => {
    if (host.tabBadge) badgeTab(host.snapshot.unseen)
  }
  voice.changed(host.snapshot)
  count()

  async function mute(povId: string, until?: Date): Promise<void> {
    try {
      await host.source?.feed.mute(povId, until ? 'off' : 'sound', until)
    } catch {
      return host.fail('foot.failed')
    }
    clearTimeout(undo?.timer)
    undo = undefined
    if (until && host.dispatchEvent(new CustomEvent('pov-muted', {detail: {povId, until}, bubbles: true, composed: true, cancelable: true}))) {
      undo = {povId, timer: setTimeout(() => {
        undo = undefined
        host.redraw()
      }, 8_000)}
    }
    host.redraw()
  }

  return {
    mute,
    /** Take back what was muted last. */
    unmute() {
      if (undo) void mute(undo.povId)
    },
    changed(snapshot: Snapshot, before: Snapshot) {
      if (snapshot.unseen !== before.unseen) count()
    },
    updated() {
      voice.changed(host.snapshot)
      watch.changed()
    },
    made: (element: Element) => watch.watch(element),
    gone: (element: Element) => watch.unwatch(element),
    key(event: KeyboardEvent) {
      if (!event.defaultPrevented && press(host, event)) event.preventDefault()
    },
    detach() {
      voice.end()
      watch.end()
      clearTimeout(undo?.timer)
      if (host.tabBadge) badgeTab(0)
    },
    tally: (n: number, total: number) => tally(host, n, total),
    gapsBefore: (groups: readonly Group[]) => gapsBefore(host, groups),
    /** What there is instead of rows. */
    instead(): unknown {
      const {said} = host
      const name = said.name === 'live' ? 'empty' : said.name === 'expired' ? 'signed-out' : said.name
      if (!has(host, `${name}.title`)) return nothing
      return html`<div class="empty" part="empty"><slot name="empty"><h3>${say(host, `${name}.title`)}</h3><p>${say(host, `${name}.text`)}</p>${
        name === 'empty' ? html`<button class="btn" data-do="notifications">${say(host, 'do.follow')}</button>` : nothing}</slot></div>`
    },
    begins(): unknown {
      const {rows, povs} = host.snapshot
      if (povs.size !== 1) return nothing
      return html`<div class="earlier is-end" part="earlier"><p>${say(host, 'begins', {time: moment(host, rows.at(-1)!.at)})}</p></div>`
    },
    foot: () => foot(host, undo && undo.povId),
  }
}

function tally(host: TeamActivity, n: number, total: number): TemplateResult {
  // A hundred strokes say no more than twelve.
  const strokes = Math.min(total, 12)
  const long = n === total ? strokes : Math.min(strokes - 1, Math.round(n * strokes / total))
  return html`<span class="seen" part="receipts"><span class="tally" aria-hidden="true">${
    Array.from({length: strokes}, (_, i) => html`<i class=${i < long ? '' : 'no'}></i>`)}</span>${
    n === total ? say(host, 'seen.all', {n}) : say(host, 'seen', {n, total})}</span>`
}

/** Where gaps are: before which group. */
function gapsBefore(host: TeamActivity, groups: readonly Group[]): Map<number, Item[]> {
  const found = new Map<number, Item[]>()
  for (const gap of host.snapshot.gaps) {
    const isOf = ({rows}: Group) => rows[0]!.povId === gap.povId || gap.povId === '*'
    let at = groups.findIndex(each => isOf(each) && each.rows[0]!.offset <= gap.to.offset)
    if (at < 0) at = groups.findLastIndex(isOf) + 1 || groups.length
    const above = groups[at - 1]?.rows.at(-1)?.at
    const below = groups[at]?.rows[0]!.at
    const item = gapItem(host, gap, above !== undefined && below !== undefined ? [below, above] : undefined, groups[at - 1]?.state)
    found.set(at, [...found.get(at) ?? [], item])
  }
  return found
}

function gapItem(host: TeamActivity, gap: FeedGap, times: [from: number, to: number] | undefined, above?: Group['state']): Item {
  const {missed, state, digest, povId, to} = gap
  const isGone = state === 'gone'
  const {panels} = host
  return {
    key: `gap ${povId} ${to.offset}`,
    part: 'gap',
    classes: `gap${above && above !== 'read' ? ' is-unread' : ''}${digest && panels ? ' digest' : ''}`,
    of: [gap, host.stamp, panels, times?.[0], times?.[1]],
    draw() {
      if (digest && !isGone && panels) return panels.digest(host, gap)
      const first = missed === undefined ? say(host, 'gap.some') : say(host, isGone ? 'gap.gone' : 'gap.missed', {n: missed})
      const second = isGone ? say(host, 'gap.why')
        : times ? say(host, 'gap.when', {from: moment(host, times[0]), to: moment(host, times[1])}) : undefined
      return html`<span class="cut">${icon('cut', 'icon-l')}</span><div><p>${first}</p>${second ? html`<p>${second}</p>` : nothing}</div>${
        isGone ? html`<span></span>` : html`<button class="btn" data-do="load" ?disabled=${state === 'loading'}>${say(host, state === 'loading' ? 'do.loading' : 'do.load')}</button>`}`
    },
  }
}

function foot(host: TeamActivity, undone: string | undefined): TemplateResult {
  const {said, failed, snapshot} = host
  const {connection: {retryAt}, povs} = snapshot
  let words: unknown = draw(host, ...said.foot)
  let sign: unknown = icon(said.thread === 'bad' ? said.name === 'signed-out' ? 'key' : 'alert'
    : said.thread === 'filling' ? 'clock' : said.foot[0] === 'foot.gaps' ? 'cut' : 'check')
  let end: unknown = nothing
  const writers = said.name === 'live' ? [...povs.values()].flatMap(each => each.typing)
    .filter(each => each.userId !== host.source?.client?.user) : []
  if (failed) {
    words = draw(host, failed)
    sign = icon('alert')
  } else if (undone !== undefined) {
    words = draw(host, 'foot.muted', {pov: host.povs?.[undone] ?? undone})
    sign = icon('bell-off')
    end = html`<button class="btn btn-text" data-do="undo">${say(host, 'do.undo')}</button>`
  } else if (writers.length) {
    const [a, b] = writers.map(each => given(nameOf(host, each.userId)))
    const where = writers[0]!.where
    const n = writers.length
    words = draw(host, n > 2 ? 'foot.typing-many' : n > 1 ? 'foot.typing2' : where ? 'foot.typing1-on' : 'foot.typing1', {a, b, where, n: n - 2})
    sign = html`<span class="writing"><i></i><i></i><i></i></span>`
  } else if (retryAt && said.action === 'retry') {
    end = html`<span class="opt" title=${full(host, retryAt)}>${say(host, 'foot.retry', {n: Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))})}</span>`
  }
  return html`<span class="mid">${sign}</span><p><slot name="footer">${words}</slot></p><span>${end}</span>`
}

/** The name that friends use; an id is one. */
const given = (name: string) => name.trim().split(/\s+/)[0]!
