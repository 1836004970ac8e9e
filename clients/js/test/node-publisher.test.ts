/** The publisher for Node against real servers, which answer as they are told. */
import assert from 'node:assert/strict'
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {createServer, type Server} from 'node:http'
import type {AddressInfo} from 'node:net'
import {afterEach, test} from 'node:test'
import {build} from 'esbuild'
import {createPublisher, PublishError, serviceToken, type Publisher, type PublisherOptions} from '../src/node/index.js'

interface Answer {
  status: number
  body?: string
  headers?: Record<string, string>
}

const ONE = {type: 't', action: 'a', povId: 'p', userId: 'ana'}
const SILENT: Answer = {status: 0}
const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** A server that answers with the next of `answers`, else takes all; it keeps what came. */
class Taker {
  readonly batches: any[][] = []
  readonly tokens: string[] = []
  private came = () => {}

  constructor(readonly answers: Answer[], private readonly server: Server) {
    server.on('request', async (request, response) => {
      let text = ''
      for await (const piece of request) text += piece
      const items = text.split('\n').map(line => JSON.parse(line))
      this.batches.push(items)
      this.tokens.push(request.headers.authorization!.replace('Bearer ', ''))
      this.came()
      const {status, body = '', headers = {}} = this.answers.shift() ?? taken(items.length)
      if (status) response.writeHead(status, headers).end(body)
    })
  }

  static async start(...answers: Answer[]): Promise<Taker> {
    const server = createServer()
    const taker = new Taker(answers, server)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    ends.push(() => { server.closeAllConnections(); return new Promise(resolve => server.close(resolve)) })
    return taker
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }
  get items(): any[] {
    return this.batches.flat()
  }
  async until(count: number): Promise<void> {
    while (this.batches.length < count) await new Promise<void>(resolve => { this.came = resolve })
  }
}

const taken = (count: number, ...refused: string[]): Answer => ({
  status: 200,
  body: JSON.stringify({results: Array.from({length: count}, (_, index) =>
    refused[index] ? {error: {code: refused[index]}} : {id: 'x', duplicate: index === 2})}),
})

function publisherTo(taker: Taker, options: Partial<PublisherOptions> = {}): Publisher & {lines: string[]} {
  const lines: string[] = []
  const made = createPublisher({url: taker.url, token: 'token', report: line => lines.push(line), ...options})
  ends.push(() => made.close(0))
  return Object.create(made, {lines: {value: lines}})
}

const countsOf = ({sent, refused, dropped, queued}: Publisher) => [sent, refused, dropped, queued]

async function sendAll(publisher: Publisher): Promise<void> {
  while (!await publisher.flush(20_000));
}

const FAILURES: Record<string, Answer> = {
  'an error': {status: 500},
  'a page of a proxy': {status: 200, body: '<html>'},
  'another JSON': {status: 200, body: '[]'},
  'results of others': {status: 200, body: '{"results":[]}'},
  'results that are none': {status: 200, body: '{"results":[1,2,3]}'},
  'a token that is too old': {status: 401, body: '{"error":{"code":"token_expired","message":"Fetch a new one"}}'},
  'too many requests': {status: 429, headers: {'retry-after': '60'}},
}

for (const [name, failure] of Object.entries(FAILURES)) {
  test(`after ${name} the same ids are tried again, with a new token`, async () => {
    const taker = await Taker.start(failure, failure)
    let number = 0
    const publisher = publisherTo(taker, {token: async () => `token-${number++}`})
    const promises = [1, 2, 3].map(() => publisher.publish(ONE))
    await sendAll(publisher)
    assert.deepEqual((await Promise.all(promises)).map(each => each.duplicate), [false, false, true])
    assert.deepEqual(countsOf(publisher), [3, 0, 0, 0])
    assert.deepEqual(taker.batches[0], taker.batches[1])
    assert.deepEqual(taker.batches[1], taker.batches[2])
    assert.equal(new Set(taker.items.map(each => each.id)).size, 3)
    assert.deepEqual(taker.tokens, ['token-0', 'token-1', 'token-2'])
  })
}

test('it waits as long as the server asks for', async () => {
  const taker = await Taker.start({status: 429, headers: {'retry-after': '1'}})
  const publisher = publisherTo(taker)
  const published = publisher.publish(ONE)
  await taker.until(1)
  const began = performance.now()
  await Promise.all([published, keepAlive(published)])
  assert.ok(performance.now() - began >= 1000)
})

