/** What is published just now, newest first; it can be held still to be read. */
import {html, nothing, type TemplateResult} from 'lit'
import {icon} from '../widgets/icons.js'
import type {Admin} from './admin.js'
import {clock} from './words.js'

export function drawHappening(page: Admin): TemplateResult {
  const {held} = page
  const shown = held ?? page.source.look!.happened
  return html`<section class="now" aria-labelledby="now"><header><h2 id="now">Happening now</h2><span class="grow"></span>${
    held ? html`<span class="dim">held</span>` : nothing}<button type="button" class="btn-icon" aria-pressed=${!!held}
aria-label=${held ? 'Go on' : 'Hold'} @click=${() => page.hold(held ? undefined : shown)}>${icon(held ? 'play' : 'pause')}</button></header>
${shown.length ? html`<ul>${shown.map(({at, povId, type, action, userId, to}) => html`<li><time class="mono" datetime=${at}>${clock(Date.parse(at))}</time><b><bdi>${povId}</bdi></b><span><bdi>${type} ${action}</bdi></span><span
class="dim">by <bdi>${userId}</bdi>, to ${to}</span></li>`)}</ul>` : html`<p class="calm">Nothing was published here since you look.</p>`}</section>`
}
