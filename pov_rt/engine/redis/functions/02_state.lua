-- The state of a topic's log.
--
-- m     hash: topic -> "offset epoch run at", then " epoch@last" of each older epoch, the newest
--       first: the offset at which the log left it; at is when the newest entry came, run names the
--       server process that wrote it last
-- base  the same of topics that have no log
--
-- A process may have lost the end of what another one had acknowledged. So a log that another one
-- wrote last goes over to an epoch that was never there before, in the step that touches it next,
-- and its list is mended, if it has to be.

local OLDER = 8 -- epochs that are remembered

local function parse_state(value)
  local offset, epoch, run, at, rest = string.match(value, '^(%d+) (%S+) (%S+) (%d+)(.*)$')
  local older = {}
  if rest ~= '' then
    for its, last in string.gmatch(rest, ' ([^%s@]+)@(%d+)') do
      older[#older + 1] = {epoch = its, last = tonumber(last)}
    end
  end
  return {
    offset = tonumber(offset), epoch = epoch, run = run, at = tonumber(at), older = older,
  }
end

local function state_text(state)
  local value = table.concat({text(state.offset), state.epoch, state.run, text(state.at)}, ' ')
  for _, each in ipairs(state.older) do
    value = value .. ' ' .. each.epoch .. '@' .. text(each.last)
  end
  return value
end

-- The state of a topic that has a log, else nothing.
local function read_state(prefix, topic)
  local value = redis.call('HGET', prefix .. 'm', topic)
  return value and parse_state(value) or nil
end

local function write_state(prefix, topic, state)
  redis.call('HSET', prefix .. 'm', topic, state_text(state))
end

local made = 0

-- An epoch that was never there before: 12 digits of milliseconds, and 8.
local function new_epoch(now)
  local time = redis.call('TIME')
  made = made + 1
  local seed = LIBRARY .. this_run() .. time[1] .. '.' .. time[2] .. '.' .. made
  return string.format('%012x', now / 1000) .. string.sub(redis.sha1hex(seed), 1, 8)
end

-- The generation stays, which an epoch has from another engine: the log is the same.
local function renew(state, now)
  table.insert(state.older, 1, {epoch = state.epoch, last = state.offset})
  state.older[OLDER + 1] = nil
  local generation = string.match(state.epoch, '%-%d+$') or ''
  state.epoch, state.run = new_epoch(now) .. generation, this_run()
end

-- The state of a topic without a log; nothing where that is still to be written.
local function peek_base(prefix)
  local value = redis.call('GET', prefix .. 'base')
  local base = value and parse_state(value)
  return base and base.run == this_run() and base or nil
end

local function write_base(prefix, base)
  redis.call('SET', prefix .. 'base', state_text(base))
end

local function read_base(prefix, now)
  local value = redis.call('GET', prefix .. 'base')
  local base = value and parse_state(value)
  if not base then
    base = {offset = 0, epoch = new_epoch(now), run = this_run(), at = 0, older = {}}
    write_base(prefix, base)
  elseif base.run ~= this_run() then
    renew(base, now)
    write_base(prefix, base)
  end
  return base
end

-- The state of a topic, and whether it has a log; nothing where `open_state` has to be called.
local function peek_state(prefix, topic)
  local state = read_state(prefix, topic)
  if not state then
    return peek_base(prefix), false
  end
  if state.run == this_run() then
    return state, true
  end
  return nil
end

-- The state of a topic in the epoch that it goes on in, and whether it has a log.
local function open_state(prefix, topic, now)
  local state = read_state(prefix, topic)
  if not state then
    return read_base(prefix, now), false
  end
  if state.run ~= this_run() then
    mend_list(prefix .. 's:' .. topic, state.offset)
    renew(state, now)
    write_state(prefix, topic, state)
  end
  return state, true
end

-- Has topics that are without a log have another epoch than ever before: one of them had one. Those
-- that somebody watches keep theirs.
local function renew_base(prefix, now)
  local base, channels = read_base(prefix, now), prefix .. 'c:'
  for _, channel in ipairs(redis.call('PUBSUB', 'CHANNELS', channels .. '*')) do
    redis.call('HSETNX', prefix .. 'm', string.sub(channel, #channels + 1), state_text(base))
  end
  base.epoch, base.older = new_epoch(now), {}
  write_base(prefix, base)
end

-- Up to which offset places in an epoch are places in the log, which was left behind them each time;
-- nothing of an epoch that is not remembered.
local function end_of(state, epoch)
  local least = state.offset
  if epoch == state.epoch then
    return least
  end
  for _, each in ipairs(state.older) do
    least = math.min(least, each.last)
    if each.epoch == epoch then
      return least
    end
  end
  return nil
end

local function holds(state, epoch, offset)
  return offset <= (end_of(state, epoch) or -1)
end

-- The epoch of a mark, which is a log's or begins with that and "-": of a place that the log still
-- has, the log's own.
local function newest(state, epoch, offset)
  local function begins(with)
    return epoch == with or string.sub(epoch, 1, #with + 1) == with .. '-'
  end
  if not state or begins(state.epoch) then
    return epoch
  end
  local longest = ''
  for _, each in ipairs(state.older) do
    if #each.epoch > #longest and begins(each.epoch) then
      longest = each.epoch
    end
  end
  if longest ~= '' and holds(state, longest, offset) then
    return state.epoch .. string.sub(epoch, #longest + 1)
  end
  return epoch
end
