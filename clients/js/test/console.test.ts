/** The console's parts that need no page: forms from schemas, the log, messages in words, code to paste. */
import assert from 'node:assert/strict'
import {test} from 'node:test'
import {build, fill, Wrong, type Known} from '../src/console/forms.js'
import {KEPT, Log} from '../src/console/log.js'
import {lasts, sayMessage, took, wanted} from '../src/console/says.js'
import {fieldsOf, findField, leaves, type Document, type Schema} from '../src/console/schema.js'
import {asCurl, asJavaScript, hideTokens, pretty} from '../src/console/snippets.js'

const PLACE: Schema = {
  type: 'object', required: [],
  properties: {
    epoch: {type: 'string', minLength: 1, maxLength: 64},
    offset: {type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER},
    last: {type: 'integer', minimum: 1, maximum: 1000},
  },
}

function document(properties: Record<string, Schema>, required: string[] = []): Document {
  return {
    operations: {'receive.try': {summary: ''}},
    components: {
      messages: {try: {payload: {$ref: '#/components/schemas/Try'}}},
      schemas: {Try: {type: 'object', properties: {type: {enum: ['try']}, id: {type: 'string'}, ...properties}, required}, Place: PLACE},
    },
  }
}

const fields = (properties: Record<string, Schema>, required?: string[]) => fieldsOf(document(properties, required), 'try')

function known(more: Partial<Known> = {}): Known {
  const place = (pov: string) => pov === 'demo' ? {epoch: 'e1', offset: 43} : undefined
  return {pov: 'demo', place, token: 'eyJh.x.y', user: 'dev', offers: {}, ...more}
}

test('each sort of schema has its control and says its limits', () => {
  const found = fields({
    name: {type: 'string', minLength: 1, maxLength: 64},
    count: {type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER},
    limit: {type: 'integer', minimum: 1, maximum: 1000, default: 100},
    is: {type: 'boolean', default: true},
    level: {enum: ['off', 'on']},
    users: {type: 'array', items: {type: 'string', minLength: 1, maxLength: 128}, minItems: 1, maxItems: 50},
    details: {type: 'object', description: 'At most 16384 bytes of JSON.'},
    since: {anyOf: [{enum: ['cursor']}, {$ref: '#/components/schemas/Place'}]},
    place: {$ref: '#/components/schemas/Place'},
    note: {anyOf: [{type: 'string', maxLength: 9}, {type: 'null'}], default: null},
    at: {type: 'string', format: 'date-time'},
    places: {type: 'array', items: {$ref: '#/components/schemas/Place'}},
  })
  assert.deepEqual(found.map(({name, kind, help}) => [name, kind, help]), [
    ['name', 'text', '1 to 64 characters'],
    ['count', 'number', '0 or more'],
    ['limit', 'number', '1 to 1000, 100 if not sent'],
    ['is', 'boolean', 'true if not sent'],
    ['level', 'choice', ''],
    ['users', 'list', '1 to 50 items, each 1 to 128 characters'],
    ['details', 'json', 'JSON object, up to 16 KiB'],
    ['since', 'union', ''],
    ['place', 'group', ''],
    ['note', 'text', 'up to 9 characters'],
    ['at', 'text', 'a time, RFC 3339'],
    ['places', 'json', 'JSON list'],
  ])
  assert.deepEqual([...leaves(found)].map(({path}) => path).filter(path => path.includes('.')),
    ['since.epoch', 'since.offset', 'since.last', 'place.epoch', 'place.offset', 'place.last'])
})

test('what is needed is offered, and what may be left out is not', () => {
  const found = fields({
    povId: {type: 'string'}, offset: {type: 'integer', minimum: 0}, epoch: {type: 'string'}, active: {type: 'boolean'},
    level: {enum: ['off', 'on']}, povIds: {type: 'array', items: {type: 'string'}, minItems: 1}, users: {type: 'array', items: {type: 'string'}},
    token: {type: 'string'}, details: {type: 'object'}, text: {type: 'string', minLength: 6, maxLength: 8}, short: {type: 'string', maxLength: 3},
    count: {type: 'integer', minimum: 2}, inner: {type: 'object', properties: {povId: {type: 'string'}}, required: ['povId']},
    perhaps: {type: 'boolean'}, other: {$ref: '#/components/schemas/Place'},
  }, ['povId', 'offset', 'active', 'level', 'povIds', 'users', 'token', 'details', 'text', 'short', 'count', 'inner'])
  assert.deepEqual(build(found, new Map(), known()), {
    povId: 'demo', offset: 43, epoch: 'e1', active: true, level: 'off', povIds: ['demo'], users: [], token: 'eyJh.x.y', details: {},
    text: 'text..', short: 'sho', count: 2, inner: {povId: 'demo'}, other: {epoch: 'e1', offset: 43},
  })
})

