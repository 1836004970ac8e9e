-- Sets whose members may expire.
--
-- x:<set>  hash: member -> "expires_at body", in microseconds since 1970, 0 for never
-- xs       sorted set: sets by when their first member expires, +inf where none does

local STEP = 200

local function read(value, now)
  local space = string.find(value, ' ', 1, true)
  local expires_at = tonumber(string.sub(value, 1, space - 1))
  return expires_at == 0 or expires_at > now, string.sub(value, space + 1), expires_at
end

local function remove(prefix, set, member)
  local key = prefix .. 'x:' .. set
  redis.call('HDEL', key, member)
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', prefix .. 'xs', set)
  end
end

-- args: how many are removed; prefix, set and member of each; prefix, set, member, expires_at and
--       body of each that is added
define('sets_update', {}, function(_, args, now)
  local at = 2
  for _ = 1, tonumber(args[1]) do
    remove(args[at], args[at + 1], args[at + 2])
    at = at + 3
  end
  while at <= #args do
    local prefix, set, member, expires_at = unpack(args, at, at + 3)
    redis.call('HSET', prefix .. 'x:' .. set, member, expires_at .. ' ' .. args[at + 4])
    if expires_at == '0' then
      redis.call('ZADD', prefix .. 'xs', 'NX', '+inf', set)
    else
      redis.call('ZADD', prefix .. 'xs', 'LT', expires_at, set)
    end
    at = at + 5
  end
  return 0
end)

-- args: set, member. Returns whether it was there, and not expired.
define('sets_remove', {'allow-oom'}, function(prefix, args, now)
  local value = redis.call('HGET', prefix .. 'x:' .. args[1], args[2])
  if not value then
    return 0
  end
  remove(prefix, args[1], args[2])
  return read(value, now) and 1 or 0
end)

-- args: set. Returns how many members it had.
define('sets_drop', {'allow-oom'}, function(prefix, args, now)
  local key = prefix .. 'x:' .. args[1]
  local number = redis.call('HLEN', key)
  redis.call('UNLINK', key)
  redis.call('ZREM', prefix .. 'xs', args[1])
  return number
end)

-- args: set, member
define('sets_get', {'no-writes'}, function(prefix, args, now)
  local value = redis.call('HGET', prefix .. 'x:' .. args[1], args[2])
  local lives, body = read(value or '1 ', now)
  return lives and body
end)

-- args: cursor, set. Returns the next cursor, then member, body and expires_at of some.
define('sets_members', {'no-writes'}, function(prefix, args, now)
  local page = redis.call('HSCAN', prefix .. 'x:' .. args[2], args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local lives, body, expires_at = read(page[2][number + 1], now)
    if lives then
      found[#found + 1] = page[2][number]
      found[#found + 1] = body
      found[#found + 1] = text(expires_at)
    end
  end
  return found
end)

-- args: cursor, member, what the names begin with
-- Returns the next cursor, then some of the sets that have the member.
define('sets_having', {'no-writes'}, function(prefix, args, now)
  local page = redis.call(
    'ZSCAN', prefix .. 'xs', args[1], 'MATCH', beginning(args[3]), 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local set = page[2][number]
    if redis.call('HEXISTS', prefix .. 'x:' .. set, args[2]) == 1 then
      found[#found + 1] = set
    end
  end
  return found
end)

-- args: set or "" for the first that is due, cursor, earliest end of those that were looked at
-- Removes some members that have expired. Returns the set that is looked at, or "" where none is
-- due, the next cursor, and the earliest end of the others.
define('sets_tidy', {'allow-oom'}, function(prefix, args, now)
  local set, first = args[1], tonumber(args[3])
  if set == '' then
    set = redis.call('ZRANGEBYSCORE', prefix .. 'xs', '-inf', text(now), 'LIMIT', 0, 1)[1]
    if not set then
      return {'', '0', '0'}
    end
  end
  local key = prefix .. 'x:' .. set
  local page = redis.call('HSCAN', key, args[2], 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local lives, _, expires_at = read(page[2][number + 1], now)
    if not lives then
      redis.call('HDEL', key, page[2][number])
    elseif expires_at > 0 and (first == 0 or expires_at < first) then
      first = expires_at
    end
  end
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', prefix .. 'xs', set)
    page[1] = '0'
  elseif page[1] == '0' then
    -- One that comes meanwhile and ends before is found late; until then it is hidden.
    redis.call('ZADD', prefix .. 'xs', 'XX', first == 0 and '+inf' or text(first), set)
  end
  return {set, page[1], text(first)}
end)
