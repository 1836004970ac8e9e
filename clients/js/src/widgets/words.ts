/** The sentences of the components' first moment, in English. `words-more.ts`, and whatever loads later, adds its own. */
import type {Strings} from './text.js'

/**
 * By name. `*so*` is emphasis, `{name}` a value, and of one with several forms `n` chooses by the plural rules
 * of the language. Of an activity `type.action` is its sentence, `you.type.action` that of the user's own where
 * it differs, and `n.type` how many there are of a group.
 */
export const words: Record<string, Strings[string]> = {
  heading: 'Team activity',
  'says.connecting': '*Connecting*',
  'foot.connecting': 'Loading the latest activity',
  'do.filter': 'Filter',
  'do.notifications': 'Notifications',
}
