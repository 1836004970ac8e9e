/** What happens while somebody listens, and all that they then hear. */
import type {Status} from '../../../clients/js/src/api.ts'
import {NOW} from './clock.ts'
import {did, said, snapshotOf, type Deed, type Scene} from './data.ts'
import type {Reader, Spoken} from './reader.ts'
import type {Stage} from './stage.ts'

const HOUR = 3_600_000

const ROWS: Deed[] = Array.from({length: 20}, (_, i) => ({...did(`Criterion ${20 - i}`), at: NOW - (i + 1) * HOUR}))
const quiet: Scene = {deeds: ROWS, povs: {mossgate: {}}}

/** Become live with these rows above, all of them new. */
const withNew = (deeds: readonly Deed[], connection?: Partial<Status>): Scene =>
  ({...quiet, connection, deeds: [...deeds.map(each => ({...each, state: 'new' as const})), ...ROWS]})

const offline = (more: Partial<Status> = {}): Scene =>
  ({...quiet, connection: {state: 'offline', reason: 'network', since: Date.now(), ...more}})

/** A burst: so many activities, evenly over `ms`, on two PoVs by two people. */
async function burst(stage: Stage, reader: Reader, number: number, ms: number): Promise<void> {
  const steps = 40
  const deeds: Deed[] = []
  for (let step = 1; step <= steps; step++) {
    while (deeds.length < number * step / steps) {
      const n = deeds.length
      deeds.push({...n % 2 ? did(`Task ${n}`) : said(`Remark ${n}`), at: Date.now()})
    }
    stage.feed.show(snapshotOf(withNew(deeds)))
    await reader.listen(ms / steps)
  }
}

/** Begun on a quiet feed that is live; each listens to the end. */
export const stories: Record<string, (stage: Stage, reader: Reader) => Promise<Spoken[]>> = {
  async nothing(_stage, reader) {
    return await reader.listen(30_000)
  },
  async three(stage, reader) {
    await stage.become(withNew([
      {...said('One'), at: Date.now()}, {...did('Two'), at: Date.now()}, {...did('Three', 'brindle', 'sam'), at: Date.now()},
    ]))
    return await reader.listen(20_000)
  },
  async own(stage, reader) {
    await stage.become({...quiet, deeds: [{...said('Mine', 'Audit log export', 'mossgate', 'ana'), at: Date.now()}, ...ROWS]})
    return await reader.listen(20_000)
  },
  async burst(stage, reader) {
    await burst(stage, reader, 1_000, 2_000)
    return await reader.listen(20_000)
  },
  async 'burst that goes on'(stage, reader) {
    await burst(stage, reader, 3_000, 20_000)
    return await reader.listen(20_000)
  },
  async expired(stage, reader) {
    await stage.become({...quiet, connection: {state: 'closed', reason: 'session_ended', since: Date.now()}})
    return await reader.listen(20_000)
  },
  async ended(stage, reader) {
    await stage.become({connection: {state: 'closed', reason: 'ended', code: 4500, since: Date.now()}})
    return await reader.listen(20_000)
  },
  async 'page error'(stage, reader) {
    await stage.become({connection: {state: 'closed', reason: 'page_error', code: 4501, since: Date.now()}})
    return await reader.listen(20_000)
  },
  async 'signed out'(stage, reader) {
    await stage.become({connection: {state: 'closed', reason: 'signed_out', since: Date.now()}})
    return await reader.listen(20_000)
  },
  /** The next attempt is said anew each time: eight seconds, and longer. */
  async offline(stage, reader) {
    const since = Date.now()
    for (let i = 0; i < 6; i++) {
      await stage.become(offline({since, retryAt: Date.now() + 8_000 + i * 2_000}))
      await reader.listen(8_000 + i * 2_000)
    }
    return await reader.listen(0)
  },
  async blink(stage, reader) {
    await stage.become(offline())
    await reader.listen(1_500)
    await stage.become(quiet)
    return await reader.listen(20_000)
  },
  async back(stage, reader) {
    await stage.become(offline())
    await reader.listen(10_000)
    const deeds = Array.from({length: 12}, (_, i) => ({...did(`Task ${i}`, i % 2 ? 'brindle' : 'mossgate'), at: Date.now()}))
    await stage.become({...offline(), connection: {state: 'catching-up', since: Date.now()}})
    await reader.listen(500)
    await stage.become(withNew(deeds, {state: 'live', since: Date.now()}))
    return await reader.listen(20_000)
  },
  async restarting(stage, reader) {
    await stage.become(offline({reason: 'restarting', code: 4000}))
    await reader.listen(4_000)
    await stage.become(quiet)
    return await reader.listen(20_000)
  },
  async 'restarting for long'(stage, reader) {
    await stage.become(offline({reason: 'restarting', code: 4000}))
    return await reader.listen(20_000)
  },
  async renewing(stage, reader) {
    await stage.become(offline({reason: 'token'}))
    await reader.listen(5_000)
    await stage.become(quiet)
    return await reader.listen(20_000)
  },
  async asleep(stage, reader) {
    await stage.become({...quiet, connection: {state: 'suspended', reason: 'frozen', since: Date.now()}})
    return await reader.listen(20_000)
  },
  async typing(stage, reader) {
    await stage.become({...quiet, povs: {mossgate: {typing: [{userId: 'jonas', where: 'Audit log export'}]}}})
    return await reader.listen(20_000)
  },
}

const one = withNew([{...said('They want it on before Thursday.'), at: NOW}])

/** The same of toasts, on a page without a feed. */
export const toastStories: typeof stories = {
  async nothing(_stage, reader) {
    return await reader.listen(30_000)
  },
  async one(stage, reader) {
    await stage.become(one)
    return await reader.listen(20_000)
  },
  async own(stage, reader) {
    await stage.become({...quiet, deeds: [{...said('Mine', 'Audit log export', 'mossgate', 'ana'), at: NOW}, ...ROWS]})
    return await reader.listen(20_000)
  },
  async burst(stage, reader) {
    await burst(stage, reader, 1_000, 2_000)
    return await reader.listen(20_000)
  },
  async expired(stage, reader) {
    await stage.become({...quiet, connection: {state: 'closed', reason: 'session_ended', since: Date.now()}})
    return await reader.listen(20_000)
  },
  async unsent(stage, reader) {
    const activity = {type: 'comment', action: 'added', povId: 'mossgate', details: {title: 'Load test', text: 'It holds.'}}
    const failure = {code: 'forbidden', message: 'not yours'}
    await stage.become({...quiet, pending: [{id: 'p1', at: NOW, activity, state: 'failed', failure}]})
    return await reader.listen(20_000)
  },
  async blink(stage, reader) {
    await stage.become(offline())
    await reader.listen(4_000)
    await stage.become(quiet)
    return await reader.listen(20_000)
  },
}

/** The scene that all stories begin with. */
export const BEGINNING = quiet
