// Makes the custom-elements manifest of the tags, which editors and reference.mjs read, from their sources:
// what the JSDoc of the classes says, the tokens' values of the style sheets, the sentences of the words.
//   node manifest.mjs [FILE]  writes it to a file, dist/custom-elements.json if none is named
// It is an error if a source uses a part, slot, event, state or custom property that no comment tells, or a
// comment tells one that no source has.
import {mkdirSync, readFileSync, readdirSync, writeFileSync} from 'node:fs'
import {dirname, join, relative, resolve} from 'node:path'
import {fileURLToPath} from 'node:url'
import {create, ts} from '@custom-elements-manifest/analyzer/index.js'
import {litPlugin} from '@custom-elements-manifest/analyzer/src/features/framework-plugins/lit/lit.js'

const root = dirname(fileURLToPath(import.meta.url))
const folder = join(root, 'src/widgets')
const LISTS = ['attributes', 'members', 'events', 'slots', 'cssParts', 'cssProperties', 'cssStates']

const files = readdirSync(folder, {recursive: true}).sort().map(each => join(folder, each))
const sheets = new Map(files.filter(each => each.endsWith('.css')).map(each => [each, readFileSync(each, 'utf8')]))
const sources = new Map(files.filter(each => each.endsWith('.ts')).map(path => [path, ts.createSourceFile(
  relative(root, path), readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true)]))

function* nodesOf(node) {
  yield node
  const children = []
  ts.forEachChild(node, each => { children.push(each) })
  for (const each of children) yield* nodesOf(each)
}

const textOf = node => node && ts.isStringLiteralLike(node) ? node.text : undefined
const line = text => text?.replace(/\s+/g, ' ').trim()

/** The elements, each with the room that draws in it alone, though the other may ask something of it. */
const ROOMS = {'team-activity.ts': 'panels', 'activity-notification.ts': 'toasts'}
const isOf = (path, file) => relative(folder, path) === file || relative(folder, dirname(path)) === ROOMS[file]

/** What an element's file needs, now or later: itself, other sources, style sheets. */
function closureOf(path, of = path, found = new Set()) {
  const isAnothers = Object.keys(ROOMS).some(each => isOf(path, each) && !isOf(of, each))
  if (found.has(path) || isAnothers) return found
  found.add(path)
  for (const node of sources.has(path) ? nodesOf(sources.get(path)) : []) {
    const isType = ts.isImportDeclaration(node) && node.importClause?.isTypeOnly
    const from = (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && !isType && !node.isTypeOnly
      ? node.moduleSpecifier
      : ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword ? node.arguments[0] : undefined
    const target = from && textOf(from)?.startsWith('.') && join(dirname(path), from.text.replace(/\.js$/, '.ts'))
    if (sources.has(target) || sheets.has(target)) closureOf(target, of, found)
  }
  return found
}

/** What `states.add(NAME)` may add: the values of the property whose comment says that it is one of `:state()`. */
const STATES = [...sources.values()].flatMap(source => [...nodesOf(source)])
  .filter(node => ts.isPropertySignature(node) && node.jsDoc?.some(each => each.getText().includes('`:state(')))
  .flatMap(node => [...nodesOf(node.type)].map(textOf).filter(Boolean))

/** What calls give for a parameter of the function around it: `const draw = (part, ...) => html`...``. */
function givenFor(name) {
  for (let node = name; node; node = node.parent) {
    const at = node.parameters?.findIndex(each => each.name.getText() === name.getText()) ?? -1
    if (at < 0) continue
    const called = (node.name ?? node.parent.name)?.getText()
    return [...nodesOf(name.getSourceFile())]
      .filter(each => ts.isCallExpression(each) && each.expression.getText() === called)
      .flatMap(each => each.arguments[at] ?? [])
  }
  return []
}

/** What templates and calls in files say of themselves, by list of the manifest. */
function usedIn(paths) {
  const used = {events: new Set(), slots: new Set(), cssParts: new Set(), cssProperties: new Set(), cssStates: new Set()}
  const addTo = (list, text) => text.split(/\s+/).filter(Boolean).forEach(each => used[list].add(each))
  const properties = text => {
    for (const [, name] of text.matchAll(/var\(\s*(--pov-[\w-]+)/g)) used.cssProperties.add(name)
  }
  const strings = node => [...nodesOf(node)].map(textOf).filter(Boolean)
  for (const path of paths) {
    if (sheets.has(path)) {
      properties(sheets.get(path).replace(/\/\*[^]*?\*\//g, ''))
      continue
    }
    for (const node of nodesOf(sources.get(path))) {
      if (ts.isTaggedTemplateExpression(node)) {
        const {template} = node
        const values = template.templateSpans?.map(each => each.expression) ?? []
        const text = template.head
          ? template.head.text + template.templateSpans.map((each, i) => `\0${i}\0${each.literal.text}`).join('')
          : template.text
        properties(text)
        for (const [, quoted, bare] of text.matchAll(/\spart=(?:"([^"]*)"|([^\s>"]+))/g)) {
          addTo('cssParts', (quoted ?? bare).replace(/\0(\d+)\0/g, (_, i) => {
            const found = strings(values[i])
            const names = found.length ? found : givenFor(values[i]).flatMap(strings)
            // `part: 'row'` of an object is found where it is made.
            if (!names.length && !/\.part$/.test(values[i].getText())) {
              throw new Error(`${relative(root, path)}: which part is ${values[i].getText()}? Write its name there`)
            }
            return ` ${names.join(' ')} `
          }))
        }
        for (const [, attributes] of text.matchAll(/<slot([^>]*)>/g)) {
          used.slots.add(/\sname="?([\w-]+)/.exec(attributes)?.[1] ?? '')
        }
      } else if (ts.isStringLiteralLike(node)) {
        properties(node.text)
        if (/^--pov-[\w-]+$/.test(node.text)) used.cssProperties.add(node.text)
      } else if (ts.isPropertyAssignment(node) && node.name.getText() === 'part') {
        strings(node.initializer).forEach(each => addTo('cssParts', each))
      }
      if (!ts.isCallExpression(node) && !ts.isNewExpression(node)) continue
      const called = node.expression.getText()
      const [first, second] = node.arguments ?? []
      const name = first && textOf(first)
      if (name && /^pov-/.test(name) && (ts.isNewExpression(node) || /emit|fire|dispatch|tell/i.test(called))) {
        used.events.add(name)
      }
      if (/\bpart\.(add|toggle)$/.test(called)) node.arguments.flatMap(strings).forEach(each => addTo('cssParts', each))
      if (/setAttribute$/.test(called) && name === 'part') strings(second).forEach(each => addTo('cssParts', each))
      if (!/\bstates(\.add$|\[.*'add'.*\]$)/.test(called)) continue
      const states = strings(first)
      for (const each of states.length ? states : STATES) used.cssStates.add(each)
    }
  }
  return used
}

/** The tokens, which the comment of the base class tells: each has a value in a style sheet, and a use. */
function tokens(base) {
  const told = (base.cssProperties ?? []).map(plain)
  const set = [...sheets.values()].flatMap(text =>
    [...text.matchAll(/:host, :root \{([^}]*)\}/g)].flatMap(([, rules]) => [...rules.matchAll(/(--pov-[\w-]+):/g)]))
  // Pages of the development server have the tokens, too.
  const texts = readdirSync(join(root, 'src'), {recursive: true})
    .filter(each => /\.(css|ts)$/.test(each)).map(each => readFileSync(join(root, 'src', each), 'utf8')).join()
  compare('pov-*', 'tokens', told, new Set(set.map(each => each[1])))
  for (const each of told) {
    each.default = valueOf(each.name, sheets.keys())
    if (!new RegExp(`var\\(${each.name}\\b`).test(texts)) faults.push(`${each.name} is used nowhere`)
  }
  return told
}

