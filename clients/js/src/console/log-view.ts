/** The messages: what was sent and came, in words, one line each; opened on demand. */
import {html, nothing, type TemplateResult} from 'lit'
import {repeat} from 'lit/directives/repeat.js'
import {icon} from '../widgets/icons.js'
import type {Field} from './schema.js'
import {isRefused, type Entry, type Frame, type Shown} from './log.js'
import {exactTime, sayMessage, took} from './says.js'
import {drawJson, pretty} from './snippets.js'

/** What rows are drawn for, and what they tell. */
export interface LogHost {
  /** What is open: an entry's key and which of its messages. */
  readonly open: ReadonlySet<string>
  fieldsOf(type: string): readonly Field[]
  toggle(key: string): void
  copy(text: string, what: string): void
  /** Put what was sent back into its form; with what the server found wrong. */
  again(entry: Entry): void
}

/** Of an entry, what a filter leaves. */
export function fits(entry: Entry, shown: Shown): boolean {
  if (shown === 'sent') return !!entry.sent
  if (shown === 'received') return !!entry.got
  return shown === 'all' || isRefused(entry)
}

/** Draw the list, the newest first. */
export function drawLog(host: LogHost, entries: readonly Entry[], shown: Shown): TemplateResult {
  const fitting = entries.filter(each => fits(each, shown))
  return html`<ol class="msgs">${repeat(fitting, ({key}) => key, each => drawEntry(host, each, shown))}</ol>`
}

function drawEntry(host: LogHost, entry: Entry, shown: Shown): TemplateResult {
  const {sent, got, note, key} = entry
  if (note) {
    return html`<li class="m bad"><div class="m-line"><time>${exactTime(note.at)}</time>
<span class="way">${icon('alert', 'icon-s')}</span><b class="mono">${note.type}</b><span
class="txt">${note.text}</span></div></li>`
  }
  const isPair = sent && got && (shown === 'all' || shown === 'refused')
  return html`${got && shown !== 'sent' ? drawFrame(host, entry, got, `${key}<`, isPair ? 'pair-end' : '') : nothing}
${sent && shown !== 'received' ? drawFrame(host, entry, sent, `${key}>`, isPair ? 'pair-start' : '') : nothing}`
}

/** The answer alone, for where there is room for one line. */
export function drawAnswer(host: LogHost, entry: Entry): TemplateResult {
  const {got, note} = entry
  if (note) return drawEntry(host, entry, 'all')
  return got ? drawFrame(host, entry, got, `${entry.key}!`, '') : html`<li class="m waiting"><span
class="dim">No answer yet</span></li>`
}

function drawFrame(host: LogHost, entry: Entry, frame: Frame, key: string, pair: string): TemplateResult {
  const {message, text, at} = frame
  const isSent = frame === entry.sent
  const isBad = message.type === 'error'
  const {field, text: words} = sayMessage(message, isSent, isBad ? host.fieldsOf(entry.sent?.message.type ?? '') : [], entry.sent?.message)
  const way = isSent ? 'out' : isBad ? 'bad' : 'in'
  const name = {out: 'sent', in: 'received', bad: 'refused'}[way]
  const isOpen = host.open.has(key)
  const aside = isSent ? message.id === undefined ? '' : `#${message.id}` : entry.ms === undefined ? '' : took(entry.ms)
  return html`<li class="m ${way} ${pair} ${isOpen ? 'is-open' : ''} ${message.type === 'activity' ? 'news' : ''}">
<button type="button" class="m-line" aria-expanded=${isOpen} @click=${() => host.toggle(key)}>
<time>${exactTime(at)}</time><span class="way"
title=${name}>${icon({out: 'arrow-up', in: 'arrow-down', bad: 'alert'}[way], 'icon-s')}<span
class="sr">${name}</span></span>
<b class="mono">${message.type}</b><span
class="txt">${field ? html`<b>${field}</b> ` : nothing}<bdi>${words}</bdi></span><span
class="took">${aside}</span></button>
${isBad && entry.sent ? html`<button type="button" class="btn btn-text fix"
@click=${() => host.again(entry)}>Fix it</button>` : nothing}
${isOpen ? html`<div class="m-more"><pre class="code" tabindex="0"
aria-label="The message as JSON">${drawJson(pretty(message))}</pre>
<div class="m-acts"><button type="button" class="btn"
@click=${() => host.copy(text, 'The message')}>${icon('copy')}Copy</button>
${isSent ? html`<button type="button" class="btn"
@click=${() => host.again(entry)}>${icon('again')}Into the form</button>` : nothing}</div></div>` : nothing}</li>`
}
