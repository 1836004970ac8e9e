/** The six numbers, each with what it was in the last hour, and a sentence. */
import {html, svg, type TemplateResult} from 'lit'
import {count, number, size, span} from './words.js'
import type {PovRow, Sample, Source} from './source.js'

const WIDTH = 188
const HEIGHT = 28

/** A line of what a number was; the last is now. */
function spark(values: readonly number[]): TemplateResult {
  const top = Math.max(...values, 1) * 1.1
  const step = WIDTH / Math.max(1, values.length - 1)
  const at = values.map((value, n) =>
    [(n * step).toFixed(1), (HEIGHT - 1 - value / top * (HEIGHT - 3)).toFixed(1)] as const)
  const last = at.at(-1)
  return html`<svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" aria-hidden="true">${
    last ? svg`<polyline points=${at.map(each => each.join(',')).join(' ')}></polyline><circle cx=${
      Math.min(Number(last[0]), WIDTH - 2)} cy=${last[1]} r="2"></circle>` : ''}</svg>`
}

/** What was refused most since some counts were taken, in words. */
export function refusals(now: Readonly<Record<string, number>>, before: Readonly<Record<string, number>> = {}): string {
  const found = Object.entries(now).map(([code, n]) => [code.replaceAll('_', ' '), n - (before[code] ?? 0)] as const)
    .filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a)
  const [first] = found
  if (!first) return 'None in the last hour'
  return `${found.length > 1 ? 'Most' : 'All'} in the last hour: ${first[0]}`
}

/** How soon what is published is handed out. */
const soon = (times: readonly [number, number] | null): string =>
  times ? `Half within ${number(times[0] * 1000)} ms, 99 % within ${number(times[1] * 1000)} ms` : 'None since the start'

/** The PoV on which most happens. */
const most = (busiest: PovRow | undefined, published: number): string =>
  busiest?.activitiesPerS
    ? `Most: ${busiest.povId === '*' ? 'a team’s feed' : busiest.povId}, ${number(busiest.activitiesPerS)} a second`
    : `${number(published)} since the start`

export function drawTiles(source: Source): TemplateResult {
  const {state, busiest} = source.look!
  const samples = source.history()
  const now = source.sample
  const were = (name: keyof Sample) => samples.map(each => each[name])
  const highest = (name: keyof Sample) => Math.max(0, ...were(name))
  const tile = (name: keyof Sample, title: string, value: string, unit: string, words: string, warns = false) =>
    html`<div class="tile ${warns ? 'warn' : ''}"><h2>${title}</h2><div class="val"><b>${value}</b><span>${unit}</span></div>
${spark(were(name))}<p>${words}</p></div>`
  return html`<section class="tiles" aria-label="Now">
${tile('connections', 'Connected', number(state.connections), count(state.users, 'person', 'people'),
    `${size(state.unsentBytes)} unsent in all`)}
${tile('activities', 'Activities', number(now?.activities), 'a second', most(busiest, state.published))}
${tile('deliveries', 'Deliveries', number(now?.deliveries), 'a second', soon(state.deliveryS))}
${tile('behind', 'Behind', number(state.behind), state.behind === 1 ? 'connection' : 'connections',
    state.unsentS >= 1 ? `The oldest waits for ${span(state.unsentS)}` : state.behind ? 'They are sent what they missed' : 'Everybody has all', state.behind > 0)}
${tile('lagMs', 'Loop lag', number(state.lagS * 1000), 'ms', 'The longest of the last minute', state.lagS > 0.25)}
${tile('refused', 'Refused', number(now?.refused), 'a second', refusals(state.refused, source.hour?.refusedBefore), highest('refused') > 10)}</section>`
}