/** Every sentence, by name: of `words = {...}`, and of `Object.assign(words, {...})` of what loads later. */
function sentences() {
  const found = new Map()
  const depth = ({fileName}) => fileName.split('/').length
  for (const source of [...sources.values()].sort((a, b) => depth(a) - depth(b))) {
    for (const node of nodesOf(source)) {
      const object = ts.isVariableDeclaration(node) && node.name.getText() === 'words' ? node.initializer
        : ts.isCallExpression(node) && /^Object\.assign\(words,/.test(node.getText()) ? node.arguments[1]
          : undefined
      if (!object || !ts.isObjectLiteralExpression(object)) continue
      for (const {name, initializer} of object.properties) {
        const key = name.text
        const forms = ts.isObjectLiteralExpression(initializer)
          ? Object.fromEntries(initializer.properties.map(each => [each.name.text, textOf(each.initializer)]))
          : textOf(initializer)
        if (found.has(key) && JSON.stringify(found.get(key)) !== JSON.stringify(forms)) throw new Error(`${source.fileName}: ${key} is a name of two sentences`)
        found.set(key, forms)
      }
    }
  }
  return Object.fromEntries(found)
}

/** Fields that Lit watches for the class alone: `state: true`. */
function isInside(source, name) {
  return [...nodesOf(source)].some(node => ts.isPropertyAssignment(node) && node.name.getText() === name &&
    ts.isObjectLiteralExpression(node.initializer) &&
    node.initializer.properties.some(each => each.name?.getText() === 'state'))
}

/** An item as readers want it: no riddles of inheritance, its default where the text says it. */
function plain({inheritedFrom, privacy, attribute, reflects, ...item}) {
  const description = line(item.description)
  // Every property may be left out, and the analyzer says so behind its type.
  const type = item.type && {text: line(item.type.text).replace(/ \| undefined$/, '')}
  const value = item.default ?? /\bDefault: (?:[`"]([^`"]*)[`"]|(\d+))/.exec(description ?? '')?.slice(1).find(Boolean)
  return {...item, ...type && {type}, ...description && {description}, ...value !== undefined && {default: value}}
}

/** What does not fit, in words. */
const faults = []

function compare(tag, list, told, used) {
  const names = new Set(told.map(each => each.name))
  const untold = [...used].filter(each => !names.has(each))
  const unused = [...names].filter(each => !used.has(each))
  if (untold.length) faults.push(`<${tag}> has ${list} that its comment does not tell: ${untold.join(', ')}`)
  if (unused.length) faults.push(`<${tag}> tells ${list} that no source has: ${unused.join(', ')}`)
}

/** A member as its attribute says it, where the class tells of that; what is inherited is told once, for all. */
function told(member, attributes, types, base) {
  const inherited = base.get(member.name)
  if (inherited) return inherited
  const {fieldName, ...attribute} = attributes.find(each => each.fieldName === member.name) ?? {}
  const text = types.get(attribute.name)
  return {...member, ...attribute, name: member.name, type: text ? {text} : member.type}
}

/** What `@attr {TYPE} NAME` says; the analyzer takes the property's type. */
function attributeTypes(source, name) {
  const [declaration] = source.statements.filter(each => ts.isClassDeclaration(each) && each.name?.text === name)
  const text = declaration.jsDoc.map(each => each.getText()).join()
  return new Map([...text.matchAll(/@attr(?:ibute)? \{(.+?)\} ([\w-]+)/g)].map(([, type, attribute]) => [attribute, type]))
}

/** What a custom property is where nobody sets it, as the style sheets say. */
function valueOf(name, paths) {
  for (const path of paths) {
    const text = sheets.get(path) ?? sources.get(path).text
    const [, set, instead] = new RegExp(`${name}: *([^;}]+)|var\\(${name}, *([^()]+)\\)`).exec(text) ?? []
    if (set ?? instead) return (set ?? instead).trim()
  }
}

function element(declaration, path, ours, base) {
  const shared = new Set(ours.map(each => each.name))
  const {tagName} = declaration
  const source = sources.get(path)
  const types = attributeTypes(source, declaration.name)
  const made = {kind: 'class', customElement: true, tagName, name: declaration.name, description: line(declaration.description)}
  for (const list of LISTS) {
    made[list] = (declaration[list] ?? [])
      .filter(each => list !== 'members' || each.privacy === 'public' && !each.static && !isInside(source, each.name))
      .map(each => plain(list === 'members' ? told(each, declaration.attributes ?? [], types, base) : each))
  }
  // The analyzer takes what any CustomEvent is given for a name; `usedIn` finds those that have one.
  made.events = made.events.filter(each => each.description)
  const shown = new Map(made.members.map(each => [each.name, each]))
  made.attributes = made.attributes.filter(each => shown.has(each.fieldName)).map(({name, fieldName}) => {
    const {description, type, default: value} = shown.get(fieldName)
    return {name, fieldName, type, description, ...value !== undefined && {default: value}}
  })
  for (const {name, description, kind, type} of LISTS.flatMap(list => made[list])) {
    if (!description) faults.push(`<${tagName}>: ${name} has no comment`)
    if (kind === 'field' && !type) faults.push(`<${tagName}>: ${name} has no type`)
  }
  made.cssProperties = made.cssProperties.filter(each => !shared.has(each.name))
  const closure = closureOf(path)
  for (const each of made.cssProperties) {
    each.default ??= valueOf(each.name, closure)
    each.description = each.description?.replace(` (${each.default})`, '')
  }
  const used = usedIn(closure)
  for (const each of shared) used.cssProperties.delete(each)
  for (const list of Object.keys(used)) compare(tagName, list, made[list], used[list])
  made.cssProperties.push(...ours)
  return made
}

/** The manifest; throws where sources and comments do not fit. */
export function manifest() {
  const modules = [...sources.values()]
  const made = create({modules, plugins: litPlugin()})
  const all = made.modules.flatMap(({path, declarations}) => declarations.map(each => [each, join(root, path)]))
  const [[parent]] = all.filter(([each]) => each.name === 'PovElement')
  const base = new Map(parent.members.map(each => [each.name, each]))
  const ours = tokens(parent)
  const declarations = all.filter(([each]) => each.tagName).map(([each, path]) => element(each, path, ours, base))
  const path = 'dist/pov-rt-widgets.mjs'
  const exports = declarations.map(({tagName, name}) =>
    ({kind: 'custom-element-definition', name: tagName, declaration: {name, module: path}}))
  if (faults.length) throw new Error(`\n${faults.join('\n')}`)
  return {
    schemaVersion: made.schemaVersion,
    readme: '',
    modules: [{kind: 'javascript-module', path, declarations, exports}],
    strings: sentences(),
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = resolve(process.argv[2] ?? join(root, 'dist/custom-elements.json'))
  mkdirSync(dirname(file), {recursive: true})
  writeFileSync(file, `${JSON.stringify(manifest(), null, 2)}\n`)
}
