// Writes what programs see of the tags, from the manifest: interfaces without Lit, the names of the tags for
// `document.querySelector`, JSX of React, templates of Vue.
//   node types.mjs FOLDER  where `index.d.ts` of the SDK is: dist/types
import {readFileSync, readdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import ts from 'typescript'
import {manifest} from './manifest.mjs'

const [, , folder] = process.argv
const sources = new URL('./src/widgets/', import.meta.url)

function declarationsOf(name) {
  const source = ts.createSourceFile(name, readFileSync(new URL(name, sources), 'utf8'), ts.ScriptTarget.Latest, true)
  return source.statements.filter(each => ts.isInterfaceDeclaration(each) || ts.isTypeAliasDeclaration(each))
}

const named = nodes => new Map(nodes.map(each => [each.name.text, each]))
const sdk = named(declarationsOf('../api.ts'))
const wire = named(declarationsOf('../wire.ts'))
const ours = named(readdirSync(sources).filter(each => each.endsWith('.ts')).flatMap(declarationsOf))

const {modules: [{declarations: tags}]} = manifest()
const fieldsOf = ({members}) => members.filter(each => each.kind === 'field' && !each.readonly)
const comment = (text, indent = '  ') => `${indent}/** ${text.replaceAll('*/', '*\\/')} */\n`

/** Properties that have names of attributes, too. */
const attributesOf = ({attributes, members}) => attributes
  .filter(each => each.name !== each.fieldName)
  .map(({name, fieldName, description}) => {
    const {text} = members.find(each => each.name === fieldName).type
    return `${comment(description)}  '${name}'?: ${text}\n`
  })

const parametersOf = ({parameters = []}) =>
  parameters.map(({name, optional, type}) => `${name}${optional ? '?' : ''}: ${type.text}`).join(', ')

function interfacesOf(tag) {
  const {name, description, members, events} = tag
  const methods = members.filter(each => each.kind === 'method').map(each =>
    `${comment(each.description)}  ${each.name}(${parametersOf(each)}): ${each.return.type.text}\n`)
  const fixed = members.filter(each => each.kind === 'field' && each.readonly).map(each =>
    `${comment(each.description)}  readonly ${each.name}: ${each.type.text}\n`)
  const listen = each =>
    `  ${each}<K extends keyof ${name}Events>(\n` +
    `    type: K, listener: (this: ${name}, event: ${name}Events[K]) => void, options?: boolean | AddEventListenerOptions): void\n` +
    `  ${each}(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void\n`
  return `${comment(`What can be set of \`<${tag.tagName}>\`.`, '')}export interface ${name}Properties {\n` +
    fieldsOf(tag).map(each => `${comment(each.description)}  ${each.name}?: ${each.type.text}\n`).join('') + '}\n\n' +
    `export interface ${name}Events extends HTMLElementEventMap {\n` +
    events.map(each => `${comment(each.description)}  '${each.name}': ${each.type.text}\n`).join('') + '}\n\n' +
    `${comment(description, '')}export interface ${name} extends HTMLElement, ${name}Properties {\n` +
    [...fixed, ...methods, listen('addEventListener'), listen('removeEventListener')].join('') + '}\n'
}

/** What a text names of ours, with what that names, and of the SDK's and the wire's. */
function namedIn(text, found = {ours: new Map(), sdk: new Set(), wire: new Set()}) {
  for (const [name] of text.replace(/\/\*\*[^]*?\*\//g, '').matchAll(/(?<![.\w])[A-Z]\w*/g)) {
    if (ours.has(name) && !found.ours.has(name)) {
      found.ours.set(name, ours.get(name).getFullText().trim())
      namedIn(ours.get(name).getText(), found)
    } else if (sdk.has(name)) found.sdk.add(name)
    else if (wire.has(name)) found.wire.add(name)
  }
  return found
}

const interfaces = tags.map(interfacesOf).join('\n')
const used = namedIn(interfaces)
write('widgets.d.ts', `import type {${[...used.sdk].sort().join(', ')}, wire} from './index.js'

export * from './index.js'

${[...used.wire].map(each => `type ${each} = wire.${each}\n`).join('')}
${[...used.ours.values()].join('\n\n')}

${interfaces}
declare global {
  interface HTMLElementTagNameMap {
${tags.map(each => `    '${each.tagName}': ${each.name}`).join('\n')}
  }
}
`)

/** What of it a text names. */
function importsOf(text) {
  const all = [...used.sdk, ...used.ours.keys(), ...tags.flatMap(({name}) => [name, `${name}Events`, `${name}Properties`])]
  return `import type {${all.filter(each => new RegExp(`\\b${each}\\b`).test(text)).join(', ')}} from './widgets.js'\n`
}

/** The tags for a framework, which listens to events by attributes that are called so. */
const elements = (word, eventName, more) => tags.map(tag => {
  const events = tag.events.map(({name, description}) =>
    `${comment(description)}  ${eventName(name)}?: (event: ${tag.name}Events['${name}']) => void\n`)
  return `export interface ${tag.name}${word} extends ${tag.name}Properties${more(tag.name)} {\n` +
    [...attributesOf(tag), ...events].join('') + '}\n'
}).join('\n')

const forReact = elements('Attributes', name => `'on${name}'`,
  name => `, Omit<HTMLAttributes<${name}>, keyof ${name}Properties>, RefAttributes<${name}>`)
write('react.d.ts', `${importsOf(forReact)}import type {HTMLAttributes, RefAttributes} from 'react'

${forReact}
declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
${tags.map(each => `      '${each.tagName}': ${each.name}Attributes`).join('\n')}
    }
  }
}
`)

const camel = name => `on-${name}`.replace(/-(\w)/g, (_, letter) => letter.toUpperCase())
const forVue = elements('Props', camel, name => `, Omit<HTMLAttributes, keyof ${name}Properties>`)
write('vue.d.ts', `${importsOf(forVue)}import type {HTMLAttributes, PublicProps} from 'vue'

${forVue}
declare module 'vue' {
  interface GlobalComponents {
${tags.map(each => `    '${each.tagName}': new () => {$props: ${each.name}Props & PublicProps}`).join('\n')}
  }
}
`)

function write(name, text) {
  writeFileSync(join(folder, name), text)
}