test('places follow the PoV that is filled in', () => {
  const found = fields({povId: {type: 'string'}, offset: {type: 'integer', minimum: 0}, epoch: {type: 'string'}}, ['offset'])
  assert.deepEqual(build(found, new Map([['povId', 'other']]), known()), {povId: 'other', offset: 0})
  assert.deepEqual(build(found, new Map([['povId', ''], ['epoch', '']]), known()), {offset: 0})
  assert.deepEqual(build(found, new Map([['offset', '7']]), known()), {povId: 'demo', offset: 7, epoch: 'e1'})
})

test('one of several is sent as the chosen one', () => {
  const found = fields({since: {anyOf: [{enum: ['cursor']}, {$ref: '#/components/schemas/Place'}]}})
  const sent = (filled: Record<string, string>) => build(found, new Map(Object.entries(filled)), known())
  assert.deepEqual(sent({}), {})
  assert.deepEqual(sent({since: '0'}), {since: 'cursor'})
  assert.deepEqual(sent({since: '1'}), {since: {epoch: 'e1', offset: 43}})
  assert.deepEqual(sent({since: '1', 'since.last': '5'}), {since: {last: 5}})
})

test('a message comes back into the form as it was sent', () => {
  const found = fields({
    povId: {type: 'string'}, active: {type: 'boolean'}, users: {type: 'array', items: {type: 'string'}},
    details: {type: 'object'}, since: {anyOf: [{enum: ['cursor']}, {$ref: '#/components/schemas/Place'}]},
    numbers: {type: 'array', items: {type: 'integer'}}, data: {type: 'object', properties: {id: {type: 'string'}, povId: {type: 'string'}}, required: ['povId']},
  }, ['povId', 'data'])
  for (const message of [
    {povId: 'other', active: false, users: ['a', 'b'], details: {deep: [1]}, since: {last: 3}, numbers: [1, 2], data: {povId: 'x'}},
    {povId: 'demo', since: 'cursor', data: {id: '7', povId: 'x'}},
    {data: {}},
  ]) assert.deepEqual(build(found, fill(found, message), known()), message)
})

test('what cannot be sent says which field and why', () => {
  const found = fields({count: {type: 'integer'}, details: {type: 'object'}, list: {type: 'array', items: {$ref: '#/components/schemas/Place'}}})
  const wrong = (path: string, text: string) => {
    try {
      build(found, new Map([[path, text]]), known())
    } catch (error) {
      assert.ok(error instanceof Wrong)
      return [error.path, error.message.split(':')[0]]
    }
    return assert.fail()
  }
  assert.deepEqual(wrong('count', 'many'), ['count', 'This is no number.'])
  assert.deepEqual(wrong('details', '{'), ['details', 'This is no JSON'])
  assert.deepEqual(wrong('details', '[]'), ['details', 'This is no JSON object'])
  assert.deepEqual(wrong('list', '{}'), ['list', 'This is no JSON list'])
})

test('an error finds its field', () => {
  const found = fields({povId: {type: 'string'}, only: {type: 'object', properties: {types: {type: 'array', items: {type: 'string'}}}},
    places: {type: 'object'}, data: {type: 'object', properties: {details: {type: 'object'}}, required: []}})
  const at = (path: string) => findField(found, path)?.path
  assert.deepEqual(['povId', 'only.types[2]', 'places.demo.offset', 'data.details.deep[0].x', 'data', 'nothing', ''].map(at),
    ['povId', 'only.types', 'places', 'data.details', 'data.details', undefined, undefined])
})

test('an answer stands with its request, whatever came between; pings are counted', () => {
  let changes = 0
  const log = new Log(() => changes++)
  log.sent('{"type":"publish","id":1}')
  log.received('{"type":"activity","data":{},"offset":1}')
  log.received('{"type":"published","id":1}')
  log.sent('{"type":"ping","id":"~"}')
  log.received('{"type":"pong","id":"~"}')
  log.sent('{"type":"ping","id":2}')
  assert.deepEqual(log.entries.map(({sent, got}) => [sent?.message.type, got?.message.type]),
    [['ping', undefined], [undefined, 'activity'], ['publish', 'published']])
  assert.ok(log.entries[2]!.ms! >= 0)
  assert.equal(log.pings, 1)
  assert.equal(changes, 5)
})

