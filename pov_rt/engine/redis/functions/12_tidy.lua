-- What leaves by itself: numbers of producers that are too old, and topics that nothing needs.

local STEP = 200

local function is_watched(prefix, topic)
  return redis.call('PUBSUB', 'NUMSUB', prefix .. 'c:' .. topic)[2] > 0
end

-- args: instant before which they are too old. Forgets some; returns how many those were.
define('forget_numbers', {'allow-oom'}, function(prefix, args, now)
  local old = redis.call('ZRANGEBYSCORE', prefix .. 'pz', '-inf', args[1], 'LIMIT', 0, STEP)
  for _, item in ipairs(old) do
    forget_number(prefix, unpair(item))
  end
  return #old
end)

-- args: cursor, instant
-- Returns the next cursor, then some topics whose newest entry is older than that, and its instant.
define('old_topics', {'no-writes'}, function(prefix, args, now)
  local page = redis.call('HSCAN', prefix .. 'm', args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local at = string.match(page[2][number + 1], '^%d+ %S+ %S+ (%d+)')
    if tonumber(at) < tonumber(args[2]) then
      found[#found + 1] = page[2][number]
      found[#found + 1] = at
    end
  end
  return found
end)

-- args: topic and instant of each whose entries and ids are all too old
-- Forgets those that nothing else needs; returns how many that were.
define('forget_topics', {'allow-oom'}, function(prefix, args, now)
  local number = 0
  for at = 1, #args, 2 do
    local topic = args[at]
    local state = read_state(prefix, topic)
    local is_idle = state and text(state.at) == args[at + 1]
      and redis.call('EXISTS', prefix .. 'p:' .. topic, prefix .. 'w:' .. topic) == 0
      and not is_watched(prefix, topic)
    if is_idle then
      redis.call('DEL', prefix .. 's:' .. topic)
      redis.call('HDEL', prefix .. 'm', topic)
      number = number + 1
    end
  end
  if number > 0 then
    renew_base(prefix, now)
  end
  return number
end)

-- args: name, instant, for how long it holds
-- Returns whether it was not done for so long; then it is as good as done.
define('is_due', {'allow-oom'}, function(prefix, args, now)
  local key = shared(prefix, args[1])
  local done = tonumber(redis.call('GET', key) or 0)
  if now - done < tonumber(args[2]) and done <= now then
    return 0
  end
  redis.call('SET', key, text(now))
  return 1
end)

-- args: number of partitions. Returns how many topics there are, and producers.
define('count', {'no-writes'}, function(prefix, args, now)
  local partitions = tonumber(args[1])
  return {sum_of('HLEN', prefix, partitions, 'm'), sum_of('ZCARD', prefix, partitions, 'pz')}
end)
