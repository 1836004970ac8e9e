/**
 * One state of a component, by the address (`?state=offline&theme=dark&dir=rtl&width=320&density=compact`) or,
 * without loading anew, by `gallery.show(...)`.
 */
import './clock.ts'
import {ARABIC, ArabicStage} from './arabic.ts'
import {astray, boxAround, calm, faint, moving, small, violations} from './checks.ts'
import {pass, reset, turn} from './clock.ts'
import {PEOPLE, POVS} from './data.ts'
import {feedStates} from './feed-states.ts'
import {toastStates} from './toast-states.ts'
import type {Reader, Spoken} from './reader.ts'
import {Stage, type Widget} from './stage.ts'
import type {State} from './states.ts'
import {BEGINNING, stories, toastStories} from './stories.ts'

/** What the page's policy forbade, in words. */
const forbidden: string[] = []
addEventListener('securitypolicyviolation', ({effectiveDirective, sourceFile, lineNumber, columnNumber, sample}) => {
  forbidden.push(`${effectiveDirective} forbids "${sample}" at ${sourceFile}:${lineNumber}:${columnNumber}`)
})

// By a variable: it is not bundled, but served beside the page, as it is on any page.
const served = './client/pov-rt-widgets.mjs'
await import(served)

/** How a state is to be shown. */
export interface How {
  state: string
  theme?: 'light' | 'dark'
  dir?: 'ltr' | 'rtl'
  /** px of the element; toasts have the window. */
  width?: number
  density?: 'comfortable' | 'compact'
  /** Words that have to be seen beside those of the state. */
  says?: string
  /** `system`: with the machine's own font, which may be much wider than that of the pictures. */
  font?: 'system' | 'pictures'
}

/** As the states' words have it: 13:48, 2 min. */
const LOCALE = 'en-u-hc-h23'
/** px from which all words of a state are seen. */
const ROOM = 400

const root = document.documentElement
const place = document.querySelector('#stage')!
let stage: Stage | undefined

/** What stories begin with; it is no state that anybody has to look at. */
const QUIET: State = {scene: BEGINNING, says: ['Live']}

function stateOf(name: string): [tag: string, state: State] {
  const [kind, ...rest] = name.split(': ')
  const states: Record<string, State> = kind === 'toast' ? {...toastStates, quiet: {...QUIET, says: []}}
    : {...feedStates, quiet: QUIET}
  const found = states[kind === 'toast' ? rest.join(': ') : name]
  if (!found) throw new Error(`there is no state "${name}"`)
  return [kind === 'toast' ? 'pov-activity-notification' : 'pov-team-activity', found]
}

/** Show a state, until it says what it has to. Throws where it never does. */
async function show({state: name, theme = 'light', dir = 'ltr', width = 400, density, font, says}: How): Promise<void> {
  const [tag, state] = stateOf(name)
  await clear()
  root.className = theme
  root.dir = dir
  root.lang = dir === 'rtl' ? 'ar' : 'en-GB'
  place.className = font === 'system' ? '' : 'drawn'
  const widget = document.createElement(tag) as Widget
  stage = dir === 'rtl' ? new ArabicStage(widget, state.scene) : new Stage(widget, state.scene)
  const words = dir === 'rtl' ? ARABIC : {locale: LOCALE, people: PEOPLE, povs: POVS}
  const {locale, people, povs} = words
  Object.assign(widget, {feed: stage.feed, locale, people, povs, theme, density, ...state.properties})
  if (dir === 'rtl') Object.assign(widget, {strings: ARABIC.strings})
  for (const [key, value] of Object.entries(state.attributes ?? {})) widget.setAttribute(key, value)
  if (tag === 'pov-team-activity') widget.style.setProperty('width', `${width}px`)
  for (const [key, value] of Object.entries(state.style ?? {})) widget.style.setProperty(key, value)
  place.append(widget)
  await stage.settle()
  await stage.idle()
  await state.then?.(stage)
  // Where there is little room fewer words are seen, and other languages have others.
  if (dir === 'ltr' && width >= ROOM && density !== 'compact') await stage.says(state.says)
  if (says) await stage.says([says])
  await calm(widget)
  root.dataset.shown = name
}

/** Take away what is shown; nothing of it is left running. */
async function clear(): Promise<void> {
  place.replaceChildren()
  stage = undefined
  delete root.dataset.shown
  localStorage.clear()
  await turn()
  await pass(0)
  reset()
  location.hash = ''
}

const widget = () => stage!.widget

/** Reads aloud what is shown from now on. */
async function reader(): Promise<Reader> {
  const {Reader} = await import('./reader.ts')
  return await Reader.start(widget())
}

/** Whether the browser shows text at twice its size, and nothing else. */
function isTextLarge(): boolean {
  const probe = document.createElement('span')
  probe.style.setProperty('font', '16px/1 monospace')
  probe.style.setProperty('display', 'inline-block')
  probe.textContent = 'x'.repeat(100)
  document.body.append(probe)
  const {width} = probe.getBoundingClientRect()
  probe.style.setProperty('width', '100px')
  const box = probe.getBoundingClientRect().width
  probe.remove()
  return box === 100 && width > 100 * 16
}

const gallery = {
  names: [...Object.keys(feedStates), ...Object.keys(toastStates).map(each => `toast: ${each}`)],
  show,
  clear,
  pass,
  forbidden,
  violations,
  faint: () => faint(widget()),
  small: (least: number) => small(widget(), least),
  astray: () => astray(widget()),
  moving: (most: number) => moving(widget(), most),
  box: () => boxAround(widget()),
  isTextLarge,
  get stage() { return stage },
  reader,
  /** What is heard while a story is played. */
  async hear(story: string): Promise<Spoken[]> {
    const isToast = story.startsWith('toast: ')
    await show({state: isToast ? 'toast: quiet' : 'quiet'})
    // It has been so for a while.
    await pass(60_000)
    const listening = await reader()
    try {
      const play = isToast ? toastStories[story.slice('toast: '.length)] : stories[story]
      return await play!(stage!, listening)
    } finally {
      await listening.stop()
    }
  },
}

declare global {
  interface Window { gallery: typeof gallery }
}
window.gallery = gallery

const asked = new URLSearchParams(location.search)
if (asked.has('state')) {
  const width = asked.get('width')
  await show({...Object.fromEntries(asked), state: asked.get('state')!, width: width ? Number(width) : undefined})
}
