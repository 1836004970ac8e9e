/** The admin page's words: numbers, bytes and times at a glance. */
import assert from 'node:assert/strict'
import {test} from 'node:test'
import {asText, statesOf} from '../src/admin/text.js'
import {refusals} from '../src/admin/tiles.js'
import {Picker} from '../src/admin/picker.js'
import {glyphOf} from '../src/admin/why.js'
import {count, later, moment, number, several, since, sinceWhen, size, span, until} from '../src/admin/words.js'
import type {Explained} from '../src/admin/source.js'

test('numbers and bytes are read at a glance', () => {
  assert.deepEqual([null, undefined, 0, 3, 3.42, 12.6, 1284].map(number), ['–', '–', '0', '3', '3.4', '13', '1,284'])
  assert.deepEqual([null, 0, 812, 4200, 41_000_000, 5e12].map(size), ['–', '0', '812 B', '4.2 KB', '41 MB', '5000 GB'])
  assert.deepEqual([count(1, 'person', 'people'), count(1284, 'person', 'people')], ['1 person', '1,284 people'])
})

test('times are as long as somebody would say', () => {
  assert.deepEqual([-1, 41.4, 720, 3 * 3600, 9 * 86_400].map(span), ['0 s', '41 s', '12 min', '3 h', '9 days'])
  assert.equal(until(new Date(Date.now() + 2 * 3600_000 + 500).toISOString()), '2 h')
  assert.equal(since(new Date(Date.now() - 9 * 86_400_000).toISOString()), '9 days')
})

test('an instant of another day says of which', () => {
  const at = (day: number) => new Date(2026, 10, day, 14, 1, 12, 4)
  assert.equal(moment(at(28).toISOString(), at(28)), '14:01:12.004')
  assert.equal(moment(at(25).toISOString(), at(28)), 'Wed 25 Nov, 14:01:12.004')
})

test('behind the station where it stopped nothing was reached', () => {
  const states = (...passed: (boolean | null)[]) => statesOf(passed.map(each => ({name: 'x', passed: each})))
  assert.deepEqual(states(true, null, false, null, true), ['passed', 'unknown', 'stop', 'ahead', 'ahead'])
  assert.deepEqual(states(true, true, null), ['passed', 'passed', 'unknown'])
})

test('of many some are named and the others counted', () => {
  assert.deepEqual([[], ['a'], ['a', 'b', 'c']].map(each => several(each)), ['–', 'a', 'a, b, 1 more'])
  assert.equal(several(['a', 'b', 'c'], 1), 'a, 2 more')
})

test('what followed soon is told as how long after', () => {
  const began = '2026-11-28T14:01:12.004Z'
  assert.equal(later(began, '2026-11-28T14:01:12.004Z'), '+0 ms')
  assert.equal(later(began, '2026-11-28T14:01:12.055Z'), '+51 ms')
  assert.equal(later(began, '2026-11-28T14:01:13.404Z'), '+1.4 s')
  const day = '2026-11-29T14:01:13.404Z'
  for (const from of [began, undefined, '2026-11-29T14:01:13.405Z']) assert.equal(later(from, day), moment(day))
})

test('since when something is says no more than is needed', () => {
  const now = new Date(2026, 10, 28, 14, 12)
  assert.equal(sinceWhen(new Date(2026, 10, 28, 8, 2).toISOString(), now), '08:02')
  assert.equal(sinceWhen(new Date(2026, 10, 24, 8, 2).toISOString(), now), 'Tue 08:02')
  assert.equal(sinceWhen(new Date(2026, 10, 2, 8, 2).toISOString(), now), '2 Nov')
})

test('of what was refused that counts which is new', () => {
  assert.equal(refusals({}), 'None in the last hour')
  assert.equal(refusals({token_expired: 3}, {token_expired: 3}), 'None in the last hour')
  assert.equal(refusals({token_expired: 5, forbidden: 9}, {forbidden: 9}), 'All in the last hour: token expired')
  assert.equal(refusals({token_expired: 5, forbidden: 11}, {forbidden: 9}), 'Most in the last hour: token expired')
})

