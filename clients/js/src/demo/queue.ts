/** What a board has changed and its app does not know yet: it waits here while there is no network. */
import type {BoardState, Task} from './shared.js'

/** A change, as a request that may be sent twice. */
export interface Change {
  /** What it changes: a later one of the same key takes its place. */
  readonly key: string
  readonly method: 'PUT' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  /** The PoV, and the task or else the phase that it is about. */
  readonly povId: string
  readonly task?: Task
  readonly phase?: number
}

/** What a queue needs of its page. */
export interface QueueOptions {
  /** Sends one; rejects where there is no network. */
  send(change: Change): Promise<Response>
  /** Under which name it survives a reload. */
  name: string
  /** Something waits, or waits no more. */
  changed(): void
  /** One was done; it waits until this is. */
  done(): Promise<void>
  /** One was refused, and is forgotten; in the words of the app. */
  refused(why: string): void
}

/** Changes that wait, in order. */
export interface Queue {
  readonly waiting: readonly Change[]
  add(change: Change): void
  /** Send all, as far as that is possible now. */
  flush(): Promise<void>
}

/** An app that is not there is asked again after this many ms. */
const AGAIN = 1_000

/** Make one, with what a reload left. */
export function makeQueue({send, name, changed, done, refused}: QueueOptions): Queue {
  let waiting = read(name)
  let sending: Change | undefined
  let timer: ReturnType<typeof setTimeout> | undefined

  function keep(next: readonly Change[]): void {
    waiting = next
    write(name, waiting)
    changed()
  }

  async function flush(): Promise<void> {
    clearTimeout(timer)
    if (sending) return
    while ((sending = waiting[0])) {
      const change = sending
      try {
        const answer = await send(change)
        if (answer.status >= 500) throw new Error(`the app answers ${answer.status}`)
        if (!answer.ok) refused((await answer.json() as {error: string}).error)
        await done()
      } catch {
        // It may have been done all the same: then it changes nothing when it is sent again.
        sending = undefined
        timer = setTimeout(() => void flush(), AGAIN)
        return
      }
      keep(waiting.filter(each => each !== change))
    }
  }

  return {
    get waiting() {
      return waiting
    },
    add(change) {
      keep([...waiting.filter(each => each.key !== change.key || each === sending), change])
      void flush()
    },
    flush,
  }
}

/** Of this tab: what another one changed waits there. */
function read(name: string): readonly Change[] {
  try {
    return JSON.parse(sessionStorage.getItem(name) ?? '[]') as Change[]
  } catch {
    return [] // the browser lets no page store anything
  }
}

function write(name: string, waiting: readonly Change[]): void {
  try {
    sessionStorage.setItem(name, JSON.stringify(waiting))
  } catch {
    // Then it waits until a reload.
  }
}

/** The board as it will be when all that waits is done. */
export function withChanges(board: BoardState, waiting: readonly Change[]): BoardState {
  const povs = board.povs.map(pov => {
    let {phase, tasks} = pov
    for (const change of waiting) {
      if (change.povId !== pov.id) continue
      phase = change.phase ?? phase
      const {task} = change
      if (!task) continue
      const isThere = tasks.some(each => each.id === task.id)
      tasks = isThere ? tasks.map(each => each.id === task.id ? task : each) : [...tasks, task]
    }
    return {...pov, phase, tasks}
  })
  return {...board, povs}
}
