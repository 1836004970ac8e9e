/** How loud each PoV is, and when and how this browser may be. */
import {html, nothing, type TemplateResult} from 'lit'
import {live} from 'lit/directives/live.js'
import {ref} from 'lit/directives/ref.js'
import {repeat} from 'lit/directives/repeat.js'
import type {PovState} from '../../api.js'
import type {Level} from '../../wire.js'
import type {PanelHost} from '../api.js'
import {icon} from '../icons.js'
import {onPreference, prefer, preferences} from '../preferences.js'
import {say} from '../text.js'
import {day, moment} from '../times.js'
import {enter, whenThere} from './enter.js'
import {byName, nameOfPov} from './names.js'
import {stateOf} from './state.js'

const LEVELS: readonly Level[] = ['off', 'feed', 'toast', 'sound']
const HOURS = '19:00-08:00'

/** As loud as that from now on: shown at once, and taken back, and said, if the server does not. */
export async function setLevel(host: PanelHost, povId: string, level: Level, until?: Date): Promise<void> {
  const {levels} = stateOf(host)
  levels.set(povId, level)
  host.requestUpdate()
  try {
    await host.source!.feed.mute(povId, level, until)
  } catch {
    if (levels.get(povId) === level) host.fail('fail.mute')
  }
  // Not one that was chosen meanwhile.
  if (levels.get(povId) === level) levels.delete(povId)
  host.requestUpdate()
}

/** What goes on there, the most urgent first. */
function about(host: PanelHost, {povId, mutedUntil, unread, present}: PovState): string {
  if (mutedUntil && !stateOf(host).levels.has(povId)) {
    return say(host, 'muted.until', {time: moment(host, Date.parse(mutedUntil))})
  }
  if (unread) return say(host, 'unread', {n: unread})
  if (present.length) return say(host, 'here', {n: present.length})
  const last = host.snapshot.rows.find(row => row.povId === povId)
  return last ? say(host, 'quiet.since', {time: day(host, last.at)}) : ''
}

function ladder(host: PanelHost, pov: PovState): TemplateResult {
  const {povId} = pov
  const chosen = stateOf(host).levels.get(povId) ?? pov.level
  const name = nameOfPov(host, povId)
  const isGone = pov.state === 'ended' && pov.failure?.code === 'forbidden'
  return html`<li><div class="nm"><p><bdi>${name}</bdi></p><p>${isGone ? say(host, 'level.gone') : about(host, pov)}</p></div>${isGone
    ? nothing : html`<span class="seg" role="radiogroup" aria-label=${name}>${LEVELS.map(level =>
      html`<label title=${say(host, `level.${level}.means`)}><input type="radio" name="level ${povId}" .checked=${live(level === chosen)}
        @change=${() => void setLevel(host, povId, level)}><span data-text=${say(host, `level.${level}`)}>${say(host, `level.${level}`)}</span></label>`)}</span>`}</li>`
}

/** The hours that are in force: what the person chose, else what the page says of its toasts. */
const hoursOf = () =>
  preferences().quiet ?? document.querySelector('pov-activity-notification')?.getAttribute('quiet') ?? ''

function quietHours(host: PanelHost): TemplateResult {
  const state = stateOf(host)
  const hours = hoursOf()
  const [from = '', to = ''] = hours.split('-').map(each => each.trim().padStart(5, '0'))
  const field = (name: string, value: string, made: (value: string) => string) => html`<label class="time"><span>${say(host, name)}</span><input
    class="input" type="time" .value=${live(value)} @change=${({target}: Event) => {
      // An emptied one is not one yet.
      if ((target as HTMLInputElement).value) prefer({quiet: made((target as HTMLInputElement).value)})
    }}></label>`
  return html`<div class="pair"><span>${say(host, 'quiet.title')}<small id="quiet">${
    hours ? say(host, 'quiet.on', {from, to}) : say(host, 'quiet.off')}</small></span><button class="switch" role="switch"
  aria-checked=${!!hours} aria-label=${say(host, 'quiet.title')} aria-describedby="quiet" @click=${() => {
    if (hours) state.hours = hours
    prefer({quiet: hours ? '' : state.hours ?? HOURS})
  }}></button></div>${hours ? html`<div class="times">${field('quiet.from', from, value => `${value}-${to}`)}${
    field('quiet.to', to, value => `${from}-${value}`)}</div>` : nothing}`
}

/** The toasts' part is loaded when it is needed: what cannot be loaded is said. */
function withToasts(host: PanelHost, does: (toasts: typeof import('../toasts/index.js')) => unknown): void {
  import('../toasts/index.js').then(does).catch(() => host.fail('fail.toasts')).finally(() => host.requestUpdate())
}

function choice(host: PanelHost, title: string, text: string, buttons: unknown): TemplateResult {
  return html`<div class="pair"><span>${say(host, title)}<small>${say(host, text)}</small></span>${buttons}</div>`
}

/** "Allow" asks the browser, which has to come from a click. */
function whenHidden(host: PanelHost): TemplateResult {
  const permission = 'Notification' in globalThis ? Notification.permission : undefined
  if (!permission || permission === 'denied') {
    return choice(host, 'hidden.title', permission ? 'hidden.denied' : 'hidden.none', nothing)
  }
  const isOn = permission === 'granted' && preferences().desktop !== false
  return choice(host, 'hidden.title', isOn ? 'hidden.on' : 'hidden.ask', isOn ? turnOff(host, {desktop: false}) : html`<button
    class="btn" @click=${() => withToasts(host, toasts => toasts.allowDesktop())}>${say(host, 'do.allow')}</button>`)
}

const turnOff = (host: PanelHost, chosen: Parameters<typeof prefer>[0]) => html`<button class="btn" @click=${() =>
  prefer(chosen)}>${say(host, 'do.turn-off')}</button>`

function sound(host: PanelHost): TemplateResult {
  const isOn = preferences().sound
  return choice(host, 'sound.title', isOn ? 'sound.on' : 'sound.text', html`<span class="go"><button class="btn" @click=${() =>
    withToasts(host, toasts => toasts.hear())}>${icon('play')}${say(host, 'do.hear')}</button>${
    isOn ? turnOff(host, {sound: false}) : nothing}</span>`)
}

export function notificationsPanel(host: PanelHost): TemplateResult {
  return html`<div class="sheet" part="subscription-panel" role="group" aria-labelledby="notifications" ${ref(
    whenThere(host, 'notifications', element => {
      enter(element.querySelector('button')!)
      return onPreference(() => host.requestUpdate())
    }))}><div class="sheet-head"><button class="btn-icon" aria-label=${say(host, 'do.back')} @click=${() =>
    host.closePanel()}>${icon('back', 'flip')}</button><h3 id="notifications">${say(host, 'do.notifications')}</h3><button
  class="btn-icon" aria-label=${say(host, 'do.close')} @click=${() => host.closePanel()}>${icon('close')}</button></div>
<ul class="subs">${repeat(byName(host, [...host.snapshot.povs.keys()]), id => id, id => ladder(host, host.snapshot.povs.get(id)!))}</ul>
<div class="sheet-foot">${quietHours(host)}${whenHidden(host)}${sound(host)}</div></div>`
}
