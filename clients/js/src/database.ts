/** The one IndexedDB of a user of a server in this browser: rows and positions of feeds, and the outbox. */

/** Raised with every change of the stores below; older tabs then close theirs and go on without. */
const VERSION = 1

/** How long it may take to open, ms: a frozen tab may hold it for hours. */
const PATIENCE = 3_000

/**
 * Open it. Rejects where storage is denied (private windows, a full disk, a newer version there), or it takes
 * too long.
 *
 * It closes itself when another tab wants to upgrade or delete it: transactions then throw
 * `InvalidStateError`, and whoever uses it goes on in memory.
 */
export function openDatabase(scope: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(scope, VERSION)
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      reject(new DOMException('The database does not open', 'TimeoutError'))
    }, PATIENCE)
    request.onupgradeneeded = () => {
      request.result.createObjectStore('rows', {keyPath: ['topic', 'epoch', 'offset']})
      request.result.createObjectStore('positions', {keyPath: 'topic'})
      request.result.createObjectStore('outbox', {keyPath: 'order', autoIncrement: true})
    }
    request.onerror = () => {
      clearTimeout(timer)
      reject(request.error)
    }
    request.onsuccess = () => {
      clearTimeout(timer)
      if (isLate) return request.result.close()
      request.result.onversionchange = () => request.result.close()
      resolve(request.result)
    }
  })
}

/** Wait for a transaction: resolves once it is on the disk, rejects with why it is not. */
export function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onabort = () => reject(transaction.error ?? new DOMException('aborted', 'AbortError'))
  })
}

/** Wait for a request of a transaction. */
export function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}
