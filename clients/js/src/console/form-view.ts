/** The form of one message type: fields by kind, what is sent, and buttons to send and copy it. */
import {html, nothing, type TemplateResult} from 'lit'
import {live} from 'lit/directives/live.js'
import {icon} from '../widgets/icons.js'
import type {Field} from './schema.js'
import {valueIn, type Filled, type Known, type Value} from './forms.js'
import type {Text} from './texts.js'
import {hideTokens} from './snippets.js'

/** What a form is drawn from, and what it tells. */
export interface FormHost {
  readonly text: Text
  readonly filled: Filled
  readonly known: Known
  /** What is wrong, by path. */
  readonly wrong: ReadonlyMap<string, string>
  /** What else there is to say of a field. */
  says(field: Field): string | undefined
  /** What can be chosen instead of typing it. */
  suggests(field: Field): readonly string[]
  change(field: Field, value: Value): void
  renewToken(): void
}

/** Draw fields; those that may be left out are folded, but those that the text shows. */
export function drawFields(host: FormHost, fields: readonly Field[]): TemplateResult {
  // By what is offered: where a field stands does not change while one types in it.
  const isOpen = (field: Field): boolean => field.required || (field.kind === 'group'
    ? field.fields.some(isOpen)
    : !!host.text.shown?.includes(field.path) || valueIn(field, NOTHING, host.known).length > 0)
  const isFilled = (field: Field): boolean => field.fields.some(isFilled)
    || !!host.filled.get(field.path)?.length || host.wrong.has(field.path)
  const [open, folded] = [fields.filter(isOpen), fields.filter(each => !isOpen(each))]
  return html`${rows(host, open)}${folded.length ? html`
<details class="more"
?open=${folded.some(isFilled)}><summary>${icon('next', 'flip')}${folded.length} optional ${folded.length === 1 ? 'field' : 'fields'}
<span class="dim mono">${folded.map(({name}) => name).join(', ')}</span></summary><div
class="fields">${rows(host, folded)}</div></details>` : nothing}`
}

const NOTHING: Filled = new Map()

/** `type` and `action` stand beside each other: a pair of short texts. */
function rows(host: FormHost, fields: readonly Field[]): unknown[] {
  const drawn: unknown[] = []
  for (let i = 0; i < fields.length; i++) {
    const [field, next] = [fields[i]!, fields[i + 1]]
    if (field.name === 'type' && next?.name === 'action') {
      drawn.push(html`<div class="duo">${drawField(host, field)}${drawField(host, next)}</div>`)
      i++
    } else drawn.push(field.kind === 'group' ? drawGroup(host, field) : drawField(host, field))
  }
  return drawn
}

function drawGroup(host: FormHost, field: Field): TemplateResult {
  if (field.required) return drawFields(host, field.fields)
  return html`<fieldset class="group"><legend><span
class="mono">${field.name}</span><em>optional</em></legend>
<div class="fields">${rows(host, field.fields)}</div></fieldset>`
}

const idOf = ({path}: Field, more = '') => `f-${path.replaceAll('.', '-')}${more}`

function drawField(host: FormHost, field: Field): TemplateResult {
  const {path, name, help, required, kind} = field
  const value = valueIn(field, host.filled, host.known)
  const wrong = host.wrong.get(path)
  const says = wrong ?? host.says(field)
  const note = [help, required ? '' : 'optional'].filter(Boolean).join(', ')
  const described = says ? idOf(field, '-help') : nothing
  const common = {id: idOf(field), described, wrong: !!wrong}
  const isRow = ['boolean', 'list', 'union'].includes(kind)
    || (kind === 'choice' && field.options.length <= SEGMENTS)
  const label = html`<span class="mono">${name}</span>${note ? html`<em>${note}</em>` : nothing}`
  return html`<div class="field ${wrong ? 'is-wrong' : ''}" data-path=${path}>
${isRow ? html`<span class="label" id=${idOf(field, '-label')}>${label}</span>` : html`<label
class="label" for=${common.id}>${label}</label>`}
${control(host, field, value, common)}
${says ? html`<p class="help ${wrong ? 'is-wrong' : ''}" id=${idOf(field, '-help')}>${says}</p>` : nothing}
</div>`
}

/** More than that many choices are a list to choose from. */
const SEGMENTS = 4

interface Common {
  readonly id: string
  readonly described: unknown
  readonly wrong: boolean
}

