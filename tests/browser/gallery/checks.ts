/** What has to hold in every state: contrast, hit areas, nothing beside its place; and what axe-core finds. */
import type axeCore from 'axe-core'
import {really} from './clock.ts'
import {above, elements, isSeen, name, texts} from './composed.ts'

declare const axe: typeof axeCore

type Colour = readonly [red: number, green: number, blue: number, alpha: number]

/** WCAG 2.2, 1.4.3: level AA. */
const CONTRAST = 4.5
/** A pixel may be half one. */
const SLACK = 1

const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})!
const colours = new Map<string, Colour>()

/** Whatever way of writing a colour the browser understands. */
function colourOf(css: string): Colour {
  let found = colours.get(css)
  if (!found) {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = css
    canvas.fillRect(0, 0, 1, 1)
    const [red = 0, green = 0, blue = 0, alpha = 0] = canvas.getImageData(0, 0, 1, 1).data
    colours.set(css, found = [red, green, blue, alpha / 255])
  }
  return found
}

function over([red, green, blue, alpha]: Colour, [r, g, b]: Colour): Colour {
  const mix = (above: number, below: number) => above * alpha + below * (1 - alpha)
  return [mix(red, r), mix(green, g), mix(blue, b), 1]
}

function backOf(element: Element): Colour {
  const layers: Colour[] = []
  for (const each of above(element)) {
    const colour = colourOf(getComputedStyle(each).backgroundColor)
    if (colour[3]) layers.push(colour)
    if (colour[3] === 1) break
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1])
}

function luminance(colour: Colour): number {
  const [red, green, blue] = colour.map(each => {
    const value = each / 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!
}

function ratio(a: Colour, b: Colour): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x)
  return (light! + 0.05) / (dark! + 0.05)
}

/** The texts of too little contrast with what is behind them. */
export function faint(root: Element): string[] {
  return [...texts(root)].flatMap(([text, element]) => {
    const back = backOf(element)
    const {color} = getComputedStyle(element)
    const opacity = [...above(element)].reduce((all, each) => all * Number(getComputedStyle(each).opacity), 1)
    const [red, green, blue, alpha] = colourOf(color)
    const found = ratio(over([red, green, blue, alpha * opacity], back), back)
    return found < CONTRAST ? [`${found.toFixed(2)}: "${text.slice(0, 40)}" in ${name(element)}`] : []
  })
}

const PRESSED = 'button, a[href], input, select, textarea, summary, [role=button], [role=radio], [role=switch],'
  + '[role=menuitem], [role=menuitemradio], [role=checkbox], [role=tab], [role=option]'

/** What can be pressed and is smaller than `least` px; a link in a sentence may be as high as its line. */
export function small(root: Element, least: number): string[] {
  return [...elements(root)].flatMap(element => {
    if (!element.matches(PRESSED) || !isSeen(element) || element.matches('a')) return []
    // What a label around it takes is its own, too.
    const area = element.closest('label') ?? element
    const {width, height} = area.getBoundingClientRect()
    if (width >= least - SLACK && height >= least - SLACK || isHit(area, least)) return []
    return [`${Math.round(width)} x ${Math.round(height)}: ${name(element)}`]
  })
}

/** Whether it is what is hit in an area of that size around its middle, whatever its own box. */
function isHit(element: Element, least: number): boolean {
  const {left, top, width, height} = element.getBoundingClientRect()
  const reach = least / 2 - SLACK
  return [[-1, -1], [1, -1], [-1, 1], [1, 1]].every(([x = 0, y = 0]) => {
    const hit = hitAt(left + width / 2 + x * reach, top + height / 2 + y * reach)
    return !!hit && [...above(hit)].includes(element)
  })
}

function hitAt(x: number, y: number): Element | null {
  let found = document.elementFromPoint(x, y)
  for (;;) {
    const inner = found?.shadowRoot?.elementFromPoint(x, y)
    if (!inner || inner === found) return found
    found = inner
  }
}

/** What is beside its place: past the sides of `root` or of the window, or cut off without a sign of it. */
export function astray(root: Element): string[] {
  const found: string[] = []
  const page = document.documentElement
  if (page.scrollWidth > page.clientWidth) found.push(`the page scrolls sideways: ${page.scrollWidth} px`)
  for (const element of elements(root)) {
    if (!isSeen(element) || element.closest('svg')) continue
    const box = boxOf(element, root)
    const {left, right} = element.getBoundingClientRect()
    if ((right > box.right + SLACK || left < box.left - SLACK) && !isElided(element, root)) {
      found.push(`${Math.round(left)} to ${Math.round(right)}, not in ${Math.round(box.left)} to ${Math.round(box.right)}: ${name(element)}`)
    }
    const style = getComputedStyle(element)
    const isCut = element.scrollWidth > element.clientWidth + SLACK && /hidden|clip/.test(style.overflowX)
    if (isCut && !isElided(element, root)) {
      found.push(`cut off at ${element.clientWidth} of ${element.scrollWidth} px: ${name(element)}`)
    }
    if (/auto|scroll/.test(style.overflowX) && element.scrollWidth > element.clientWidth + SLACK) {
      found.push(`scrolls sideways: ${name(element)}`)
    }
  }
  return found
}

