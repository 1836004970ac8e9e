-- Watermarks.
--
-- w:<topic>  hash: pair(name, user) -> "used_at offset partition epoch", the user's partition
-- u:<user>   sorted set: "partition:" .. pair(topic, name) by used_at, the topic's partition
-- us         sorted set: users by when their longest unused mark will be too old
-- wn         how many marks there are on the topics of this partition
--
-- used_at is in seconds since 1970. What is of a topic lies in the topic's partition, what is of a
-- user in the user's.

local STEP = 100

local function seconds(now)
  return math.floor(now / 1000000)
end

local function read(value)
  local at, offset, partition, epoch = string.match(value, '^(%d+) (%d+) (%d+) (.*)$')
  return tonumber(at), tonumber(offset), partition, epoch
end

local function write(at, offset, partition, epoch)
  return table.concat({text(at), text(offset), partition, epoch}, ' ')
end

-- What a mark's place in the index of its user says.
local function placed(users, place)
  local partition, rest = string.match(place, '^(%d+):(.*)$')
  local topic, name = unpair(rest)
  return sibling(users, partition), topic, name
end

-- Forget a mark of which there may be none; returns how many went.
local function remove(prefix, topic, name, users, user)
  if redis.call('HDEL', prefix .. 'w:' .. topic, pair(name, user)) == 0 then
    return 0
  end
  redis.call('DECR', prefix .. 'wn')
  local index = users .. 'u:' .. user
  redis.call('ZREM', index, partition_of(prefix) .. ':' .. pair(topic, name))
  if redis.call('EXISTS', index) == 0 then
    redis.call('ZREM', users .. 'us', user)
  end
  return 1
end

-- args: topic, user's prefix, user, name, epoch, offset, age_s, renew_s, most of a user, most of
--       all, partitions
-- Returns whether there was room; how many there are of all where that changed, else ""; epoch and
-- offset.
define('marks_advance', {}, function(prefix, args, now)
  local topic, users, user, name = args[1], args[2], args[3], args[4]
  local offset, age = tonumber(args[6]), tonumber(args[7])
  local key, field, index = prefix .. 'w:' .. topic, pair(name, user), users .. 'u:' .. user
  local state = read_state(prefix, topic)
  local epoch, number = newest(state, args[5], offset), ''
  now = seconds(now)
  local at, old = now, redis.call('HGET', key, field)
  if old then
    local used, had, _, before = read(old)
    if used >= now - age and newest(state, before, had) == epoch then
      offset = math.max(offset, had)
    end
    if math.abs(now - used) < tonumber(args[8]) then
      at = used
    end
  else
    local excess = redis.call('ZCARD', index) - tonumber(args[9]) + 1
    number = total(prefix, tonumber(args[11]), 'wn') - math.max(0, excess)
    if number >= tonumber(args[10]) then
      return {0, number, '', 0}
    end
    if excess > 0 then
      for _, place in ipairs(redis.call('ZRANGE', index, 0, excess - 1)) do
        local its, its_topic, its_name = placed(users, place)
        remove(its, its_topic, its_name, users, user)
      end
    end
    number = number + 1
    redis.call('INCR', prefix .. 'wn')
    redis.call('ZADD', users .. 'us', 'NX', now + age, user)
  end
  local new = write(at, offset, partition_of(users), epoch)
  if new ~= old then
    redis.call('HSET', key, field, new)
    redis.call('ZADD', index, at, partition_of(prefix) .. ':' .. pair(topic, name))
  end
  return {1, number, epoch, offset}
end)

