/** How a panel opens: where the focus goes, and where what floats stands. */
import type {PanelHost, PanelName} from '../api.js'
import {once} from '../text.js'
import {stateOf} from './state.js'

/** Call something with an element once it is in the page, and what that returns when it is gone; for `ref`. */
export function whenThere(host: PanelHost, name: string, then: (element: HTMLElement) => (() => void) | void) {
  const {refs} = stateOf(host)
  return once(refs, name, () => {
    let end: (() => void) | void
    return (element?: Element) => {
      if (element) queueMicrotask(() => { if (element.isConnected) end = then(element as HTMLElement) })
      else {
        refs.delete(name)
        end?.()
      }
    }
  })
}

/** Focus an element: always, or where whoever opened the panel is at the keyboard. */
export function enter(element: HTMLElement, always = false): void {
  const {activeElement} = element.getRootNode() as ShadowRoot
  if (always || activeElement?.matches(':focus-visible')) element.focus({preventScroll: true})
}

/** Room that is left to the edges of the window, px. */
const EDGE = 8
/** Between what floats and what it belongs to, px. */
const APART = 4

/**
 * Open what floats in the top layer, at the end of what it belongs to: below it, above it where there is more
 * room, never past an edge. It belongs to a part of an element, which may go while the element stays. It closes
 * by itself, at a click elsewhere too; then the host is told. Call what it returns when it is gone.
 */
export function float(host: PanelHost, name: PanelName, element: HTMLElement, anchor: Element, part = anchor): () => void {
  const {style} = element
  const whole = anchor.getBoundingClientRect()
  const its = part.getBoundingClientRect()
  const place = () => {
    const {x, y} = anchor.getBoundingClientRect()
    const at = new DOMRect(x + its.x - whole.x, y + its.y - whole.y, its.width, its.height)
    const {clientWidth: width, clientHeight: height} = document.documentElement
    style.setProperty('max-block-size', '')
    const {offsetWidth, offsetHeight} = element
    const below = height - EDGE - APART - at.bottom
    const above = at.top - EDGE - APART
    const isBelow = offsetHeight <= below || below >= above
    const room = Math.max(isBelow ? below : above, 0)
    const size = Math.min(offsetHeight, room)
    const left = getComputedStyle(element).direction === 'rtl' ? at.left : at.right - offsetWidth
    style.setProperty('max-block-size', `${room}px`)
    style.setProperty('left', `${Math.max(EDGE, Math.min(left, width - EDGE - offsetWidth))}px`)
    style.setProperty('top', `${isBelow ? at.bottom + APART : at.top - APART - size}px`)
    // What it belongs to was scrolled away.
    if (!anchor.isConnected || at.bottom < 0 || at.top > height) host.closePanel()
  }
  element.addEventListener('toggle', event => {
    // Another panel may be open by now, in the place of this one.
    if ((event as ToggleEvent).newState !== 'closed' || !element.isConnected || host.panel !== name) return
    const {activeElement} = document
    host.closePanel(!!activeElement && activeElement !== document.body && !activeElement.contains(element.getRootNode() as Node)
      && activeElement !== (element.getRootNode() as ShadowRoot).host)
  })
  element.showPopover()
  place()
  addEventListener('resize', place)
  addEventListener('scroll', place, {capture: true, passive: true})
  return () => {
    removeEventListener('resize', place)
    removeEventListener('scroll', place, {capture: true})
  }
}

/** The element of the feed that a selector finds. */
export const inFeed = (host: PanelHost, selector: string): HTMLElement | null =>
  host.shadowRoot!.querySelector(selector)
