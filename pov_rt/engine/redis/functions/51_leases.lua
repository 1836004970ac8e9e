-- Members that are there for as long as their node renews its lease.
--
-- l:<topic>  hash: member -> "leaving_at " .. pair(lease, body), in microseconds, 0 if it stays
-- o:<topic>  hash: member -> pair(lease, body) of each other node that has it as well
-- n:<lease>  set of pair(topic, member): what of this partition a node holds
-- v          sorted set of pair(topic, member) by leaving_at
-- nodes      sorted set: leases by their end; a key of no partition
--
-- A node has a lease from its start to its end: after a restart it has another one.

-- A lease that has run out is known for so long: a call of its node's may be on its way.
local KNOWN_US = 60 * 1000000

local function read(value)
  local leaving_at, rest = string.match(value, '^(%d+) (.*)$')
  local lease, body = unpair(rest)
  return tonumber(leaving_at), lease, body
end

local function write(leaving_at, lease, body)
  return text(leaving_at) .. ' ' .. pair(lease, body)
end

local function forget(prefix, topic, member, lease)
  local item = pair(topic, member)
  redis.call('HDEL', prefix .. 'l:' .. topic, member)
  redis.call('HDEL', prefix .. 'o:' .. topic, member)
  redis.call('SREM', prefix .. 'n:' .. lease, item)
  redis.call('ZREM', prefix .. 'v', item)
end

local function lives(prefix, lease, now)
  return tonumber(redis.call('ZSCORE', shared(prefix, 'nodes'), lease) or 0) > now
end

