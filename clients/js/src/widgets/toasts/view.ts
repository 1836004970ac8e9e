/** What a person does with toasts, and what they do to a page: pointer, keys, focus, dialogs, voice. */
import {html, nothing, type TemplateResult} from 'lit-html'
import {repeat} from 'lit-html/directives/repeat.js'
import type {Row, Snapshot} from '../../api.js'
import type {ActivityNotification} from '../activity-notification.js'
import {parts} from '../parts.js'
import {isQuiet, onPreference, prefer, preferences} from '../preferences.js'
import {linkOf, plainSentence, povName, safeLink} from '../sentences.js'
import {isInView, showing, toldByToast} from '../shown.js'
import {number, say} from '../text.js'
import {desktopState, allowDesktop, tellDesktop} from './desktop.js'
import {followDialogs} from './dialogs.js'
import {drawToast, labelOf} from './draw.js'
import {actionsOf, Policy, type Toast, type Unshown} from './policy.js'
import {makeReports} from './reports.js'
import {play} from './sound.js'
import {sheet} from './index.js'

const MAX = 3
const DURATION = 6_000
/** How long a toast takes to leave, ms. */
const LEAVING = 120
/** Something is said at once, the next thing when this has passed, ms. */
const HUSH = 5_000
const AT_ONCE = 300
/** So far is a swipe, px. */
const SWIPE = 80

export class ToastView {
  readonly policy: Policy
  readonly #element: ActivityNotification
  readonly #holds = new Set<string>()
  readonly #leaving = new Map<string, Toast>()
  readonly #reports: ReturnType<typeof makeReports>
  readonly #unsaid = new Set<string>()
  #ends: (() => void)[] = []
  #before: readonly Toast[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #voice: ReturnType<typeof setTimeout> | undefined
  #saidAt = -HUSH
  #focusedBefore: HTMLElement | undefined
  #lookAtDialogs = () => {}

  constructor(element: ActivityNotification) {
    this.#element = element
    this.#reports = makeReports(() => element.source?.client, () => element.snapshot)
    this.policy = new Policy({
      get duration() { return Number(element.duration) || DURATION },
      get max() { return Math.max(1, Number(element.max) || MAX) },
      isQuiet: () => isQuiet(preferences().quiet ?? element.quiet),
      fits: row => fits(element.filter, row),
      isInView,
      tellsStatus: () => element.status !== 'off',
      mayAsk: () => desktopState() === 'off' && preferences().desktop === undefined,
      now: () => Date.now(),
    }, {
      sound: name => { if (element.sound !== 'off' && !isQuiet(preferences().quiet ?? element.quiet)) void play(name) },
      came: toast => this.#came(toast),
      unshown: (row, reason) => this.#unshown(row, reason),
      changed: () => this.#changed(),
    })
  }

