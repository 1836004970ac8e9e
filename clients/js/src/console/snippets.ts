/** A message as code to paste somewhere else, and JSON as it is shown. */
import {html, type TemplateResult} from 'lit'
import type {Message} from './log.js'

type Fields = Readonly<Record<string, unknown>>

/** Where the server is, and with which tokens. */
export interface Where {
  readonly origin: string
  readonly token: string
  readonly serviceToken: string
}

/** As JavaScript for a browser's console, on any page of this machine. */
export function asJavaScript(
  {type, fields}: {type: string; fields: Fields}, where: Where, isAnswered: boolean,
): string {
  const given = JSON.stringify(fields, null, 2)
  const call = isAnswered ? `console.log(await client.request('${type}', ${given}))`
    : `client.send('${type}', ${given})`
  return `const {connect} = await import('${where.origin}/client/pov-rt.mjs')
const client = connect({
  url: '${where.origin}',
  getToken: () => '${where.token}',
})
${isAnswered ? '' : "await new Promise(resolve => client.on('welcome', resolve))\n"}${call}
`
}

/** As a command, where HTTP can do it; else undefined. */
export function asCurl(type: string, fields: Fields, where: Where): string | undefined {
  const bearer = (token: string) => ` \\\n  -H ${quote(`Authorization: Bearer ${token}`)}`
  const pov = `${where.origin}/api/povs/${encodeURIComponent(String(fields.povId))}`
  if (type === 'publish') {
    // A service says who did it; over the socket that is the token's user, who is this one.
    const data = {userId: 'dev', ...fields.data as Fields}
    return `curl -s ${quote(`${where.origin}/api/activities`)}${bearer(where.serviceToken)} \\
  -H 'Content-Type: application/json' \\
  -d ${quote(JSON.stringify(data))}`
  }
  if (type === 'presence' && fields.state === undefined) {
    return `curl -s ${quote(`${pov}/presence`)}${bearer(where.token)}`
  }
  if (type === 'history' && !['types', 'actions', 'users'].some(name => name in fields)) {
    // Over HTTP `before` 0 stands for the newest.
    const {after, before = after === undefined ? 0 : undefined, limit} = fields
    const query = Object.entries({after, before, limit}).filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${String(value)}`).join('&')
    return `curl -s ${quote(`${pov}/activities?${query}`)}${bearer(where.token)}`
  }
  return
}

/** As one word of a shell. */
const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

const TOKEN = /eyJ[\w-]{6,}\.[\w-]+\.[\w-]*/g

/** No token stands on the screen in full. */
export function hideTokens(text: string): string {
  return text.replace(TOKEN, token => `${token.slice(0, 10)}…`)
}

/** A string of JSON, then the colon that makes it a name; or a number, true, false, null. */
const PARTS = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|true|false|null)/g

/** JSON, its names and values told apart; tokens shortened. */
export function drawJson(text: string): unknown[] {
  const shown = hideTokens(text)
  const drawn: unknown[] = []
  let at = 0
  for (const {0: whole, 1: string, 2: colon = '', 3: value, index} of shown.matchAll(PARTS)) {
    drawn.push(shown.slice(at, index), mark(string ?? value!, !!colon), colon)
    at = index + whole.length
  }
  drawn.push(shown.slice(at))
  return drawn
}

const mark = (text: string, isName: boolean): TemplateResult =>
  html`<span class=${isName ? 'k' : 'v'}>${text}</span>`

/** A message on the lines that it needs: short objects stay on one. */
export function pretty(value: unknown, indent = ''): string {
  const short = JSON.stringify(value)
  const isShort = short.length + indent.length <= WIDTH
  if (isShort || typeof value !== 'object' || value === null) return spaced(value)
  const inner = `${indent}  `
  if (Array.isArray(value)) return `[\n${value.map(each => inner + pretty(each, inner)).join(',\n')}\n${indent}]`
  const lines = Object.entries(value)
    .map(([name, each]) => `${inner}${JSON.stringify(name)}: ${pretty(each, inner)}`)
  return `{\n${lines.join(',\n')}\n${indent}}`
}

const WIDTH = 44

function spaced(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`
  const all = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${spaced(each)}`)
  return all.length ? `{ ${all.join(', ')} }` : '{}'
}

/** What `send` makes of it, for the preview. */
export const asMessage = (type: string, id: number, fields: Fields): Message => ({type, id, ...fields})
