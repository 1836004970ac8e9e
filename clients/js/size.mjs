// Says how large the bundle's parts are, and ends with 1 if one is above its budget: node size.mjs
import {basename} from 'node:path'
import {gzipSync} from 'node:zlib'
import {build} from 'esbuild'
import {modules, options} from './build.mjs'

const CORE = 6144
const FEED = 4096
const CHUNK = 2560 // each of what is loaded when it is used

const gzipped = contents => gzipSync(contents, {level: 9}).length

/** Leaves out what `isOut` says, by the path of a file in src. */
const without = isOut => ({
  name: 'without',
  setup: ({onResolve}) => {
    onResolve({filter: /^\.\.?\//}, ({path, kind}) =>
      kind !== 'entry-point' && isOut(`src/${basename(path, '.js')}.ts`) ? {path, external: true} : undefined)
  },
})

const isFeed = path => path === 'src/feed.ts'
const core = await build({...modules, entryPoints: ['src/index.ts'], plugins: [without(isFeed)]})
const outputs = core.metafile.outputs
const sizes = new Map(
  core.outputFiles.map(file => [`dist/${basename(file.path)}`, gzipped(file.contents)]))

/** What a file needs at once: itself, and what it imports and so on. */
function needed(path, found = new Set()) {
  if (found.has(path)) return found
  found.add(path)
  for (const each of outputs[path].imports) {
    if (each.kind === 'import-statement' && !each.external) needed(each.path, found)
  }
  return found
}

const [entry] = Object.keys(outputs).filter(path => outputs[path].entryPoint === 'src/index.ts')
const first = needed(entry)
const sum = paths => [...paths].reduce((total, path) => total + sizes.get(path), 0)
const rows = [['core', sum(first), CORE]]
for (const path of Object.keys(outputs).sort()) {
  const source = outputs[path].entryPoint
  if (!source || first.has(path)) continue
  rows.push([basename(source, '.ts'), sum([...needed(path)].filter(each => !first.has(each))), CHUNK])
}

// The feed stands beside the core, and what both need is counted there.
const shared = new Set([...first].flatMap(path => Object.keys(outputs[path].inputs)))
const feed = await build({
  ...options, format: 'esm', entryPoints: ['src/feed.ts'], plugins: [without(path => shared.has(path))],
})
rows.push(['feed', gzipped(feed.outputFiles[0].contents), FEED])

for (const [name, size, budget] of rows) {
  const words = size > budget ? `  ${size - budget} too many` : ''
  console.log(`${name.padEnd(10)} ${String(size).padStart(6)} of ${budget} bytes, gzipped${words}`)
}
process.exitCode = rows.some(([, size, budget]) => size > budget) ? 1 : 0
