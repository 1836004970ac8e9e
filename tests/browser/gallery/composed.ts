/** Walks what is drawn: light and shadow trees as one. */

export const parentOf = (node: Node): Element | null =>
  node instanceof Element && node.assignedSlot
    || (node.parentNode instanceof ShadowRoot ? node.parentNode.host : node.parentElement)

function childrenOf(node: Element): readonly Node[] {
  if (node.shadowRoot) return [...node.shadowRoot.childNodes]
  if (node instanceof HTMLSlotElement) {
    const assigned = node.assignedNodes()
    if (assigned.length) return assigned
  }
  return [...node.childNodes]
}

/** All nodes below an element, itself first. */
export function* nodes(node: Node): Generator<Node> {
  yield node
  if (node instanceof Element) for (const each of childrenOf(node)) yield* nodes(each)
}

export function* elements(root: Element): Generator<Element> {
  for (const each of nodes(root)) if (each instanceof Element) yield each
}

export function* above(element: Element): Generator<Element> {
  for (let each: Element | null = element; each; each = parentOf(each)) yield each
}

const SEEN = {contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true}

/** Whether it is there for eyes: what only screen readers are told is not. */
export function isSeen(element: Element): boolean {
  const {width, height} = element.getBoundingClientRect()
  return width > 1 && height > 1 && isShown(element)
}

function isShown(element: Element): boolean {
  const all = [...above(element)]
  // What has no box of its own, as slots have none, is there where its parent is.
  const box = all.find(each => getComputedStyle(each).display !== 'contents')
  return !!box?.checkVisibility(SEEN) && !all.some(each => getComputedStyle(each).clipPath === 'inset(50%)')
}

/** The texts that are there for eyes, with the elements that they are in. */
export function* texts(root: Element): Generator<[text: string, element: Element]> {
  const range = document.createRange()
  for (const node of nodes(root)) {
    if (!(node instanceof Text) || !node.data.trim()) continue
    const element = parentOf(node)!
    if (/^(STYLE|SCRIPT|TITLE)$/i.test(element.tagName) || !isShown(element)) continue
    range.selectNodeContents(node)
    const {width, height} = range.getBoundingClientRect()
    if (width > 1 && height > 1) yield [node.data.trim(), element]
  }
}

/** All of the text that is there for eyes, as one line. */
export function shownText(root: Element): string {
  return [...texts(root)].map(([text]) => text).join(' ').replace(/\s+/g, ' ')
}

/** What a person would call it in a test's report. */
export function name(element: Element): string {
  const {part, className} = element
  const kind = part?.value || (typeof className === 'string' ? className : '')
  const words = (element.getAttribute('aria-label') ?? element.textContent ?? '').trim().replace(/\s+/g, ' ')
  return `${element.tagName.toLowerCase()}${kind ? `.${kind.replaceAll(' ', '.')}` : ''} "${words.slice(0, 40)}"`
}
