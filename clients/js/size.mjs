// Says how large the bundle's parts are, and ends with 1 if one is above its budget: node size.mjs
import {gzipSync} from 'node:zlib'
import {make, modules} from './build.mjs'

const CORE = 6144
const FEED = 8192 // beside the core, for who wants the store
const CHUNK = 2560 // each of what is loaded when it is used
const WIDGETS = 25_792 // both elements with Lit and the SDK, until rows are shown: 25 KB, 128 bytes for rows that change, 64 for ways without a WebSocket
const LATER = 20_480 // each of what the elements load when there is something to show

const zipped = text => gzipSync(text, {level: 9}).length
const FIRST = /(?:from|import)"\.\/([^"]+)"/g
const ASKED = /import\("\.\/([^"]+)"\)/g

/** Bundle a file of src; return what it needs at once, and by name what each part needs that is loaded later. */
async function sizesOf(source, name) {
  const files = await make(modules, source, name)
  const needed = (file, found = new Set()) => {
    if (found.has(file)) return found
    found.add(file)
    for (const [, next] of files.get(file).matchAll(FIRST)) needed(next, found)
    return found
  }
  const sum = names => names.reduce((total, each) => total + zipped(files.get(each)), 0)
  const first = needed(`${name}.mjs`)
  const asked = new Set([...files.values()].flatMap(text => [...text.matchAll(ASKED)].map(([, file]) => file)))
  const later = [...asked].filter(file => !first.has(file))
    .map(file => [file.replace(/-[0-9A-Z]{8}\.mjs$/, ''), sum([...needed(file)].filter(each => !first.has(each)))])
  return {first: sum([...first]), later}
}

const core = await sizesOf('src/core.ts', 'pov-rt-core')
const all = await sizesOf('src/index.ts', 'pov-rt')
const widgets = await sizesOf('src/widgets/index.ts', 'pov-rt-widgets')
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
