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
import {desktopState, forgetDesktop, allowDesktop, tellDesktop} from './desktop.js'
import {followDialogs} from './dialogs.js'
import {drawToast, labelOf} from './draw.js'
import {Policy} from './policy.js'
import {actionsOf, filterOf, type Toast, type Unshown} from './toast.js'
import {makeReports} from '../reports.js'
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
/** Less is a press. */
const SLOP = 6
/** After so far nothing of it is to be seen. */
const FADED = 300

export class ToastView {
  readonly policy: Policy
  readonly #element: ActivityNotification
  readonly #holds = new Set<string>()
  readonly #leaving = new Map<string, Toast>()
  readonly #runs = new WeakMap<Element, Animation>()
  readonly #reports: ReturnType<typeof makeReports>
  /** By key, as it was last: it is said even if it has gone by then. */
  readonly #unsaid = new Map<string, Toast>()
  #ends: (() => void)[] = []
  #before: readonly Toast[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #voice: ReturnType<typeof setTimeout> | undefined
  #saidAt = -HUSH
  #focusedBefore: HTMLElement | undefined
  #isStill = () => false
  #swipedAt = -HUSH
  #filter: [text: string | undefined, fits: (row: Row) => boolean] = [undefined, () => true]

  constructor(element: ActivityNotification) {
    this.#element = element
    this.#reports = makeReports(() => element.source?.client, () => element.snapshot)
    this.policy = new Policy({
      get duration() { return Number(element.duration) || DURATION },
      get max() { return maxOf(element) },
      isQuiet: () => isQuiet(preferences().quiet ?? element.quiet),
      fits: row => this.#fits(row),
      isInView,
      tellsStatus: () => element.status !== 'off',
      mayAsk: () => desktopState() === 'off' && preferences().desktop === undefined,
      now: () => Date.now(),
    }, {
      sound: name => { if (element.sound !== 'off' && !isQuiet(preferences().quiet ?? element.quiet)) void play(name) },
      came: (rows, toasts) => this.#came(rows, toasts),
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
    on('visibilitychange', () => {
      this.hold('hidden', document.hidden)
      if (this.#unsaid.size) this.#speakSoon()
    })
    // What fills the screen is above all that was there.
    on('fullscreenchange', () => this.#raise())
    on('keydown', event => this.#jumped(event))
    const muted = (event: Event) => {
      const {povId, until} = (event as CustomEvent<{povId: string; until: Date}>).detail
      if (!this.#element.snapshot.povs.has(povId)) return
      event.preventDefault() // the feed need not say it, too
      this.policy.muted(povId, until.getTime())
    }
    document.addEventListener('pov-muted', muted)
    const dialogs = followDialogs(element, () => this.#raise())
    this.#isStill = dialogs.look
    this.#ends.push(() => document.removeEventListener('pov-muted', muted), dialogs.end, onPreference(() => element.requestUpdate()))
    this.hold('hidden', document.hidden)
  }

  /** The element is not where it was: it moves, or a dialog has gone with it, or it is really gone. */
  left(): void {
    // Before what it follows is let go of, which is in a task of its own.
    queueMicrotask(() => {
      if (this.#element.isConnected || this.#isStill()) return
      for (const end of this.#ends.splice(0)) end()
      clearTimeout(this.#timer)
      clearTimeout(this.#voice)
      this.#voice = undefined
      this.#reports.end()
    })
  }

  changed(snapshot: Snapshot): void {
    if (snapshot.connection.reason === 'signed_out') this.forget()
    this.policy.changed(snapshot)
    this.#schedule()
  }

  /** Nothing is left of what was told: the next one here may be somebody else. */
  forget(): void {
    this.policy.forget()
    this.#unsaid.clear()
    this.#leaving.clear()
    for (const each of this.#element.shadow.querySelectorAll('.sr')) each.textContent = ''
    forgetDesktop()
    this.#element.requestUpdate()
  }

  hold(why: string, isHeld: boolean): void {
    if (this.#holds.has(why) === isHeld) return
    this.#holds[isHeld ? 'add' : 'delete'](why)
    this.policy.hold(this.#holds.size > 0)
    this.#schedule()
    this.#element.requestUpdate()
  }

  /** All of them are shown under the pointer or the focus. */
  get #isSpread(): boolean {
    return this.#holds.has('pointer') || this.#holds.has('focus')
  }

  get #shown(): readonly Toast[] {
    const {toasts} = this.policy
    return this.#isSpread ? toasts : toasts.slice(0, maxOf(this.#element))
  }

  // ---- what came, and telling of it ----

  #fits(row: Row): boolean {
    const {filter} = this.#element
    if (this.#filter[0] !== filter) this.#filter = [filter, filterOf(filter)]
    return this.#filter[1](row)
  }

  #came(rows: readonly Row[], toasts: readonly Toast[]): void {
    rows.forEach(toldByToast)
    if (!document.hidden) return
    const element = this.#element
    for (const row of rows) this.#reports.add(row, 'hidden')
    for (const toast of toasts) {
      const row = toast.rows[0]!
      const words = [plainSentence(element, {rows: [row]}), povName(element, row.povId)] as const
      const [title, body] = toast.kind === 'burst' ? [labelOf(element, toast), words[0]] : words
      void tellDesktop(title, body, row.povId, row.activity.id ?? row.key, () => this.#open(toast)).then(isTold => {
        if (isTold) this.#reports.add(row)
      })
    }
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
      else if (!old || toast.kind === 'burst') this.#unsaid.set(toast.key, toast)
    }
    for (const [key, toast] of before) this.#leave(key, toast)
    this.#before = toasts
    if (this.#unsaid.size) this.#speakSoon()
    this.#schedule()
    this.#element.requestUpdate()
  }

  #leave(key: string, toast: Toast): void {
    // What became part of a burst goes at once, and is said of that.
    if (toast.kind === 'activity' && this.policy.toasts.some(each => each.kind === 'burst' && each.povs.includes(toast.povs[0]!))) {
      this.#unsaid.delete(key)
      return
    }
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
    if (document.hidden) return // it is said when one comes back
    const told = [...this.#unsaid.values()]
    this.#unsaid.clear()
    if (!told.length) return
    this.#saidAt = performance.now()
    const element = this.#element
    const came = told.filter(({kind}) => kind === 'activity' || kind === 'burst' || kind === 'action')
    const n = came.reduce((sum, each) => sum + each.count, 0)
    const povs = new Set(came.flatMap(each => each.povs)).size
    const labels = told.filter(each => came.length === 1 || !came.includes(each)).map(each => labelOf(element, each))
    if (came.length > 1) labels.push(say(element, povs > 1 ? 'told.new-on' : 'told.new', {n, povs: number(element, povs)}))
    this.#say('status', labels.join('. '))
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
    return html`<section class="toasts ${this.#holds.size ? 'is-held' : ''} ${this.#isSpread ? 'is-spread' : ''}" tabindex="-1" aria-label=${say(element, 'toast.region')}
  @pointerenter=${this.#pointed} @pointerleave=${this.#pointed} @focusin=${this.#focused} @focusout=${this.#focused}
  @mousedown=${keepFocus} @click=${this.#clicked} @keydown=${this.#keyed} @pointerdown=${this.#pressed}>${
    repeat(all, each => each.key, each => drawToast(element, each, this.#leaving.get(each.key) === each ? 'is-leaving' : ''))
  }${waiting ? html`<div class="pile" aria-hidden="true"><i></i>${waiting > 1 ? html`<i></i>` : nothing}</div>` : nothing}</section>`
  }

  /** What was drawn is in the top layer, as long as there is any. */
  updated(): void {
    const viewport = this.#viewport
    const isWanted = this.policy.toasts.length + this.#leaving.size > 0
    if (!viewport?.isConnected) return
    if (viewport.matches(':popover-open') !== isWanted) viewport.togglePopover(isWanted)
    if (!isWanted) for (const each of ['pointer', 'focus']) if (this.#holds.has(each)) this.hold(each, false)
    for (const each of viewport.querySelectorAll<HTMLElement>('.toast')) {
      const toast = this.#toastOf(each)
      if (toast?.duration) this.#run(each.querySelector<HTMLElement>('.thread')!, toast.duration, this.policy.spent(toast))
    }
    this.#keepFocus(viewport)
    if (!document.hidden) for (const {kind, rows} of this.#shown) if (kind === 'activity' || kind === 'action' || kind === 'burst') this.#reports.add(rows[0]!)
  }

  /** The thread runs out with the time, whatever held either. To ask for running animations would be one layout more. */
  #run(thread: HTMLElement, duration: number, spent: number): void {
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) return
    let run = this.#runs.get(thread)
    if (!run) {
      run = thread.animate({transform: ['scaleY(0)', 'none']}, {duration, fill: 'both', pseudoElement: '::after'})
      this.#runs.set(thread, run)
    }
    run.effect!.updateTiming({duration})
    run.currentTime = spent * duration
    if (this.#holds.size) run.pause()
    else if (spent < 1) run.play()
  }

  /** What had the focus goes: the next one has it, or what had it before. */
  #keepFocus(viewport: HTMLElement): void {
    if (!this.#holds.has('focus')) return
    const focused = this.#element.shadow.activeElement // also in a window that has not the focus
    if (focused && !focused.closest('.is-leaving')) return
    if (!focused && document.activeElement !== document.body) return this.hold('focus', false)
    const next = viewport.querySelector<HTMLElement>('.toast:not(.is-leaving)')
    if (next) next.focus()
    else this.#goBack()
  }

  get #viewport(): HTMLElement | null | undefined {
    return this.#element.shadowRoot?.querySelector<HTMLElement>('[popover]')
  }

  /** Above what opened since. */
  #raise(): void {
    const viewport = this.#viewport
    if (!viewport) return
    if (viewport.matches(':popover-open')) viewport.hidePopover()
    // What moves loses both, and says neither.
    this.hold('pointer', viewport.matches(':hover'))
    this.hold('focus', !!this.#element.shadow.activeElement)
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
    // What was swiped was not pressed.
    if (event.timeStamp - this.#swipedAt < AT_ONCE) return event.preventDefault()
    const target = event.target as Element
    const toast = this.#toastOf(target)
    if (!toast) return
    const button = target.closest<HTMLElement>('[data-do]')
    if (button) this.#do(button.dataset.do!, toast, Number(button.dataset.at))
    else if (!target.closest('a')) this.#open(toast)
    else this.#open(toast, event)
  }

  #toastOf(target: Element | null): Toast | undefined {
    const key = target?.closest<HTMLElement>('.toast')?.dataset.key
    return this.policy.toasts.find(each => each.key === key)
  }

  /** F6 to the toasts and back, wherever on the page. */
  #jumped(event: KeyboardEvent): void {
    if (event.key !== 'F6' || event.ctrlKey || event.metaKey || event.altKey || this.#element.shortcuts === 'off' || event.defaultPrevented) return
    const isIn = !!this.#element.shadow.activeElement
    if (isIn) this.#goBack()
    else {
      const first = this.#viewport?.querySelector<HTMLElement>('.toast:not(.is-leaving)')
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
      this.#dismiss(toast.key)
      if (next) next.focus()
      else this.#goBack()
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      // As they are seen, whatever the position.
      const topOf = (each: HTMLElement) => each.getBoundingClientRect().top
      all.sort((a, b) => topOf(a) - topOf(b))
      all[all.indexOf(own) + (event.key === 'ArrowUp' ? -1 : 1)]?.focus()
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
    const {clientX: from, pointerId} = event
    const ends = new AbortController()
    const {signal} = ends
    this.hold('swipe', true)
    const moved = (move: PointerEvent) => {
      const by = move.clientX - from
      if (move.pointerId !== pointerId || !toast.dataset.swiped && Math.abs(by) < SLOP) return
      toast.dataset.swiped = 'true'
      toast.style.setProperty('--by', `${by}px`)
      toast.style.setProperty('opacity', String(Math.max(0, 1 - Math.abs(by) / FADED)))
    }
    const over = (end: PointerEvent) => {
      if (end.pointerId !== pointerId) return
      ends.abort()
      this.hold('swipe', false)
      const by = end.clientX - from
      if (toast.dataset.swiped) this.#swipedAt = end.timeStamp
      delete toast.dataset.swiped
      toast.style.removeProperty('opacity')
      if (end.type === 'pointerup' && Math.abs(by) >= SWIPE) {
        toast.style.setProperty('--by', `${Math.sign(by) * FADED}px`)
        this.#dismiss(toast.dataset.key!)
      } else toast.style.removeProperty('--by')
    }
    // On the page: the toast may go meanwhile.
    document.addEventListener('pointermove', moved, {signal})
    document.addEventListener('pointerup', over, {signal})
    document.addEventListener('pointercancel', over, {signal})
  }

  // ---- what is pressed ----

  /** Go where it leads: to what it is about, or to the feed. */
  #open(toast: Toast, link?: Event): void {
    const row = toast.rows[0]
    if (!row || toast.kind === 'digest') return
    if (toast.kind === 'burst') return this.#see(toast, link)
    const {activity} = row
    const href = linkOf(this.#element, activity)
    const goes = this.#element.tell('pov-open', {row, activity, href}, true)
    if (!goes) link?.preventDefault()
    else if (href && !link) location.assign(href)
    this.#try(this.#element.source?.feed.read(row))
    this.policy.dismiss(toast.key)
  }

  /** Show the feed of it, if the page has one. */
  #see(toast: Toast, link?: Event): void {
    this.policy.dismiss(toast.key)
    const {povs, rows} = toast
    if (!this.#element.tell('pov-open', {row: rows[0], povs}, true)) return link?.preventDefault()
    const feed = document.querySelector<HTMLElement>('pov-team-activity')
    feed?.scrollIntoView({block: 'nearest'})
    feed?.shadowRoot?.querySelector<HTMLElement>('[part~=row]')?.focus()
  }

  #do(name: string, toast: Toast, at: number): void {
    const element = this.#element
    const {client, feed} = element.source ?? {}
    if (name === 'see') return this.#see(toast)
    if (name === 'retry') return client?.retry()
    if (name === 'dismiss' || name === 'not-now') return this.#dismiss(toast.key)
    if (name === 'action') {
      const row = toast.rows[0]!
      const {label, href} = actionsOf(row)[at]!
      const link = safeLink(href)
      this.policy.dismiss(toast.key)
      if (element.tell('pov-action', {row, label, href: link}, true) && link) location.assign(link)
      return
    }
    if (name === 'sign-in') return void element.tell('pov-sign-in')
    if (name === 'send' || name === 'discard') {
      // The toast stays until it has gone.
      const {id, state} = toast.pending!
      if (name === 'send' && state === 'waiting') client?.retry()
      else this.#try(client?.outbox().then(outbox => name === 'send' ? outbox.resend(id) : outbox.discard(id)))
      return
    }
    this.policy.dismiss(toast.key)
    if (name === 'read-all') this.#try(feed?.read())
    else if (name === 'undo') this.#try(feed?.mute(toast.povs[0]!, this.policy.levelBefore(toast.povs[0]!)))
    else if (name === 'allow') this.#try(allowDesktop())
  }

  /** Not asked again, whichever way it was sent away. */
  #dismiss(key: string): void {
    if (this.policy.toasts.some(each => each.key === key && each.kind === 'ask')) prefer({desktop: false})
    this.policy.dismiss(key)
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

const maxOf = ({max}: ActivityNotification) => Math.max(1, Math.floor(Number(max)) || MAX)

/** A press with the mouse takes the focus from nothing; but from where something is written. */
function keepFocus(event: MouseEvent): void {
  if (!(event.composedPath()[0] as Element).closest('input, textarea, select, [contenteditable]')) event.preventDefault()
}
