// Writes the tables of docs/clients.md anew, from the comments of src/api.ts, and those of docs/widgets.md, from
// the manifest (manifest.mjs): node reference.mjs
//   --check  write nothing, and fail if there is something to write
// A table stands between `<!-- reference: NAME -->` and `<!-- end -->`. It is an error if an exported type has
// no table, a member no comment, an error code that a source uses no entry, or what a tag has no table.
import {readFileSync, readdirSync, writeFileSync} from 'node:fs'
import ts from 'typescript'
import {manifest} from './manifest.mjs'

const folder = new URL('./src/', import.meta.url)
/** What pages have nothing to do with, and what the text shows how to use. */
const INSIDE = ['Activity', 'ActivityDetails', 'NewActivity', 'Socket', 'Incoming', 'Line', 'LineEvents', 'Only', 'Outgoing']

const parse = name => ts.createSourceFile(
  name, readFileSync(new URL(name, folder), 'utf8'), ts.ScriptTarget.Latest, true)

const api = parse('api.ts')
const types = new Map(api.statements
  .filter(each => ts.isInterfaceDeclaration(each) || ts.isTypeAliasDeclaration(each))
  .map(each => [each.name.text, each]))

function commentOf(node) {
  const text = node.jsDoc?.map(each => ts.getTextOfJSDocComment(each.comment)).at(-1)
  if (!text) throw new Error(`src/api.ts: ${node.name?.text ?? node.getText()} has no comment`)
  return text
}

const cell = text => text.replace(/\s+/g, ' ').replaceAll('|', '\\|').trim()
const code = text => text && `\`${cell(text)}\``

function rows(headings, lines) {
  const [first, ...others] = [headings, ...lines].map(each => `| ${each.join(' | ')} |`)
  return [first, `|${'---|'.repeat(headings.length)}`, ...others].join('\n')
}

