-- What all functions share. Times are microseconds since 1970, numbers up to 2^53 are exact.
local run -- of the server process this runs in: a new one may have lost what the last one had

-- Returns 12 digits that name the server process.
local function this_run()
  run = run or string.match(redis.call('INFO', 'server'), 'run_id:(%x%x%x%x%x%x%x%x%x%x%x%x)')
  return run
end

local whole -- how a whole number is written

-- Returns a whole number as text: Lua's own would write 1.8e+15.
local function text(number)
  if not whole then
    -- As an integer is faster (docs/measurements.md, appends in Redis), if those are wide enough.
    whole = string.format('%d', 2 ^ 53) == string.format('%.0f', 2 ^ 53) and '%d' or '%.0f'
  end
  return string.format(whole, number)
end

local function instant(given)
  local now = tonumber(given)
  if now > 0 then
    return now
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function define(name, flags, body)
  redis.register_function{
    function_name = LIBRARY .. name,
    flags = flags,
    callback = function(keys, args)
      local now = instant(table.remove(args, 1))
      return body(keys[1], args, now)
    end,
  }
end
