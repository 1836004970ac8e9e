/** A custom element that draws itself with lit-html: what of LitElement the components need, in a third of its size. */
import {render, type RootPart} from 'lit-html'

/** By name: which attribute sets it (that of its name, none), whether it is a switch, whether it is written back. */
export type Properties = Readonly<Record<string, {attribute?: string | false; type?: BooleanConstructor; reflect?: boolean}>>

/** What changed since it was last drawn; the name is `` where somebody asked for all of it. */
export type Changed = ReadonlyMap<string, unknown>

type Class = typeof Base

/** Properties set before the class was defined are taken over; it is drawn first in the turn after it came to a page. */
export abstract class Base extends HTMLElement {
  static properties: Properties = {}
  static styles: readonly CSSStyleSheet[] = []
  /** By class, and attribute: the property. */
  static #attributes = new WeakMap<object, Map<string, string>>()
  static #all = new WeakMap<object, Properties>()

  static get observedAttributes(): string[] {
    const all: Properties[] = []
    for (let each = this as Class; each !== Base; each = Object.getPrototypeOf(each) as Class) all.unshift(each.properties)
    const properties: Properties = Object.assign({}, ...all)
    const attributes = new Map<string, string>()
    for (const [name, {attribute}] of Object.entries(properties)) {
      if (attribute !== false) attributes.set(attribute ?? name, name)
      Object.defineProperty(this.prototype, name, {
        configurable: true,
        get(this: Base) { return this.#values[name] },
        set(this: Base, value: unknown) {
          const old = this.#values[name]
          if (Object.is(old, value)) return
          this.#values[name] = value
          this.requestUpdate(name, old)
        },
      })
    }
    Base.#attributes.set(this, attributes)
    Base.#all.set(this, properties)
    return [...attributes.keys()]
  }

  readonly shadow = this.attachShadow({mode: 'open'})
  /** Whether it was drawn. */
  hasUpdated = false
  #values: Record<string, unknown> = {}
  #changed = new Map<string, unknown>()
  #pending: Promise<void> | undefined
  #part: RootPart | undefined
  #isReflecting = false

  constructor() {
    super()
    this.shadow.adoptedStyleSheets = [...(this.constructor as Class).styles]
    const self = this as unknown as Record<string, unknown>
    for (const name of Object.keys(Base.#all.get(this.constructor)!)) {
      if (!Object.hasOwn(this, name)) continue
      const value = self[name]
      delete self[name]
      self[name] = value
    }
  }

  connectedCallback(): void {
    this.#part?.setConnected(true)
    this.requestUpdate('')
  }

  disconnectedCallback(): void {
    this.#part?.setConnected(false)
  }

  attributeChangedCallback(attribute: string, _old: string | null, value: string | null): void {
    if (this.#isReflecting) return
    const name = Base.#attributes.get(this.constructor)!.get(attribute)!
    const isSwitch = Base.#all.get(this.constructor)![name]!.type
    ;(this as unknown as Record<string, unknown>)[name] = isSwitch ? value !== null : value ?? undefined
  }

  /** Resolves when it is drawn as it now is. */
  get updateComplete(): Promise<void> {
    return this.#pending ?? Promise.resolve()
  }

  /** Draw it soon; without a name all of it. */
  requestUpdate(name = '', old?: unknown): void {
    if (!this.#changed.has(name)) this.#changed.set(name, old)
    if (this.isConnected) this.#pending ??= this.#soon()
  }

  async #soon(): Promise<void> {
    await null
    await this.scheduleUpdate()
    const changed = this.#changed
    try {
      if (!this.isConnected) return
      this.willUpdate(changed)
    } finally {
      this.#changed = new Map()
      this.#pending = undefined
    }
    this.#reflect(changed)
    this.#part = render(this.render(), this.shadow)
    this.hasUpdated = true
    this.updated(changed)
  }

  #reflect(changed: Changed): void {
    this.#isReflecting = true
    for (const [name, {reflect}] of Object.entries(Base.#all.get(this.constructor)!)) {
      if (!reflect || !changed.has(name)) continue
      const value = this.#values[name]
      if (value === undefined) this.removeAttribute(name)
      else this.setAttribute(name, String(value))
    }
    this.#isReflecting = false
  }

  /** Wait until it is time. */
  protected scheduleUpdate(): Promise<void> | void {}
  /** Before it is drawn; what is set here is drawn, too. */
  protected willUpdate(_changed: Changed): void {}
  /** It is drawn. */
  protected updated(_changed: Changed): void {}
  protected abstract render(): unknown
}
