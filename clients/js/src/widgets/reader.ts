/** Whether somebody reads the list: what comes then waits. Where the pointer, the focus and the scrolling are. */
import type {Later} from './later.js'
import {keyOf} from './team-activity.js'

/** Follows who reads one element's list. */
export class Reader {
  #hasPointer = false
  #hasScrolled = false
  readonly #ends = new IntersectionObserver(entries => this.#turned(entries))
  readonly #listening = new AbortController()

  constructor(readonly host: Later) {
    const {element, shadowRoot} = host
    // Until the observer has said more.
    element.isAtTop &&= element.checkVisibility()
    for (const each of shadowRoot.querySelectorAll('.top, .end')) this.#ends.observe(each)
    const {signal} = this.#listening
    const list = host.articles.list.parentElement!
    const scrolled = () => { this.#hasScrolled = true }
    list.addEventListener('scroll', scrolled, {signal, passive: true, once: true})
    addEventListener('scroll', scrolled, {signal, passive: true, once: true})
    list.addEventListener('pointerover', event => this.#pointed(event), {signal})
    list.addEventListener('pointerleave', () => this.#left(), {signal})
    list.addEventListener('focusin', event => this.#focused(event), {signal})
    list.addEventListener('focusout', event => this.#blurred(event), {signal})
    // What came before this.
    this.#hasPointer = !host.isCoarse && list.matches(':hover')
    this.#focused({target: shadowRoot.activeElement})
  }

  /** Nothing may move under the eyes of who reads. */
  get isReading(): boolean {
    const {isAtTop, hasFocus} = this.host.element
    return !isAtTop || this.#hasPointer || hasFocus
  }

  end(): void {
    this.#ends.disconnect()
    this.#listening.abort()
  }

  #turned(entries: readonly IntersectionObserverEntry[]): void {
    const {host} = this
    for (const {target, isIntersecting} of entries) {
      if (target.className === 'end') {
        if (isIntersecting && (this.#hasScrolled || host.canGrow)) host.earlier()
      } else {
        host.element.isAtTop = isIntersecting
        host.shadowRoot.querySelector('.feed')!.classList.toggle('is-scrolled', !isIntersecting)
        this.#settle()
      }
    }
  }

  /** Let what waits come, as soon as nobody is reading. */
  #settle(): void {
    if (!this.isReading) this.host.held = undefined
    this.host.redraw()
  }

  #pointed({pointerType, target}: PointerEvent): void {
    if (pointerType !== 'mouse') return
    this.#hasPointer = true
    const key = keyOf(target)
    if (key === this.host.element.pointed) return
    this.host.element.pointed = key
    this.host.redraw()
  }

  #left(): void {
    this.#hasPointer = false
    this.host.element.pointed = undefined
    this.#settle()
  }

  #focused({target}: {target: EventTarget | null}): void {
    const key = keyOf(target)
    if (!key) return
    this.host.element.hasFocus = true
    this.host.element.current = key
    this.host.redraw()
  }

  #blurred({relatedTarget}: FocusEvent): void {
    if (this.host.articles.list.contains(relatedTarget as Node | null)) return
    this.host.element.hasFocus = false
    this.#settle()
  }
}
