/** Follow what happens on PoVs, from a browser or Node: see docs/clients.md. */
export {connect, PovError} from './client.js'
export {createFeed} from './feed.js'
export type * from './api.js'
export type * as wire from './wire.js'
