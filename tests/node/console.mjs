// Runs the console's script without a browser: enough of a page for it, and its user's hands.
//   node console.mjs ORIGIN; each line of standard input is {type, fields}: a form to fill and send.
// Prints a line for each form made and each entry of the log: [title, text].
import {createInterface} from 'node:readline'
import WebSocket from 'ws'

class Element {
  constructor(tag) { Object.assign(this, {tag, children: [], dataset: {}, value: '', textContent: ''}) }
  append(...children) { this.children.push(...children) }
  prepend(child) {
    this.children.unshift(child)
    if (this.id === 'log') print(child.children.filter(each => each.tag === 'b' || each.tag === 'code'))
  }
  replaceChildren(...children) { this.children = children }
  get childElementCount() { return this.children.length }
  get lastElementChild() { return {remove: () => this.children.pop()} }
  get elements() { return this.children.flatMap(child => child.children || []).filter(each => each.name) }
}

const print = elements => console.log(JSON.stringify(elements.map(each => each.textContent)))
const [origin] = process.argv.slice(2)
const page = await (await fetch(origin)).text()
const ids = Object.fromEntries([...page.matchAll(/id="(\w+)"/g)].map(([, id]) => [id, Object.assign(new Element(), {id})]))
ids.forms.append = function (details) {
  Element.prototype.append.call(this, details)
  print([{textContent: 'form'}, details.children[0]])
}
const document = {getElementById: id => ids[id], createElement: tag => new Element(tag)}
const ask = path => fetch(origin + path)
const [, script] = page.match(/<script>(.*)<\/script>/s)
new Function('document', 'location', 'fetch', 'WebSocket', script)(document, {origin}, ask, WebSocket)

for await (const line of createInterface({input: process.stdin})) {
  const {type, fields} = JSON.parse(line)
  const {children: [, form]} = ids.forms.children.find(({children: [summary]}) => summary.textContent === type)
  for (const input of form.elements) if (input.name in fields) input.value = fields[input.name]
  form.onsubmit({preventDefault() {}})
}
process.exit()