/** The publisher keeps no process, and this one is to wait. */
async function keepAlive(promise: Promise<unknown>): Promise<void> {
  const timer = setInterval(() => {}, 1000)
  await promise
  clearInterval(timer)
}

test('a server that does not answer is given up in time, and asked again', async () => {
  const taker = await Taker.start(SILENT)
  const publisher = publisherTo(taker, {timeout: 50})
  const published = publisher.publish(ONE)
  assert.equal(await publisher.flush(20_000), false)
  // On a busy machine the first may not have come there in that time, or what is answered may be late, too.
  await sendAll(publisher)
  await published
  await publisher.close()
  assert.ok(taker.batches.length >= 2)
  assert.equal(new Set(taker.items.map(each => each.id)).size, 1)
  assert.match(publisher.lines.join(), /no answer within 50 ms/)
})

test('closing takes no longer than it is given', async () => {
  const taker = await Taker.start(SILENT)
  const publisher = publisherTo(taker)
  const published = publisher.publish(ONE)
  published.catch(() => {})
  const began = performance.now()
  await publisher.close(50)
  assert.ok(performance.now() - began < 2000)
  await assert.rejects(published, {code: 'closed'})
  await assert.rejects(publisher.publish(ONE), {code: 'closed'})
})

test('many travel together, in order', async () => {
  const taker = await Taker.start()
  const publisher = publisherTo(taker)
  const numbers = Array.from({length: 1201}, (_, number) => String(number))
  const promises = numbers.map(action => publisher.publish({...ONE, action}))
  await sendAll(publisher)
  await Promise.all(promises)
  assert.deepEqual(taker.batches.map(each => each.length), [500, 500, 201])
  assert.deepEqual(taker.items.map(each => each.action), numbers)
})

test('what the server refuses is told to who published it, and not sent again', async () => {
  const taker = await Taker.start(taken(2, 'forbidden'), {status: 400, body: '{"error":{"code":"invalid_request"}}'})
  const publisher = publisherTo(taker)
  const [first, second] = [publisher.publish(ONE), publisher.publish(ONE)]
  first.catch(() => {})
  assert.ok(await publisher.flush(20_000))
  await assert.rejects(first, (error: PublishError) => error.code === 'forbidden')
  assert.equal((await second).duplicate, false)
  const third = publisher.publish(ONE)
  third.catch(() => {})
  assert.ok(await publisher.flush(20_000))
  await assert.rejects(third, {code: 'invalid_request'})
  assert.deepEqual(countsOf(publisher), [1, 2, 0, 0])
  assert.equal(taker.batches.length, 2)
})

test('a batch that is too large is halved, and a single activity given up', async () => {
  const taker = await Taker.start({status: 413}, {status: 413})
  const publisher = publisherTo(taker)
  const promises = [1, 2, 3, 4, 5].map(() => publisher.publish(ONE))
  await sendAll(publisher)
  await Promise.all(promises)
  assert.deepEqual(taker.batches.map(each => each.length), [5, 2, 1, 4])
  taker.answers.push({status: 413})
  const large = publisher.publish(ONE)
  large.catch(() => {})
  await sendAll(publisher)
  await assert.rejects(large, {code: 'too_large'})
})

test('of too many the newest are rejected and counted', async () => {
  for (const bounds of [{capacity: 5}, {capacityBytes: 5 * JSON.stringify({...ONE, id: '0'.repeat(32)}).length}]) {
    const taker = await Taker.start(SILENT)
    const publisher = publisherTo(taker, bounds)
    const outcomes = Promise.allSettled(Array.from({length: 100}, () => publisher.publish(ONE)))
    assert.deepEqual(countsOf(publisher), [0, 0, 95, 5])
    await publisher.close(0)
    const codes = (await outcomes).map(each => each.status === 'rejected' && each.reason.code)
    assert.deepEqual(codes, [...Array(5).fill('closed'), ...Array(95).fill('full')])
    assert.deepEqual(countsOf(publisher), [0, 0, 100, 0])
  }
})

test('what JSON cannot hold is rejected and holds nothing up', async () => {
  const taker = await Taker.start()
  const publisher = publisherTo(taker)
  const endless: Record<string, unknown> = {}
  endless['a'] = endless
  await assert.rejects(publisher.publish({...ONE, details: endless}), {code: 'invalid'})
  await assert.rejects(publisher.publish({...ONE, details: {a: 1n}}), {code: 'invalid'})
  const good = publisher.publish(ONE)
  assert.ok(await publisher.flush(20_000))
  await good
})

