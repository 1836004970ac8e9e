/** What can be done with a row. */
import {html, nothing, type TemplateResult} from 'lit'
import {keyed} from 'lit/directives/keyed.js'
import {ref} from 'lit/directives/ref.js'
import type {Group} from '../../api.js'
import type {PanelHost} from '../api.js'
import {icon} from '../icons.js'
import {nameOf} from '../people.js'
import {linkOf, povName} from '../sentences.js'
import {say} from '../text.js'
import {moment} from '../times.js'
import {float, inFeed, whenThere} from './enter.js'
import {fold} from './fits.js'
import {setLevel} from './notifications.js'
import {stateOf} from './state.js'

const HOUR = 3_600_000
/** What is typed within this many ms is one word. */
const WORD = 700

interface Choice {
  readonly icon: string
  readonly label: string
  /** The letter that does it, in the list, too. */
  readonly key?: string
  /** A line goes before it. */
  readonly isApart?: boolean
  does(): void
}

function choices(host: PanelHost, {rows, state}: Group): Choice[] {
  const newest = rows[0]!
  const {activity, povId, own} = newest
  const pov = host.snapshot.povs.get(povId)
  const {before} = stateOf(host)
  const link = rows.length === 1 ? linkOf(host, activity) : undefined
  const named = {pov: povName(host, povId)}
  const found: Choice[] = []
  // A group is read or unread as one: from its oldest on, up to its newest.
  if (!own) found.push({icon: 'unread', label: say(host, 'menu.unread'), key: 'u', does: () => host.markUnread(rows.at(-1)!)})
  if (state !== 'read') found.push({icon: 'check', label: say(host, 'do.read'), key: 'e', does: () => host.markRead(newest)})
  if (link) found.push({icon: 'copy', label: say(host, 'menu.copy'), does: () => void copy(host, link)})
  const first = found.length
  if (pov?.mutedUntil) {
    found.push({
      icon: 'bell',
      label: say(host, 'menu.unmute', {...named, time: moment(host, Date.parse(pov.mutedUntil))}),
      key: 'm',
      does: () => void setLevel(host, povId, before.get(povId) ?? 'sound'),
    })
  } else if (pov && pov.level !== 'off') {
    found.push({
      icon: 'bell-off',
      label: say(host, 'menu.mute', named),
      key: 'm',
      does() {
        before.set(povId, pov.level)
        void host.mute(povId, new Date(Date.now() + HOUR))
      },
    })
  }
  const {userId} = activity
  if (userId && host.filter.users?.join() !== userId) {
    found.push({
      icon: 'person',
      label: own ? say(host, 'menu.only-you') : say(host, 'menu.only', {who: nameOf(host, userId)}),
      does: () => host.setFilter({...host.filter, users: [userId]}),
    })
  }
  return found.map((each, at) => at === first && at ? {...each, isApart: true} : each)
}

async function copy(host: PanelHost, link: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(new URL(link, document.baseURI).href)
  } catch {
    host.fail('fail.copy')
  }
}

/** Arrows, Home, End, letters. */
function pressed(host: PanelHost, all: readonly Choice[], event: KeyboardEvent): void {
  const {key, timeStamp, ctrlKey, metaKey, altKey} = event
  if (ctrlKey || metaKey || altKey) return
  const state = stateOf(host)
  const items = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('[role=menuitem]')]
  const now = items.indexOf(event.target as HTMLElement)
  const to = {ArrowDown: now + 1, ArrowUp: now < 0 ? -1 : now - 1, Home: 0, End: -1}[key]
  if (to !== undefined) items.at(to % items.length)?.focus()
  else if (key === 'Tab') host.closePanel()
  else if (key.length === 1 && key !== ' ') {
    if (timeStamp - state.typedAt > WORD) state.typed = ''
    const chosen = host.shortcuts !== 'off' && !state.typed && all.find(each => each.key === key.toLowerCase())
    if (chosen) run(host, chosen)
    else {
      state.typedAt = timeStamp
      state.typed += fold(host.locale, key)
      // The same letter again: the next one that begins with it.
      const {typed} = state
      const isOne = [...typed].every(each => each === typed[0])
      const order = all.map((_, i) => (i + now + (isOne ? 1 : 0)) % all.length)
      const found = order.find(i => fold(host.locale, all[i]!.label).startsWith(isOne ? typed[0]! : typed))
      if (found !== undefined) items[found]!.focus()
    }
  } else return
  event.preventDefault()
  event.stopPropagation()
}

/** The focus goes back first: what is done may move it. */
function run(host: PanelHost, {does}: Choice): void {
  host.closePanel()
  does()
}

export function menuPanel(host: PanelHost): TemplateResult {
  const group = host.menuOf
  if (!group) return html``
  const all = choices(host, group)
  const hasKeys = host.shortcuts !== 'off'
  return html`${keyed(group.key, html`<div class="popover menu" part="menu" popover role="menu" aria-label=${say(host, 'do.menu')}
  @keydown=${(event: KeyboardEvent) => pressed(host, all, event)} ${ref(whenThere(host, `menu ${group.key}`, menu => {
    stateOf(host).typed = ''
    const row = inFeed(host, `[data-key="${CSS.escape(group.key)}"]`) ?? menu.parentElement!
    const end = float(host, 'menu', menu, row, row.querySelector('[aria-haspopup=menu]') ?? row)
    menu.querySelector<HTMLElement>('[role=menuitem]')?.focus()
    return end
  }))}>${all.map(each => html`${each.isApart ? html`<hr role="separator">` : nothing}<button role="menuitem" tabindex="-1"
  aria-keyshortcuts=${hasKeys && each.key || nothing} @click=${() => run(host, each)}>${icon(each.icon)}<span>${each.label}</span>${
    hasKeys && each.key ? html`<kbd aria-hidden="true">${each.key.toUpperCase()}</kbd>` : nothing}</button>`)}</div>`)}`
}
