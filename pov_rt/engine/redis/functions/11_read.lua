-- To read: nothing is written. Where a log has to go over to another epoch first, the answer is
-- nothing, and `rotate` is to be called.

local CHUNK, MOST_BYTES = 64, 1048576

define('rotate', {'allow-oom'}, function(prefix, args, now)
  local state = open_state(prefix, args[1], now)
  return state.epoch
end)

local function instant_of(key, index)
  return tonumber(string.match(redis.call('LINDEX', key, index), '^%d+'))
end

-- The first index of a list whose entry is not too old; its length if all are.
local function first_kept(key, start, length, not_before)
  if start >= length or instant_of(key, start) >= not_before then
    return start
  end
  local low, high = start + 1, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if instant_of(key, middle) >= not_before then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

-- The offset of the oldest entry that is kept, and the key's length.
local function oldest_of(prefix, topic, state, entries, age, now)
  local key = prefix .. 's:' .. topic
  local length = redis.call('LLEN', key)
  local start = first_kept(key, math.max(0, length - entries), length, now - age)
  return state.offset - length + 1 + start, length, key
end

-- args: topic, most entries, age
-- Returns epoch, offset, oldest, and when that one came, 0 where there is none.
define('top', {'no-writes'}, function(prefix, args, now)
  local state, has_log = peek_state(prefix, args[1])
  if not state then
    return false
  end
  local oldest, at = 1, 0
  if has_log then
    local length, key
    oldest, length, key =
      oldest_of(prefix, args[1], state, tonumber(args[2]), tonumber(args[3]), now)
    if oldest <= state.offset then
      at = instant_of(key, oldest - state.offset - 1)
    end
  end
  return {state.epoch, state.offset, oldest, text(at)}
end)

-- args: topic, most entries, age, after, limit, whether backwards, most bytes
-- Returns epoch, offset, oldest, and then the entries in lists: newest list first if backwards, but
-- each list oldest first. It may be fewer than there are.
define('read', {'no-writes'}, function(prefix, args, now)
  local topic, after, limit = args[1], tonumber(args[4]), tonumber(args[5])
  local state, has_log = peek_state(prefix, topic)
  if not state then
    return false
  end
  if not has_log then
    return {state.epoch, 0, 1}
  end
  local oldest, length, key =
    oldest_of(prefix, topic, state, tonumber(args[2]), tonumber(args[3]), now)
  local found = {state.epoch, state.offset, oldest}
  local before = state.offset - length + 1 -- the offset of index 0
  local first, last
  if args[6] == '1' then
    last = after <= 0 and state.offset or math.min(after - 1, state.offset)
    first = math.max(oldest, last - limit + 1)
  else
    first = math.max(oldest, after + 1)
    last = math.min(state.offset, first + limit - 1)
  end
  local room = math.min(tonumber(args[7]), MOST_BYTES)
  while first <= last and room > 0 do
    local low, high = first, math.min(last, first + CHUNK - 1)
    if args[6] == '1' then
      low, high = math.max(first, last - CHUNK + 1), last
      last = low - 1
    else
      first = high + 1
    end
    local values = redis.call('LRANGE', key, low - before, high - before)
    found[#found + 1] = values
    for _, value in ipairs(values) do
      room = room - #value
    end
  end
  return found
end)

-- args: topic, epoch, offset. Returns whether that is a place in the log.
define('holds', {'no-writes'}, function(prefix, args, now)
  local state = peek_state(prefix, args[1])
  if not state then
    return false
  end
  return holds(state, args[2], tonumber(args[3])) and 1 or 0
end)

-- args: topic, id, window. Returns publisher and offset of each who gave that id to an entry.
define('find', {'no-writes'}, function(prefix, args, now)
  local state = peek_state(prefix, args[1])
  if not state then
    return false
  end
  local found = {}
  for _, id in ipairs(find_ids(prefix, args[2], tonumber(args[3]), state, now)) do
    found[#found + 1] = id.publisher
    found[#found + 1] = id.offset
  end
  return found
end)