-- Returns who else has a member and lives, without one lease, as lease and body in turns.
local function others(prefix, topic, member, without, now)
  local rest = redis.call('HGET', prefix .. 'o:' .. topic, member) or ''
  local found, lease, body = {}
  while rest ~= '' do
    lease, rest = unpair(rest)
    body, rest = unpair(rest)
    if lease ~= without and lives(prefix, lease, now) then
      found[#found + 1] = lease
      found[#found + 1] = body
    end
  end
  return found
end

local function keep_others(prefix, topic, member, found)
  local kept = ''
  for number = 1, #found, 2 do
    kept = pair(found[number], pair(found[number + 1], kept))
  end
  if kept == '' then
    redis.call('HDEL', prefix .. 'o:' .. topic, member)
  else
    redis.call('HSET', prefix .. 'o:' .. topic, member, kept)
  end
end

-- Makes a member that its holder has no more another node's that has it. Returns whether one does.
local function hand_over(prefix, topic, member, holder, now)
  local found = others(prefix, topic, member, holder, now)
  if #found == 0 then
    return false
  end
  local body, lease = table.remove(found), table.remove(found)
  local item = pair(topic, member)
  keep_others(prefix, topic, member, found)
  redis.call('HSET', prefix .. 'l:' .. topic, member, write(0, lease, body))
  redis.call('SREM', prefix .. 'n:' .. holder, item)
  redis.call('SADD', prefix .. 'n:' .. lease, item)
  return true
end

-- args: topic, member, lease, body. Returns whether it is new.
define('leases_put', {}, function(prefix, args, now)
  local topic, member, lease = args[1], args[2], args[3]
  local key, item = prefix .. 'l:' .. topic, pair(topic, member)
  local value = redis.call('HGET', key, member)
  if value then
    local leaving_at, holder, body = read(value)
    if leaving_at > 0 then
      redis.call('ZREM', prefix .. 'v', item)
    end
    if holder ~= lease then
      local found = others(prefix, topic, member, lease, now)
      if leaving_at == 0 and lives(prefix, holder, now) then
        found[#found + 1] = holder
        found[#found + 1] = body
      end
      keep_others(prefix, topic, member, found)
      redis.call('SREM', prefix .. 'n:' .. holder, item)
    end
  end
  redis.call('HSET', key, member, write(0, lease, args[4]))
  redis.call('SADD', prefix .. 'n:' .. lease, item)
  return value and 0 or 1
end)

-- args: topic, member, lease, in how many microseconds it leaves
-- Returns whether that lease holds it.
define('leases_leave', {'allow-oom'}, function(prefix, args, now)
  local topic, member = args[1], args[2]
  local value = redis.call('HGET', prefix .. 'l:' .. topic, member)
  local _, holder, body = read(value or '0 0:')
  if holder ~= args[3] then
    keep_others(prefix, topic, member, others(prefix, topic, member, args[3], now))
    return 0
  end
  if hand_over(prefix, topic, member, holder, now) then
    return 0
  end
  local at = now + tonumber(args[4])
  redis.call('HSET', prefix .. 'l:' .. topic, member, write(at, holder, body))
  redis.call('ZADD', prefix .. 'v', text(at), pair(topic, member))
  return 1
end)

-- args: topic, member. Returns whether it was there.
define('leases_remove', {'allow-oom'}, function(prefix, args, now)
  local value = redis.call('HGET', prefix .. 'l:' .. args[1], args[2])
  if not value then
    return 0
  end
  local _, holder = read(value)
  forget(prefix, args[1], args[2], holder)
  return 1
end)

-- args: cursor, topic
-- Returns the next cursor and now, then of some members: member, lease, leaving_at and body.
define('leases_members', {'no-writes'}, function(prefix, args, now)
  local page = redis.call('HSCAN', prefix .. 'l:' .. args[2], args[1], 'COUNT', 200)
  local found, alive = {page[1], text(now)}, {}
  for number = 1, #page[2], 2 do
    local leaving_at, lease, body = read(page[2][number + 1])
    if alive[lease] == nil then
      alive[lease] = lives(prefix, lease, now)
    end
    if alive[lease] and (leaving_at == 0 or leaving_at > now) then
      found[#found + 1] = page[2][number]
      found[#found + 1] = lease
      found[#found + 1] = text(leaving_at)
      found[#found + 1] = body
    end
  end
  return found
end)

-- args: lease, for how many microseconds. Returns whether it had not run out.
define('leases_renew', {'allow-oom'}, function(prefix, args, now)
  local had = lives(prefix, args[1], now)
  redis.call('ZADD', shared(prefix, 'nodes'), text(now + tonumber(args[2])), args[1])
  return had and 1 or 0
end)

-- args: what sweeps, for how many milliseconds
-- Returns the leases that have run out, and nothing while another one sweeps.
define('leases_dead', {'allow-oom'}, function(prefix, args, now)
  local key, nodes = shared(prefix, 'sweeper'), shared(prefix, 'nodes')
  if not redis.call('SET', key, args[1], 'NX', 'PX', args[2]) then
    if redis.call('GET', key) ~= args[1] then
      return false
    end
    redis.call('PEXPIRE', key, args[2])
  end
  return redis.call('ZRANGEBYSCORE', nodes, '-inf', text(now))
end)

-- args: leases of which nothing is left. Forgets those that ran out long ago.
define('leases_forget', {'allow-oom'}, function(prefix, args, now)
  local nodes = shared(prefix, 'nodes')
  for _, lease in ipairs(args) do
    if not lives(prefix, lease, now - KNOWN_US) then
      redis.call('ZREM', nodes, lease)
    end
  end
  return 0
end)

-- args: leases that have run out. Returns how many members have left, or their node has.
define('leases_due', {'no-writes'}, function(prefix, args, now)
  local number = redis.call('ZCOUNT', prefix .. 'v', '-inf', text(now))
  for _, lease in ipairs(args) do
    number = number + redis.call('SCARD', prefix .. 'n:' .. lease)
  end
  return number
end)

-- args: sweep, limit, leases that have run out
-- Removes members that have left or whose node is gone, and tells who follows their topics, with
-- `sweep`. Returns topic, member, lease and body of each.
define('leases_sweep', {'allow-oom'}, function(prefix, args, now)
  local limit, found, topics, told = tonumber(args[2]), {}, {}, {}

  local function take(item, holder)
    local topic, member = unpair(item)
    local value = redis.call('HGET', prefix .. 'l:' .. topic, member)
    local _, lease, body = read(value or '0 0:')
    if not value or (holder and holder ~= lease) then
      return
    end
    if hand_over(prefix, topic, member, lease, now) then
      return
    end
    forget(prefix, topic, member, lease)
    if not told[topic] then
      told[topic] = {}
      topics[#topics + 1] = topic
    end
    table.insert(told[topic], pair(member, pair(lease, pair(body, ''))))
    for _, each in ipairs({topic, member, lease, body}) do
      found[#found + 1] = each
    end
  end

  local due = redis.call('ZRANGEBYSCORE', prefix .. 'v', '-inf', text(now), 'LIMIT', 0, limit)
  for _, item in ipairs(due) do
    take(item)
  end
  for number = 3, #args do
    local lease, room = args[number], limit - #found / 4
    -- It may have been renewed since it was asked which have run out.
    if room > 0 and not lives(prefix, lease, now) then
      for _, item in ipairs(redis.call('SPOP', prefix .. 'n:' .. lease, room)) do
        take(item, lease)
      end
    end
  end
  for _, topic in ipairs(topics) do
    -- They are removed: without the right to a channel, the reply alone tells of it.
    local message = 'l' .. pair(args[1], table.concat(told[topic]))
    redis.pcall('PUBLISH', prefix .. 'c:' .. topic, message)
  end
  return found
end)
