/** The browser's own notifications: on request, for who looks elsewhere. */
import {prefer, preferences} from '../preferences.js'
import {isFirst} from './sound.js'

/** How long one tab of a browser keeps the others from telling the same, ms. */
const CLAIM = 10_000
const SEEN = 'pov-rt:visible'

let release: (() => void) | undefined
/** Whether a page may make them: browsers of phones leave that to service workers. */
let isAble: boolean | undefined

/** While a tab is visible, no other one of this browser has to tell. */
function claim(): void {
  release?.()
  release = undefined
  if (!document.hidden) {
    navigator.locks?.request(SEEN, {mode: 'shared'}, () => document.hidden ? undefined
      : new Promise<void>(resolve => { release = resolve })).catch(() => {
      // A page that has no origin has no locks, and no notifications.
    })
  }
}
document.addEventListener('visibilitychange', claim)
claim()

/** What the browser says: `denied` can only be undone in its settings. */
export function desktopState(): 'on' | 'off' | 'denied' | 'none' {
  if (!('Notification' in globalThis)) return 'none'
  const {permission} = Notification
  if (permission === 'denied') return 'denied'
  if (!canMake(permission)) return 'none'
  return permission === 'granted' && preferences().desktop !== false ? 'on' : 'off'
}

/** Find out by making one where nothing is shown: not allowed yet, it only fails. */
function canMake(permission: NotificationPermission): boolean {
  if (permission === 'default' && isAble === undefined) isAble = !!make('')
  return isAble !== false
}

function make(title: string, options?: NotificationOptions): Notification | undefined {
  try {
    return new Notification(title, options)
  } catch {
    isAble = false
  }
}

/** Those that show. */
const told = new Set<Notification>()

/** Take back what was told: whoever comes next must not read it. */
export function forgetDesktop(): void {
  for (const each of told) each.close()
  told.clear()
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
  const shown = make(title, {body, tag, silent: true})
  if (!shown) return
  told.add(shown)
  shown.onclose = () => told.delete(shown)
  shown.onclick = () => {
    window.focus()
    shown.close()
    pressed()
  }
}
