/** What stands around the rows: who is there, what the foot says, what is there instead of rows. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {PovState, Row} from '../api.js'
import type * as wire from '../wire.js'
import type {Later} from './later.js'
import {icon} from './icons.js'
import {avatar, given, nameOf} from './people.js'
import {povName} from './sentences.js'
import {draw, has, number, say, type Speaker} from './text.js'

/** As many strokes at most: a hundred say no more. */
const STROKES = 12

/** Who is there, those who are active and not oneself first. */
export function presence(view: Later): unknown {
  const users = new Map<string, wire.User>()
  for (const {present} of view.snapshot.povs.values()) for (const each of present) {
    if (users.get(each.userId)?.state !== 'active') users.set(each.userId, each)
  }
  const n = users.size
  if (!n) return nothing
  const self = view.source?.client?.user
  const rank = ({userId, state}: wire.User) => (userId === self ? 2 : 0) + (state === 'active' ? 0 : 1)
  const all = [...users.values()].sort((a, b) => rank(a) - rank(b))
  const named = n > 3 ? 2 : n
  return html`<button class="who-btn" part="presence" data-do="presence" aria-expanded=${view.panel === 'presence'}><span class="stack">${
    all.slice(0, named).map(each => avatar(view, each.userId, 'av-m', each.state))}${n > named ? html`<span class="more" data-is=${`+${number(view, n - named)}`}></span>` : nothing
  }</span><span class="here-n">${icon('people')}<span aria-hidden="true" data-is=${number(view, n)}></span></span><span class="sr">${say(view, 'here', {n})}</span></button>`
}

/** That what a row says was something else at first. */
export const edited = (view: Speaker, {activity}: Row): unknown =>
  activity.amended ? html`<span>${say(view, 'row.amended')}</span>` : nothing

/** Who has read as far as one's own row: of those of whom the PoV knows, the author not among them. */
export function seenBy(row: Pick<Row, 'offset' | 'activity'>, {receipts, present}: Pick<PovState, 'receipts' | 'present'>): [n: number, total: number] {
  const others = new Set([...receipts.keys(), ...present.map(each => each.userId)])
  others.delete(row.activity.userId ?? '')
  return [[...others].filter(each => (receipts.get(each) ?? 0) >= row.offset).length, others.size]
}

/** The same as strokes and words. */
export function tally(view: Later, row: Row, pov: PovState): unknown {
  const [n, total] = seenBy(row, pov)
  if (!n) return nothing
  const strokes = Math.min(total, STROKES)
  const long = n === total ? strokes : Math.min(strokes - 1, Math.ceil(n * strokes / total))
  return html`<span class="seen" part="receipts"><span class="tally" aria-hidden="true">${
    Array.from({length: strokes}, (_, i) => html`<i class=${i < long ? '' : 'no'}></i>`)}</span>${
    say(view, n === total ? 'seen.all' : 'seen', {n, total})}</span>`
}

/** What there is instead of rows. */
export function instead(view: Later): unknown {
  const {said} = view
  const name = said.name === 'expired' ? 'signed-out' : has(view, `${said.name}.title`) ? said.name : said.name === 'live' ? 'empty' : undefined
  if (!name) return html`<div class="empty" part="empty"></div>`
  const isFirst = name === 'signed-out' && view.snapshot.connection.reason !== 'signed_out'
  const words = html`<h3>${say(view, `${name}.title`)}</h3><p>${say(view, isFirst ? 'signed-out.first' : `${name}.text`)}</p>${
    name === 'empty' ? html`<button class="btn" data-do="notifications">${say(view, 'do.follow')}</button>`
      : name === 'no-access' ? html`<button class="btn" data-do="copy-request">${say(view, 'do.copy-request')}</button>` : nothing}`
  // A page's own words are of a list without rows, not of one that may not be seen.
  return html`<div class="empty" part="empty">${name === 'empty' ? html`<slot name="empty">${words}</slot>` : words}</div>`
}

const dots = html`<span class="writing"><i></i><i></i><i></i></span>`

/** One line: what failed, what can be undone, who writes, how complete it is. */
export function foot(view: Later): TemplateResult {
  const {said, failed, undone, snapshot: {connection: {retryAt}, povs}} = view
  const {name, thread} = said
  let words = said.foot
  let sign: unknown = icon(name === 'signed-out' ? 'key' : thread === 'bad' || failed ? 'alert' : thread === 'filling' || words[0] === 'foot.pending' ? 'clock'
    : words[0] === 'foot.gaps' ? 'cut' : 'check')
  let end: unknown = nothing
  const self = view.source?.client?.user
  const writers = name === 'live' ? [...povs.values()].flatMap(each => each.typing).filter(each => each.userId !== self) : []
  if (view.isFiltered && !view.fitting.groups.length && name === 'live') words = ['foot.filter']
  if (failed) words = [failed]
  else if (undone !== undefined) {
    words = ['foot.muted', {pov: povName(view, undone)}]
    sign = icon('bell-off')
    end = html`<button class="btn btn-text" data-do="undo">${say(view, 'do.undo')}</button>`
  } else if (writers.length) {
    const [a, b] = writers.map(each => given(nameOf(view, each.userId)))
    const {where} = writers[0]!
    const n = writers.length
    words = [n > 2 ? 'foot.typing-many' : n > 1 ? 'foot.typing2' : where ? 'foot.typing1-on' : 'foot.typing1', {a, b, where, n: n - 2}]
    sign = dots
  } else if (retryAt && said.action === 'retry') {
    end = html`<span class="opt">${say(view, 'foot.retry', {n: Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))})}</span>`
  }
  return html`<span class="mid">${sign}</span><p><slot name="footer">${draw(view, ...words)}</slot></p><span>${end}</span>`
}