  attach(): void {
    if (this.#ends.length) return // it only moved
    const element = this.#element
    const root = element.shadowRoot!
    const sheets = [parts, sheet]
    root.adoptedStyleSheets = [...root.adoptedStyleSheets.filter(each => !sheets.includes(each)), ...sheets]
    const on = <E extends keyof DocumentEventMap>(name: E, listener: (event: DocumentEventMap[E]) => void) => {
      document.addEventListener(name, listener)
      this.#ends.push(() => document.removeEventListener(name, listener))
    }
    on('visibilitychange', () => this.hold('hidden', document.hidden))
    on('keydown', event => this.#jumped(event))
    const muted = (event: Event) => {
      const {povId, until} = (event as CustomEvent<{povId: string; until: Date}>).detail
      if (!this.#element.snapshot.povs.has(povId)) return
      event.preventDefault() // the feed need not say it, too
      this.policy.muted(povId, until.getTime())
    }
    document.addEventListener('pov-muted', muted)
    const dialogs = followDialogs(element, () => this.#raise())
    this.#lookAtDialogs = dialogs.look
    this.#ends.push(() => document.removeEventListener('pov-muted', muted), dialogs.end, onPreference(() => element.requestUpdate()))
    this.hold('hidden', document.hidden)
  }

  /** The element is not where it was: it moves, or a dialog has gone with it, or it is really gone. */
  left(): void {
    setTimeout(() => {
      if (!this.#element.isConnected) this.#lookAtDialogs()
      if (this.#element.isConnected) return
      for (const end of this.#ends.splice(0)) end()
      clearTimeout(this.#timer)
      clearTimeout(this.#voice)
      this.#reports.end()
    })
  }

  changed(snapshot: Snapshot): void {
    this.policy.changed(snapshot)
    this.#schedule()
  }

  hold(why: string, isHeld: boolean): void {
    const had = this.#isSpread
    this.#holds[isHeld ? 'add' : 'delete'](why)
    this.policy.hold(this.#holds.size > 0)
    this.#schedule()
    if (had !== this.#isSpread || why === 'hidden') this.#element.requestUpdate()
  }

  /** All of them are shown under the pointer or the focus. */
  get #isSpread(): boolean {
    return this.#holds.has('pointer') || this.#holds.has('focus')
  }

  get #shown(): readonly Toast[] {
    const {toasts} = this.policy
    return this.#isSpread ? toasts : toasts.slice(0, Math.max(1, Number(this.#element.max) || MAX))
  }

  // ---- what came, and telling of it ----

  #came(toast: Toast): void {
    const row = toast.rows[0]!
    toldByToast(row)
    if (toast.kind !== 'burst') this.#unsaid.add(toast.key)
    if (!document.hidden) return
    const element = this.#element
    const title = toast.kind === 'burst' ? labelOf(element, toast) : plainSentence(element, toast)
    void tellDesktop(title, povName(element, row.povId), row.povId, row.povId, () => this.#open(toast))
  }

  #unshown(row: Row, reason: Unshown): void {
    // What a feed on the page shows, it says itself.
    if (reason !== 'feed' || !showing.size) this.#reports.add(row, reason)
  }

  #changed(): void {
    const {toasts} = this.policy
    const before = new Map(this.#before.map(each => [each.key, each]))
    for (const toast of toasts) {
      const old = before.get(toast.key)
      before.delete(toast.key)
      if (old === toast) continue
      if (toast.isAlert) this.#say('alert', labelOf(this.#element, toast))
      else if (!old || toast.kind === 'burst') this.#unsaid.add(toast.key)
    }
    for (const [key, toast] of before) this.#leave(key, toast)
    this.#before = toasts
    if (this.#unsaid.size) this.#speakSoon()
    this.#schedule()
    this.#element.requestUpdate()
  }

  #leave(key: string, toast: Toast): void {
    this.#unsaid.delete(key)
    // What became part of a burst goes at once.
    if (toast.kind === 'activity' && this.policy.toasts.some(each => each.kind === 'burst' && each.povs.includes(toast.povs[0]!))) return
    this.#leaving.set(key, toast)
    setTimeout(() => {
      this.#leaving.delete(key)
      this.#element.requestUpdate()
    }, LEAVING)
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    const {next} = this.policy
    if (next === undefined) return
    this.#timer = setTimeout(() => {
      this.policy.tick()
      this.#schedule()
    }, next - Date.now())
  }

  #speakSoon(): void {
    this.#voice ??= setTimeout(() => {
      this.#voice = undefined
      this.#speak()
    }, Math.max(AT_ONCE, this.#saidAt + HUSH - performance.now()))
  }

  /** One phrase, however many there are. */
  #speak(): void {
    const told = this.policy.toasts.filter(each => this.#unsaid.has(each.key))
    this.#unsaid.clear()
    if (!told.length || document.hidden) return
    this.#saidAt = performance.now()
    const n = told.reduce((sum, each) => sum + each.count, 0)
    const povs = new Set(told.flatMap(each => each.povs)).size
    const element = this.#element
    this.#say('status', told.length === 1 ? labelOf(element, told[0]!)
      : say(element, povs > 1 ? 'told.new-on' : 'told.new', {n, povs: number(element, povs)}))
  }

  #say(role: 'status' | 'alert', words: string): void {
    const region = this.#element.shadowRoot?.querySelector(`[role=${role}]`)
    // The same words again are read again only if they are other text.
    if (region) region.textContent = region.textContent === words ? `${words}\u00a0` : words
  }

  // ---- drawing ----

  render(): TemplateResult {
    const element = this.#element
    const shown = this.#shown
    const waiting = this.policy.toasts.length - shown.length
    const all = [...shown, ...this.#leaving.values()].filter((each, i, list) => list.findIndex(({key}) => key === each.key) === i)
    return html`<section class="toasts ${this.#holds.size ? 'is-held' : ''}" tabindex="-1" aria-label=${say(element, 'toast.region')}
  @pointerenter=${this.#pointed} @pointerleave=${this.#pointed} @focusin=${this.#focused} @focusout=${this.#focused}
  @click=${this.#clicked} @keydown=${this.#keyed} @pointerdown=${this.#pressed}>${
    repeat(all, each => each.key, each => drawToast(element, each, this.policy.spent(each), this.#leaving.get(each.key) === each ? 'is-leaving' : ''))
  }${waiting ? html`<div class="pile" aria-hidden="true"><i></i>${waiting > 1 ? html`<i></i>` : nothing}</div>` : nothing}</section>`
  }

  /** What was drawn is in the top layer, as long as there is any. */
  updated(): void {
    const viewport = this.#viewport
    const isWanted = this.policy.toasts.length + this.#leaving.size > 0
    if (!viewport?.isConnected) return
    if (viewport.matches(':popover-open') !== isWanted) viewport.togglePopover(isWanted)
    if (!isWanted) for (const each of ['pointer', 'focus']) if (this.#holds.has(each)) this.hold(each, false)
    if (!document.hidden) for (const {kind, rows} of this.#shown) if (kind === 'activity' || kind === 'action') this.#reports.add(rows[0]!)
  }

  get #viewport(): HTMLElement | null | undefined {
    return this.#element.shadowRoot?.querySelector<HTMLElement>('[popover]')
  }

  /** Above what opened since. */
  #raise(): void {
    const viewport = this.#viewport
    if (viewport?.matches(':popover-open')) viewport.hidePopover()
    this.updated()
  }

  // ---- pointer, keys, focus ----

  readonly #pointed = ({type, pointerType}: PointerEvent): void => {
    if (pointerType !== 'touch') this.hold('pointer', type === 'pointerenter')
  }

  readonly #focused = ({type, relatedTarget}: FocusEvent): void => {
    const stays = relatedTarget instanceof Node && this.#viewport?.contains(relatedTarget)
    if (type === 'focusin' || !stays) this.hold('focus', type === 'focusin')
  }

  readonly #clicked = (event: MouseEvent): void => {
    const target = event.target as Element
    const toast = this.#toastOf(target)
    if (!toast) return
    const button = target.closest<HTMLElement>('[data-do]')
    if (button) void this.#do(button.dataset.do!, toast, Number(button.dataset.at))
    else if (!target.closest('a')) this.#open(toast)
    else this.#open(toast, event)
  }

  #toastOf(target: Element | null): Toast | undefined {
    const key = target?.closest<HTMLElement>('.toast')?.dataset.key
    return this.policy.toasts.find(each => each.key === key)
  }

