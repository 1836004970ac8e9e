// The JavaScript SDK, as servers serve it, as a program that tests/cases/README.md describes.
import {createInterface} from 'node:readline'
import WebSocket from 'ws'
import {connect} from '../../pov_rt/web/static/client/pov-rt.mjs'

const STATES = {live: 'online', 'catching-up': 'online', connecting: 'offline', suspended: 'offline'}
const say = (shows, fields) => console.log(JSON.stringify({shows, ...fields}))
let client

function open({url, tokens}) {
  const getToken = () => (tokens.length > 1 ? tokens.shift() : tokens[0])
  client = connect({url, getToken, WebSocket})
  client.on('status', ({state}) => say('status', {state: STATES[state] ?? state}))
}

function subscribe({povId, since, only}) {
  const subscription = client.subscribe(povId, {since, only})
  subscription.on('activity', placed => say('activity', {povId, ...placed}))
  subscription.on('gap', gap => say('gap', gap))
  subscription.on('error', ({code, ended}) => {
    if (ended && code !== 'closed') say('ended', {povId, code})
  })
}

function request({name, message: {type, ...fields}}) {
  client.request(type, fields).then(
    message => say('answer', {name, message}),
    ({code}) => say('answer', {name, code}),
  )
}

const act = {connect: open, subscribe, request, close: () => client.close()}
for await (const text of createInterface({input: process.stdin})) {
  const line = JSON.parse(text)
  act[line.do](line)
  if (line.do === 'close') break
}
