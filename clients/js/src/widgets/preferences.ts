/** How this browser wants to be told, whatever the PoV: kept in localStorage, the same in all its tabs. */
export {isQuiet} from './quiet.js'

/** What a person chose; absent: never chosen. */
export interface Preferences {
  /** Sounds were turned on. */
  sound?: boolean
  /** The browser's notifications were asked for: true allowed, false not now or no. */
  desktop?: boolean
  /** Hours without toast and sound, `19:00-08:00` in local time; empty: none, whatever the page says. */
  quiet?: string
}

const KEY = 'pov-rt:preferences'
const listeners = new Set<() => void>()
/** What was chosen on a page that may store nothing. */
let kept: Preferences = {}

addEventListener('storage', ({key}) => {
  if (key === KEY || key === null) for (const each of listeners) each()
})

/** What was chosen, in any tab. */
export function preferences(): Preferences {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? '{}') as Preferences
  } catch {
    return kept // not allowed to store, or not ours
  }
}

/** Choose; listeners of all tabs are called. */
export function prefer(chosen: Preferences): void {
  kept = {...preferences(), ...chosen}
  try {
    localStorage.setItem(KEY, JSON.stringify(kept))
  } catch {
    // For this page, then.
  }
  for (const each of listeners) each()
}

/** Call `listener` after each change, in whatever tab; returns what ends that. */
export function onPreference(listener: () => void): () => void {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}
