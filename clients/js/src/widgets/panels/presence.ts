/** Who is here: each once, on however many PoVs and devices. */
import {html, nothing, type TemplateResult} from 'lit'
import {ref} from 'lit/directives/ref.js'
import {repeat} from 'lit/directives/repeat.js'
import type {PovState} from '../../api.js'
import type {User} from '../../wire.js'
import type {PanelHost} from '../api.js'
import {avatar, nameOf} from '../people.js'
import {quoted, say} from '../text.js'
import {moment} from '../times.js'
import {enter, float, inFeed, whenThere} from './enter.js'
import {list} from './names.js'

/** Somebody on one or more PoVs. */
export interface Present extends User {
  /** What they write on. */
  readonly where?: string
}

/** Everybody, those who are active first, the user last, by when they came. Active on one PoV is active. */
export function presentOn(povs: Iterable<Pick<PovState, 'present' | 'typing'>>, self?: string): Present[] {
  const found = new Map<string, Present>()
  for (const {present, typing} of povs) {
    for (const each of present) {
      const known = found.get(each.userId)
      const where = known?.where ?? typing.find(({userId}) => userId === each.userId)?.where
      found.set(each.userId, known ? {
        ...known,
        devices: [...new Set([...known.devices, ...each.devices])],
        since: known.since < each.since ? known.since : each.since,
        state: known.state === 'active' ? known.state : each.state,
        where,
      } : {...each, where})
    }
  }
  const rank = ({userId, state}: User) => userId === self ? 2 : state === 'away' ? 1 : 0
  return [...found.values()].sort((a, b) => rank(a) - rank(b) || (a.since < b.since ? -1 : 1))
}

/** The name of a device that was given none. */
const UNNAMED = 'default'

function doing(host: PanelHost, {devices, since, state, where}: Present): unknown {
  if (where) return html`<bdi>${say(host, 'present.on', {where})}</bdi>`
  if (state === 'away') {
    return `${say(host, 'present.away')}, ${say(host, 'present.since', {time: moment(host, Date.parse(since))})}`
  }
  return quoted(list(host, devices.filter(each => each !== UNNAMED), 'unit'))
}

export function presencePanel(host: PanelHost): TemplateResult {
  const {povs, connection} = host.snapshot
  const self = host.source?.client?.user
  const people = presentOn(povs.values(), self)
  const title = people.length ? 'present' : connection.state === 'live' ? 'present.none' : 'present.unknown'
  return html`<div class="popover" part="presence-panel" popover role="dialog" aria-labelledby="present" tabindex="-1"
  ${ref(whenThere(host, 'presence', panel => {
    const end = float(host, 'presence', panel, inFeed(host, '.who-btn') ?? panel.parentElement!)
    enter(panel)
    return end
  }))}>
<h3 id="present">${say(host, title, {n: people.length})}</h3>${people.length ? html`<ul>${repeat(people, each => each.userId, each =>
    html`<li>${avatar(host, each.userId, 'av-m', each.state)}<span>${
      each.userId === self ? say(host, 'you') : quoted(nameOf(host, each.userId))
    }</span><small>${doing(host, each)}</small></li>`)}</ul>` : nothing}</div>`
}
