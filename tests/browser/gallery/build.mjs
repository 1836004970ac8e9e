// Builds the gallery and all that it is served with into a folder: node build.mjs FOLDER
import {spawnSync} from 'node:child_process'
import {copyFileSync, mkdirSync} from 'node:fs'
import {dirname, join, resolve} from 'node:path'
import {fileURLToPath} from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const client = resolve(here, '../../../clients/js')
const modules = join(client, 'node_modules')
const {build} = await import(join(modules, 'esbuild/lib/main.js'))

const folder = resolve(process.argv[2])
mkdirSync(folder, {recursive: true})
for (const [from, to] of [
  [join(here, 'index.html'), 'index.html'],
  [join(here, 'gallery.css'), 'gallery.css'],
  [join(modules, 'axe-core/axe.min.js'), 'axe.min.js'],
  [join(modules, '@fontsource-variable/inter/files/inter-latin-wght-normal.woff2'), 'inter.woff2'],
]) copyFileSync(from, join(folder, to))
await build({
  entryPoints: [join(here, 'gallery.ts')],
  bundle: true,
  format: 'esm',
  splitting: true,
  target: 'es2023',
  outdir: folder,
  logLevel: 'warning',
  nodePaths: [modules],
  // That of the folder has paths to types.
  tsconfigRaw: {},
})
// What a page gets of the server.
const made = spawnSync(process.execPath, ['build.mjs', '--served', join(folder, 'client')], {cwd: client, stdio: 'inherit'})
process.exit(made.status ?? 1)
