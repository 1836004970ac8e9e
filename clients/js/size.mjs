// Says how large the bundle's parts are, and ends with 1 if one is above its budget: node size.mjs
import {basename} from 'node:path'
import {gzipSync} from 'node:zlib'
import {build} from 'esbuild'
import {modules} from './build.mjs'

const CORE = 6144
const FEED = 8192 // beside the core, for who wants the store
const CHUNK = 2560 // each of what is loaded when it is used
const WIDGETS = 25_600 // both elements with Lit and the SDK, until rows are shown
const LATER = 20_480 // each of what the elements load when there is something to show

/** Bundle a file of src; return what it needs at once, and by name what each part needs that is loaded later. */
async function sizesOf(source) {
  const {outputFiles, metafile: {outputs}} = await build({...modules, entryPoints: [source]})
  const sizes = new Map(
    outputFiles.map(file => [`dist/${basename(file.path)}`, gzipSync(file.contents, {level: 9}).length]))
  const needed = (path, found = new Set()) => {
    if (found.has(path)) return found
    found.add(path)
    for (const each of outputs[path].imports) if (each.kind === 'import-statement') needed(each.path, found)
    return found
  }
  const sum = paths => paths.reduce((total, path) => total + sizes.get(path), 0)
  const entry = Object.keys(outputs).find(path => outputs[path].entryPoint === source)
  const first = needed(entry)
  const later = Object.keys(outputs)
    .filter(path => outputs[path].entryPoint && !first.has(path))
    .map(path => [basename(outputs[path].entryPoint, '.ts'), sum([...needed(path)].filter(each => !first.has(each)))])
  return {first: sum([...first]), later}
}

const core = await sizesOf('src/core.ts')
const all = await sizesOf('src/index.ts')
const widgets = await sizesOf('src/widgets/index.ts')
const known = new Set([...core.later, ...all.later].map(([name]) => name))
const rows = [
  ['core', core.first, CORE],
  ...core.later.sort().map(row => [...row, CHUNK]),
  ['feed', all.first - core.first, FEED],
  ['widgets', widgets.first, WIDGETS],
  ...widgets.later.filter(([name]) => !known.has(name)).sort().map(row => [...row, LATER]),
]
for (const [name, size, budget] of rows) {
  const words = size > budget ? `  ${size - budget} too many` : ''
  console.log(`${name.padEnd(10)} ${String(size).padStart(6)} of ${budget} bytes, gzipped${words}`)
}
process.exitCode = rows.some(([, size, budget]) => size > budget) ? 1 : 0
