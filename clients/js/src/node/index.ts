/** For servers in Node: a tracker for Express and Connect, and a publisher. Not for browsers. */
export {activityTracker} from './tracker.js'
export type {ActivityTracker, TrackedRequest, TrackedResponse, TrackerOptions} from './tracker.js'
export {createPublisher, PublishError} from './publisher.js'
export type {Publisher, PublisherOptions, Taken} from './publisher.js'
export {serviceToken} from './token.js'
export type {ServiceTokenOptions} from './token.js'
export type {Choice, Facts, Rule} from './rules.js'
export type {NewActivity} from '../wire.js'
