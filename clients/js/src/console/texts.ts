/** What the console says of each message type of the server's own, for whoever reads it there. */
import type {Value} from './forms.js'

/** What there is to say of a type. */
export interface Text {
  /** What it does, in one or two sentences. */
  readonly says: string
  /** Only who follows a PoV may say it there. */
  readonly follows?: true
  /** Fields that are shown though they need not be sent. Others that may be left out are folded. */
  readonly shown?: readonly string[]
  /** What the form offers beyond what follows from the schema. */
  readonly offers?: Readonly<Record<string, Value>>
  /** More about single fields. */
  readonly fields?: Readonly<Record<string, string>>
  /** Of what can be chosen beside what is typed: suggestions. */
  readonly suggests?: Readonly<Record<string, readonly string[]>>
}

/** The types by what they do, in this order. Others stand under their plugin's file. */
export const GROUPS: readonly (readonly [name: string, types: readonly string[]])[] = [
  ['Follow', ['subscribe', 'unsubscribe', 'resume', 'history']],
  ['Tell', ['publish', 'typing', 'presence']],
  ['Keep your place', ['ack', 'read', 'seen', 'unread', 'mute', 'mutes']],
  ['Connection', ['ping', 'pong', 'refresh']],
]

const INBOX = 'Instead of a PoV: the notifications sent to you alone.'

export const TEXTS: Readonly<Record<string, Text>> = {
  subscribe: {
    says: 'Follows a PoV: what is published there comes here from now on, in order. `*` is the whole team.',
    shown: ['povId', 'since'],
    fields: {
      since: 'Where to begin. Without it: from now on.',
      povIds: 'Several at once; leave povId empty then.',
      positions: 'Where each of several begins, by PoV.',
      durable: 'Remembers it for you: resume follows it again, on any device.',
    },
  },
  unsubscribe: {
    says: 'Stops following a PoV. What is published there does not come here any more.',
    fields: {durable: 'Forgets it for your other devices, too.'},
  },
  resume: {says: 'Follows everything you subscribed to durably, from where this device was.'},
  history: {
    says: 'Reads a page of what happened on a PoV: the newest first, or after an offset the oldest first.',
    shown: ['before', 'limit'],
    fields: {before: 'Not together with after.', after: 'Not together with before.'},
  },
  publish: {
    says: 'Puts an activity into a PoV’s log. Everyone who follows that PoV gets it at once, in order.',
    shown: ['data.details', 'echo'],
    offers: {'data.type': 'task', 'data.action': 'completed', 'data.details': '{ "title": "Nightly sync" }'},
    fields: {
      echo: 'Whether it comes back to you, too, if you follow the PoV.',
      'data.id': 'Yours, so that a second try is no second activity. Without one the server makes it.',
      'data.userId': 'Of no effect here: it is always you. Over HTTP an app says it.',
    },
    suggests: {
      'data.type': ['task', 'phase', 'comment', 'file', 'person'],
      'data.action': ['completed', 'created', 'reopened', 'changed', 'added', 'joined'],
    },
  },
  typing: {
    says: 'Tells the others on a PoV that you are writing. Repeat it every few seconds; it ends after six.',
    follows: true,
    shown: ['where'],
    fields: {where: 'What you are writing on.'},
  },
  presence: {
    says: 'Asks who is on a PoV, and tells you of changes from then on. You count as there, too.',
    follows: true,
    shown: ['state'],
    fields: {state: 'What you are yourself.'},
  },
  ack: {
    says: 'Says that this device has everything up to an offset. After a break it can go on from there.',
    follows: true,
    fields: {inbox: INBOX, shown: 'Whether you were shown it, for who asks why you did not see something.'},
  },
  read: {
    says: 'Marks a PoV as read up to an offset, on all your devices. Others see how far you are.',
    follows: true,
    fields: {inbox: INBOX},
  },
  seen: {
    says: 'Marks a PoV as seen up to an offset: it was on your screen. 0 only asks where you are.',
    follows: true,
    fields: {inbox: INBOX},
  },
  unread: {says: 'Marks everything from an offset on as unread again.', follows: true},
  mute: {
    says: 'Says how loud a PoV is for you: nothing, a row in the feed, a toast, or a toast with a sound.',
    shown: ['level', 'until'],
    offers: {level: 'toast'},
    fields: {level: 'Without it, as by default.', until: 'Then it is as it was before.'},
  },
  mutes: {says: 'Asks for every PoV that is louder or quieter for you than by default.'},
  ping: {says: 'Asks for a sign of life. The pong says how long a message takes to the server and back.'},
  pong: {says: 'A sign of life of your own. The server takes it and answers nothing.'},
  refresh: {
    says: 'Goes on with a newer token of the same user, without a new connection.',
    fields: {token: 'A new one, made for this form.'},
  },
}