-- args: topic, user, age_s, renew_s, names
-- Returns for each name nothing, or epoch, offset and whether its use is to be written down.
define('marks_get', {'no-writes'}, function(prefix, args, now)
  local topic, user, age, renew = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  local fields, found, state = {}, {}, read_state(prefix, topic)
  now = seconds(now)
  for number = 5, #args do
    fields[#fields + 1] = pair(args[number], user)
  end
  for number, value in ipairs(redis.call('HMGET', prefix .. 'w:' .. topic, unpack(fields))) do
    local mark = false
    if value then
      local at, offset, _, epoch = read(value)
      if at >= now - age then
        mark = {newest(state, epoch, offset), offset, now - at >= renew and 1 or 0}
      end
    end
    found[number] = mark
  end
  return found
end)

-- args: topic, user's prefix, user, names
define('marks_use', {'allow-oom'}, function(prefix, args, now)
  local topic, users, user = args[1], args[2], args[3]
  local key = prefix .. 'w:' .. topic
  now = seconds(now)
  for number = 4, #args do
    local name = args[number]
    local value = redis.call('HGET', key, pair(name, user))
    if value then
      local at, offset, partition, epoch = read(value)
      at = math.max(at, now)
      redis.call('HSET', key, pair(name, user), write(at, offset, partition, epoch))
      local place = partition_of(prefix) .. ':' .. pair(topic, name)
      redis.call('ZADD', users .. 'u:' .. user, at, place)
    end
  end
  return 0
end)

-- args: cursor, topic, name, age_s
-- Returns the next cursor, then user, epoch and offset of some marks.
define('marks_all', {'no-writes'}, function(prefix, args, now)
  local topic, not_before = args[2], seconds(now) - tonumber(args[4])
  local state, pattern = read_state(prefix, topic), beginning(pair(args[3], ''))
  local key = prefix .. 'w:' .. topic
  local page = redis.call('HSCAN', key, args[1], 'MATCH', pattern, 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local _, user = unpair(page[2][number])
    local at, offset, _, epoch = read(page[2][number + 1])
    if at >= not_before then
      found[#found + 1] = user
      found[#found + 1] = newest(state, epoch, offset)
      found[#found + 1] = offset
    end
  end
  return found
end)

-- args: cursor, topic, name, epoch, offset, new offset. Returns the next cursor.
define('marks_carry', {}, function(prefix, args, now)
  local topic, start = args[2], tonumber(args[5])
  local key, state = prefix .. 'w:' .. topic, read_state(prefix, topic)
  local epoch, pattern = newest(state, args[4], start), beginning(pair(args[3], ''))
  local page = redis.call('HSCAN', key, args[1], 'MATCH', pattern, 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local at, offset, partition, its = read(page[2][number + 1])
    if offset == start and newest(state, its, offset) == epoch then
      redis.call('HSET', key, page[2][number], write(at, tonumber(args[6]), partition, epoch))
    end
  end
  return {page[1]}
end)

-- The prefix is a user's. args: cursor, user, age_s
-- Returns the next cursor, then topic, name, epoch, offset and use of some marks.
define('marks_of', {'no-writes'}, function(users, args, now)
  local user, not_before = args[2], seconds(now) - tonumber(args[3])
  local page = redis.call('ZSCAN', users .. 'u:' .. user, args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local prefix, topic, name = placed(users, page[2][number])
    local value = redis.call('HGET', prefix .. 'w:' .. topic, pair(name, user))
    local at, offset, _, epoch = read(value)
    if at >= not_before then
      found[#found + 1] = topic
      found[#found + 1] = name
      found[#found + 1] = newest(read_state(prefix, topic), epoch, offset)
      found[#found + 1] = offset
      found[#found + 1] = at
    end
  end
  return found
end)

-- args: topic, name, user's prefix, user, epoch, offset, use, age_s
-- Takes over a mark, of which there is none.
define('marks_restore', {}, function(prefix, args, now)
  local topic, name, users, user, at = args[1], args[2], args[3], args[4], tonumber(args[7])
  local value = write(at, tonumber(args[6]), partition_of(users), args[5])
  redis.call('HSET', prefix .. 'w:' .. topic, pair(name, user), value)
  redis.call('INCR', prefix .. 'wn')
  redis.call('ZADD', users .. 'us', 'LT', at + tonumber(args[8]), user)
  redis.call('ZADD', users .. 'u:' .. user, at, partition_of(prefix) .. ':' .. pair(topic, name))
  return 0
end)

-- args: topic, user's prefix, user, name. Returns how many went.
define('marks_drop', {'allow-oom'}, function(prefix, args, now)
  return remove(prefix, args[1], args[4], args[2], args[3])
end)

-- The prefix is a user's. args: cursor, user, and a name unless it is all of them
-- Returns the next cursor, and how many went.
define('marks_drop_user', {'allow-oom'}, function(users, args, now)
  local user, wanted, gone = args[2], args[3], 0
  local page = redis.call('ZSCAN', users .. 'u:' .. user, args[1], 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local prefix, topic, name = placed(users, page[2][number])
    if not wanted or name == wanted then
      gone = gone + remove(prefix, topic, name, users, user)
    end
  end
  return {page[1], gone}
end)

-- args: cursor, topic. Returns the next cursor, and how many went.
define('marks_drop_topic', {'allow-oom'}, function(prefix, args, now)
  local topic, gone = args[2], 0
  local page = redis.call('HSCAN', prefix .. 'w:' .. topic, args[1], 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local name, user = unpair(page[2][number])
    local _, _, partition = read(page[2][number + 1])
    gone = gone + remove(prefix, topic, name, sibling(prefix, partition), user)
  end
  return {page[1], gone}
end)

-- The prefix is that of users. args: age_s
-- Forgets some marks that are too old. Returns how many, and whether there may be more.
define('marks_tidy', {'allow-oom'}, function(users, args, now)
  local age, gone = tonumber(args[1]), 0
  now = seconds(now)
  local due = redis.call('ZRANGEBYSCORE', users .. 'us', '-inf', now, 'LIMIT', 0, STEP)
  for _, user in ipairs(due) do
    local index = users .. 'u:' .. user
    local last = now - age - 1
    local old = redis.call('ZRANGEBYSCORE', index, '-inf', last, 'LIMIT', 0, STEP)
    for _, place in ipairs(old) do
      local prefix, topic, name = placed(users, place)
      gone = gone + remove(prefix, topic, name, users, user)
    end
    local oldest = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')[2]
    if oldest then
      -- Due again at once where older ones are left.
      redis.call('ZADD', users .. 'us', oldest + age + 1, user)
    end
    if gone >= STEP then
      return {gone, 1}
    end
  end
  return {gone, #due == STEP and 1 or 0}
end)

-- args: partitions. Returns how many marks there are.
define('marks_count', {'no-writes'}, function(prefix, args, now)
  return total(prefix, tonumber(args[1]), 'wn')
end)
