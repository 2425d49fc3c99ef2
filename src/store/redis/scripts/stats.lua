#!lua flags=no-writes
-- KEYS: 1 events, 2 due, 3 dead   ARGV: 1 group   -> {backlog, scheduled, overdue ms, dead letters}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local backlog = 0
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
local found = false
if not groups.err then
  for _, group in ipairs(groups) do
    local about = {}
    for n = 1, #group, 2 do about[group[n]] = group[n + 1] end
    if about['name'] == ARGV[1] then
      found = true
      -- The lag is unknown only when entries were deleted by hand; then everything kept is the bound. After a fail-over
      -- it may be too high for ever: a replica's count of what was read is not its master's. So the last entry is asked, too.
      local lag = about['lag'] or redis.call('XLEN', KEYS[1])
      if lag > 0 and #redis.call('XRANGE', KEYS[1], '(' .. about['last-delivered-id'], '+', 'COUNT', 1) == 0 then lag = 0 end
      backlog = about['pending'] + math.max(0, lag)
    end
  end
end
if not found then backlog = redis.call('XLEN', KEYS[1]) end -- the group will be made anew, from the beginning
local overdue = 0
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if first[2] then overdue = math.max(0, now - first[2]) end
return {backlog, redis.call('ZCARD', KEYS[2]), overdue, redis.call('XLEN', KEYS[3])}