test('a request that was renewed by the connection itself is shown', () => {
  const log = new Log(() => {})
  log.sent('{"type":"refresh","id":"~1","token":"x"}')
  log.received('{"type":"refreshed","id":"~1"}')
  assert.deepEqual(log.entries.map(({sent, got}) => [sent?.message.type, got?.message.type]), [['refresh', 'refreshed']])
})

test('while paused nothing new is shown, answers to what is shown are, and what came is counted', () => {
  const log = new Log(() => {})
  log.sent('{"type":"presence","id":1}')
  log.pause()
  log.received('{"type":"present","id":1}')
  log.received('{"type":"activity"}')
  log.note('closed', '4000 restarting')
  assert.deepEqual([log.shown.length, log.waiting, log.shown[0]!.got?.message.type], [1, 2, 'present'])
  log.pause()
  assert.deepEqual([log.shown.length, log.waiting], [3, 0])
  log.clear()
  assert.equal(log.shown.length, 0)
})

test('the log is bounded, and counts what is gone', () => {
  const log = new Log(() => {})
  for (let i = 0; i < KEPT + 7; i++) log.received(`{"type":"activity","offset":${i}}`)
  assert.deepEqual([log.entries.length, log.gone], [KEPT, 7])
  assert.equal(log.entries[0]!.got!.message.offset, KEPT + 6)
})

test('messages are told in words', () => {
  const got = (message: object) => sayMessage(message as never, false).text
  const sent = (message: object) => sayMessage(message as never, true).text
  const user = {userId: 'ana', devices: ['laptop', 'phone'], since: '', state: 'active'}
  assert.equal(got({type: 'activity', data: {type: 'task', action: 'completed', userId: 'dev', povId: 'demo'}, offset: 43}),
    'task completed by dev on demo, offset 43')
  assert.equal(got({type: 'published', povId: 'demo', offset: 43, duplicate: true}), 'demo, offset 43, it was there already')
  assert.equal(got({type: 'present', users: [user], more: 0}), 'ana (laptop, phone)')
  assert.equal(got({type: 'present', users: [], more: 0}), 'nobody')
  assert.equal(got({type: 'presence_diff', povId: 'demo', joined: [user], left: ['ben'], changed: []}), 'ana (laptop, phone) came to demo, ben left demo')
  assert.equal(got({type: 'subscribed', povId: 'demo', epoch: 'e', offset: 0}), 'demo from 0, nothing has happened there yet')
  assert.equal(got({type: 'subscribed', povId: 'demo', epoch: 'e', offset: 42, guarantee: {survives: 'disk'}}), 'demo from 42, nothing missed, kept on disk')
  assert.equal(got({type: 'subscribed', povId: 'demo', epoch: 'e', offset: 42, missed: 3, recovered: false}), 'demo from 42, 3 missed')
  const recovered = {type: 'subscribed', povId: 'demo', epoch: 'e', offset: 42, recovered: true}
  assert.equal(got({...recovered, after: 40}), 'demo from 42, 2 missed, which follow')
  assert.equal(got({...recovered, after: 42}), 'demo from 42, nothing missed')
  assert.equal(got({type: 'closing', code: 4000, reason: 'restarting', retryAfter: 3.819}), '4000 restarting, come back in 4 s')
  assert.equal(got({type: 'subscribed', results: [{povId: 'a', epoch: 'e', offset: 1}, {povId: 'b', code: 'forbidden', message: 'No'}]}), 'a from 1, nothing missed, b: No')
  assert.equal(got({type: 'subscribed', povIds: []}), 'nothing to follow')
  assert.equal(got({type: 'history_page', povId: 'demo', activities: [{offset: 3}, {offset: 2}], next: 2}), '2 activities of demo, offsets 2 to 3, more from 2')
  assert.equal(got({type: 'marks', povId: 'demo', readOffset: 1, seenOffset: 2, unread: 3, unseen: 2}), 'demo read up to 1, seen up to 2, 3 unread')
  assert.equal(got({type: 'typing', povId: 'demo', users: [{userId: 'ana', where: 'Audit'}], more: 0}), 'ana on Audit in demo')
  assert.equal(sent({type: 'typing', povId: 'demo', active: false}), 'on demo, stopped')
  for (const type of ['typing', 'history', 'unsubscribe', 'presence', 'mute', 'unread', 'publish', 'ack', 'subscribe']) {
    assert.ok(!sent({type, data: {}}).includes('undefined'), type)
  }
  assert.equal(got({type: 'poll.voted', povId: 'demo', choice: 'yes', weights: [1]}), 'povId demo, choice yes, weights [1]')
  assert.equal(sent({type: 'subscribe', povId: 'demo', since: {offset: 4, epoch: 'e'}}), 'demo, from 4')
  assert.equal(sent({type: 'publish', data: {type: 'task', action: 'completed', povId: 'demo'}}), 'task completed on demo')
})

