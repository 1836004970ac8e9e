/** Follow what happens on PoVs, from a browser or Node: see docs/clients.md. */
export * from './core.js'
export {createFeed} from './feed.js'
