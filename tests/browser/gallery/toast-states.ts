/** Every toast: what happens in the feed, and what the component then says by itself. */
import type {Status} from '../../../clients/js/src/api.ts'
import {NOW} from './clock.ts'
import {ago, at, did, said, type Deed, type Scene} from './data.ts'
import {DIGEST} from './feed-states.ts'
import type {Stage} from './stage.ts'
import type {State} from './states.ts'

const LOST = at(14, 2)
const OLD: Deed[] = [
  {...did('load-test.xlsx', 'quillon', 'ife', 'file.added'), at: at(13, 20)},
  {...did('reviewer', 'pellwood', 'tomasz', 'person.joined'), at: at(11, 5)},
]
const quiet: Scene = {deeds: OLD, povs: {mossgate: {}, brindle: {}, larkmoor: {}}}
const COMMENT: Deed = {...said('Their DBA wants it on before Thursday.'), at: NOW}
const FIVE: Deed[] = [
  {...did('Cutover plan', 'brindle', 'sam'), at: NOW}, {...did('Runbook', 'brindle', 'ife', 'file.added'), at: NOW},
  {...did('Map carrier codes'), at: NOW}, {...did('Rollback rehearsal'), at: NOW}, {...did('Nightly sync'), at: NOW},
]

/** On a page that was there before, and live. */
const live = (deeds: readonly Deed[], connection?: Partial<Status>): Scene =>
  ({...quiet, connection, deeds: [...OLD, ...deeds.map(each => ({...each, state: 'new' as const}))]})

const offline = (more: Partial<Status> = {}): Scene =>
  ({...quiet, connection: {state: 'offline', reason: 'network', since: LOST, retryAt: NOW + 30_000, ...more}})

/** They happen one after the other. */
async function happen(stage: Stage, deeds: readonly Deed[]): Promise<void> {
  for (let i = 1; i <= deeds.length; i++) {
    await stage.become(live(deeds.slice(0, i)))
    await stage.wait(200)
  }
}

const single = async (stage: Stage): Promise<void> => {
  await happen(stage, [COMMENT])
  await stage.part('toast')
}

const ONE = ['Jonas Weber', 'commented on', 'Audit log export', 'Mossgate Bank']

export const toastStates: Record<string, State> = {
  single: {scene: quiet, then: single, says: [...ONE, '“Their DBA wants it on before Thursday.”', 'now']},
  burst: {
    scene: quiet,
    async then(stage) {
      await happen(stage, FIVE)
      await stage.wait(1_000)
    },
    says: ['5 updates', 'on Brindle Freight', 'Mei completed Nightly sync', 'Mei completed Rollback rehearsal', 'by Mei and 2 others'],
  },
  pile: {
    scene: quiet,
    async then(stage) {
      await happen(stage, [
        {...did('reviewer', 'larkmoor', 'noor', 'person.joined'), at: NOW}, {...did('Single sign-on', 'pellwood', 'sam'), at: NOW},
        {...did('load-test.xlsx', 'quillon', 'ife', 'file.added'), at: NOW}, {...did('Nightly sync'), at: NOW}, COMMENT,
      ])
    },
    says: ONE,
  },
  digest: {
    scene: offline(),
    async then(stage) {
      const povs = {...quiet.povs, mossgate: {position: DIGEST.to, unread: DIGEST.missed!}}
      await stage.become({...live([]), povs, gaps: [DIGEST], unread: DIGEST.missed!})
      await stage.wait(1_000)
    },
    says: ['214 updates by 6 people', 'while you were away', 'See what changed', 'Mark all as read'],
  },
  action: {
    scene: quiet,
    async then(stage) {
      await happen(stage, [{
        by: 'ife', what: 'signoff.asked', pov: 'quillon', at: NOW,
        details: {title: 'Success criteria', actions: [{label: 'Open', href: '/povs/quillon'}, {label: 'In an hour'}]},
      }])
    },
    says: ['Ife Okafor', 'Success criteria', 'Quillon Air', 'Open', 'In an hour'],
  },
  asking: {
    scene: quiet,
    async then(stage) {
      await happen(stage, [
        {...did('Single sign-on', 'pellwood', 'sam'), at: NOW}, {...did('Nightly sync'), at: NOW}, COMMENT,
        {...did('load-test.xlsx', 'quillon', 'ife', 'file.added'), at: NOW},
      ])
      // Those of the activities have their time; this one stays.
      for (let i = 0; i < 4; i++) await stage.wait(6_500)
    },
    says: ['Hear about PoVs', 'when this tab is hidden?', 'Your browser asks once.', 'Allow', 'Not now'],
  },
  muted: {
    scene: quiet,
    async then(stage) {
      // As a feed of the page tells of it.
      const detail = {povId: 'mossgate', until: new Date(at(15, 14))}
      document.dispatchEvent(new CustomEvent('pov-muted', {detail, cancelable: true}))
      await stage.settle()
    },
    says: ['Mossgate Bank', 'is muted until 15:14', 'Undo'],
  },
  offline: {
    scene: quiet,
    async then(stage) {
      await stage.become(offline())
      await stage.wait(6_000)
    },
    says: ['Offline', 'since 14:02', 'You can read on. What happens now comes when you’re back.', 'Try now'],
  },
  'live again': {
    scene: quiet,
    async then(stage) {
      await stage.become(offline())
      await stage.wait(6_000)
      const deeds = Array.from({length: 12}, (_, i) => ({...did(`Task ${i}`, i % 2 ? 'brindle' : 'mossgate'), at: ago(3)}))
      await stage.become({...offline(), connection: {state: 'catching-up', since: NOW}})
      await stage.become(live(deeds, {state: 'live', since: NOW}))
      await stage.wait(500)
    },
    says: ['Live again', 'nothing missed', '12 updates came in while you were offline'],
  },
  unsent: {
    scene: offline(),
    async then(stage) {
      const {type, action, povId, details} = {type: 'comment', action: 'added', povId: 'mossgate', details: {title: 'Load test', text: 'Numbers hold at three times the load.'}}
      await stage.become({...quiet, pending: [{
        id: 'p1', at: ago(4), activity: {type, action, povId, details}, state: 'failed',
        failure: {code: 'unavailable', message: 'not now'},
      }]})
      await stage.wait(500)
    },
    says: ['Your comment wasn’t sent', 'Numbers hold at three times the load.', 'Send now', 'Discard'],
  },
  'session ended': {
    scene: quiet,
    async then(stage) {
      await stage.become(offline({state: 'closed', reason: 'session_ended', retryAt: undefined}))
      await stage.wait(500)
    },
    says: ['Your session ended', 'Sign in to go on. Nothing is lost.', 'Sign in'],
  },
  'server restarts': {
    scene: quiet,
    async then(stage) {
      await stage.become(offline({reason: 'restarting', code: 4000}))
      await stage.wait(6_000)
    },
    says: ['The server restarts', 'Back in a few seconds; nothing is lost.'],
  },
  ...Object.fromEntries(['top-start', 'top', 'top-end', 'bottom-start', 'bottom', 'bottom-end'].map(
    (position): [string, State] => [position, {scene: quiet, attributes: {position}, then: single, says: ONE}])),
}
