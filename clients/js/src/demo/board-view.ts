/** The board as it is drawn: phases, tasks, and what is said about one of them. */
import {html, nothing, type TemplateResult} from 'lit'
import {live} from 'lit/directives/live.js'
import type {Pov, Task} from './shared.js'
import {clock, givenName, type Page} from './page.js'
import {icon} from '../widgets/icons.js'
import {avatar, nameOf} from '../widgets/people.js'

/** Something that somebody said; `waits` where the log does not have it yet. */
export interface Comment {
  readonly id: string
  readonly who: string
  readonly text: string
  /** ms since 1970. */
  readonly at: number
  readonly waits?: string
}

/** All that the view shows, and what is done with it. */
export interface View extends Page {
  readonly user: string
  readonly povs: readonly Pov[]
  readonly phases: readonly string[]
  readonly pov: Pov
  readonly task: Task | undefined
  /** How many comments there are of a task of the PoV. */
  counted(task: Task): number
  readonly comments: readonly Comment[]
  /** Who is writing about the task, by id. */
  readonly writing: readonly string[]
  /** Whether a change waits for the network: of a task of the PoV, or of its phase. */
  waits(task?: Task): boolean
  /** What was refused, in words. */
  readonly failure: string
  open(povId: string, taskId?: string): void
  setDone(task: Task, isDone: boolean): void
  add(title: string): void
  move(phase: number): void
  write(text: string): void
  say(text: string): void
}

const waiting = (words = 'waits') => html`<span class="wait">${words}</span>`

/** Draw all of it. */
export function board(view: View): TemplateResult {
  const {pov, povs, phases} = view
  const {tasks} = pov
  const isLast = pov.phase === phases.length - 1
  const next = isLast ? pov.phase - 1 : pov.phase + 1
  const done = tasks.filter(each => each.done).length
  return html`
    <header>
      <div>
        <h1><select aria-label="Proof of value" .value=${live(pov.id)} @change=${(event: Event) =>
          view.open((event.target as HTMLSelectElement).value)}>${povs.map(each =>
            html`<option value=${each.id} ?selected=${each.id === pov.id}>${each.name}</option>`)}</select></h1>
        <p>Proof of value, ${pov.day} of ${pov.days} days</p>
      </div>
      <div class="move">
        ${view.waits() ? waiting() : nothing}
        <button class="btn" id="move" @click=${() => view.move(next)}>
          ${icon('arrow', isLast ? 'back' : 'flip')}Move ${isLast ? 'back ' : ''}to ${phases[next]}
        </button>
      </div>
    </header>
    <ol class="steps" aria-label="Phases">${phases.map((name, i) => html`
      <li class=${i < pov.phase ? 'done' : i === pov.phase ? 'now' : ''} aria-current=${i === pov.phase ? 'step' : nothing}>
        <span>${i < pov.phase ? icon('check', 'icon-s') : nothing}</span>${name}</li>`)}
    </ol>
    <h2>Tasks <small>${done} of ${tasks.length} done</small></h2>
    <ul class="tasks">${tasks.map(each => taskRow(view, each))}</ul>
    <form class="add" @submit=${(event: SubmitEvent) => submit(event, title => view.add(title))}>
      ${icon('plus')}<input name="text" maxlength="80" required autocomplete="off" placeholder="Add a task" aria-label="Add a task">
    </form>
    ${view.failure ? html`<p class="failure" role="alert">${view.failure}</p>` : nothing}
    ${view.task ? talk(view, view.task) : nothing}`
}

function taskRow(view: View, task: Task): TemplateResult {
  const count = view.counted(task)
  const isOpen = task === view.task
  return html`
    <li class=${isOpen ? 'is-open' : ''} data-task=${task.id}>
      <label class="tick"><input type="checkbox" aria-label=${task.title} .checked=${live(task.done)}
        @change=${(event: Event) => view.setDone(task, (event.target as HTMLInputElement).checked)}></label>
      <button class="name" aria-expanded=${isOpen} @click=${() => view.open(view.pov.id, task.id)}><bdi>${task.title}</bdi></button>
      ${view.waits(task) ? waiting() : nothing}
      ${count ? html`<span class="count" title="Comments">${icon('comment')}${count}</span>` : nothing}
      <span title=${nameOf(view, task.who)}>${avatar(view, task.who, 'av-s')}</span>
    </li>`
}

function talk(view: View, task: Task): TemplateResult {
  const {comments, writing} = view
  return html`
    <section class="talk" aria-labelledby="talk">
      <h2 id="talk"><bdi>${task.title}</bdi></h2>
      <div class="said" tabindex="0" role="log" aria-label="Comments"><div>
        <ul>${comments.map(({who, text, at, waits}) => html`
          <li class=${waits ? 'pending' : ''}>${avatar(view, who, 'av-m')}<div>
            <p><b>${nameOf(view, who)}</b> <small>${waits ?? clock(at)}</small></p>
            <p><bdi>${text}</bdi></p></div></li>`)}
        </ul>
        ${writing.length ? html`<p class="writes"><span class="writing"><i></i><i></i><i></i></span>${whoWrites(view)}</p>` : nothing}
      </div></div>
      <form class="compose" @submit=${(event: SubmitEvent) => submit(event, text => view.say(text))}>
        <input name="text" maxlength="1000" required autocomplete="off" placeholder="Write a comment"
          aria-label="Write a comment" @input=${(event: Event) => view.write((event.target as HTMLInputElement).value)}>
        <button class="btn btn-main">Send</button>
      </form>
    </section>`
}

function whoWrites(view: View): string {
  const [a, b, ...others] = view.writing.map(id => givenName(view, id))
  if (others.length) return `${a}, ${b} and ${others.length} more are writing`
  return b ? `${a} and ${b} are writing` : `${a} is writing`
}

/** Take what is in a form's field, and empty that. */
function submit(event: SubmitEvent, take: (text: string) => void): void {
  event.preventDefault()
  const field = (event.target as HTMLFormElement).elements.namedItem('text') as HTMLInputElement
  const text = field.value.trim()
  field.value = ''
  if (text) take(text)
}