test('an error names the field and what it takes', () => {
  const found = fields({active: {type: 'boolean'}, level: {enum: ['off', 'on']}, name: {type: 'string', minLength: 1, maxLength: 64}}, ['active', 'name'])
  const say = (error: object, sent: object) => {
    const {field, text} = sayMessage({type: 'error', code: 'invalid_message', message: 'Bad', ...error} as never, false, found, sent as never)
    return `${field ?? ''} ${text}`.trim()
  }
  assert.equal(say({field: 'active'}, {type: 'try'}), 'active is missing: true or false')
  assert.equal(say({field: 'name'}, {type: 'try', name: ''}), 'name is not as it has to be: a text, 1 to 64 characters')
  assert.equal(say({field: 'level'}, {type: 'try', level: 'x'}), 'level is not as it has to be: off, on; or leave it out')
  assert.equal(say({code: 'forbidden', field: 'povId', message: 'Subscribe first'}, {}), 'povId Subscribe first (forbidden)')
  assert.equal(say({code: 'rate_limited', message: 'Too much', retryAfter: 3}, {}), 'Too much (rate_limited), again in 3 s')
  assert.equal(wanted(found[0]!), 'true or false')
})

test('times are said shortly', () => {
  assert.deepEqual([0.2, 3.4, 999, 1250].map(took), ['1 ms', '3 ms', '999 ms', '1.3 s'])
  assert.deepEqual([1000, 720_000, 86_399_000, 400_000_000].map(lasts), ['less than a minute', '12 min', '23 h 59 min', '4 days'])
})

test('code to paste has tokens in full, the screen none', () => {
  const token = 'eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOiJhbmEifQ.c2ln-bmF0_dXJl'
  const where = {origin: 'http://localhost:1', token, serviceToken: `${token}s`}
  const data = {type: 'task', action: 'done', povId: 'demo', details: {title: "it's"}}
  const publish = asCurl('publish', {data}, where)!
  assert.ok(publish.includes(`'Authorization: Bearer ${token}s'`))
  assert.ok(publish.includes(`it'\\''s`))
  assert.ok(publish.includes('"userId":"dev"'))
  assert.ok(asCurl('publish', {data: {...data, userId: 'ana'}}, where)!.includes('"userId":"ana"'))
  assert.equal(hideTokens(publish).includes(token), false)
  assert.ok(hideTokens(publish).includes('Bearer eyJhbGciOi…'))
  assert.ok(asCurl('history', {povId: 'a/b', limit: 5}, where)!.includes('/api/povs/a%2Fb/activities?before=0&limit=5'))
  assert.ok(asCurl('history', {povId: 'demo', after: 5}, where)!.includes('?after=5'))
  assert.equal(asCurl('history', {povId: 'demo', users: ['ana']}, where), undefined)
  assert.equal(asCurl('typing', {povId: 'demo'}, where), undefined)
  assert.ok(asJavaScript({type: 'typing', fields: {povId: 'demo'}}, where, false).includes("client.send('typing', "))
  assert.ok(asJavaScript({type: 'presence', fields: {povId: 'demo'}}, where, true).includes("await client.request('presence', "))
})

test('JSON stands on as many lines as it needs, and says the same', () => {
  const message = {type: 'activity', data: {id: '01a2212280f4ce9e', list: [1, 'two', null], details: {title: 'Nightly sync'}, empty: {}}, offset: 43}
  assert.deepEqual(JSON.parse(pretty(message)), message)
  assert.equal(pretty({a: 1}), '{ "a": 1 }')
  assert.ok(pretty(message).includes('    "details": { "title": "Nightly sync" }'))
})
