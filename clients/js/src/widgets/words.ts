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
  you: 'You',
  now: 'now',
  list: 'Activity',
  'says.live': '*Live*',
  'says.since': ' · complete since {time}',
  'says.catching-up': '*Catching up*',
  'says.offline': '*Offline* since {time}',
  'foot.since': 'Complete since {time}',
  'foot.until': 'You have everything up to {time}',
  'foot.up-to-date': 'Up to date',
  new: '{n} new',
  unread: '{n} unread',
  'row.new': 'New',
  'row.unread': 'Unread',
  'task.completed': '*{who}* completed *{what}*',
  'task.reopened': '*{who}* reopened *{what}*',
  'task.created': '*{who}* added the task *{what}*',
  'phase.changed': '*{who}* moved *{what}* from {steps}',
  'comment.added': '*{who}* commented on *{what}*',
  'file.added': '*{who}* added *{what}*',
  'person.joined': '*{who}* joined as {what}',
  'person.invited': '*{who}* invited *{what}*',
  other: '*{who}*: {type} {action}',
  'other.what': '*{who}*: {type} {action}, *{what}*',
  'many.other': '*{who}*: {type} {action}, *{n} times*',
  'n.task': '{n} tasks',
  'n.phase': '{n} phases',
  'n.comment': '{n} things',
  'n.file': '{n} files',
  'n.person': {one: '{n} person', other: '{n} people'},
  quote: '“{text}”',
}
