// A board that its team sees live: Express beside pov-rt. Node 20 or newer.
//
// In a checkout; the server and the app in a terminal each:
//
//     (cd clients/js && npm ci && npm run build && npm pack)
//     npm install --prefix examples --no-save express jose ../clients/js/pov-rt-0.1.0.tgz
//     pov-rt serve --dev
//     POV_RT_SECRET=$(cat .dev/dev-secret) PORT=8000 node examples/express_app.mjs
//
// Open http://127.0.0.1:8000 in two browsers, sign in, and press the buttons.
import express from 'express'
import {jwtVerify, SignJWT} from 'jose'
import {activityTracker, createPublisher, PublishError, serviceToken} from 'pov-rt/node'

const url = process.env.POV_RT_URL ?? 'http://127.0.0.1:8765'
const secret = process.env.POV_RT_SECRET // one of the server's `auth.secrets`; never in a page
const key = new TextEncoder().encode(secret)
const povs = {ana: ['acme'], ben: ['acme', 'globex']} // yours: who there is, and may see what

const token = serviceToken(secret, 'express-app')
const publisher = createPublisher({url, token})
// Best effort: a request that was answered with 2xx becomes an activity, beside the response.
const tracker = activityTracker({
  url,
  token,
  rules: [{method: 'POST', path: '/povs/{pov_id}/tasks/{task_id}/done', type: 'task', action: 'completed'}],
})

const app = express()
app.use(tracker)

// Whoever is signed in has an access token in a cookie: `request.user` is where the tracker looks, too.
app.use(async (request, response, next) => {
  const [, cookie] = /(?:^|; )accessToken=([^;]+)/.exec(request.headers.cookie ?? '') ?? []
  if (cookie) request.user = (await jwtVerify(cookie, key).catch(() => undefined))?.payload
  next()
})

// Takes anybody's word for who they are: put your own way to sign in here. The cookie's name is the server's
// `auth.cookie`: browsers send it to pov-rt, too, where that has the same host, and it exchanges the token for
// one of a socket. So the tags need no more; where the hosts differ, see docs/widgets.md.
app.post('/sign-in/:user', async (request, response) => {
  const {user} = request.params
  if (!Object.hasOwn(povs, user)) return response.sendStatus(404)
  const access = await new SignJWT({userId: user, povs: povs[user]})
    .setProtectedHeader({alg: 'HS256'})
    .setExpirationTime('8h')
    .sign(key)
  // In production `secure: true`, too.
  response.cookie('accessToken', access, {httpOnly: true, sameSite: 'lax'}).redirect(303, '/')
})

app.use('/povs/:pov_id', (request, response, next) => {
  if (!request.user) return response.sendStatus(401)
  if (!request.user.povs.includes(request.params.pov_id)) return response.sendStatus(403)
  next()
})

app.post('/povs/:pov_id/tasks/:task_id/done', (request, response) => {
  response.json({done: request.params.task_id}) // the app does what it does; the tracker tells of it
})

// What must not be lost: the answer comes when the server has it. The id is the page's, which asks again with
// the same one until there is an answer; it is published once.
app.post('/povs/:pov_id/decisions/:id', async (request, response) => {
  const {pov_id: povId, id} = request.params
  try {
    const {userId} = request.user
    response.status(201).json(await publisher.publish({id, type: 'decision', action: 'made', povId, userId}))
  } catch (error) {
    if (!(error instanceof PublishError)) throw error
    response.status(503).json({code: error.code, message: error.message})
  }
})

// The two tags, which `pov-rt client` prints for your server, with the script's hash.
app.get('/', (request, response) => {
  response.send(`<!doctype html>
<html lang="en">
<title>Acme</title>
<script type="module" src="${url}/client/pov-rt-widgets.mjs"></script>
<form method="post" action="/sign-in/ana"><button>Sign in as Ana</button></form>
<form method="post" action="/sign-in/ben"><button>Sign in as Ben</button></form>
<button id="task">Task 7 is done</button>
<button id="decide">Acme buys it</button>
<pov-team-activity pov="acme"></pov-team-activity>
<pov-activity-notification></pov-activity-notification>
<script type="module">
  task.onclick = () => fetch('/povs/acme/tasks/7/done', {method: 'POST'})
  decide.onclick = async () => {
    const path = '/povs/acme/decisions/' + Array.from(crypto.getRandomValues(new Uint8Array(8))).join('-')
    for (let answer; !answer?.ok && !(answer?.status < 500); ) {
      if (answer !== undefined) await new Promise(resolve => setTimeout(resolve, 2000))
      answer = await fetch(path, {method: 'POST'}).catch(() => null)
    }
  }
</script>
`)
})

const server = app.listen(process.env.PORT ?? 8000, '127.0.0.1', () => console.error('listens'))
process.once('SIGTERM', async () => {
  server.close()
  await Promise.all([tracker.close(), publisher.close()]) // they send what still waits
})
