/** The browser's own notifications: on request, for who looks elsewhere. */
import {prefer, preferences} from '../preferences.js'
import {isFirst} from './sound.js'

/** How long one tab of a browser keeps the others from telling the same, ms. */
const CLAIM = 10_000
const SEEN = 'pov-rt:visible'

let release: (() => void) | undefined

/** While a tab is visible, no other one of this browser has to tell. */
function claim(): void {
  release?.()
  release = undefined
  if (!document.hidden) {
    void navigator.locks?.request(SEEN, {mode: 'shared'}, () => new Promise<void>(resolve => { release = resolve }))
  }
}
document.addEventListener('visibilitychange', claim)
claim()

/** What the browser says: `denied` can only be undone in its settings. */
export function desktopState(): 'on' | 'off' | 'denied' | 'none' {
  if (!('Notification' in globalThis)) return 'none'
  const {permission} = Notification
  if (permission === 'denied') return 'denied'
  return permission === 'granted' && preferences().desktop !== false ? 'on' : 'off'
}

/** Ask the browser, in a press; what it says is kept. Resolves to whether it may tell. */
export async function allowDesktop(): Promise<boolean> {
  const answer = await Notification.requestPermission()
  prefer({desktop: answer === 'granted'})
  return answer === 'granted'
}

/** Tell, if the page is hidden, no tab of the browser is seen and the user allowed it; `pressed` when it was pressed. */
export async function tellDesktop(title: string, body: string, tag: string, id: string, pressed: () => void): Promise<void> {
  if (!document.hidden || desktopState() !== 'on') return
  const {held = []} = await navigator.locks?.query() ?? {}
  if (held.some(each => each.name === SEEN) || !await isFirst(`told:${id}`, CLAIM)) return
  const shown = new Notification(title, {body, tag, silent: true})
  shown.onclick = () => {
    window.focus()
    shown.close()
    pressed()
  }
}