  /** F6 to the toasts and back, wherever on the page. */
  #jumped(event: KeyboardEvent): void {
    if (event.key !== 'F6' || this.#element.shortcuts === 'off' || event.defaultPrevented) return
    const isIn = !!this.#element.shadow.activeElement // also in a window that has not the focus
    if (isIn) this.#goBack()
    else {
      const first = this.#viewport?.querySelector<HTMLElement>('.toast')
      if (!first) return
      this.#focusedBefore = deepFocus()
      first.focus()
    }
    event.preventDefault()
  }

  #goBack(): void {
    const before = this.#focusedBefore
    this.#focusedBefore = undefined
    if (before?.isConnected) before.focus()
    else if (this.#element.shadow.activeElement instanceof HTMLElement) this.#element.shadow.activeElement.blur()
  }

  readonly #keyed = (event: KeyboardEvent): void => {
    const target = event.target as HTMLElement
    const toast = this.#toastOf(target)
    if (!toast) return
    const all = [...this.#viewport!.querySelectorAll<HTMLElement>('.toast:not(.is-leaving)')]
    const own = target.closest<HTMLElement>('.toast')!
    const at = all.indexOf(own)
    if (event.key === 'Escape') {
      const next = all[at + 1] ?? all[at - 1]
      this.policy.dismiss(toast.key)
      if (next) next.focus()
      else this.#goBack()
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      // As they are seen: those at the bottom have the newest last.
      const isUp = (event.key === 'ArrowUp') !== /^bottom/.test(this.#element.position ?? 'bottom')
      all[at + (isUp ? -1 : 1)]?.focus()
    } else if (event.key === 'Enter' && target === own) {
      const first = own.querySelector<HTMLElement>('.go [data-do]')
      if (first) first.click()
      else this.#open(toast)
    } else return
    event.preventDefault()
    event.stopPropagation()
  }

  /** A swipe to either side, with a finger or pen. */
  readonly #pressed = (event: PointerEvent): void => {
    const target = event.target as HTMLElement
    const toast = target.closest<HTMLElement>('.toast')
    if (!toast || event.pointerType === 'mouse' || target.closest('[data-do]')) return
    const from = event.clientX
    const ends = new AbortController()
    const {signal} = ends
    this.hold('swipe', true)
    const moved = ({clientX}: PointerEvent) => {
      const by = clientX - from
      toast.style.setProperty('--by', `${by}px`)
      toast.style.setProperty('opacity', String(Math.max(0, 1 - Math.abs(by) / 300)))
      if (Math.abs(by) > 6 && !toast.hasPointerCapture(event.pointerId)) toast.setPointerCapture(event.pointerId)
    }
    const over = ({type, clientX}: PointerEvent) => {
      ends.abort()
      this.hold('swipe', false)
      const by = clientX - from
      if (type === 'pointerup' && Math.abs(by) >= SWIPE) {
        this.policy.dismiss(toast.dataset.key!)
        return
      }
      toast.style.removeProperty('--by')
      toast.style.removeProperty('opacity')
      // What was moved was not pressed.
      if (Math.abs(by) > 6) toast.addEventListener('click', each => each.stopPropagation(), {capture: true, once: true})
    }
    toast.addEventListener('pointermove', moved, {signal})
    toast.addEventListener('pointerup', over, {signal})
    toast.addEventListener('pointercancel', over, {signal})
  }

