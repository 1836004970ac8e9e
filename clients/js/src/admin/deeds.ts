/** What cuts somebody off: it is asked first whether that is meant, and said what the person will see. */
import {html, nothing, type TemplateResult} from 'lit'
import {glyph} from '../widgets/icons.js'
import type {Admin} from './admin.js'

/** Something to be done. `done` is said when it is, `failed` is why it was not. */
export interface Deed {
  readonly title: string
  readonly words: string
  readonly verb: string
  readonly method: string
  readonly path: string
  readonly done: string
  readonly body?: {readonly seconds: number}
  readonly failed?: string
}

const TIMES: readonly (readonly [seconds: number, words: string])[] = [
  [900, '15 minutes'], [3600, 'an hour'], [86_400, 'a day'], [7 * 86_400, 'a week'], [30 * 86_400, '30 days'],
]

/** The dialog, while there is something to ask. */
export function drawAsk(page: Admin, deed: Deed | undefined): TemplateResult | typeof nothing {
  if (!deed) return nothing
  const cancel = () => { page.deed = undefined }
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    void page.carryOut(page.deed!)
  }
  const choose = (event: Event) => {
    page.deed = {...deed, body: {seconds: Number((event.target as HTMLSelectElement).value)}}
  }
  return html`<dialog aria-labelledby="ask" @close=${cancel} @cancel=${cancel}><form @submit=${submit}><h2 id="ask">${deed.title}</h2>
<p>${deed.words}</p>
${deed.body ? html`<label class="label" for="for">For</label><select class="input" id="for" @change=${choose}>${
    TIMES.map(([seconds, words]) => html`<option value=${seconds} ?selected=${seconds === deed.body!.seconds}>${words}</option>`)}</select>` : nothing}
${deed.failed ? html`<p class="status s-refused" role="alert">${glyph('refused')}${deed.failed}</p>` : nothing}
<div class="acts"><button class="btn ${deed.method === 'DELETE' ? 'btn-main' : 'btn-bad'}">${deed.verb}</button><button
type="button" class="btn" @click=${cancel}>Cancel</button></div></form></dialog>`
}