function control(host: FormHost, field: Field, value: Value, common: Common): TemplateResult {
  const {kind, name, required, options} = field
  const text = typeof value === 'string' ? value : ''
  const change = (next: Value) => host.change(field, next)
  const typed = (event: Event) => change((event.target as HTMLInputElement).value)
  if (name === 'token' && kind === 'text') {
    return html`<div class="input mono"><output id=${common.id} class="grow">${hideTokens(text)}</output>
<button type="button" class="btn-icon" aria-label="Another token" title="Another token"
@click=${() => host.renewToken()}>${icon('again')}</button></div>`
  }
  const pick = (options: readonly Option[]) => segments(field, text, common, [...options, ...absent(required)], change)
  if (kind === 'boolean') return pick([['true', 'true'], ['false', 'false']])
  if (kind === 'union') {
    const names = field.fields.map((each, i): Option => [String(i), labelOf(each)])
    const member = field.fields[Number(text || -1)]
    return html`${pick(names)}
${member?.kind === 'group' ? html`<div class="fields inner">${rows(host, member.fields)}</div>` : nothing}`
  }
  const names = options.map((each): Option => [String(each), String(each)])
  if (kind === 'choice' && options.length <= SEGMENTS) return pick(names)
  if (kind === 'choice') {
    return html`<select class="input mono" id=${common.id} aria-describedby=${common.described}
aria-invalid=${common.wrong} @change=${typed}>
${[...absent(required), ...names].map(([each, says]) =>
    html`<option value=${each} ?selected=${each === text}>${says}</option>`)}</select>`
  }
  if (kind === 'list') return chips(field, Array.isArray(value) ? value as readonly string[] : [], common, change)
  if (kind === 'json') {
    return html`<textarea class="input mono" id=${common.id}
spellcheck="false" rows=${Math.max(2, text.split('\n').length)}
aria-describedby=${common.described} aria-invalid=${common.wrong} placeholder="not sent" .value=${live(text)} @input=${typed}></textarea>`
  }
  const suggested = host.suggests(field)
  const list = suggested.length ? `${common.id}-list` : nothing
  return html`<input class="input mono" id=${common.id} autocomplete="off" spellcheck="false"
placeholder="not sent" list=${list}
inputmode=${kind === 'number' ? 'numeric' : nothing} aria-describedby=${common.described} aria-invalid=${common.wrong}
.value=${live(text)} @input=${typed}>${suggested.length
    ? html`<datalist id=${list}>${suggested.map(each => html`<option value=${each}></option>`)}</datalist>` : nothing}`
}

/** What stands for a choice, and what it says. */
type Option = readonly [value: string, says: string]

const absent = (required: boolean): readonly Option[] => required ? [] : [['', 'not sent']]

/** What one of several is called. */
function labelOf({fields, kind, options}: Field): string {
  if (kind === 'choice') return String(options[0])
  return kind === 'group' && fields.some(({name}) => name === 'offset') ? 'a place' : kind
}

/** A choice of few, all in sight: arrow keys go from one to the next. */
function segments(
  field: Field, value: string, {described, wrong}: Common, options: readonly Option[],
  change: (value: string) => void,
): TemplateResult {
  return html`<div class="seg" role="radiogroup" aria-labelledby=${idOf(field, '-label')}
aria-describedby=${described} aria-invalid=${wrong}>
${options.map(([each, says]) => html`<label class=${each === value ? 'on' : ''}><input type="radio"
name=${field.path} value=${each}
.checked=${live(each === value)} @change=${() => change(each)}>${says}</label>`)}</div>`
}

/** Several texts: Enter or a comma ends one, Backspace takes the last one away. */
function chips(
  field: Field, drawn: readonly string[], {id, described}: Common, change: (value: readonly string[]) => void,
): TemplateResult {
  // What is typed before this is drawn again adds to what was typed, not to what is drawn.
  let items = drawn
  const set = (next: readonly string[]) => change((items = next))
  const add = (input: HTMLInputElement) => {
    const text = input.value.trim()
    if (!text) return
    input.value = ''
    set([...items, text])
  }
  const pressed = (event: KeyboardEvent) => {
    const input = event.target as HTMLInputElement
    if ((event.key === 'Enter' && !event.ctrlKey && !event.metaKey) || event.key === ',') {
      event.preventDefault()
      add(input)
    } else if (event.key === 'Backspace' && !input.value && items.length) set(items.slice(0, -1))
  }
  return html`<div class="input mono chips">${items.map((each, i) => html`<span class="chip is-on">${each}
<button type="button" aria-label="Take ${each} away"
@click=${() => set(items.toSpliced(i, 1))}>${icon('close', 'icon-s')}</button></span>`)}
<input id=${id} aria-labelledby=${idOf(field, '-label')} aria-describedby=${described} autocomplete="off"
spellcheck="false"
placeholder=${items.length ? 'another' : 'not sent; Enter adds one'} 
@keydown=${pressed} @change=${(event: Event) => add(event.target as HTMLInputElement)}></div>`
}

