// Writes the tables of docs/clients.md anew, from the comments of src/api.ts: node reference.mjs
//   --stdout  print the page instead
// A table stands between `<!-- reference: NAME -->` and `<!-- end -->`. It is an error if an exported type has
// no table, a member no comment, or an error code that a source uses no entry.
import {readFileSync, readdirSync, writeFileSync} from 'node:fs'
import ts from 'typescript'

const folder = new URL('./src/', import.meta.url)
const page = new URL('../../docs/clients.md', import.meta.url)
/** What pages have nothing to do with. */
const INSIDE = ['Socket', 'Incoming', 'Line', 'LineEvents', 'Only', 'Outgoing']

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
const code = text => `\`${cell(text)}\``

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

const used = []
const text = readFileSync(page, 'utf8').replace(
  /(<!-- reference: (\w+) -->\n)[^]*?(<!-- end -->)/g, (_, begin, name, end) => {
    used.push(name)
    return `${begin}\n${tables[name]()}\n\n${end}`
  })
const unused = Object.keys(tables).filter(each => !used.includes(each))
const unlisted = [...types.keys()].filter(each => !(each in tables) && !INSIDE.includes(each))
if (unused.length + unlisted.length) throw new Error(`docs/clients.md has no table of ${[...unused, ...unlisted]}`)
if (process.argv[2] === '--stdout') process.stdout.write(text)
else writeFileSync(page, text)