/** The items of a comment, `- \`name\`: what it is. Do: what to do.`, by name. */
function itemsOf(node, word) {
  const items = [...commentOf(node).matchAll(/^- `([^`]+)`: (.*(?:\n .*)*)/gm)]
  return new Map(items.map(([, name, text]) => {
    const [what, toDo, ...more] = cell(text).split(` ${word}: `)
    if (!toDo || more.length) throw new Error(`src/api.ts: ${name} does not say once what to ${word}`)
    return [name, [what, toDo[0].toUpperCase() + toDo.slice(1)]]
  }))
}

function literalsOf({type}) {
  return (ts.isUnionTypeNode(type) ? type.types : [type]).map(each => each.literal.text)
}

function compare(name, listed, expected) {
  const left = [...expected].filter(each => !listed.has(each))
  const unknown = [...listed.keys()].filter(each => !expected.has(each))
  if (left.length + unknown.length) throw new Error(`src/api.ts: ${name} lacks ${left}, and has ${unknown} too many`)
}

function union(name, heading, word) {
  const items = itemsOf(types.get(name), word)
  compare(name, items, new Set(literalsOf(types.get(name))))
  return rows(heading, [...items].map(([each, texts]) => [code(each), ...texts]))
}

/** All codes that the server's errors have, or ours. */
function codes() {
  const found = new Set()
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.ts')) continue
    const source = parse(name)
    const visit = node => {
      if (ts.isTypeAliasDeclaration(node) && node.name.text === 'ErrorCode') literalsOf(node).forEach(each => found.add(each))
      const given =
        ts.isPropertyAssignment(node) && node.name.getText() === 'code' ? node.initializer
          : ts.isCallExpression(node) && node.expression.getText() === 'fail' ? node.arguments[1]
            : undefined
      if (given && ts.isStringLiteral(given) && given.text) found.add(given.text)
      ts.forEachChild(node, visit)
    }
    visit(source)
  }
  return found
}

/** What a member is, as one writes it. */
function typeOf(member) {
  if (ts.isPropertySignature(member)) return member.type.getText()
  const parameters = member.parameters.map(each => each.getText()).join(', ')
  return `(${parameters}) => ${member.type.getText()}`
}

function members(name) {
  const headings = name.endsWith('Events') ? ['event', 'value', 'meaning'] : ['name', 'type', 'meaning']
  const lines = types.get(name).members
    .map(each => [each.name.text + (each.questionToken ? '?' : ''), typeOf(each), each])
    // Of overloads the first one has the comment.
    .filter(([title], index, all) => all.findIndex(([other]) => other === title) === index)
    .map(([title, type, each]) => [code(title), code(type), cell(commentOf(each))])
  return rows(headings, lines)
}

const tables = {
  State: () => union('State', ['state', 'meaning', 'what to show'], 'Show'),
  Reason: () => union('Reason', ['reason', 'meaning', 'what to do'], 'Do'),
  errors: () => {
    const items = itemsOf(types.get('Failure'), 'Do')
    compare('Failure', items, codes())
    return rows(['code', 'meaning', 'what to do'], [...items].map(([each, texts]) => [code(each), ...texts]))
  },
}
for (const [name, node] of types) {
  if (ts.isInterfaceDeclaration(node) && !INSIDE.includes(name)) tables[name] = () => members(name)
}


/** A value, or one for light and one for dark. */
const lightAndDark = value => /^light-dark\((\S+), (\S+)\)$/.exec(value)?.slice(1)

/** What a tag has, by kind: a table of some of its items. An attribute stands with its property. */
const kinds = {
  properties: ({members, attributes}, items) => rows(['attribute', 'property', 'type', 'meaning'], items(members)
    .filter(each => each.kind === 'field')
    .map(({name, type, description}) => {
      const attribute = attributes.find(each => each.fieldName === name)
      return [attribute ? code(attribute.name) : '', code(name), code(type.text), cell(description)]
    })),
  methods: ({members}, items) => rows(['method', 'meaning'], items(members)
    .filter(each => each.kind === 'method')
    .map(({name, parameters = [], description}) =>
      [code(`${name}(${parameters.map(each => each.name).join(', ')})`), cell(description)])),
  events: ({events}, items) => rows(['event', 'type', 'when'], items(events)
    .map(({name, type, description}) => [code(name), code(type.text), cell(description)])),
  slots: ({slots}, items) => rows(['slot', 'meaning'], items(slots)
    .map(({name, description}) => [name ? code(name) : 'without a name', cell(description)])),
  parts: ({cssParts}, items) => rows(['part', 'meaning'], items(cssParts)
    .map(({name, description}) => [code(name), cell(description)])),
  colours: ({cssProperties}, items) => rows(['custom property', 'light', 'dark', 'for'], items(cssProperties)
    .filter(each => lightAndDark(each.default))
    .map(({name, description, default: value}) => [code(name), ...lightAndDark(value).map(code), cell(description)])),
  sizes: ({cssProperties}, items) => rows(['custom property', 'default', 'for'], items(cssProperties)
    .filter(each => !lightAndDark(each.default))
    .map(({name, description, default: value}) => [code(name), code(value ?? ''), cell(description)])),
  states: ({cssStates}, items) => rows(['state', 'while'], items(cssStates)
    .map(({name, description}) => [code(`:state(${name})`), cell(description)])),
}

const none = () => 'None.'

/** What is told once for all tags, in `both-KIND`; `TAG-KIND` is then what only this one has. */
const SHARED = ['properties', 'methods', 'colours', 'sizes']

/** The tables of docs/widgets.md. One that would be empty need not be there, and says so if it is. */
function widgetTables() {
  const {modules: [{declarations}], strings} = manifest()
  const made = {}
  const add = (name, table) => {
    made[name] = table.split('\n').length > 2 ? () => table : none
  }
  const same = (item, other) => JSON.stringify(item) === JSON.stringify(other)
  const isShared = (kind, list) => item =>
    SHARED.includes(kind) && declarations.every(each => each[list].some(other => same(item, other)))
  const listOf = items => Object.keys(declarations[0]).find(each => declarations.some(one => one[each] === items))
  for (const [kind, table] of Object.entries(kinds)) {
    add(`both-${kind}`, table(declarations[0], items => items.filter(isShared(kind, listOf(items)))))
    for (const each of declarations) {
      add(`${each.tagName}-${kind}`, table(each, items => {
        const shared = isShared(kind, listOf(items))
        return items.filter(item => !shared(item))
      }))
    }
  }
  add('strings', rows(['name', 'sentence'], Object.entries(strings).map(([name, forms]) => {
    const alike = typeof forms === 'string' || new Set(Object.values(forms)).size === 1
    const said = alike ? [typeof forms === 'string' ? forms : forms.other]
      : Object.entries(forms).map(([form, text]) => `${form}: ${text}`)
    return [code(name), said.map(code).join('<br>')]
  })))
  return made
}

/** Fill a page's tables; all that there are have to stand there. */
function fill(name, known) {
  const page = new URL(`../../docs/${name}.md`, import.meta.url)
  const before = readFileSync(page, 'utf8')
  const used = []
  const after = before.replace(/(<!-- reference: ([\w-]+) -->\n)[^]*?(<!-- end -->)/g, (_, begin, table, end) => {
    if (!known[table]) throw new Error(`docs/${name}.md wants a table of ${table}, and there is none`)
    used.push(table)
    return `${begin}\n${known[table]()}\n\n${end}`
  })
  const unused = Object.keys(known).filter(each => !used.includes(each) && known[each] !== none)
  if (unused.length) throw new Error(`docs/${name}.md has no table of ${unused}`)
  if (before === after) return
  if (process.argv[2] === '--check') throw new Error(`docs/${name}.md is old: run \`node clients/js/reference.mjs\``)
  writeFileSync(page, after)
}

const unlisted = [...types.keys()].filter(each => !(each in tables) && !INSIDE.includes(each))
if (unlisted.length) throw new Error(`docs/clients.md has no table of ${unlisted}`)
fill('clients', tables)
fill('widgets', widgetTables())
