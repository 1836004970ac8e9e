/** What stands around forms and messages: the top, what is followed, what is wrong, the first three steps. */
import {html, nothing, type TemplateResult} from 'lit'
import {glyph, icon, type Glyph} from '../widgets/icons.js'
import {avatar} from '../widgets/people.js'
import type {Status} from '../api.js'
import type {Console} from './console.js'
import type {Shown} from './log.js'
import {clockTime, lasts} from './says.js'
import {DEMO} from './session.js'
import {asCurl, hideTokens} from './snippets.js'

export const FILTERS: readonly (readonly [Shown, string])[] = [
  ['all', 'All'], ['sent', 'Sent'], ['received', 'Received'], ['refused', 'Refused'],
]

const MARK = html`<svg class="logo" viewBox="0 0 20 20"
aria-hidden="true"><path d="M10 8.5V18M6.5 18h7"></path><circle cx="10" cy="4.5" r="3.25"></circle></svg>`

/** The state of the line in a glyph and words. */
function stateOf({state, reason, since}: Status): readonly [Glyph, string] {
  const at = clockTime(since)
  if (state === 'live' || state === 'catching-up') return ['live', 'Live']
  if (state === 'connecting') return ['connecting', 'Connecting']
  if (state === 'closed') return reason === 'ended' ? ['refused', 'Disconnected'] : ['refused', 'Stopped']
  return reason === 'restarting' ? ['connecting', 'Server restarting'] : ['offline', `Offline since ${at}`]
}

/** The header: where one is, how the line stands, who one is, the token. */
export function drawTop(page: Console): TemplateResult {
  const {status, welcome, data} = page.session
  const [name, words] = stateOf(status)
  const copy = () => data && page.copy(data.token, 'The token')
  return html`<header class="top">${MARK}<b>pov-rt</b><span class="ver">${data?.version ?? ''} dev</span>
<nav aria-label="Pages"><a href="/" aria-current="page">Console</a><a href="/demo">Demo</a></nav><span
class="grow"></span>
<span class="status boxed s-${name}" role="status">${glyph(name)}${words}</span>
${welcome ? html`<span
class="who"><b>${welcome.userId}</b> on ${welcome.device}, token good for ${lasts(Date.parse(welcome.expiresAt) - Date.now())}</span>` : nothing}
<button type="button" class="btn" ?disabled=${!data}
@click=${copy}>${icon('copy')}<span>Copy token</span></button></header>`
}

/** What is followed, up to where, and who is there. */
export function drawBar(page: Console): TemplateResult {
  const {povs, people} = page.session
  const there = people.get(page.session.pov)
  const users = there ? [...there.values()] : []
  const named = users.slice(0, 4)
  const others = users.length > named.length ? ` and ${users.length - named.length} more` : ''
  return html`<div class="bar"><span
class="dim">Following</span>${[...povs].map(([povId, {offset, missed}]) => html`<span class="chip is-on">
<span class="mono">${povId}</span> at ${offset}, ${missed ? `${missed} missed` : 'complete'}<button
type="button" aria-label="Stop following ${povId}"
@click=${() => page.leave(povId)}>${icon('close', 'icon-s')}</button></span>`)}${povs.size ? nothing : html`<span>nothing</span>`}
${users.length ? html`<span class="dim with">with</span><span
class="stack">${named.map(({userId, state}) => avatar({requestUpdate() {}}, userId, 'av-m', state))}</span>
<span class="dim">${named.map(({userId}) => userId).join(', ')}${others}</span>` : nothing}</div>`
}

/** Over the messages: the server is away, a file is wrong. Nothing moves for it. */
export function drawStrips(page: Console): TemplateResult | typeof nothing {
  const {session} = page
  const {problem, status} = session
  if (problem) {
    const words = problem.isRunning ? 'A file is wrong; the server goes on as it was' : 'The server didn’t come back'
    return html`<div class="strips" role="alert"><div class="strip bad"><span
class="status s-refused">${glyph('refused')}${words}</span>
<span class="what"><span
class="mono">${problem.file}${problem.line ? `:${problem.line}` : ''}</span> ${problem.message}</span>
${problem.traceback ? html`<details><summary class="btn btn-text">Show the traceback</summary><pre
class="code" tabindex="0">${problem.traceback}</pre></details>` : nothing}</div></div>`
  }
  if (session.isMended && status.state === 'live') {
    const close = () => {
      session.isMended = false
      page.requestUpdate()
    }
    return html`<div class="strips" role="status"><div class="strip good"><span
class="status s-live">${glyph('live')}Mended</span>
<span class="what">The server runs with the file as it is now.</span><button type="button" class="btn-icon"
aria-label="Close" @click=${close}>${icon('close')}</button></div></div>`
  }
  if (status.state !== 'offline' && status.state !== 'closed') return nothing
  const wait = status.retryAt ? ` Next try in ${Math.max(1, Math.ceil((status.retryAt - Date.now()) / 1000))} s.` : ''
  const why = status.state === 'closed' ? status.detail ?? '' : `It restarts by itself when a file changes.${wait}`
  return html`<div class="strips" role="status"><div class="strip"><span
class="status s-offline">${glyph('offline')}${
    status.state === 'closed' ? 'The connection ended' : 'Server away'} since ${clockTime(status.since)}</span>
<span class="what">${why}</span><button type="button" class="btn btn-text"
@click=${() => session.retry()}>Try now</button></div></div>`
}

/** Instead of an empty log: how to see something arrive. */
export function drawFirst(page: Console): TemplateResult {
  const {session} = page
  const {data, activities} = session
  const place = session.povs.get(DEMO)
  const where = {origin: location.origin, token: data?.token ?? '', serviceToken: data?.serviceToken ?? ''}
  const activity = {type: 'task', action: 'completed', povId: DEMO, userId: 'ana'}
  const command = asCurl('publish', {data: activity}, where) ?? ''
  const close = () => {
    page.first = 'closed'
    page.requestUpdate()
  }
  const step = (n: number, isDone: boolean, head: string, body: TemplateResult) => html`<li
class=${isDone ? 'done' : ''}>
<span class="n">${isDone ? html`${icon('check', 'icon-s')}<span
class="sr">done: </span>` : n}</span><div><h3>${head}</h3>${body}</div></li>`
  return html`<ol class="first" aria-label="First steps">
${step(1, !!place, `Follow the PoV ${DEMO}`, html`<p>${
    place ? `Done: this page follows it since ${clockTime(place.since)}.` : 'It is being followed.'}</p>`)}
${step(2, activities > 0, 'Publish from a terminal', html`<pre class="code" tabindex="0"
aria-label="The command, its token shortened">${hideTokens(command)}</pre>
<p class="acts"><button type="button" class="btn"
@click=${() => page.copy(command, 'The command')}>${icon('copy')}Copy the command</button>
<button type="button" class="btn btn-text"
@click=${() => page.publishHere()}>or publish from here</button></p>`)}
${step(3, activities > 0, 'See it arrive here', activities
    ? html`<p class="acts">It is below, with its place in the log. <button type="button" class="btn btn-text"
@click=${close}>Close these steps</button></p>`
    : html`<p>It appears below these lines the moment you press Enter.</p>`)}</ol>`
}

