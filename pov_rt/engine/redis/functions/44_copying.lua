-- Moving what is here to another engine, and what another one had to here, where nothing is.

local STEP = 200

-- Returns the epoch of topics that have no log.
define('copy_base', {'allow-oom'}, function(prefix, args, now)
  return read_base(prefix, now).epoch
end)

-- args: topics. Returns the state of each, in the epoch that it goes on in; nothing without a log.
define('copy_states', {'allow-oom'}, function(prefix, args, now)
  local found = {}
  for _, topic in ipairs(args) do
    local state, has_log = open_state(prefix, topic, now)
    found[#found + 1] = has_log and state.offset > 0 and state_text(state)
  end
  return found
end)

-- args: topics
-- Has those logs, and all that are not there yet, go over to another epoch with their next touch: what
-- comes where they were copied to is not here.
define('copy_leave', {'allow-oom'}, function(prefix, args, now)
  local function leave(state)
    state.run = '-'
    return state
  end
  for _, topic in ipairs(args) do
    local state = read_state(prefix, topic)
    if state then
      write_state(prefix, topic, leave(state))
    end
  end
  write_base(prefix, leave(read_base(prefix, now)))
  return 0
end)

-- args: cursor, window, how many windows ago
-- Returns the next cursor, then id, publisher, digest, offset, instant and epoch of some ids.
define('copy_ids', {'no-writes'}, function(prefix, args, now)
  local window = tonumber(args[2])
  local key = bucket_key(prefix, now - tonumber(args[3]) * window, window)
  local page = redis.call('HSCAN', key, args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    for _, id in ipairs(parse_ids(page[2][number + 1])) do
      if id.at + window >= now then
        for _, each in ipairs({
          page[2][number], id.publisher, id.digest, id.offset, text(id.at), id.epoch,
        }) do
          found[#found + 1] = each
        end
      end
    end
  end
  return found
end)

-- args: cursor. Returns the next cursor, then topic, publisher, name, last number and instant of those
-- of topics that have a log.
define('copy_numbers', {'no-writes'}, function(prefix, args, now)
  local page = redis.call('ZSCAN', prefix .. 'pz', args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    local topic, name = unpair(page[2][number])
    local state = read_state(prefix, topic)
    local last = state and number_of(prefix, topic, name, state) or 0
    if last > 0 then -- else what was appended with it is lost
      local publisher, producer = unpair(name)
      for _, each in ipairs({topic, publisher, producer, text(last), page[2][number + 1]}) do
        found[#found + 1] = each
      end
    end
  end
  return found
end)

-- args: cursor, "us", "xs" or "kb". Returns the next cursor, then some users, sets or spaces.
define('copy_names', {'no-writes'}, function(prefix, args, now)
  local command = args[2] == 'kb' and 'HSCAN' or 'ZSCAN'
  local page = redis.call(command, prefix .. args[2], args[1], 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    found[#found + 1] = page[2][number]
  end
  return found
end)

-- Returns whether there are logs, numbers, marks, sets or values.
define('copy_is_used', {'no-writes'}, function(prefix, args, now)
  for _, name in ipairs({'m', 'pz', 'us', 'xs', 'kb'}) do
    if redis.call('EXISTS', prefix .. name) == 1 then
      return 1
    end
  end
  return 0
end)

-- args: epoch
define('restore_base', {}, function(prefix, args, now)
  write_base(prefix, {offset = 0, epoch = args[1], run = this_run(), at = 0, older = {}})
  return 0
end)

-- args: topic, its state, of whatever process
define('restore_log', {}, function(prefix, args, now)
  local state = parse_state(args[2])
  state.run = this_run()
  write_state(prefix, args[1], state)
  return 0
end)

-- args: topic, for how many seconds they are there, entries that follow those before
define('restore_entries', {}, function(prefix, args, now)
  local key = prefix .. 's:' .. args[1]
  redis.call('RPUSH', key, unpack(args, 3))
  redis.call('EXPIRE', key, args[2])
  return 0
end)

-- args: topic, window, id, publisher, digest, offset, instant
define('restore_id', {}, function(prefix, args, now)
  local window, at = tonumber(args[2]), tonumber(args[7])
  keep_id(prefix, args[3], window, {
    publisher = args[4], digest = args[5], offset = tonumber(args[6]), at = at,
    epoch = read_state(prefix, args[1]).epoch,
  }, redis.call('HGET', bucket_key(prefix, at, window), args[3]))
  return 0
end)

-- args: topic, publisher, its prefix, producer, last number, instant
define('restore_number', {}, function(prefix, args, now)
  local name = pair(args[2], args[4])
  local state = read_state(prefix, args[1])
  keep_number(
    prefix, args[1], name, tonumber(args[5]), args[2], args[3], tonumber(args[6]), state.epoch,
    state.offset)
  return 0
end)
