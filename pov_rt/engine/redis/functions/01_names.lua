-- How keys and fields are named, and what is counted over all partitions.

-- Two texts in one, whatever is in them.
local function pair(first, second)
  return #first .. ':' .. first .. second
end

-- The two texts of a pair.
local function unpair(joined)
  local length, start = string.match(joined, '^(%d+):()')
  local second = start + length
  return string.sub(joined, start, second - 1), string.sub(joined, second)
end

-- The number of a prefix's partition, as text.
local function partition_of(prefix)
  return string.match(prefix, '{(%d+)}:$')
end

-- The prefix of another partition.
local function sibling(prefix, partition)
  return (string.gsub(prefix, '{%d+}:$', '{' .. partition .. '}:'))
end

-- A key of no partition.
local function shared(prefix, name)
  return (string.gsub(prefix, '{%d+}:$', '')) .. name
end

local counters = {} -- their keys, for to put those together takes longer than to ask for them

-- The sum of a counter over all partitions.
local function total(prefix, partitions, name)
  local of = shared(prefix, name)
  local keys, sum = counters[of], 0
  if not keys or #keys ~= partitions then
    keys = {}
    for partition = 0, partitions - 1 do
      keys[#keys + 1] = sibling(prefix, string.format('%03d', partition)) .. name
    end
    counters[of] = keys
  end
  for _, value in ipairs(redis.call('MGET', unpack(keys))) do
    sum = sum + (tonumber(value) or 0)
  end
  return sum
end

-- A pattern for a text, whatever characters that has.
local function literal(with)
  return (string.gsub(with, '[%*%?%[%]%^%\\]', '\\%0'))
end

-- A pattern for what begins with a text.
local function beginning(with)
  return literal(with) .. '*'
end
