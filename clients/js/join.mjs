// One file for what a page loads at first. A bundler that splits puts what the entry and a later part both need
// into files of their own: each one more to wait for, and apart they compress worse. Here they become one, from
// which the later parts import. All names that hang together have one hash, of all of their contents.
import {createHash} from 'node:crypto'
import {basename} from 'node:path'
import {build} from 'esbuild'

const LATER = /^(.*)-([0-9A-Z]{8})(\.mjs)$/
const IMPORT = /import(?:\{([^}]*)\}from)?"\.\/([^"]+)";?/g
const DYNAMIC = /import\("\.\/([^"]+)"\)/g

const hash = (...parts) => {
  const sum = createHash('sha256')
  for (const each of parts) sum.update(each)
  return BigInt(`0x${sum.digest('hex')}`).toString(36).toUpperCase().slice(-8)
}

/** Files by name, each made into another. */
export const every = async (files, make) =>
  new Map(await Promise.all([...files].map(async ([name, text]) => [name, await make(text)])))

/**
 * Join what a build of one entry loads at first. Returns its files, by name, as text. If there was something to
 * join, `NAME.mjs` is for pages and only names the other one, `NAME-HASH.mjs`. `shorten` is what each goes through.
 */
export async function join({outputFiles, metafile: {outputs}}, options, shorten) {
  const texts = new Map(outputFiles.map(each => [basename(each.path), each.text]))
  const imports = new Map(Object.entries(outputs).map(([path, each]) => [basename(path), each.imports]))
  const [entry, {exports}] = Object.entries(outputs).map(([path, each]) => [basename(path), each])
    .find(([name, each]) => each.entryPoint && !LATER.test(name))
  const needed = (name, kinds, found = new Set()) => {
    for (const {path, kind} of imports.get(name)) {
      const next = basename(path)
      if (kinds.includes(kind) && !found.has(next)) needed(next, kinds, found.add(next))
    }
    return found
  }
  const first = needed(entry, ['import-statement'])
  if (!first.size) return every(texts, shorten)
  const mark = hash(...[...texts].sort().flat())
  const stem = entry.replace(/\.mjs$/, '')
  const main = `${stem}-${mark}.mjs`
  // Whatever imports of these changes with them, and so do the names of what imports that.
  const touches = name => first.has(name) || [...needed(name, ['import-statement', 'dynamic-import'])].some(each => first.has(each))
  const names = new Map([...texts.keys()].filter(name => name !== entry && !first.has(name)).map(name => {
    const [, kind, old, ending] = LATER.exec(name)
    return [name, touches(name) ? `${kind}-${hash(old, mark)}${ending}` : name]
  }))
  const renamed = text => text.replace(DYNAMIC, (all, name) => names.has(name) ? `import("./${names.get(name)}")` : all)

  // What later parts import is exported under a name of its own.
  const shared = new Map()
  const share = (file, name) => {
    const key = `${file} ${name}`
    if (!shared.has(key)) shared.set(key, `$${shared.size}`)
    return shared.get(key)
  }
  const later = new Map()
  for (const [name, to] of names) {
    later.set(to, renamed(texts.get(name)).replace(IMPORT, (_all, list, file) => {
      if (!first.has(file)) return list === undefined ? `import"./${names.get(file)}";` : `import{${list}}from"./${names.get(file)}";`
      if (list === undefined) return ''
      const items = list.split(',').map(each => {
        const [given, , as = given] = each.split(' ')
        return `${share(file, given)} as ${as}`
      })
      return `import{${items}}from"./${main}";`
    }))
  }
  const lines = [...shared].map(([key, as]) => {
    const [file, name] = key.split(' ')
    return `export {${name} as ${as}} from './${file}'`
  })
  const {outputFiles: [joined]} = await build({
    ...options,
    splitting: false,
    plugins: [{
      name: 'parts',
      setup({onResolve, onLoad}) {
        onResolve({filter: /^\.\//}, ({path, kind}) => kind === 'dynamic-import'
          ? {path: `./${names.get(basename(path))}`, external: true} : {path: basename(path), namespace: 'parts'})
        onLoad({filter: /./, namespace: 'parts'}, ({path}) => ({contents: texts.get(path), loader: 'js', resolveDir: '/'}))
      },
    }],
    stdin: {contents: [`export {${exports}} from './${entry}'`, ...lines].join('\n'), resolveDir: '/'},
  })
  // The joined file's own short names do as well, but for what pages import.
  const own = new Map()
  const shortened = await shorten(joined.text)
  const text = shortened.replace(/export\{([^}]*)\};?\s*$/, (_all, list) => `export{${list.split(',').map(each => {
    const [given, , as = given] = each.split(' ')
    if (exports.includes(as)) return each
    own.set(as, given)
    return given
  })}};`)
  const owned = list => list.split(',').map(each => each.replace(/^\$\d+/, as => own.get(as)))
  const parts = await every(later, part => shorten(part.replace(
    /import\{([^}]*)\}from"\.\/([^"]+)"/g,
    (all, list, file) => file === main ? `import{${owned(list)}}from"./${main}"` : all)))
  return new Map([[entry, `export{${exports}}from"./${main}";\n`], [main, text], ...parts])
}
