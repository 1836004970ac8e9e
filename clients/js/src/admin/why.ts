/** Why somebody did not see an activity: the question, the answer, and the line with a lane for each device. */
import {html, nothing, type TemplateResult} from 'lit'
import {glyph, icon, type Glyph} from '../widgets/icons.js'
import type {Admin} from './admin.js'
import {connectionsOf, iconOf} from './tables.js'
import {activityWords, eventWords, missingWords, statesOf, type State} from './text.js'
import {later, moment} from './words.js'
import type {Asked, Explained, Lane, Station} from './source.js'

/** By station: its title, and what is said of who has passed it, and of who has not. */
const STATIONS: Readonly<Record<string, readonly [title: string, passed: string, stopped: string]>> = {
  published: ['Publish', 'Published', 'Not published'],
  log: ['Log', 'Kept', 'Not kept'],
  node: ['Node', 'Handed out', 'Not handed out'],
  queue: ['Queue', 'Passed', 'Waits'],
  socket: ['Socket', 'Sent', 'Not sent'],
  acknowledged: ['Ack', 'Acknowledged', 'Not acknowledged'],
  shown: ['Shown', 'Shown', 'Not shown'],
}
/** The stations of the activity itself: behind them the line forks, to each device. */
const TRUNK: readonly string[] = ['published', 'log', 'node']

/** What a cause looks like, by the words of the widgets for the states of a line; all others are `offline`. */
const GLYPHS: Readonly<Record<'busy' | 'paused' | 'signedout' | 'refused' | 'expired', readonly string[]>> = {
  busy: ['behind', 'unknown', 'over_budget', 'slow'],
  paused: ['frozen', 'unacknowledged', 'muted', 'hidden', 'quiet', 'filtered', 'no_component', 'not_shown'],
  signedout: [
    'not_subscribed', 'unsubscribed', 'other_pov', 'other_feed', 'subscribed_later', 'filter',
    'other_pov_activity', 'other_tenant', 'other_inbox',
  ],
  refused: [
    'no_grant', 'denied', 'lost', 'rejected', 'rejected_by_plugin', 'conflict', 'refused', 'refused_subscription',
    'token_invalid', 'token_revoked', 'flooding',
  ],
  expired: ['token_expired', 'removed', 'erased', 'retracted', 'expired', 'missed', 'gap'],
}

export function glyphOf(cause: string, isGood: boolean): Glyph {
  if (isGood) return 'live'
  return (Object.keys(GLYPHS) as (keyof typeof GLYPHS)[]).find(each => GLYPHS[each].includes(cause)) ?? 'offline'
}

function drawStation(station: Station, state: State, began: string | undefined): TemplateResult {
  const [title, passed, stopped] = STATIONS[station.name] ?? [station.name, 'Passed', 'Not passed']
  const words = {passed, stop: stopped, unknown: 'Nobody knows', ahead: 'Not reached'}[state]
  const {at} = station
  return html`<li class=${state}><span class="sn">${title}</span><span class="said"><b>${words}</b>${
    station.text ? html` <bdi>${station.text}</bdi>` : nothing}</span>${
    at ? html`<time datetime=${at} title=${moment(at)}>${began ? later(began, at) : moment(at)}</time>` : nothing}</li>`
}

/** A part of a lane’s stations, in their order. The first says when it was, the others how long after. */
function drawStations({stations}: Lane, isTrunk: boolean): TemplateResult {
  const states = statesOf(stations)
  const first = stations.findIndex(({at}) => at)
  return html`<ol>${stations.map((each, n) =>
    TRUNK.includes(each.name) === isTrunk ? drawStation(each, states[n]!, n === first ? undefined : stations[first]?.at) : nothing)}</ol>`
}

/** The end of a connection's own name: what follows the dot is its node's. */
const shortId = (connectionId: string): string => connectionId.split('.')[0]!.slice(-8)

