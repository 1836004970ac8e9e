/** `<pov-team-activity>` and `<pov-activity-notification>`, with the SDK that they are made of. */
import {ActivityNotification} from './activity-notification.js'
import {TeamActivity} from './team-activity.js'

export * from '../index.js'
export type * from './api.js'
export type {Person, ResolvePeople} from './people.js'
export type {Sentence, Strings} from './text.js'
export {ActivityNotification, TeamActivity}

if (!customElements.get('pov-team-activity')) customElements.define('pov-team-activity', TeamActivity)
if (!customElements.get('pov-activity-notification')) customElements.define('pov-activity-notification', ActivityNotification)
