#!lua
-- Stores a batch of events of one partition. No flag: refused whole when memory is full.
-- KEYS: 1 events, 2 ids of this bucket, 3.. ids of the buckets before it, newest first
-- ARGV: 1 bucket, 2 bucket ms, 3 dedupe window ms, 4 life of a bucket ms,
--       5 1 when the caller waits for replicas or disks, then per event: field, nonce, record
-- -> {now} when the caller has the wrong bucket, else {now, per event its id, or nothing for a duplicate, between commas}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if math.floor(now / ARGV[2]) ~= tonumber(ARGV[1]) then return {now} end

local fields = {}
for at = 6, #ARGV, 3 do fields[#fields + 1] = ARGV[at] end
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

local ids, index = {}, {}
for n, field in ipairs(fields) do
  local at = 3 + n * 3
  local nonce = ARGV[at + 1]
  local entry = known[field]
  if not entry then
    local id = redis.call('XADD', KEYS[1], '*', 'e', ARGV[at + 2])
    entry = nonce .. ' ' .. id
    known[field] = entry
    index[#index + 1] = field
    index[#index + 1] = entry
    ids[n] = id
  elseif string.sub(entry, 1, #nonce) == nonce then
    ids[n] = string.sub(entry, #nonce + 2) -- our own call before this one, whose answer was lost
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
return {now, table.concat(ids, ',')}