function drawLane(lane: Lane, n: number, {answer, node}: Explained): TemplateResult {
  const {device, cause, connectionId, connected} = lane
  return html`<section class="lane" aria-labelledby=${`lane-${n}`}><h3 id=${`lane-${n}`}>${
    icon(iconOf(device))}<bdi>${device}</bdi> <span class="mono">${cause.replaceAll('_', ' ')}</span>${connectionId
    ? html` <span class="mono" title=${connectionId}>${shortId(connectionId)}${connected ? '' : ', gone'}</span>` : nothing}${
    lane.node === node ? nothing : html` <span>on the node <span class="mono">${lane.node}</span></span>`}</h3>${
    lane.answer === answer ? nothing : html`<p class="of">${lane.answer}</p>`}${drawStations(lane, false)}</section>`
}

function drawLine(answer: Explained): TemplateResult | typeof nothing {
  const {lanes} = answer
  const [first] = lanes
  if (!first) return nothing
  return html`<section class="lane trunk" aria-label="To this server">${drawStations(first, true)}</section>
<div class="lanes">${lanes.map((lane, n) => drawLane(lane, n, answer))}</div>`
}

function drawEvents({events, userId}: Explained): TemplateResult | typeof nothing {
  if (!events.length) return nothing
  return html`<details class="events"><summary>Last of <bdi>${userId}</bdi>, ${events.length}</summary>
<ol>${[...events].reverse().map(each => html`<li><time datetime=${each.at}>${moment(each.at)}</time><bdi>${eventWords(each)}</bdi></li>`)}</ol></details>`
}

function drawAnswer(page: Admin, {answer, failed}: Asked): TemplateResult {
  if (failed) return html`<p class="status s-refused">${glyph('refused')}${failed}</p>`
  if (!answer) return html`<p class="dim">Looking for it</p>`
  const {userId, since} = answer
  const state = glyphOf(answer.cause, answer.delivered)
  return html`<span class="head-bead s-${state}">${glyph(state)}</span><div><h3><bdi>${answer.answer}</bdi></h3>
<p>${since ? html`Since <time datetime=${since}>${moment(since)}</time>. ` : nothing}${answer.next}.</p>
${answer.activity ? html`<p class="dim"><bdi>${activityWords(answer)}</bdi></p>` : nothing}
${answer.missing.map(each => html`<p class="dim">${missingWords(each)}</p>`)}
${answer.traceSince ? nothing : html`<p class="dim">Nothing of what happened is kept: see [trace] in the settings.</p>`}</div>
<div class="acts"><button type="button" class="btn" @click=${() => void page.copy(answer)}>${icon('copy')}Copy as text</button><a
class="btn" href=${connectionsOf(userId)}><span><bdi>${userId}</bdi>’s connections</span></a></div>`
}

export function drawWhy(page: Admin): TemplateResult {
  const {asked} = page.source
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const given = new FormData(event.target as HTMLFormElement)
    const [activityId = '', userId = '', povId = '', device = ''] =
      ['activity', 'user', 'pov', 'device'].map(name => String(given.get(name)).trim())
    page.picker.close()
    page.text = ''
    void page.source.explain({activityId, userId, povId, device})
  }
  const field = (name: string, words: string, more: string, placeholder: string, isAsked = false) => html`<label><span>${words}<span
class="sr"> ${more}</span></span><input class="input ${name}" name=${name} placeholder=${placeholder} ?required=${isAsked}
type="search" maxlength="128" autocomplete="off" autocapitalize="off" spellcheck="false"></label>`
  return html`<section class="explain" aria-labelledby="why"><h2 id="why" class="sr">Why somebody did not see an activity</h2>
<form @submit=${submit}><label><span>Why did<span class="sr"> the user</span></span>${page.picker.draw()}</label>${
  field('activity', 'not see', 'the activity', 'activity id', true)}${
  field('pov', 'of', 'the PoV, if several have it', 'any PoV')}${
  field('device', 'on', 'the device, if it is about one', 'any device')}<button class="btn btn-main">Explain</button></form>
<div class="verdict" role="status">${asked ? drawAnswer(page, asked) : nothing}</div>
${page.text ? html`<label class="to-copy"><span>This browser lets no page copy here: copy it yourself.</span><textarea class="input mono"
readonly rows="8" .value=${page.text}></textarea></label>` : nothing}
${asked?.answer ? html`${drawLine(asked.answer)}${drawEvents(asked.answer)}` : nothing}</section>`
}
