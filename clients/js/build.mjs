// Builds what is served and what npm gets: dist/, and the same bundles into ../../pov_rt/web/static/client.
//   node build.mjs                  all of it
//   node build.mjs --served FOLDER  only what is served, into FOLDER
//   node build.mjs --dev FOLDER     only what the pages of the development server run, into FOLDER
//   node build.mjs --admin FOLDER   only what the page at the admin port runs, into FOLDER
//   node build.mjs --node FOLDER    only what servers in Node run, into FOLDER
// The same sources give the same bytes, whatever the machine and the folder.
import {spawnSync} from 'node:child_process'
import {mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync} from 'node:fs'
import {basename, dirname, join, resolve} from 'node:path'
import {fileURLToPath} from 'node:url'
import {build, transformSync} from 'esbuild'
import {minify} from 'terser'
import {every, join as joined} from './join.mjs'

export const root = dirname(fileURLToPath(import.meta.url))

function minified(path) {
  return transformSync(readFileSync(path, 'utf8'), {charset: 'utf8', loader: 'css', minify: true}).code.trim()
}

/** `import text from './x.css'`: a style sheet, minified; what it nests is left to browsers. */
const sheets = {
  name: 'sheets',
  setup({onLoad}) {
    onLoad({filter: /\.css$/}, ({path}) => ({contents: minified(path), loader: 'text'}))
  },
}

/** It is in what esbuild makes, and so a part of the files' names, for it has a part in what they are. */
const SHORTENER = `terser ${JSON.parse(readFileSync(join(root, 'node_modules/terser/package.json'), 'utf8')).version}`

/** Say the same in less: what esbuild made short becomes shorter by a 25th. Every byte of the first load is waited for. */
async function shorten(code, module) {
  return (await minify(code, {ecma: 2020, module})).code
}

export const options = {
  absWorkingDir: root,
  banner: {js: `// ${SHORTENER}`},
  bundle: true,
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
  minify: true,
  outdir: 'dist',
  preserveSymlinks: true, // the same paths, and so the same names, wherever node_modules really is
  plugins: [sheets],
  target: 'es2023',
  write: false,
}

/** What the elements need of Lit is lit-html: they have a base of their own (src/widgets/base.ts). */
const LIT = {lit: 'lit-html'}

/** Bundle as modules: the entry, and what is loaded when it is used, named by its contents. */
export const modules = {
  ...options,
  alias: LIT,
  chunkNames: '[name]-[hash]',
  format: 'esm',
  outExtension: {'.js': '.mjs'},
  splitting: true,
}

/** Everything in one file, for a plain <script>. */
const script = {...options, format: 'iife', globalName: 'PovRT'}

/** The pages of the development server. What they have of the SDK they import from where it is served. */
const WIDGETS = '/client/pov-rt-widgets.mjs'
const pages = {...modules, alias: {}, external: [WIDGETS], splitting: false}

/** Bundle entries, each apart, for what two have would be a file of its own: one more to wait for. */
async function bundle(entries) {
  const built = await Promise.all(entries.map(([how, from, to]) => make(how, from, to)))
  // What is loaded later may be the same of several.
  return new Map(built.flatMap(each => [...each]))
}

/** Bundle an entry; return its files by name. */
export async function make(how, from, to) {
  const result = await build({...how, entryPoints: [{in: from, out: to}]})
  const shorter = code => shorten(code, how.format === 'esm')
  if (how.splitting) return joined(result, how, shorter)
  return every(new Map(result.outputFiles.map(each => [basename(each.path), each.text])), shorter)
}

const served = () => bundle([
  [modules, 'src/core.ts', 'pov-rt-core'], [modules, 'src/index.ts', 'pov-rt'],
  [modules, 'src/widgets/index.ts', 'pov-rt-widgets'], [script, 'src/index.ts', 'pov-rt'],
])

/** How all pages of the development server look: as the widgets do. */
const SHEETS = ['tokens', 'parts'].map(name => join(root, `src/widgets/${name}.css`))

async function dev() {
  const files = await bundle([
    [pages, 'src/console/main.ts', 'console'], [pages, 'src/demo/demo.ts', 'demo'], [pages, 'src/demo/board.ts', 'board'],
  ])
  return files.set('parts.css', SHEETS.map(minified).join('\n') + '\n')
}

/** The page at the admin port of every server. */
async function admin() {
  const files = await bundle([[pages, 'src/admin/main.ts', 'admin']])
  return files.set('parts.css', SHEETS.map(minified).join('\n') + '\n')
}

/** What servers in Node import; it is in the package, and served to nobody. */
const forNode = () => bundle([[{...modules, platform: 'node', splitting: false}, 'src/node/index.ts', 'pov-rt-node']])

async function main([option, folder, ...more]) {
  const made = {'--served': served, '--dev': dev, '--admin': admin, '--node': forNode}
  if (option in made && folder && !more.length) return write(await made[option](), resolve(folder))
  if (option) throw new Error('usage: node build.mjs [--served FOLDER | --dev FOLDER | --admin FOLDER | --node FOLDER]')
  const files = await served()
  write(new Map([...files, ...await forNode()]), join(root, 'dist'))
  for (const each of ['build', 'node']) run('node_modules/typescript/bin/tsc', '-p', `tsconfig.${each}.json`)
  run('manifest.mjs')
  run('types.mjs', 'dist/types')
  const folders = join(root, '../../pov_rt/web/static')
  write(files, join(folders, 'client'))
  write(await dev(), join(folders, 'dev'))
  write(await admin(), join(folders, 'admin'))
}

function run(...command) {
  const done = spawnSync(process.execPath, command, {cwd: root, stdio: 'inherit'})
  if (done.error) throw done.error
  if (done.status) process.exit(done.status)
}

/** Write files into a folder; bundles of before that have other names go. */
function write(files, folder) {
  mkdirSync(folder, {recursive: true})
  for (const name of readdirSync(folder)) if (/js$/.test(name)) rmSync(join(folder, name))
  for (const [name, text] of files) writeFileSync(join(folder, name), text)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2))
