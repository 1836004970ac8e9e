/** The browser's own notifications: on request, for who looks elsewhere. */
import {prefer, preferences} from '../preferences.js'
import {isAnyVisible} from '../visible.js'
import {isFirst} from './sound.js'

/** How long one tab of a browser keeps the others from telling the same, ms. */
const CLAIM = 10_000

/** Whether a page may make them: browsers of phones leave that to service workers. */
let isAble: boolean | undefined

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

/**
 * Tell, if no tab of the browser is seen and the user allowed it, and say whether that was done, here or by another tab;
 * `pressed` when it was pressed.
 */
export async function tellDesktop(title: string, body: string, tag: string, id: string, pressed: () => void): Promise<boolean> {
  if (desktopState() !== 'on' || await isAnyVisible()) return false
  if (!await isFirst(`told:${id}`, CLAIM)) return true
  const shown = make(title, {body, tag, silent: true})
  if (!shown) return false
  told.add(shown)
  shown.onclose = () => told.delete(shown)
  shown.onclick = () => {
    window.focus()
    shown.close()
    pressed()
  }
  return true
}
