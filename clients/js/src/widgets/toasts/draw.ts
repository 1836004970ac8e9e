/** How toasts look: a slice of the feed, with its thread, bead and words. */
import {html, nothing, type TemplateResult} from 'lit-html'
import type {Row} from '../../api.js'
import {actionsOf, type Toast} from './toast.js'
import {glyph, icon, type Glyph} from '../icons.js'
import {avatar, hueOf, nameOf} from '../people.js'
import {kindOf, plainSentence, povName, quoteOf, sentence, titleOf, type Teller} from '../sentences.js'
import {ask, draw, has, quoted, say} from '../text.js'
import {age, clock, moment} from '../times.js'

/** An element that shows toasts. */
export interface ToastHost extends Teller {
  readonly renderToast?: (row: Row) => unknown
}

/** Sign, glyph or icon, and class of the thread of those that are not of a person. */
const SIGNS: Partial<Record<Toast['kind'], readonly [state: Glyph, icon: string | undefined, thread: string]>> = {
  digest: ['live', 'doc', ''],
  offline: ['offline', undefined, 'is-cut'],
  restarting: ['busy', 'server', 'is-cut'],
  back: ['live', undefined, ''],
  unsent: ['refused', undefined, 'is-bad'],
  failed: ['refused', undefined, 'is-bad'],
  session: ['expired', undefined, 'is-cut'],
  muted: ['live', 'bell-off', ''],
  ask: ['live', 'bell', ''],
}

const given = (name: string) => name.split(' ')[0] ?? name

const button = (host: ToastHost, name: string, classes = '', drawn?: string) =>
  html`<button class="btn ${classes}" data-do=${name}>${drawn ? icon(drawn) : nothing}${say(host, `do.${name}`)}</button>`

const paragraph = (part: string, words: unknown) => html`<p class=${part} part=${part}>${words}</p>`

interface Words {
  line: unknown
  quote?: string
  text?: unknown
  meta?: unknown
  go?: unknown
}

/** Draw one; how far its thread has run is not said here. */
export function drawToast(host: ToastHost, toast: Toast, classes: string): TemplateResult {
  const {kind, rows, duration} = toast
  const row = rows[0]
  const sign = SIGNS[kind]
  const own = kind === 'activity' && row ? ask(() => host.renderToast?.(row)) : undefined
  const {line, quote, text, meta, go} = wordsOf(host, toast)
  return html`<article class="toast ${sign?.[2] ?? ''} ${duration === undefined ? 'is-still' : ''} ${classes}" part="toast" tabindex="0"
  aria-label=${labelOf(host, toast)} data-key=${toast.key}><i class="thread"></i>${
    sign ? html`<span class="glyph-bead s-${sign[0]}" part="sign">${sign[1] ? icon(sign[1]) : glyph(sign[0])}</span>`
      : row ? html`<span class="bead ${kind === 'burst' ? `is-many hue-${hueOf(row.activity.userId)}` : ''}" part="bead">${
        avatar(host, row.activity.userId)}<span class="kind" part="kind">${icon(kind === 'action' ? 'target' : kindOf(row.activity))}</span></span>` : nothing
  }<div class="say">${own ?? html`${paragraph('line', line)}${quote ? paragraph('quote', html`<bdi>${quote}</bdi>`) : nothing}${
    text ?? nothing}${meta ? paragraph('meta', meta) : nothing}`}${
    go ? html`<div class="go" part="actions">${go}</div>` : nothing}</div><button class="btn-icon x" part="close" data-do="dismiss" aria-label=${
    say(host, 'do.dismiss')}>${icon('close')}</button></article>`
}

/** What it says, as plain text: its name, and what is read out. */
export function labelOf(host: ToastHost, toast: Toast): string {
  const {kind, rows, povs} = toast
  if (kind === 'activity' || kind === 'action') return `${plainSentence(host, {rows})}, ${povName(host, povs[0]!)}`
  return say(host, ...headOf(host, toast))
}

