// An Express application with all the options of tests/tracker/conformance.json:
//   node tracker.mjs PORT
// The environment names the tracker's module, the table, the server and a secret of its. A request's headers say
// which options watch it, and how it is answered; `/flush` sends what waits.
import {readFileSync} from 'node:fs'
import express from 'express'

const {POV_MODULE, POV_TABLE, POV_URL: url, POV_SECRET} = process.env
const {activityTracker, serviceToken} = await import(POV_MODULE)
const {options} = JSON.parse(readFileSync(POV_TABLE, 'utf8'))
const token = serviceToken(POV_SECRET, 'app')

const fail = () => { throw new Error("a mistake of the application's") }
const functions = {
  'request': ({method, status, pathArguments: {pov_id}}) =>
    ({type: 'request', action: `${method.toLowerCase()}.${status}`, povId: pov_id}),
  'only removed': activity => activity.action === 'removed' ? {...activity, details: {seen: true}} : null,
  'raise': fail,
}

const trackers = new Map(Object.entries(options).map(([name, given]) => [name, activityTracker({
  url, token,
  ...given,
  ...(given.exclude && {exclude: given.exclude.map(each => new RegExp(each))}),
  sampleRate: given.sample_rate,
  describe: functions[given.describe],
  beforeSend: functions[given.before_send],
  actor: request => request.get('X-User'),
  pov: given.pov && (request => request.get('X-Pov')),
})]))

const app = express()
app.use((request, response, next) => trackers.get(request.get('X-Options') ?? 'plain')(request, response, next))
app.post('/flush', async (_, response) => {
  for (const each of trackers.values()) if (!await each.flush()) fail()
  response.end()
})

async function answer(request, response) {
  const behave = request.get('X-Behave')
  if (behave === 'raise') fail()
  if (behave === 'stream') {
    for (const piece of 'abc') response.write(piece)
    return response.end()
  }
  response.status(Number(request.get('X-Status') ?? 200)).end()
}
app.all('/named/:pov_id', answer)
app.use(answer)
app.use((error, request, response, next) => response.status(500).end()) // as Express does, without its words

const server = app.listen(Number(process.argv[2]), '127.0.0.1', () => console.error('listens'))
process.once('SIGTERM', async () => {
  server.close()
  for (const each of trackers.values()) await each.close()
})
