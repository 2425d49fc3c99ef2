#!lua flags=allow-oom
-- Removes what is older than the retention, in a bounded step; of the events only what is settled.
-- KEYS: 1 events, 2 outcomes, 3 dead, 4 letters, 5 later, 6.. ids buckets that are past the retention
-- ARGV: 1 group, 2 retention ms, 3 retention of dead letters ms, 4 limit   -> how much was removed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = 0

-- Whole nodes first, and when none is left the rest of one: an exact trim has no limit of its own.
local function trim(key, bound)
  local count = redis.call('XTRIM', key, 'MINID', '~', bound, 'LIMIT', ARGV[4])
  if count == 0 then count = redis.call('XTRIM', key, 'MINID', '=', bound) end
  removed = removed + count
end
local function split(id)
  local first, second = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(first), tonumber(second)
end
local function earlier(a, b)
  local a1, a2 = split(a)
  local b1, b2 = split(b)
  if a1 < b1 or (a1 == b1 and a2 < b2) then return a end
  return b
end

-- Removes settled entries among those that wait, as many as can be looked at: a look brings their bodies.
local function drop_between(first, bound)
  local sample = redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', 10)
  local bytes = 1
  for _, entry in ipairs(sample) do bytes = math.max(bytes, #entry[2][2]) end
  local look = math.max(2, math.min(tonumber(ARGV[4]), math.floor(4194304 / bytes)))
  local entries = redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', look)
  if #entries == 0 then return end
  local waits = {}
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], first, entries[#entries][1], look)) do waits[entry[1]] = true end
  local old = {}
  for _, entry in ipairs(entries) do
    if entry[1] == bound or earlier(entry[1], bound) == bound then break end
    if not waits[entry[1]] then old[#old + 1] = entry[1] end
  end
  if #old > 0 then removed = removed + redis.call('XDEL', KEYS[1], unpack(old)) end
end

local function before(age) return string.format('%.0f-0', math.max(0, now - age)) end
local expired = before(ARGV[2])
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
  for _, group in ipairs(groups) do
    local about = {}
    for n = 1, #group, 2 do about[group[n]] = group[n + 1] end
    if about['name'] == ARGV[1] then
      -- The last delivered entry itself may be settled: entries up to it go, if none before it is pending.
      local first, second = split(about['last-delivered-id'])
      local bound = earlier(expired, string.format('%.0f-%.0f', first, second + 1))
      local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
      local settled = bound
      if pending[2] then bound = earlier(bound, pending[2]) end
      trim(KEYS[1], bound)
      -- One that takes long must not keep everything after it.
      if removed == 0 and bound ~= settled then drop_between(bound, settled) end
    end
  end
end
trim(KEYS[2], expired)
trim(KEYS[3], before(ARGV[3]))
for n = 4, 5 do
  local bound = n == 4 and before(ARGV[3]) or expired
  local old = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', '(' .. string.match(bound, '^%d+'), 'LIMIT', 0, ARGV[4])
  if #old > 0 then removed = removed + redis.call('ZREM', KEYS[n], unpack(old)) end
end
if #KEYS > 5 then redis.call('UNLINK', unpack(KEYS, 6)) end
return removed
