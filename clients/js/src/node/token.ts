/** Service tokens, signed by the app itself. */
import {createHmac} from 'node:crypto'

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

export interface ServiceTokenOptions {
  /** Which PoVs it covers; all by default. */
  povs?: readonly string[] | '*'
  /** With `auth.tenants`: whose the activities are. */
  team?: string
  /** How long a token is valid, seconds. */
  ttl?: number
}

/**
 * Answer tokens of the service `user`, a new one before the last one ends.
 *
 * `secret` is one of the server's (`auth.secrets`, `auth.secret_files`); a newline at its end, as files have, is
 * no part of it. Throws for one that the server would not take.
 */
export function serviceToken(
  secret: string, user: string, {povs = '*', team, ttl = 300}: ServiceTokenOptions = {},
): () => string {
  const key = secret.replace(/\r?\n$/, '')
  const size = Buffer.byteLength(key)
  if (size < 32) throw new TypeError(`a secret of ${size} bytes, of at least 32`)
  const claims = {aud: 'pov-rt.service', userId: user, povs, ...(team ? {teamId: team} : {})}
  let token = '', made = 0
  return () => {
    const now = Math.floor(Date.now() / 1000)
    // A clock that was set back made one that is issued in the future.
    if (!token || now < made || now - made >= ttl / 2) {
      const text = `${part({alg: 'HS256', typ: 'JWT'})}.${part({...claims, iat: now, exp: now + ttl})}`
      token = `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`
      made = now
    }
    return token
  }
}