  // ---- what is pressed ----

  /** Go where it leads: to what it is about, or to the feed. */
  #open(toast: Toast, link?: Event): void {
    const row = toast.rows[0]
    if (!row || toast.kind === 'digest') return
    if (toast.kind === 'burst') return this.#see(toast)
    const {activity} = row
    const href = linkOf(this.#element, activity)
    const goes = this.#element.tell('pov-open', {row, activity, href}, true)
    if (!goes) link?.preventDefault()
    else if (href && !link) location.assign(href)
    this.#try(this.#element.source?.feed.read(row))
    this.policy.dismiss(toast.key)
  }

  /** Show the feed of it, if the page has one. */
  #see(toast: Toast): void {
    this.policy.dismiss(toast.key)
    const {povs, rows} = toast
    if (!this.#element.tell('pov-open', {row: rows[0], povs}, true)) return
    const feed = document.querySelector<HTMLElement>('pov-team-activity')
    feed?.scrollIntoView({block: 'nearest'})
    feed?.shadowRoot?.querySelector<HTMLElement>('[part~=row]')?.focus()
  }

  async #do(name: string, toast: Toast, at: number): Promise<void> {
    const element = this.#element
    const {client, feed} = element.source ?? {}
    if (name === 'see') return this.#see(toast)
    if (name === 'retry') return client?.retry()
    if (name === 'action') {
      const row = toast.rows[0]!
      const {label, href} = actionsOf(row)[at]!
      const link = safeLink(href)
      this.policy.dismiss(toast.key)
      if (element.tell('pov-action', {row, label, href: link}, true) && link) location.assign(link)
      return
    }
    if (name !== 'sign-in') this.policy.dismiss(toast.key)
    if (name === 'sign-in') element.tell('pov-sign-in')
    else if (name === 'read-all') this.#try(feed?.read())
    else if (name === 'undo') this.#try(feed?.mute(toast.povs[0]!, 'sound'))
    else if (name === 'not-now') prefer({desktop: false})
    else if (name === 'allow') await allowDesktop()
    else if (name === 'send' || name === 'discard') {
      const {id} = toast.pending!
      this.#try(client?.outbox().then(outbox => name === 'send' ? outbox.resend(id) : outbox.discard(id)))
    }
  }

  #try(work: Promise<unknown> | undefined): void {
    work?.catch(() => this.policy.failed())
  }
}

/** The element that has the focus, in whatever shadow root. */
function deepFocus(): HTMLElement | undefined {
  let found = document.activeElement
  while (found?.shadowRoot?.activeElement) found = found.shadowRoot.activeElement
  return found instanceof HTMLElement ? found : undefined
}

/** `type`, `type:action` or `:action`, divided by commas: any of them. */
export function fits(filter: string | undefined, {activity}: Row): boolean {
  const all = filter?.split(',').map(each => each.trim()).filter(Boolean) ?? []
  return !all.length || all.some(each => {
    const [type, action] = each.split(':')
    return (!type || type === activity.type) && (!action || action === activity.action)
  })
}
