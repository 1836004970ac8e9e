/** Whatever comes, in any order and at any time: toasts are bounded, and each activity is accounted for. */
import assert from 'node:assert/strict'
import {test} from 'node:test'
import fc from 'fast-check'
import type {PovState, Row, Status} from '../src/api.js'
import {pending, World, type Said} from './toasts-world.js'

const RUNS = Number(process.env.RUNS ?? 300)

type Step =
  | {do: 'come'; rows: Said[]} | {do: 'pass'; ms: number} | {do: 'connect'; state: Status['state']; reason?: Status['reason']}
  | {do: 'hold'; held: boolean} | {do: 'dismiss'; at: number} | {do: 'read'; pov: string} | {do: 'level'; pov: string; level: PovState['level']}
  | {do: 'quiet'; is: boolean} | {do: 'pending'; ids: string[]} | {do: 'mute'; pov: string} | {do: 'fail'} | {do: 'epoch'; pov: string}

const POVS = ['a', 'b', 'c', '*']
const pov = fc.constantFrom(...POVS)
const said = fc.record({
  pov, user: fc.constantFrom('bo', 'cy', 'di'), own: fc.boolean(), type: fc.constantFrom('task', 'file'),
  actions: fc.option(fc.constant([{label: 'Open'}]), {nil: undefined, freq: 3}),
})
const step: fc.Arbitrary<Step> = fc.oneof(
  {weight: 6, arbitrary: fc.record({do: fc.constant('come' as const), rows: fc.array(said, {maxLength: 15})})},
  {weight: 4, arbitrary: fc.record({do: fc.constant('pass' as const), ms: fc.constantFrom(1, 500, 2_999, 5_000, 6_000, 400_000)})},
  {weight: 4, arbitrary: fc.constantFrom<Step>(
    ...(['live', 'catching-up'] as const).flatMap(state => [{do: 'connect', state} as const, {do: 'connect', state} as const]),
    {do: 'connect', state: 'offline', reason: 'network'}, {do: 'connect', state: 'offline', reason: 'restarting'},
    {do: 'connect', state: 'suspended', reason: 'frozen'}, {do: 'connect', state: 'closed', reason: 'session_ended'},
  )},
  fc.record({do: fc.constant('hold' as const), held: fc.boolean()}),
  fc.record({do: fc.constant('dismiss' as const), at: fc.nat(12)}),
  fc.record({do: fc.constant('read' as const), pov}),
  fc.record({do: fc.constant('level' as const), pov, level: fc.constantFrom('off', 'feed', 'toast', 'sound')}),
  fc.record({do: fc.constant('quiet' as const), is: fc.boolean()}),
  fc.record({do: fc.constant('pending' as const), ids: fc.uniqueArray(fc.constantFrom('1', '2', '3', '4'))}),
  fc.record({do: fc.constant('mute' as const), pov}),
  fc.constant<Step>({do: 'fail'}),
  fc.record({do: fc.constant('epoch' as const), pov}),
)

test('whatever comes: bounded, each accounted for once, one sound at most, nothing that was there at first', () => {
  fc.assert(fc.property(fc.array(step, {maxLength: 60}), steps => {
    const world = new World(...POVS)
    for (const each of POVS) world.add({pov: each})
    const first = new Set(world.rows)
    world.mayAsk = true
    world.look()
    const came = new Set<Row>()
    for (const each of steps) {
      const sounds = world.sounds.length
      if (each.do === 'come') {
        for (const row of each.rows) came.add(world.add({...row, pov: row.pov === '*' ? 'z' : row.pov}, row.pov))
        world.look()
      } else if (each.do === 'pass') world.pass(each.ms)
      else if (each.do === 'connect') world.connect(each.state, each.reason)
      else if (each.do === 'hold') world.policy.hold(each.held)
      else if (each.do === 'dismiss') world.policy.dismiss(world.policy.toasts[each.at]?.key ?? '')
      else if (each.do === 'read') {
        // The team feed has no marks.
        if (each.pov !== '*') world.log(each.pov).read = world.log(each.pov).tip
        world.look()
      } else if (each.do === 'level') world.log(each.pov).level = each.level
      else if (each.do === 'quiet') world.isQuiet = each.is
      else if (each.do === 'mute') world.policy.muted(each.pov, world.now)
      else if (each.do === 'fail') world.policy.failed()
      else if (each.do === 'epoch') Object.assign(world.log(each.pov), {epoch: `${world.log(each.pov).epoch}'`, tip: 0, read: 0})
      else {
        world.pending = each.ids.map(id => pending(id))
        world.look()
      }
      assert(world.sounds.length - sounds <= 1, 'one sound at most')
      const {toasts} = world.policy
      assert(toasts.length <= world.max + 8, `${toasts.length} toasts`)
      assert.equal(new Set(toasts.map(toast => toast.key)).size, toasts.length)
      const spent = toasts.map(toast => world.policy.spent(toast))
      world.now += 1
      const running = toasts.filter((toast, i) => world.policy.spent(toast) > spent[i]!)
      assert(running.length <= world.max, `${running.length} run`)
      for (const toast of toasts) for (const row of toast.rows) assert(!first.has(row), 'was there at first')
    }
    world.connect('live')
    const shown = new Set(world.told)
    assert.equal(shown.size, world.told.length)
    const left = world.unshown.length
    assert.equal(shown.size + left, came.size, 'each is shown or has a reason, and only once')
  }), {numRuns: RUNS})
})
