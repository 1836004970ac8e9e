-- Ids that publishers gave to entries, and the numbers that they gave to what they append.
--
-- i:<bucket>  hash: hash of the topic and of the key, 8 bytes each -> of each publisher whose key it
--             is "digest offset at epoch length publisher", the digest of what is compared in 8
--             bytes; bucket is the instant divided by the window
-- p:<topic>   hash: pair(publisher, producer) -> "number partition offset epoch": the last number, the
--             publisher's partition, and where the log was when it was given
-- pz          sorted set: pair(topic, pair(publisher, producer)) by when it was used last
-- pp          hash: publisher -> how many producers it has; in the publisher's partition

local SPARE_S = 60

local function bucket_key(prefix, at, window)
  return prefix .. 'i:' .. text(math.floor(at / window))
end

-- The records of a key: each with publisher, digest, offset, at and epoch.
local function parse_ids(value)
  local found, start = {}, 1
  while start <= #value do
    local offset, at, epoch, length, name =
      string.match(value, '^(%d+) (%d+) (%S+) (%d+) ()', start + 8)
    local stop = name + tonumber(length)
    found[#found + 1] = {
      digest = string.sub(value, start, start + 7), offset = tonumber(offset),
      at = tonumber(at), epoch = epoch, publisher = string.sub(value, name, stop - 1),
    }
    start = stop
  end
  return found
end

local function id_text(id)
  return id.digest .. table.concat({
    text(id.offset), text(id.at), id.epoch, text(#id.publisher), id.publisher,
  }, ' ')
end

-- The records of a key that are remembered, and of whose entries the log was not cut off; and what
-- is in this window's bucket of it.
local function find_ids(prefix, field, window, state, now)
  local found, value = {}, nil
  for ago = 1, 0, -1 do
    value = redis.call('HGET', bucket_key(prefix, now - ago * window, window), field)
    for _, id in ipairs(value and parse_ids(value) or {}) do
      if id.at + window >= now and holds(state, id.epoch, id.offset) then
        found[#found + 1] = id
      end
    end
  end
  return found, value
end

local expiring = {} -- the bucket of each partition that was last seen to expire

-- `before` is what is in this window's bucket of it.
local function keep_id(prefix, field, window, id, before)
  local key, value = bucket_key(prefix, id.at, window), ''
  for _, each in ipairs(before and parse_ids(before) or {}) do
    if each.publisher ~= id.publisher then
      value = value .. id_text(each)
    end
  end
  redis.call('HSET', key, field, value .. id_text(id))
  if expiring[prefix] ~= key or id.offset % 256 == 0 then
    redis.call('EXPIRE', key, math.ceil(2 * window / 1000000) + SPARE_S, 'NX')
    expiring[prefix] = key
  end
end

-- The last number of a producer in a topic, and when it was used; 0 of one that is not known. One whose
-- entry the log has lost does not count: half a transaction (02_lists) may have brought it back.
local function number_of(prefix, topic, name, state)
  local used = tonumber(redis.call('ZSCORE', prefix .. 'pz', pair(topic, name)) or 0)
  if used == 0 then
    return 0, 0
  end
  local value = redis.call('HGET', prefix .. 'p:' .. topic, name)
  local number, offset, epoch = string.match(value or '', '^(%d+) %d+ (%d+) (%S+)$')
  local is_lost = not number or tonumber(offset) > (end_of(state, epoch) or math.huge)
  return is_lost and 0 or tonumber(number), used
end

-- `publishers` is the prefix of the publisher's partition; epoch and offset are where the log is.
local function keep_number(prefix, topic, name, seq, publisher, publishers, now, epoch, offset)
  local value = text(seq) .. ' ' .. partition_of(publishers) .. ' ' .. text(offset) .. ' ' .. epoch
  if redis.call('HSET', prefix .. 'p:' .. topic, name, value) == 1 then
    redis.call('HINCRBY', publishers .. 'pp', publisher, 1)
  end
  redis.call('ZADD', prefix .. 'pz', text(now), pair(topic, name))
end

-- Forgets the number of a producer, which is named with its publisher as a pair.
local function forget_number(prefix, topic, name)
  redis.call('ZREM', prefix .. 'pz', pair(topic, name))
  local value = redis.call('HGET', prefix .. 'p:' .. topic, name)
  if value then
    redis.call('HDEL', prefix .. 'p:' .. topic, name)
    local publishers = sibling(prefix, string.match(value, '^%d+ (%d+)'))
    local publisher = unpair(name)
    if redis.call('HINCRBY', publishers .. 'pp', publisher, -1) <= 0 then
      redis.call('HDEL', publishers .. 'pp', publisher)
    end
  end
end

-- The sum of what a command says of a key over all partitions.
local function sum_of(command, prefix, partitions, name)
  local sum = 0
  for partition = 0, partitions - 1 do
    sum = sum + redis.call(command, sibling(prefix, string.format('%03d', partition)) .. name)
  end
  return sum
end

-- Forgets a topic with the numbers and ids that belong to it, but not the marks; `hash` is what the
-- topic's ids begin with. Should it come back, it has another epoch.
local function forget_topic(prefix, topic, hash, window, now)
  renew_base(prefix, now) -- while it has a log, or who watches it would have it keep its epoch
  for _, name in ipairs(redis.call('HKEYS', prefix .. 'p:' .. topic)) do
    forget_number(prefix, topic, name)
  end
  redis.call('DEL', prefix .. 's:' .. topic)
  redis.call('HDEL', prefix .. 'm', topic)
  for _, key in ipairs({
    bucket_key(prefix, now, window), bucket_key(prefix, now - window, window),
  }) do
    local cursor = '0'
    repeat
      local page = redis.call('HSCAN', key, cursor, 'MATCH', beginning(hash), 'COUNT', 500)
      cursor = page[1]
      for number = 1, #page[2], 2 do
        redis.call('HDEL', key, page[2][number])
      end
    until cursor == '0'
  end
end
