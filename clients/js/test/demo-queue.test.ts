import assert from 'node:assert/strict'
import {test} from 'node:test'
import {makeQueue, withChanges, type Change} from '../src/demo/queue.js'
import type {BoardState, Task} from '../src/demo/shared.js'

const task = (id: string, done: boolean): Task => ({id, title: id, who: 'ana', done})
const change = (id: string, done = true): Change =>
  ({key: `acme ${id}`, method: done ? 'PUT' : 'DELETE', path: `/${id}`, povId: 'acme', task: task(id, done)})

/** A queue, and the app that it sends to. */
function setUp(name = 'queue') {
  const log: string[] = []
  const app = {log, answer: async (_: Change): Promise<Response> => new Response('{}')}
  const queue = makeQueue({
    name,
    async send(each) {
      log.push(`${each.method} ${each.path}`)
      return app.answer(each)
    },
    changed() {},
    async done() {
      log.push('done')
    },
    refused(why) {
      log.push(why)
    },
  })
  return {app, queue}
}

/** Have all that is under way go on as far as it can without a timer. */
const settle = () => new Promise(resolve => setImmediate(resolve))

test('changes are sent in order, each once, and wait until the board has them', async () => {
  const {app, queue} = setUp()
  queue.add(change('a'))
  queue.add(change('b'))
  assert.deepEqual(queue.waiting.map(({path}) => path), ['/a', '/b'])
  await settle()
  assert.deepEqual(app.log, ['PUT /a', 'done', 'PUT /b', 'done'])
  assert.deepEqual(queue.waiting, [])
})

test('without a network they wait, the last one of each kind, and go out when it is back', async context => {
  context.mock.timers.enable({apis: ['setTimeout']})
  const {app, queue} = setUp()
  app.answer = () => Promise.reject(new TypeError('no network'))
  queue.add(change('a'))
  await settle()
  queue.add(change('b'))
  await settle()
  queue.add(change('a', false))
  await settle()
  assert.deepEqual(queue.waiting.map(({method, path}) => `${method} ${path}`), ['PUT /b', 'DELETE /a'])
  app.log.length = 0
  app.answer = async () => new Response('{}')
  context.mock.timers.tick(1_000)
  await settle()
  assert.deepEqual(app.log, ['PUT /b', 'done', 'DELETE /a', 'done'])
})

test('an app that fails is asked again, one that refuses is not', async context => {
  context.mock.timers.enable({apis: ['setTimeout']})
  const {app, queue} = setUp()
  app.answer = async () => new Response('', {status: 503})
  queue.add(change('a'))
  await settle()
  assert.equal(queue.waiting.length, 1)
  app.answer = async () => new Response('{"error": "full"}', {status: 409})
  context.mock.timers.tick(1_000)
  await settle()
  assert.deepEqual(app.log, ['PUT /a', 'PUT /a', 'full', 'done'])
  assert.deepEqual(queue.waiting, [])
})

test('what waits survives a reload', async context => {
  const stored = new Map<string, string>()
  const storage = {getItem: (key: string) => stored.get(key) ?? null, setItem: (key: string, text: string) => void stored.set(key, text)}
  Object.assign(globalThis, {sessionStorage: storage})
  context.after(() => Reflect.deleteProperty(globalThis, 'sessionStorage'))
  context.mock.timers.enable({apis: ['setTimeout']})
  const {app, queue} = setUp('kept')
  app.answer = () => Promise.reject(new TypeError('no network'))
  queue.add(change('a'))
  await settle()
  const again = setUp('kept')
  assert.equal(again.queue.waiting.length, 1)
  await again.queue.flush()
  assert.deepEqual(again.app.log, ['PUT /a', 'done'])
})

test('a board looks as it will be when all that waits is done', () => {
  const board: BoardState = {
    since: 0, people: {}, phases: ['Scope', 'Prove'],
    povs: [
      {id: 'acme', name: 'Acme', day: 1, days: 2, phase: 0, tasks: [task('a', false), task('b', false)]},
      {id: 'other', name: 'Other', day: 1, days: 2, phase: 0, tasks: [task('a', false)]},
    ],
  }
  const phase: Change = {key: 'acme phase', method: 'PUT', path: '/phase', povId: 'acme', phase: 1}
  const [acme, other] = withChanges(board, [change('a'), change('new', false), phase]).povs
  assert.deepEqual(acme!.tasks.map(({id, done}) => [id, done]), [['a', true], ['b', false], ['new', false]])
  assert.equal(acme!.phase, 1)
  assert.deepEqual(other, board.povs[1])
})
