/** The tab's title and icon count what is new. */
import {number, type Speaker} from './text.js'

/** How many each element of the page has. */
const counts = new Map<Speaker, number>()
const links = () => document.querySelector<HTMLLinkElement>('link[rel~=icon]')
let title: string | undefined
let shown = ''
let icon: {link: HTMLLinkElement; href: string | undefined} | undefined

/** Show a number with those of others on the page, `99+` at most; 0 of all: the tab is as the page made it. */
export function badgeTab(speaker: Speaker, own: number): void {
  counts.set(speaker, own)
  if (!own) counts.delete(speaker)
  const n = [...counts.values()].reduce((sum, each) => sum + each, 0)
  const prefix = n ? `(${number(speaker, Math.min(n, 99))}${n > 99 ? '+' : ''}) ` : ''
  // Whatever the page has made of its title meanwhile is kept.
  title = shown && document.title.startsWith(shown) ? document.title.slice(shown.length) : document.title
  if (document.title !== prefix + title) document.title = prefix + title
  shown = prefix
  void drawIcon(n)
}

async function drawIcon(n: number): Promise<void> {
  if (!n) {
    if (icon) icon.href === undefined ? icon.link.remove() : icon.link.href = icon.href
    icon = undefined
    return
  }
  if (!icon) {
    const found = links()
    const link = found ?? document.head.appendChild(Object.assign(document.createElement('link'), {rel: 'icon'}))
    icon = {link, href: found?.href}
  }
  const canvas = Object.assign(document.createElement('canvas'), {width: 32, height: 32})
  const context = canvas.getContext('2d')
  if (!context) return
  const {link, href} = icon
  if (href) await paint(context, href)
  if (icon?.link !== link) return
  context.fillStyle = '#01626d'
  context.beginPath()
  context.arc(21, 11, 11, 0, 7)
  context.fill()
  context.fillStyle = '#fff'
  context.font = `700 ${n > 9 ? 13 : 17}px system-ui, sans-serif`
  context.textAlign = 'center'
  context.fillText(n > 99 ? '99+' : String(n), 21, n > 9 ? 16 : 17, 20)
  canvas.toBlob(blob => {
    if (!blob || icon?.link !== link) return
    if (link.href.startsWith('blob:')) URL.revokeObjectURL(link.href)
    link.href = URL.createObjectURL(blob)
  })
}

/** The page's own icon, where it may be read. */
async function paint(context: CanvasRenderingContext2D, href: string): Promise<void> {
  const image = new Image()
  image.src = href
  try {
    await image.decode()
    if (new URL(href, document.baseURI).origin === location.origin) context.drawImage(image, 0, 0, 32, 32)
  } catch {
    // There is none; the number stands alone.
  }
}
