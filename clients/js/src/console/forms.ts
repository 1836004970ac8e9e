/** What a form offers, what it makes of what was filled in, and how a message comes back into it. */
import type {Field, Schema} from './schema.js'

/** What stands in a field: text of all that is typed or chosen, the chips of a list. '' is not sent. */
export type Value = string | readonly string[]

/** What was filled in by hand, by path. What is absent is as it was offered. */
export type Filled = ReadonlyMap<string, Value>

/** What forms are filled from. */
export interface Known {
  /** The PoV that is followed. */
  readonly pov: string
  /** The last place seen of a PoV. */
  place(pov: string): {epoch: string; offset: number} | undefined
  /** A token that is newer than the one in use. */
  readonly token: string
  /** Who one is. */
  readonly user: string
  /** What is offered for this type beyond what follows from the schema. */
  readonly offers: Readonly<Record<string, Value>>
}

/** A field that has something in it which no message can have. */
export class Wrong extends Error {
  constructor(readonly path: string, message: string) {
    super(message)
  }
}

/** What stands in a field: filled in, or offered. */
export function valueIn(field: Field, filled: Filled, known: Known): Value {
  return filled.get(field.path) ?? offer(field, filled, known)
}

/** Make the message. Throws `Wrong` for the first field that cannot be sent. */
export function build(fields: readonly Field[], filled: Filled, known: Known): Record<string, unknown> {
  return collect(fields, filled, known) ?? {}
}

/** What would have to be filled in for this message: so that it can be sent again, or mended. */
export function fill(
  fields: readonly Field[], message: Readonly<Record<string, unknown>>,
): Map<string, Value> {
  const filled = new Map<string, Value>()
  for (const each of fields) put(each, message[each.name], filled)
  return filled
}

function collect(
  fields: readonly Field[], filled: Filled, known: Known,
): Record<string, unknown> | undefined {
  const found = fields.map(each => [each.name, make(each, filled, known)] as const)
    .filter(([, value]) => value !== undefined)
  return found.length ? Object.fromEntries(found) : undefined
}

function make(field: Field, filled: Filled, known: Known): unknown {
  if (field.kind === 'group') {
    const inside = collect(field.fields, filled, known)
    return field.required ? inside ?? {} : inside
  }
  const value = valueIn(field, filled, known)
  if (value === '') return
  if (typeof value !== 'string') {
    if (!value.length && !field.required) return
    return field.schema.items?.type?.match('integer|number') ? value.map(each => number(field, each)) : value
  }
  if (field.kind === 'number') return number(field, value)
  if (field.kind === 'boolean') return value === 'true'
  if (field.kind === 'choice') return field.options.find(each => String(each) === value)
  if (field.kind === 'json') return parse(field, value)
  if (field.kind === 'union') {
    const member = field.fields[Number(value)]
    if (member?.kind === 'choice') return member.options[0]
    if (member?.kind === 'group') return collect(member.fields, filled, known) ?? {}
    return member && make(member, filled, known)
  }
  return value
}

function number({path}: Field, text: string): number {
  const found = Number(text)
  if (!text.trim() || Number.isNaN(found)) throw new Wrong(path, 'This is no number.')
  return found
}

function parse({path, schema}: Field, text: string): unknown {
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch (error) {
    throw new Wrong(path, `This is no JSON: ${(error as Error).message}`)
  }
  const isObject = typeof found === 'object' && found !== null && !Array.isArray(found)
  if (schema.type === 'object' && !isObject) throw new Wrong(path, 'This is no JSON object: begin with {')
  if (schema.type === 'array' && !Array.isArray(found)) {
    throw new Wrong(path, 'This is no JSON list: begin with [')
  }
  return found
}

function put(field: Field, value: unknown, filled: Map<string, Value>): void {
  if (field.kind === 'group') {
    const inside = value as Record<string, unknown> | undefined
    for (const each of field.fields) put(each, inside?.[each.name], filled)
  } else if (value === undefined) {
    filled.set(field.path, field.kind === 'list' ? [] : '')
  } else if (field.kind === 'list') {
    filled.set(field.path, (value as unknown[]).map(String))
  } else if (field.kind === 'union') {
    const at = field.fields.findIndex(({kind, options}) =>
      kind === 'choice' ? options.includes(value) : kind === 'group' && typeof value === 'object')
    filled.set(field.path, String(Math.max(0, at)))
    if (field.fields[at]?.kind === 'group') put(field.fields[at], value, filled)
  } else {
    filled.set(field.path, field.kind === 'json' ? JSON.stringify(value, null, 1) : String(value))
  }
}

/** What is there before anything is filled in: enough for the server to take the message. */
function offer(field: Field, filled: Filled, known: Known): Value {
  const {path, name, kind, required} = field
  const own = known.offers[path]
  if (own !== undefined) return own
  const empty = kind === 'list' ? [] : ''
  if (name === 'povId' && (required || path === name)) return known.pov
  if (name === 'offset' || name === 'epoch') {
    return place(field, filled, known) ?? (required ? least(field.schema) : empty)
  }
  if (!required) return empty
  if (name === 'token') return known.token
  if (name === 'userId') return known.user
  if (kind === 'boolean') return 'true'
  if (kind === 'choice') return String(field.options[0] ?? '')
  if (kind === 'number') return least(field.schema)
  if (kind === 'list') {
    const {minItems, items = {}} = field.schema
    return minItems ? [name === 'povIds' ? known.pov : text(name, items)] : []
  }
  if (kind === 'union') return '0'
  if (kind === 'json') return field.schema.type === 'array' ? '[]' : '{}'
  return text(name, field.schema)
}

/** Of the PoV beside it, the last place seen; nothing where the place is said in another way. */
function place({path, name}: Field, filled: Filled, known: Known): string | undefined {
  const above = path.slice(0, -name.length)
  if (filled.get(`${above}last`)) return ''
  const pov = filled.get('povId') ?? known.pov
  const found = typeof pov === 'string' ? known.place(pov) : undefined
  return found && String(name === 'epoch' ? found.epoch : found.offset)
}

function least({minimum, exclusiveMinimum, maximum = 0, default: usual}: Schema): string {
  if (typeof usual === 'number') return String(usual)
  if (exclusiveMinimum !== undefined) return String(exclusiveMinimum + 1)
  if (minimum !== undefined && Math.abs(minimum) < Number.MAX_SAFE_INTEGER) return String(minimum)
  return String(Math.min(0, maximum))
}

/** Something that fits, and says what it stands for. */
function text(name: string, {minLength = 0, maxLength = 64, format, enum: values, type}: Schema): string {
  if (values) return String(values[0])
  if (type === 'integer' || type === 'number') return '0'
  if (format === 'date-time') return new Date(Date.now() + 3_600_000).toISOString()
  return name.padEnd(minLength, '.').slice(0, maxLength)
}
