#!lua
-- Stores a batch of events of one partition. No flag: refused whole when memory is full.
-- KEYS: 1 events, 2 ids of this bucket, 3.. ids of the buckets before it, newest first
-- ARGV: 1 bucket, 2 bucket ms, 3 dedupe window ms, 4 life of a bucket ms,
--       5 1 when the caller waits for replicas or disks, 6 group, 7 consumer, 8 how many events it may claim,
--       9 the call's nonce, the same when it is made again, then per event: field, record
-- -> {now} when the caller has the wrong bucket, else {now, per event its id, or nothing for a duplicate, between commas};
--    a star stands after an id that was claimed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if math.floor(now / ARGV[2]) ~= tonumber(ARGV[1]) then return {now} end

local fields = {}
for at = 10, #ARGV, 2 do fields[#fields + 1] = ARGV[at] end
local oldest = now - ARGV[3]
local known = {}
for key = 2, #KEYS do
  local values = redis.call('HMGET', KEYS[key], unpack(fields))
  for n, value in ipairs(values) do
    if value and not known[fields[n]] and tonumber(string.match(value, ' (%d+)') or 0) >= oldest then
      known[fields[n]] = value
    end
  end
end

-- Claimed is what is stored here, and only when the group has read all that was stored before.
local may_claim = tonumber(ARGV[8])
local entries_read
if may_claim > 0 then
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  local found = false
  for _, group in ipairs(groups.err and {} or groups) do
    local about = {}
    for n = 1, #group, 2 do about[group[n]] = group[n + 1] end
    if about['name'] == ARGV[6] then
      -- The lag may be unknown, or too high for ever: see stats.lua.
      local last = about['last-delivered-id']
      found = about['lag'] == 0 or #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1) == 0
      entries_read = about['entries-read'] and about['lag'] and about['entries-read'] + about['lag']
    end
  end
  if found and not entries_read then -- of a new group, or where something was deleted by hand: all that was ever added is read
    local stream = redis.call('XINFO', 'STREAM', KEYS[1])
    for n = 1, #stream, 2 do
      if stream[n] == 'entries-added' then entries_read = stream[n + 1] end
    end
  end
  if not found then may_claim = 0 end
end

local nonce = ARGV[9]
local ids, index, claimed = {}, {}, {}
for n, field in ipairs(fields) do
  local entry = known[field]
  known[field] = '' -- What comes after it is a duplicate, in this call too.
  if not entry then
    local id = redis.call('XADD', KEYS[1], '*', 'e', ARGV[9 + n * 2])
    index[#index + 1] = field
    index[#index + 1] = nonce .. ' ' .. id
    ids[n] = id
    if #claimed < may_claim then
      claimed[#claimed + 1] = id
      ids[n] = id .. '*'
    end
  elseif string.sub(entry, 1, #nonce) == nonce then
    ids[n] = string.sub(entry, #nonce + 2) -- this call itself, whose answer was lost
  else
    ids[n] = ''
  end
end
-- The wait is for what this connection wrote last. The events that these repeat may have come over another one.
if #index == 0 and ARGV[5] == '1' then index = {' ', now} end
if #index > 0 then
  redis.call('HSET', KEYS[2], unpack(index))
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if #claimed > 0 then
  -- Without a read, so that nothing stored comes back through here.
  local count, last = #claimed, claimed[#claimed]
  claimed[count + 1] = 'FORCE'
  claimed[count + 2] = 'JUSTID'
  redis.call('XCLAIM', KEYS[1], ARGV[6], ARGV[7], 0, unpack(claimed))
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[6], last, 'ENTRIESREAD', entries_read + count)
end
return {now, table.concat(ids, ',')}
