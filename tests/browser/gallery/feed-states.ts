/** Every state of `<pov-team-activity>`: what it is given, what is done, and what it has to say then. */
import type {FeedGap} from '../../../clients/js/src/api.ts'
import {NOW} from './clock.ts'
import {ago, at, did, said, type Deed, type Scene} from './data.ts'
import type {State} from './states.ts'

const COMMENT: Deed = {...said('Their DBA wants it on before Thursday. I can pair at 15:00.'), at: ago(2), state: 'new'}
const FOUR: Deed[] = [
  {...did('Nightly sync'), at: ago(6), state: 'new'},
  {...did('Rollback rehearsal'), at: ago(9), state: 'new'},
  {...did('Import 50,000 shipments'), at: ago(13), state: 'new'},
  {...did('Map carrier codes'), at: ago(14), state: 'new'},
]
const PHASE: Deed = {
  by: 'ana', what: 'phase.changed', pov: 'brindle', at: at(13, 48),
  details: {title: 'Brindle Freight', from: 'Set up', to: 'Prove', href: '/povs/brindle'},
}
const FILE: Deed = {...did('load-test.xlsx', 'quillon', 'ife', 'file.added'), at: at(13, 20)}
const JOINED: Deed = {...did('reviewer', 'pellwood', 'tomasz', 'person.joined'), at: at(11, 5)}
const REOPENED: Deed = {
  ...did('Answers under 200 ms from Rotterdam', 'quillon', 'priya', 'task.reopened'), at: at(9, 41),
}
const READ = [PHASE, FILE, JOINED, REOPENED]
const OLD = [PHASE, FILE, JOINED]
const LOST = at(14, 2)

const here = (userId: string, state: 'active' | 'away' = 'active', since = at(9, 2), devices = ['laptop']) =>
  ({userId, state, devices, since: new Date(since).toISOString()})

/** Six people, four of whom have seen the last phase change; Jonas writes. */
const TOGETHER: NonNullable<Scene['povs']> = {
  mossgate: {
    present: [here('jonas'), here('noor'), here('mei', 'away', at(13, 22))],
    typing: [{userId: 'jonas', where: 'Audit log export'}],
    level: 'sound',
  },
  brindle: {
    present: [here('priya'), here('sam', 'away', at(12, 40))],
    receipts: new Map([['jonas', 150], ['mei', 150], ['ife', 150], ['priya', 150], ['tomasz', 1], ['sam', 1]]),
  },
  quillon: {
    present: [here('ife', 'active', at(9, 2), ['laptop', 'phone'])],
    level: 'off', mutedUntil: new Date(at(15, 0)).toISOString(),
  },
  pellwood: {level: 'feed'},
}

/** The same, and nobody writes. */
const QUIET: NonNullable<Scene['povs']> = {...TOGETHER, mossgate: {...TOGETHER.mossgate, typing: []}}

/** Nobody is known to be there while there is no connection. */
const ALONE: NonNullable<Scene['povs']> = {brindle: {receipts: TOGETHER.brindle!.receipts}}

const everyday: Scene = {deeds: [COMMENT, ...FOUR, ...READ], povs: TOGETHER}
const quiet: Scene = {...everyday, povs: QUIET}

const gap = (more: Partial<FeedGap>): FeedGap => ({
  povId: 'mossgate', from: {epoch: 'e', offset: 88}, to: {epoch: 'e', offset: 100}, missed: 12, state: 'open', ...more,
})

export const DIGEST = gap({
  from: {epoch: 'e', offset: 100}, to: {epoch: 'e', offset: 314}, missed: 214,
  digest: {
    counted: 214,
    people: 6,
    activities: [
      {type: 'task', action: 'completed', count: 96}, {type: 'comment', action: 'added', count: 61},
      {type: 'file', action: 'added', count: 31}, {type: 'phase', action: 'changed', count: 8},
      {type: 'person', action: 'joined', count: 18},
    ],
    users: [
      {userId: 'mei', count: 80}, {userId: 'jonas', count: 60}, {userId: 'ife', count: 40},
      {userId: 'priya', count: 20}, {userId: 'sam', count: 10}, {userId: 'tomasz', count: 4},
    ],
  },
})