test('a cause looks like what it is, a new one like somebody who is away', () => {
  const found = [['muted', false], ['written', true], ['no_grant', false], ['token_expired', false], ['filter', false],
    ['behind', false], ['something_new', false]] as const
  assert.deepEqual(found.map(([cause, isGood]) => glyphOf(cause, isGood)),
    ['paused', 'live', 'refused', 'expired', 'signedout', 'busy', 'offline'])
})

const ANSWER: Explained = {
  node: 'n',
  missing: [],
  id: 'a-1', userId: 'ana', cause: 'muted', answer: 'phone has it and did not show it: ana muted acme',
  since: '2026-11-28T14:01:12.055Z', next: 'Nothing more happens by itself', delivered: false,
  activity: {povId: 'acme', offset: 7, type: 'task', action: 'done', userId: 'ben', publisher: 'service:board'},
  lanes: [{
    device: 'phone', cause: 'muted', answer: 'phone has it and did not show it: ana muted acme', node: 'n', connected: false,
    connectionId: 'c-1',
    stations: [
      {name: 'published', passed: true, at: '2026-11-28T14:01:12.004Z', text: 'by service:board'},
      {name: 'queue', passed: null}, {name: 'shown', passed: false},
    ],
  }],
  events: [{at: '2026-11-28T14:01:12.055Z', event: 'shown', userId: 'ana', device: 'phone', epoch: 'e', only: {types: ['a']}}],
  traceSince: '2026-11-28T08:00:00.000Z',
}

test('an answer is taken along as text, all of it', () => {
  assert.equal(asText(ANSWER), `Why did ana not see a-1?

phone has it and did not show it: ana muted acme [muted]
since 2026-11-28T14:01:12.055Z
next  Nothing more happens by itself

task done by ben, #7 of PoV acme, published by service:board

phone: phone has it and did not show it: ana muted acme [muted], connection c-1 on node n (gone)
  + published    2026-11-28T14:01:12.004Z by service:board
  ? queue
  x shown

Last of ana:
  2026-11-28T14:01:12.055Z shown device=phone only={"types":["a"]}

The trace begins at 2026-11-28T08:00:00.000Z.
`)
  const {activity: _, since: __, traceSince: ___, ...rest} = ANSWER
  assert.equal(asText({...rest, lanes: [], events: [], missing: [{node: 'm', host: 'web-2', why: 'did not answer within 1 s'}]}), `Why did ana not see a-1?

phone has it and did not show it: ana muted acme [muted]
next  Nothing more happens by itself

Without the node m on web-2, which did not answer within 1 s: what it knows may change the answer.
Nothing of what happened is kept: see [trace] in the settings.
`)
})

test('who types is offered users, and an answer that comes late is none', async () => {
  const asked: string[] = []
  const answers: ((found: string[]) => void)[] = []
  const picker = new Picker(text => {
    asked.push(text)
    return new Promise(answer => answers.push(answer))
  }, () => {})
  const [first, second] = [picker.open('a'), picker.open(' an ')]
  answers[1]!(['ana', 'hana'])
  answers[0]!(['cara'])
  await Promise.all([first, second])
  assert.deepEqual([asked, picker.found, picker.at], [['a', 'an'], ['ana', 'hana'], -1])
  const third = picker.open('x')
  picker.choose('ana')
  answers[2]!(['xu'])
  await third
  assert.deepEqual([picker.text, picker.found], ['ana', []])
})

test('a server that does not say who is there leaves the field as it is', async () => {
  const picker = new Picker(() => Promise.reject(new Error('away')), () => {})
  picker.text = 'ana'
  await picker.open()
  assert.deepEqual([picker.text, picker.found], ['ana', []])
})
