/** What a state is. */
import type {Scene} from './data.ts'
import type {Stage} from './stage.ts'

export interface State {
  /** With what it begins. */
  scene: Scene
  /** What happens then. */
  then?(stage: Stage): Promise<void>
  /** What has to be seen in the end; the words are part of the contract. */
  says: readonly string[]
  attributes?: Record<string, string>
  properties?: Record<string, unknown>
  /** Of the element. */
  style?: Record<string, string>
}
