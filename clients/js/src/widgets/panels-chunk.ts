/** The panels as they are loaded: with all that is loaded already as one piece, which packs better than several. */
export {keyOf} from './team-activity.js'
export * from './panels/index.js'
