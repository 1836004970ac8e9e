/** What states are played on: one element, its feed, and what a person can do with it. */
import {Shown, snapshotOf, type Scene} from './data.ts'
import {frame, pass, real} from './clock.ts'
import {elements, isSeen, shownText} from './composed.ts'

/** How long the browser may take to show something, real ms: a bound for what has failed. */
const PATIENCE = 3_000

/** Either component, as a page sees it. */
export interface Widget extends HTMLElement {
  feed: unknown
}

export class Stage {
  readonly feed: Shown

  constructor(readonly widget: Widget, scene: Scene) {
    this.feed = new Shown(snapshotOf(scene))
  }

  /** Have the feed change to this. */
  async become(scene: Scene): Promise<void> {
    this.feed.show(snapshotOf(scene))
    await this.settle()
  }

  /** Let that much time go by. */
  async wait(ms: number): Promise<void> {
    await pass(ms)
    await this.settle()
  }

  /** Wait until what is to be drawn has been, and has stopped moving. */
  async settle(): Promise<void> {
    // Not `updateComplete`: who draws a burst some time later waits for a time that stands still.
    for (let i = 0; i < 2; i++) await frame()
  }

  /** Wait until the browser has nothing else to do: what is loaded then has been. */
  async idle(): Promise<void> {
    await new Promise(resolve => requestIdleCallback(resolve))
    await this.settle()
  }

  /** Wait until something is there. */
  async until<T>(look: () => T | undefined | false | null, what: string): Promise<T> {
    const end = real.Date.now() + PATIENCE
    for (;;) {
      const found = look()
      if (found) return found
      if (real.Date.now() > end) throw new Error(`never came: ${what}; shown is: ${shownText(document.body)}`)
      await frame()
    }
  }

  /** What is seen of a part, the first of them. */
  async part(name: string): Promise<HTMLElement> {
    return await this.until(() => [...elements(this.widget)].find(
      (each): each is HTMLElement => each instanceof HTMLElement && each.part.contains(name) && isSeen(each)), `part ${name}`)
  }

  /** What can be pressed and is called that. */
  async button(name: string): Promise<HTMLElement> {
    return await this.until(() => [...elements(this.widget)].find((each): each is HTMLElement =>
      each instanceof HTMLElement && each.matches('button, [role=button], [role=menuitem], [role=radio], input, label')
        && isSeen(each) && nameOf(each) === name), `a button "${name}"`)
  }

  async press(name: string): Promise<void> {
    (await this.button(name)).click()
    await this.settle()
  }

  /** Press a key where the focus is. */
  async key(key: string, more: KeyboardEventInit = {}): Promise<void> {
    let target: Element = document.activeElement ?? document.body
    while (target.shadowRoot?.activeElement) target = target.shadowRoot.activeElement
    for (const type of ['keydown', 'keyup']) {
      target.dispatchEvent(new KeyboardEvent(type, {key, bubbles: true, composed: true, cancelable: true, ...more}))
    }
    await this.settle()
  }

  /** Wait until all of these words are seen. */
  async says(words: readonly string[]): Promise<void> {
    // However they are divided: "99" and "+" are "99+".
    const close = (text: string) => text.replace(/\s/g, '')
    for (const each of words) {
      await this.until(() => close(shownText(this.widget)).includes(close(each)), `the words "${each}"`)
    }
  }
}

/** What it is called: what is only drawn is no part of that. */
function nameOf(element: Element): string {
  const words = (node: Node): string => {
    if (node instanceof Text) return node.data
    return node instanceof Element && node.ariaHidden === 'true' ? '' : [...node.childNodes].map(words).join('')
  }
  return (element.getAttribute('aria-label') ?? words(element)).replace(/\s+/g, ' ').trim()
}