test('there is one report, and at the end another, with numbers', async () => {
  const taker = await Taker.start(...Array.from({length: 9}, () => ({status: 503})))
  const publisher = publisherTo(taker)
  publisher.publish(ONE).catch(() => {})
  for (let number = 0; number < 5; number++) assert.equal(await publisher.flush(20_000), false)
  await new Promise(resolve => setTimeout(resolve, 0)) // its timer was there before
  assert.equal(publisher.lines.length, 1)
  assert.match(publisher.lines[0]!, /0 sent, 0 refused, 0 dropped; 1 wait: no success at http:\S+ \(503\)$/)
  await publisher.close(0)
  assert.equal(publisher.lines.length, 2)
  assert.match(publisher.lines[1]!, /1 dropped; 0 wait/)
})

test('a fixed token that is refused is named with the way out', async () => {
  const taker = await Taker.start({status: 401, body: '{"error":{"code":"token_expired","message":"It is over"}}'})
  const publisher = publisherTo(taker)
  publisher.publish(ONE).catch(() => {})
  assert.equal(await publisher.flush(20_000), false)
  await publisher.close(0)
  assert.match(publisher.lines.join(), /401 token_expired: It is over; the token is always the same: give serviceToken/)
})

test('a token that is none is reported without it', async () => {
  const taker = await Taker.start()
  for (const token of ['secret\nsecret', 'sécret', '', undefined as any]) {
    const publisher = publisherTo(taker, {token: () => token})
    publisher.publish(ONE).catch(() => {})
    assert.equal(await publisher.flush(20_000), false)
    await publisher.close(0)
    assert.match(publisher.lines.join(), /no text of visible ASCII characters/)
    assert.doesNotMatch(publisher.lines.join(), /cret/)
  }
  assert.deepEqual(taker.batches, [])
})

test('what is no address of a server is refused at once', () => {
  for (const url of ['127.0.0.1:8765', 'ws://127.0.0.1', '']) {
    assert.throws(() => createPublisher({url, token: 'token'}), TypeError)
  }
})

test('service tokens are renewed, and a secret that is too short is refused without it', t => {
  t.mock.timers.enable({apis: ['Date'], now: 1e12})
  const token = serviceToken(`${'s'.repeat(32)}\n`, 'app', {povs: ['acme'], ttl: 100})
  const first = token()
  const claims = JSON.parse(Buffer.from(first.split('.')[1]!, 'base64url').toString())
  assert.deepEqual(claims, {aud: 'pov-rt.service', userId: 'app', povs: ['acme'], iat: 1e9, exp: 1e9 + 100})
  t.mock.timers.tick(49_000)
  assert.equal(token(), first)
  t.mock.timers.tick(1_000)
  assert.notEqual(token(), first)
  t.mock.timers.setTime(0)
  assert.notEqual(token(), first, 'the clock was set back')
  assert.throws(() => serviceToken('s'.repeat(31), 'app'), (error: Error) => !error.message.includes('sss'))
})

/** Run a program that publishes once and has nothing else to do; how long it takes to its end, ms. */
async function runProgram(url: string): Promise<{said: string, took: number}> {
  const {outputFiles: [file]} = await build({
    stdin: {
      contents: `
        import {createPublisher} from './src/node/index.ts'
        createPublisher({url: ${JSON.stringify(url)}, token: 'token'}).publish(${JSON.stringify(ONE)})
          .then(() => console.log('published'), error => console.log(error.code))
        console.log('begun')`,
      resolveDir: process.cwd(),
    },
    bundle: true, format: 'esm', platform: 'node', target: 'node20', write: false,
  })
  const program = spawn(process.execPath, ['--input-type=module', '-e', file!.text], {stdio: ['ignore', 'pipe', 'ignore']})
  let said = '', begun = 0
  program.stdout.on('data', piece => { said += piece; begun ||= performance.now() })
  await once(program, 'close')
  return {said, took: performance.now() - begun}
}

test('a program that has nothing else to do sends what waits', async () => {
  const taker = await Taker.start()
  assert.equal((await runProgram(taker.url)).said, 'begun\npublished\n')
  assert.equal(taker.items.length, 1)
})

test('a program whose server is away ends within two seconds', async () => {
  const taker = await Taker.start()
  const {url} = taker
  for (const end of ends.splice(0)) await end()
  const {said, took} = await runProgram(url)
  assert.equal(said, 'begun\nclosed\n')
  assert.ok(took < 2000, `${took} ms`)
})
