// Builds what is served and what npm gets: dist/, and the same bundles into ../../pov_rt/web/static/client.
//   node build.mjs                  all of it
//   node build.mjs --served FOLDER  only what is served, into FOLDER
// The same sources give the same bytes, whatever the machine and the folder.
import {spawnSync} from 'node:child_process'
import {mkdirSync, rmSync, writeFileSync} from 'node:fs'
import {basename, dirname, join, resolve} from 'node:path'
import {fileURLToPath} from 'node:url'
import {build} from 'esbuild'

export const root = dirname(fileURLToPath(import.meta.url))

export const options = {
  absWorkingDir: root,
  bundle: true,
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
  minify: true,
  outdir: 'dist',
  target: 'es2023',
  write: false,
}

/** Bundle as modules: the entry, and what is loaded when it is used, named by its contents. */
export const modules = {
  ...options,
  chunkNames: '[name]-[hash]',
  format: 'esm',
  outExtension: {'.js': '.mjs'},
  splitting: true,
}

/** Everything in one file, for a plain <script>. */
const script = {...options, format: 'iife', globalName: 'PovRT'}

async function main(given) {
  const built = await Promise.all([
    // Apart, for what both have would be a file of its own: one more to wait for.
    [modules, 'src/core.ts', 'pov-rt-core'], [modules, 'src/index.ts', 'pov-rt'], [script, 'src/index.ts', 'pov-rt'],
  ].map(([how, from, to]) => build({...how, entryPoints: [{in: from, out: to}]})))
  // What is loaded later may be the same of both.
  const files = [...new Map(built.flatMap(each => each.outputFiles).map(each => [each.path, each])).values()]
  const served = join(root, '../../pov_rt/web/static/client')
  if (given[0] === '--served' && given[1]) return write(files, resolve(given[1]))
  if (given.length) throw new Error('usage: node build.mjs [--served FOLDER]')
  write(files, join(root, 'dist'))
  const compiler = join(root, 'node_modules/typescript/bin/tsc')
  const done = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], {cwd: root, stdio: 'inherit'})
  if (done.error) throw done.error
  if (done.status) process.exit(done.status)
  write(files, served)
}

function write(files, folder) {
  rmSync(folder, {recursive: true, force: true}) // chunks of before have other names
  mkdirSync(folder, {recursive: true})
  for (const file of files) writeFileSync(join(folder, basename(file.path)), file.contents)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2))
