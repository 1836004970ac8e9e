-- Values that plugins keep.
--
-- k:<space>   hash: key -> pair(owner, "partition " .. body), the owner's partition
-- ko:<space>  sorted set of the space's keys with one score for all: in the order of their bytes
-- kb          hash: space -> its bytes, of the spaces in this partition
-- kn          the bytes of all of those
-- o:<owner>   sorted set of the owner's values, as ko: "space \0 key \0 partition" of the space
--
-- A space has no zero byte in its name.

local VALUE_BYTES = 64

local function read(value)
  local owner, rest = unpair(value)
  local space = string.find(rest, ' ', 1, true)
  return owner, string.sub(rest, space + 1), string.sub(rest, 1, space - 1)
end

local function size_of(key, owner, body)
  return #key + #owner + #body + VALUE_BYTES
end

local function place_of(prefix, space, key)
  return space .. '\0' .. key .. '\0' .. partition_of(prefix)
end

local function placed(place)
  return string.match(place, '^([^%z]*)%z(.*)%z(%d+)$')
end

local function count(prefix, space, more)
  redis.call('INCRBY', prefix .. 'kn', text(more))
  if redis.call('HINCRBY', prefix .. 'kb', space, text(more)) == 0 then
    redis.call('HDEL', prefix .. 'kb', space)
  end
end

-- Removes a value that is there; returns how many bytes are free by that.
local function remove(prefix, space, key, value)
  local owner, body, owners = read(value)
  redis.call('HDEL', prefix .. 'k:' .. space, key)
  redis.call('ZREM', prefix .. 'ko:' .. space, key)
  if owner ~= '' then
    redis.call('ZREM', sibling(prefix, owners) .. 'o:' .. owner, place_of(prefix, space, key))
  end
  local size = size_of(key, owner, body)
  count(prefix, space, -size)
  return size
end

-- args: space, key, owner's prefix, owner, body; most of a space, most of all, partitions; "1" and
--       what is to be there before, or "0" for nothing, or "" for whatever
-- Returns 1; 0 where something else is there; -1 or -2 where there is no room in all, or in the
-- space; then how many bytes it takes, and how many are used by all where that was looked up.
define('store_put', {}, function(prefix, args, now)
  local space, key, owners, owner, body = unpack(args, 1, 5)
  local value = redis.call('HGET', prefix .. 'k:' .. space, key)
  local more, before, used = size_of(key, owner, body), nil, ''
  if value then
    local had
    had, before = read(value)
    more = more - size_of(key, had, before)
  end
  if (args[9] == '0' and value) or (args[9] == '1' and before ~= args[10]) then
    return {0, 0, used}
  end
  if more > 0 then
    used = total(prefix, tonumber(args[8]), 'kn')
    if used + more > tonumber(args[7]) then
      return {-1, 0, used}
    end
    if tonumber(redis.call('HGET', prefix .. 'kb', space) or 0) + more > tonumber(args[6]) then
      return {-2, 0, used}
    end
  end
  if value then
    remove(prefix, space, key, value)
  end
  local new = pair(owner, partition_of(owners) .. ' ' .. body)
  redis.call('HSET', prefix .. 'k:' .. space, key, new)
  redis.call('ZADD', prefix .. 'ko:' .. space, 0, key)
  if owner ~= '' then
    redis.call('ZADD', owners .. 'o:' .. owner, 0, place_of(prefix, space, key))
  end
  count(prefix, space, size_of(key, owner, body))
  return {1, more, used}
end)

-- args: space, key
define('store_get', {'no-writes'}, function(prefix, args, now)
  local value = redis.call('HGET', prefix .. 'k:' .. args[1], args[2])
  if not value then
    return false
  end
  local _, body = read(value)
  return body
end)

-- args: space, key, and what is to be there before, if that matters
-- Returns how many bytes are free by that; -1 where something else is there, 0 where nothing is.
define('store_remove', {'allow-oom'}, function(prefix, args, now)
  local value = redis.call('HGET', prefix .. 'k:' .. args[1], args[2])
  if not value then
    return 0
  end
  local _, body = read(value)
  if args[3] and body ~= args[3] then
    return -1
  end
  return remove(prefix, args[1], args[2], value)
end)

-- args: space, what the keys begin with, after, limit. Returns keys, bodies and owners.
define('store_read', {'no-writes'}, function(prefix, args, now)
  local space, start, after, found = args[1], args[2], args[3], {}
  local from = after ~= '' and after >= start and '(' .. after or '[' .. start
  local keys = redis.call('ZRANGEBYLEX', prefix .. 'ko:' .. space, from, '+', 'LIMIT', 0, args[4])
  for _, key in ipairs(keys) do
    if string.sub(key, 1, #start) ~= start then
      break
    end
    local owner, body = read(redis.call('HGET', prefix .. 'k:' .. space, key))
    found[#found + 1] = key
    found[#found + 1] = body
    found[#found + 1] = owner
  end
  return found
end)

-- The prefix is an owner's. args: owner, space and key after which, limit
-- Returns space, key and body of each.
define('store_owned', {'no-writes'}, function(owners, args, now)
  -- A colon is behind all digits: so behind this place, whatever its partition.
  local from, found = '(' .. args[2] .. '\0' .. args[3] .. '\0:', {}
  local key = owners .. 'o:' .. args[1]
  local places = redis.call('ZRANGEBYLEX', key, from, '+', 'LIMIT', 0, args[4])
  for _, place in ipairs(places) do
    local space, key, partition = placed(place)
    local _, body = read(redis.call('HGET', sibling(owners, partition) .. 'k:' .. space, key))
    found[#found + 1] = space
    found[#found + 1] = key
    found[#found + 1] = body
  end
  return found
end)

-- The prefix is an owner's. args: owner
-- Returns how many values went, and how many bytes are free by that.
define('store_erase', {'allow-oom'}, function(owners, args, now)
  local gone, free = 0, 0
  for _, place in ipairs(redis.call('ZRANGE', owners .. 'o:' .. args[1], 0, -1)) do
    local space, key, partition = placed(place)
    local prefix = sibling(owners, partition)
    free = free + remove(prefix, space, key, redis.call('HGET', prefix .. 'k:' .. space, key))
    gone = gone + 1
  end
  return {gone, free}
end)

-- args: partitions. Returns how many bytes are used.
define('store_count', {'no-writes'}, function(prefix, args, now)
  return total(prefix, tonumber(args[1]), 'kn')
end)
