/** A list of elements that is kept as it should be: each drawn only when what it shows has changed. */
import {render} from 'lit-html'

/** One element of it. */
export interface Item {
  /** Names it from one time to the next. */
  readonly key: string
  readonly classes: string
  readonly part: string
  /** What it shows; it is drawn again when one of these is another. */
  readonly of: readonly unknown[]
  draw(): unknown
}

interface Shown {
  readonly element: HTMLElement
  of: readonly unknown[]
}

/** So many are drawn in a frame. */
export const STEP = 12

let ids = 0

/** What is read when it gets the focus: its sentence, then what was written, and where. */
function describe(element: HTMLElement): void {
  const idsOf = (selector: string) =>
    [...element.querySelectorAll(selector)].map(each => each.id ||= `a${++ids}`).join(' ')
  element.setAttribute('aria-labelledby', idsOf('.line, .gap p, .divider span'))
  element.setAttribute('aria-describedby', idsOf('.quote, .meta, time'))
}

/** The elements of a list, by key. They keep their focus and their place, whatever comes above them. */
export class Articles {
  #shown = new Map<string, Shown>()

  /** Told of each that is made, and of each that goes. */
  made: ((element: HTMLElement) => void) | undefined
  gone: ((element: HTMLElement) => void) | undefined

  constructor(readonly list: HTMLElement) {}

  /** Some show what was there before: there were too many for this frame. */
  isLate = false

  /** Show these, in this order. Says whether the focus went with one that is no longer there. */
  show(items: readonly Item[]): boolean {
    const before = this.#shown
    const now = this.#shown = new Map<string, Shown>()
    for (const {key} of items) {
      const known = before.get(key)
      if (known) now.set(key, known)
    }
    let isLost = false
    const free = new Set<Element | null>()
    for (const [key, {element}] of before) {
      if (now.has(key)) continue
      this.gone?.(element)
      if (element.contains((element.getRootNode() as ShadowRoot).activeElement)) {
        isLost = true
        element.remove()
      } else free.add(element)
    }
    let left = STEP
    this.isLate = false
    let next = this.list.firstElementChild
    for (const {key, classes, part, of, draw} of items) {
      let shown = now.get(key)
      if (!shown) {
        // What stands there and is not needed becomes this one: to draw a row anew takes many times as long.
        const element = free.delete(next) ? next as HTMLElement : document.createElement('article')
        element.tabIndex = -1
        element.dataset.key = key
        now.set(key, shown = {element, of: []})
        this.made?.(element)
      }
      const {element} = shown
      if (shown.of.length !== of.length || of.some((each, i) => each !== shown.of[i])) {
        if (left-- > 0 || !shown.of[0]) {
          shown.of = of
          render(draw(), element)
          describe(element)
        } else this.isLate = true
      }
      if (element.className !== classes) element.className = classes
      if (element.part.value !== part) element.part.value = part
      if (element === next) next = element.nextElementSibling
      else this.list.insertBefore(element, next)
    }
    for (const each of free) each!.remove()
    return isLost
  }

  /** Say where it stands: whether Tab comes to it, and which of how many it is. */
  place(key: string, isCurrent: boolean, at: number, total: number): void {
    const {element} = this.#shown.get(key)!
    const tab = isCurrent ? 0 : -1
    if (element.tabIndex !== tab) element.tabIndex = tab
    if (element.ariaPosInSet !== `${at}`) element.ariaPosInSet = `${at}`
    if (element.ariaSetSize !== `${total}`) element.ariaSetSize = `${total}`
  }

  clear(): void {
    this.show([])
  }

  /** The element of a key. */
  of(key: string | undefined): HTMLElement | undefined {
    return this.#shown.get(key!)?.element
  }
}
