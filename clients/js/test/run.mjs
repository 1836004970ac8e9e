// Bundles test/*.test.ts into build/ and runs them with Node's own runner:
//   node test/run.mjs [words that a file's name has] [-- options of node, such as --test-name-pattern=x]
import {spawnSync} from 'node:child_process'
import {readdirSync, rmSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {build} from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const [words, more] = split(process.argv.slice(2))
const names = readdirSync(join(root, 'test'))
  .filter(name => name.endsWith('.test.ts') && words.every(word => name.includes(word)))
  .sort()
if (!names.length) {
  console.error(`no test/*.test.ts has ${words.join(' and ') || 'been written'}`)
  process.exit(1)
}
rmSync(join(root, 'build'), {recursive: true, force: true})
await build({
  absWorkingDir: root,
  entryPoints: names.map(name => `test/${name}`),
  outdir: 'build',
  outExtension: {'.js': '.mjs'},
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  packages: 'external',
  // What is loaded when it is used is loaded here, too, when it is used.
  splitting: true,
  sourcemap: 'inline',
  logLevel: 'warning',
})
const files = names.map(name => join('build', name.replace(/\.ts$/, '.mjs')))
const done = spawnSync(process.execPath, ['--enable-source-maps', '--test', '--test-reporter=spec', ...more, ...files], {
  cwd: root,
  stdio: 'inherit',
})
if (done.error) throw done.error
process.exit(done.status ?? 1)

function split(given) {
  const at = given.indexOf('--')
  return at < 0 ? [given, []] : [given.slice(0, at), given.slice(at + 1)]
}
