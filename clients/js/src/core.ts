/** The client without the store: for a page that draws what it subscribes to by itself. */
export {connect, PovError} from './client.js'
export type * from './api.js'
export type * as wire from './wire.js'