/** A connection that is not there, over what was there before. */
function broken(reason: NonNullable<Scene['connection']>, deeds: readonly Deed[] = [FILE, JOINED]): Scene {
  return {deeds, povs: deeds.includes(PHASE) ? ALONE : {}, connection: {state: 'offline', since: LOST, ...reason}}
}

const closed = (reason: 'session_ended' | 'signed_out' | 'ended' | 'page_error' | 'refused', deeds: readonly Deed[] = []): Scene =>
  broken({state: 'closed', reason}, deeds)

const TASKS = 'completed 4 tasks'

export const feedStates: Record<string, State> = {
  live: {
    scene: everyday,
    says: ['Team activity', 'Live', '· complete since 09:14', 'Jonas Weber', 'commented on', TASKS, 'Show',
      'Read up to here', 'Mark all as read', 'You', 'Set up', 'Prove', 'Seen by 4 of 6', 'joined as reviewer',
      'Jonas is writing on Audit log export', '2 min', '11:05'],
  },
  'group open': {
    scene: quiet,
    async then(stage) { await stage.press('Show') },
    says: ['Hide', 'Nightly sync', 'Rollback rehearsal', 'Import 50,000 shipments', 'Map carrier codes',
      'Complete since 09:14'],
  },
  pill: {
    scene: {...quiet, deeds: [...READ, ...olderThan(12)]},
    style: {height: '480px'},
    async then(stage) {
      const list = await stage.part('list')
      list.scrollTop = 60
      list.dispatchEvent(new Event('scroll'))
      await stage.settle()
      await stage.become({...quiet, deeds: [COMMENT, ...FOUR.slice(0, 2), ...READ, ...olderThan(12)]})
    },
    says: ['3 new'],
  },
  skeleton: {
    scene: {connection: {state: 'connecting', since: NOW}, povs: {mossgate: joining()}, storage: 'loading'},
    says: ['Connecting', 'Loading the latest activity'],
  },
  'catching up': {
    scene: broken({}, OLD),
    async then(stage) {
      const since = NOW
      const povs = {mossgate: {...QUIET.mossgate, state: 'catching-up' as const}, quillon: {...QUIET.quillon}}
      await stage.become({deeds: OLD, povs, connection: {state: 'catching-up', since}, gaps: [gap({missed: 214, state: 'loading'})]})
      await stage.become({
        deeds: [
          {...COMMENT, at: at(13, 31)}, {...did('Single sign-on', 'pellwood', 'sam'), at: at(13, 30), state: 'new'}, FILE,
        ],
        povs, unread: 38, connection: {state: 'catching-up', since}, gaps: [gap({missed: 176, state: 'loading'})],
      })
    },
    says: ['Catching up'],
  },
  offline: {
    scene: broken({reason: 'network', retryAt: NOW + 8_000}, OLD),
    says: ['Offline since 14:02', 'You have everything up to 14:02', 'next try in 8 s', 'Try now'],
  },
  expired: {
    scene: closed('session_ended', OLD),
    says: ['Session ended · sign in to go on', 'Sign in', 'You have everything up to 14:02', 'load-test.xlsx'],
  },
  restarting: {
    scene: broken({reason: 'restarting', code: 4000}),
    says: ['Server restarting · back in seconds', 'You have everything up to 14:02'],
  },
  busy: {
    scene: broken({reason: 'busy', code: 4005, retryAt: NOW + 20_000}),
    says: ['Server busy since 14:02', 'You have everything up to 14:02', 'next try in 20 s', 'Try now'],
  },
  slow: {
    scene: {...quiet, connection: {state: 'catching-up', reason: 'slow', code: 4002, since: LOST}},
    says: ['Catching up · this connection is slow'],
  },
  renewing: {
    scene: broken({reason: 'token', since: NOW - 20_000}),
    says: ['Renewing the session', 'You have everything up to'],
  },
  paused: {
    scene: broken({state: 'suspended', reason: 'frozen', since: at(12, 47)}),
    says: ['Paused · this tab was asleep', 'Go on', 'You have everything up to 12:47'],
  },
  ended: {
    scene: closed('ended'),
    says: ['Disconnected by an administrator', 'This connection was ended',
      'It is not tried again. If that surprises you, ask the people who run this server.', 'Stopped at 14:02'],
  },
  'signed out': {
    scene: closed('signed_out'),
    says: ['Signed out', 'Sign in', 'Sign in to see what happens', 'What was on this page is gone from this browser.',
      'Nothing is kept here'],
  },
  'no grant': {
    scene: {povs: {mossgate: {
      state: 'ended', failure: {code: 'forbidden', message: 'Not shared'}, completeSince: undefined, position: undefined,
    }}},
    attributes: {heading: 'Mossgate Bank'},
    says: ['Mossgate Bank', 'No access', 'This PoV isn’t shared with you',
      'Ask its owner to add you. It opens here by itself once they have.', 'Copy a request', 'can’t be shown'],
  },
  'page error': {
    scene: closed('page_error'),
    says: ['Stopped · this page has an error', 'Reload'],
  },
  empty: {
    scene: {povs: {larkmoor: {present: [here('noor')], hasEarlier: false}}},
    attributes: {heading: 'Larkmoor Energy'},
    says: ['Larkmoor Energy', 'Live · nothing missed', 'Nothing has happened here yet', 'Choose what to follow', 'Nothing missed'],
  },
  digest: {
    scene: {
      deeds: [{...COMMENT, missing: 214}, {...did('Tomasz Lis', 'pellwood', 'ana', 'person.invited'), at: at(16, 40, 23)}],
      povs: {...QUIET, pellwood: {receipts: new Map(['jonas', 'mei', 'ife', 'priya', 'tomasz', 'sam'].map(id => [id, 150]))}},
      connection: {since: LOST},
      gaps: [DIGEST],
      unread: 215,
    },
    says: ['99+', 'Live · since 14:02', '214 updates by 6 people', 'Most by Mei, Jonas', 'Tasks completed', '96',
      'Read from the start', 'Mark all as read', 'invited Tomasz Lis', 'Live since 14:02'],
  },
  gaps: {
    scene: {
      deeds: [{...COMMENT, missing: 12}, {...said('The export runs.'), at: at(13, 40)}, FILE, JOINED],
      povs: QUIET,
      gaps: [
        gap({from: {epoch: 'e', offset: 101}, to: {epoch: 'e', offset: 113}}),
        gap({povId: 'pellwood', from: {epoch: 'e', offset: 61}, to: {epoch: 'e', offset: 101}, missed: 40, state: 'gone'}),
      ],
    },
    says: ['Live · 12 missed', '12 missed', 'Load', 'Up to 40 are gone', 'Complete, but for 12 that can be loaded'],
  },
  'filters open': {
    scene: {
      ...quiet,
      deeds: [COMMENT, ...FOUR, ...READ, {...said('Retention is 90 days on their side.'), at: at(10, 0, 25)},
        {...said('Audit is criterion 4 now.', 'Success criteria', 'brindle'), at: at(10, 0, 24)}],
    },
    async then(stage) {
      await stage.press('Filter')
      await stage.part('filter-panel')
      await stage.press('Comments')
      await stage.press('Jonas')
    },
    says: ['Type', 'Tasks', 'Phases', 'Comments', 'Files', 'People', 'Clear all', 'unread ones don’t'],
  },
  'filter without match': {
    scene: everyday,
    async then(stage) {
      await stage.press('Filter')
      await stage.part('filter-panel')
      await stage.press('Files')
      await stage.press('Jonas')
      await stage.key('Escape')
    },
    says: ['No file by Jonas Weber so far', '5 unread activities don’t fit this filter.', 'Clear the filter'],
  },
  notifications: {
    scene: {...quiet, deeds: [...FOUR, ...READ, {...did('Cutover plan'), at: ago(40), state: 'new'}]},
    async then(stage) { await stage.press('Notifications') },
    says: ['Notifications', 'Mossgate Bank', '3 here', 'Brindle Freight', '5 unread', 'Muted until 15:00', 'Off', 'Feed',
      'Toast', 'Sound', 'Quiet hours', 'When this tab is hidden', 'Hear it'],
  },
  presence: {
    scene: everyday,
    async then(stage) {
      (await stage.part('presence')).click()
      await stage.part('presence-panel')
    },
    says: ['6 here now', 'Jonas Weber', 'on Audit log export', 'away', 'laptop, phone'],
  },
  menu: {
    scene: everyday,
    async then(stage) {
      (await stage.part('row')).focus()
      await stage.key('.')
      await stage.part('menu')
    },
    says: ['Mark unread from here', 'Mark read up to here', 'Copy link', 'Mute Mossgate Bank for 1 hour', 'Only Jonas Weber'],
  },
  'new, seen, read; focus; the end': {
    scene: {
      deeds: [
        {by: 'ife', what: 'comment.added', pov: 'pellwood', at: NOW, details: {title: 'Nightly sync'}, state: 'new'},
        {...did('Single sign-on', 'pellwood', 'sam'), at: ago(4), state: 'seen'}, {...JOINED, at: at(10, 2, 19)},
      ],
      povs: {pellwood: {...QUIET.mossgate, hasEarlier: false, completeSince: at(10, 2, 19)}},
    },
    async then(stage) {
      (await stage.part('row')).focus()
      await stage.key('PageDown')
    },
    says: ['now', 'this PoV begins here'],
  },
  'edited and withdrawn': {
    scene: {
      ...quiet,
      deeds: [
        {...COMMENT, since: 'amended'}, {...said('Not for here.'), at: ago(4), since: 'retracted'},
        {...did('Map carrier codes'), at: ago(14), since: 'retracted'}, {...did('Nightly sync'), at: ago(15), since: 'retracted'},
        ...READ,
      ],
    },
    says: ['Their DBA wants it on before Thursday', 'edited', 'Jonas Weber: comment added, withdrawn',
      'Mei Tanaka: task completed, 2 times, withdrawn'],
  },
  'waiting to be sent': {
    scene: {
      ...broken({reason: 'network', retryAt: NOW + 8_000}, OLD),
      pending: [1, 2].map(n => ({
        id: `p${n}`, activity: {type: 'comment', action: 'added', povId: 'mossgate'}, at: ago(n), state: 'waiting' as const,
      })),
    },
    says: ['Offline since 14:02', '2 wait here to be sent'],
  },
  'long words': {
    scene: {
      ...everyday,
      deeds: [
        {...said('Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung'.repeat(2),
          'https://rt.example/povs/mossgate/criteria/9f8e7d6c5b4a39281706f5e4d3c2b1a0'), at: ago(1), state: 'new'},
        {...did('An_export_with_a_very_long_file_name_that_has_no_spaces_at_all_in_it.final.v2.xlsx', 'quillon', 'ife', 'file.added'), at: ago(3)},
        {...did('Anything', 'a-pov-without-a-name-whose-id-is-long-0123456789abcdef', 'user-0123456789abcdef0123456789abcdef'), at: ago(5)},
        {by: 'ana', what: 'report.exported', pov: 'mossgate', at: ago(8)}, ...READ,
      ],
    },
    says: ['report exported'],
  },
}

function joining() {
  return {state: 'joining' as const, position: undefined, completeSince: undefined, hasEarlier: false}
}

/** So many read rows of the days before. */
function olderThan(number: number): Deed[] {
  return Array.from({length: number}, (_, i) => ({...did(`Criterion ${number - i}`, 'brindle', i % 2 ? 'sam' : 'priya'), at: at(16, 59 - i, 25)}))
}
