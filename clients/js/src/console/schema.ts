/** What the server says of its messages, as fields that a form can have. */

/** As much of JSON Schema as the server's documents use. */
export interface Schema {
  $ref?: string
  type?: string
  enum?: readonly unknown[]
  anyOf?: readonly Schema[]
  properties?: Readonly<Record<string, Schema>>
  required?: readonly string[]
  items?: Schema
  minLength?: number
  maxLength?: number
  minimum?: number
  exclusiveMinimum?: number
  maximum?: number
  minItems?: number
  maxItems?: number
  format?: string
  description?: string
  default?: unknown
}

/** As much of AsyncAPI. */
export interface Document {
  operations: Readonly<Record<string, {summary: string; reply?: unknown}>>
  components: {
    messages: Readonly<Record<string, {payload: Schema}>>
    schemas: Readonly<Record<string, Schema>>
  }
}

/** How a field is filled in. `group` has fields of its own, `union` is one of several, `json` is free. */
export type Kind = 'text' | 'number' | 'boolean' | 'choice' | 'list' | 'group' | 'union' | 'json'

/** A field of a message. */
export interface Field {
  /** From the message down, such as `data.povId`: unique in a form, and as the server's errors have it. */
  readonly path: string
  /** The last part of the path. */
  readonly name: string
  readonly kind: Kind
  readonly required: boolean
  readonly schema: Schema
  /** What may be in it, in words: "1 to 64 characters". */
  readonly help: string
  /** Of a `choice`: what can be chosen. */
  readonly options: readonly unknown[]
  /** Of a `group`: its fields. Of a `union`: its members, which have its path. */
  readonly fields: readonly Field[]
}

/** The types that a client may send, in the server's order. */
export function typesOf(document: Document): string[] {
  const received = Object.keys(document.operations).filter(name => name.startsWith('receive.'))
  return received.map(name => name.slice(8))
}

/** Whether the server answers a type. */
export function isAnswered(document: Document, type: string): boolean {
  return !!document.operations[`receive.${type}`]?.reply
}

/** The fields of a type, less `type` and `id`, which are not the reader's business. */
export function fieldsOf(document: Document, type: string): readonly Field[] {
  const payload = document.components.messages[type]?.payload
  if (!payload) return []
  return group(document, resolve(document, payload), '').filter(({path}) => path !== 'type' && path !== 'id')
}

/** All fields of these and inside them that have a value of their own. */
export function* leaves(fields: readonly Field[]): Generator<Field> {
  for (const each of fields) {
    if (each.kind === 'group') yield* leaves(each.fields)
    else {
      yield each
      if (each.kind === 'union') yield* leaves(each.fields.filter(({kind}) => kind === 'group'))
    }
  }
}

/** The field that an error's `field` means: `only.types[0]` is the field `only.types`. */
export function findField(fields: readonly Field[], path: string): Field | undefined {
  const all = [...leaves(fields)]
  for (let at = path; at; at = at.replace(/\.?[^.]*$/, '')) {
    const bare = at.replace(/\[\d+\]$/, '')
    const found = all.find(each => each.path === bare) ?? all.find(each => each.path.startsWith(`${bare}.`))
    if (found) return found
  }
  return
}

function resolve({components}: Document, schema: Schema): Schema {
  const name = schema.$ref?.split('/').at(-1)
  return name === undefined ? schema : {...components.schemas[name], ...{...schema, $ref: undefined}}
}

function group(document: Document, {properties = {}, required = []}: Schema, above: string): Field[] {
  return Object.entries(properties).map(([name, schema]) => {
    const path = above ? `${above}.${name}` : name
    return field(document, resolve(document, schema), name, path, required.includes(name))
  })
}

function field(document: Document, schema: Schema, name: string, path: string, required: boolean): Field {
  const {anyOf} = schema
  // `null` beside a type is Python's way to say that it may be absent.
  const members = anyOf?.map(each => resolve(document, each)).filter(each => each.type !== 'null') ?? []
  if (members.length === 1) {
    return field(document, {...members[0], default: schema.default}, name, path, required)
  }
  const fields = members.length ? members.map(each => field(document, each, name, path, true))
    : schema.properties ? group(document, schema, path) : []
  const kind = members.length ? 'union' : kindOf(document, schema)
  const help = kind === 'group' || kind === 'union' ? '' : helpOf(document, schema, kind)
  return {path, name, kind, required, schema, help, options: schema.enum ?? [], fields}
}

function kindOf(document: Document, {type, enum: values, items, properties}: Schema): Kind {
  if (values) return 'choice'
  if (type === 'string') return 'text'
  if (type === 'integer' || type === 'number') return 'number'
  if (type === 'boolean') return 'boolean'
  if (properties) return 'group'
  const inner = items && kindOf(document, resolve(document, items))
  return type === 'array' && (inner === 'text' || inner === 'number' || inner === 'choice') ? 'list' : 'json'
}

/** Numbers that JavaScript cannot go beyond are no bound that anybody meets. */
const isBound = (value: number | undefined): value is number =>
  value !== undefined && Math.abs(value) < Number.MAX_SAFE_INTEGER

/** A span in words: "1 to 64", "at least 1", "up to 64". */
function span(least: number | undefined, most: number | undefined): string {
  if (isBound(least) && isBound(most)) return least ? `${least} to ${most}` : `up to ${most}`
  return isBound(least) ? `${least} or more` : isBound(most) ? `up to ${most}` : ''
}

function helpOf(document: Document, schema: Schema, kind: Kind): string {
  const unit = (words: string, name: string) => words && `${words} ${name}`
  const found: string[] = []
  if (kind === 'text') {
    const isTime = schema.format === 'date-time'
    found.push(isTime ? 'a time, RFC 3339' : unit(span(schema.minLength, schema.maxLength), 'characters'))
  }
  if (kind === 'number') found.push(span(schema.minimum, schema.maximum))
  if (kind === 'list') {
    found.push(unit(span(schema.minItems, schema.maxItems), 'items'))
    const item = resolve(document, schema.items ?? {})
    if (item.enum) found.push(`of ${item.enum.join(', ')}`)
    else if (item.maxLength) found.push(`each ${helpOf(document, item, kindOf(document, item))}`)
  }
  if (kind === 'json') {
    const bytes = Number(/(\d+) bytes/.exec(schema.description ?? '')?.[1])
    const sort = {array: 'list', object: 'object'}[schema.type ?? ''] ?? 'value'
    const size = bytes % 1024 ? `${bytes} bytes` : `${bytes / 1024} KiB`
    found.push(`JSON ${sort}${bytes ? `, up to ${size}` : ''}`)
  }
  if (schema.default !== undefined && schema.default !== null) found.push(
    `${JSON.stringify(schema.default)} if not sent`,
  )
  return found.filter(Boolean).join(', ')
}