function headOf(host: ToastHost, {kind, count: n, povs, at, users, pending}: Toast): [string, Record<string, string | number>] {
  if (kind === 'burst') {
    return povs.length > 1 ? ['toast.many', {n, povs: povs.length}] : ['toast.burst', {n, pov: povName(host, povs[0]!)}]
  }
  if (kind === 'digest') return ['toast.digest', {n, people: say(host, 'toast.people', {n: users.length})}]
  if (kind === 'muted') return ['toast.muted', {pov: povName(host, povs[0]!), time: clock(host, at)}]
  if (kind === 'unsent') {
    const what = `unsent.${pending!.activity.type}`
    return ['toast.unsent', {what: say(host, has(host, what) ? what : 'unsent.other')}]
  }
  return [`toast.${kind}`, {time: moment(host, at)}]
}

function wordsOf(host: ToastHost, toast: Toast): Words {
  const {kind, rows, count: n, users, povs, at, pending} = toast
  const row = rows[0]
  const drawn = draw(host, ...headOf(host, toast))
  const text = has(host, `toast.${kind}.text`) ? draw(host, `toast.${kind}.text`, {n}) : undefined
  switch (kind) {
    case 'activity':
      return {
        line: sentence(host, {rows}), quote: quoteOf(host, row!.activity),
        meta: draw(host, 'toast.where', {pov: quoted(povName(host, row!.povId)), time: age(host, row!.at)}),
      }
    case 'action':
      return {
        line: sentence(host, {rows}), quote: quoteOf(host, row!.activity),
        meta: draw(host, 'toast.where', {pov: quoted(povName(host, row!.povId)), time: age(host, row!.at)}),
        go: actionsOf(row!).map(({label}, i) =>
          html`<button class="btn ${i ? '' : 'btn-main'}" data-do="action" data-at=${i}><bdi>${label}</bdi></button>`),
      }
    case 'burst':
      return {line: drawn, text: html`<ul class="mini">${rows.map(each =>
        html`<li>${sentence(host, {rows: [each]}, given(nameOf(host, each.activity.userId)))}</li>`)}</ul>`, meta: by(host, users)}
    case 'digest':
      return {
        line: drawn,
        meta: at ? draw(host, 'toast.since', {time: moment(host, at), n: povs.length}) : undefined,
        go: html`${button(host, 'see', 'btn-main')}${button(host, 'read-all')}`,
      }
    case 'offline': return {line: drawn, meta: text, go: button(host, 'retry', '', 'again')}
    case 'back': return {line: drawn, meta: n ? text : undefined}
    case 'session': return {line: drawn, meta: text, go: button(host, 'sign-in', 'btn-main')}
    case 'unsent': {
      const {state, failure, activity} = pending!
      const why = state === 'stale' ? draw(host, 'toast.unsent.stale')
        : failure ? draw(host, 'toast.unsent.refused', {why: quoted(failure.message)}) : text
      const quote = quoteOf(host, activity as Row['activity']) ?? titleOf(activity as Row['activity'])
      return {line: drawn, quote, meta: why, go: html`${button(host, 'send')}${button(host, 'discard', 'btn-bad')}`}
    }
    case 'muted': return {line: drawn, meta: html`<button class="btn btn-text undo" data-do="undo">${say(host, 'do.undo')}</button>`}
    case 'ask': return {line: drawn, meta: text, go: html`${button(host, 'allow', 'btn-main')}${button(host, 'not-now')}`}
    default: return {line: drawn, meta: text}
  }
}

function by(host: ToastHost, users: readonly string[]): unknown {
  const [a, b] = users.map(each => quoted(given(nameOf(host, each))))
  const values = {a, b, n: users.length - 1, time: say(host, 'toast.just-now')}
  return draw(host, users.length === 1 ? 'toast.by1' : users.length === 2 ? 'toast.by2' : 'toast.by', values)
}