/** Whether all that is too much of it is cut off with a sign of that. */
function isElided(element: Element, root: Element): boolean {
  for (const each of above(element)) {
    if (each === root) return false
    const {overflowX, textOverflow, webkitLineClamp} = getComputedStyle(each)
    if (/hidden|clip/.test(overflowX) && (textOverflow === 'ellipsis' || webkitLineClamp !== 'none')) return true
  }
  return false
}

/** Where something has to stay: in the element, or if it is in the top layer, in the window. */
function boxOf(element: Element, root: Element): {left: number; right: number} {
  for (const each of above(element)) {
    if (each === root) return root.getBoundingClientRect()
    if (each.matches(':popover-open, dialog[open]')) break
  }
  return {left: 0, right: innerWidth}
}

const RULES = {
  runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  rules: {'target-size': {enabled: true}},
  resultTypes: ['violations' as const],
  // It would fetch the page's style sheets once more.
  preload: false,
}

/** What axe-core finds in the page. */
export async function violations(): Promise<string[]> {
  const found = await really(() => axe.run(document, RULES))
  return found.violations.flatMap(({id, help, nodes}) =>
    nodes.map(({target, failureSummary}) => `${id} (${help}): ${target.flat().join(' ')}: ${failureSummary?.replace(/\s+/g, ' ')}`))
}

/** What moves no longer than this, ms, is waited for: nothing is measured in the middle of a fade. */
const SHORT = 500

/** What moved when the state came, and for how long, ms. */
let moved: [ms: number, what: string][] = []

function* animations(root: Element): Generator<[animation: Animation, ms: number, target: Element]> {
  // Those in a shadow tree are its own.
  const trees = [...elements(root)].flatMap(({shadowRoot}) => shadowRoot ?? [])
  for (const animation of [document, ...trees].flatMap(tree => tree.getAnimations())) {
    const {effect} = animation
    const target = effect instanceof KeyframeEffect && effect.target
    if (target && [...above(target)].includes(root)) yield [animation, Number(effect.getComputedTiming().endTime), target]
  }
}

/** Wait until what moves for a moment has come to its end. */
export async function calm(root: Element): Promise<void> {
  const all = [...animations(root)]
  moved = all.map(([, ms, target]) => [ms, name(target)])
  await Promise.all(all.filter(([{playState}, ms]) => playState === 'running' && ms <= SHORT)
    .map(async ([animation]) => { await animation.finished.catch(() => {}) })) // one that is cancelled has ended, too
}

/** What moves or moved for longer than `most` ms, or for ever. */
export function moving(root: Element, most: number): string[] {
  const now = [...animations(root)].map(([, ms, target]): [number, string] => [ms, name(target)])
  return [...moved, ...now].filter(([ms]) => ms > most).map(([ms, what]) => `${ms} ms: ${what}`)
}

/** Around whatever is seen of an element, in its place or above the page. */
export function boxAround(root: Element): {x: number; y: number; width: number; height: number} {
  const boxes = [...elements(root)].filter(isSeen).map(seenOf).filter(({left, right}) => left < right)
  if (!boxes.length) throw new Error('nothing is shown that a picture could be taken of')
  const x = Math.min(...boxes.map(({left}) => left))
  const y = Math.min(...boxes.map(({top}) => top))
  const width = Math.max(...boxes.map(({right}) => right)) - x
  const height = Math.max(...boxes.map(({bottom}) => bottom)) - y
  return {x: x + scrollX, y: y + scrollY, width, height}
}

/** What is left of its box by those around it that cut off what is too much. */
function seenOf(element: Element): {left: number; top: number; right: number; bottom: number} {
  let {left, top, right, bottom} = element.getBoundingClientRect()
  for (const each of above(element)) {
    if (each.matches(':popover-open, dialog[open]')) break
    if (getComputedStyle(each).overflow === 'visible') continue
    const box = each.getBoundingClientRect()
    left = Math.max(left, box.left)
    top = Math.max(top, box.top)
    right = Math.min(right, box.right)
    bottom = Math.min(bottom, box.bottom)
  }
  return top < bottom ? {left, top, right, bottom} : {left: 0, top: 0, right: 0, bottom: 0}
}
